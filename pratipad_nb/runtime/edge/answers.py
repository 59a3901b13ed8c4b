"""Answers: answers to the requests that other processes send to an edge.

Owns taking requests and sending answers; errors travel by their class's name. Which requests there are is for
`control` and `pratipad_nb.runtime.sharing.partitioned`.

An asker chooses its request's reply subject, and the edge may publish under every subject of its flow. So an
answer goes to an inbox of the asker alone, whom the request's subject names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

from pratipad_nb.errors import FlowError, FrameError, PratipadError
from pratipad_nb.runtime.values.refusals import Refusals
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ControlFrame
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.protocol import Connection, Signal
from pratipad_nb.transport.subjects import OTHER_ACCOUNT, Subjects, is_guests

__all__ = ["Answers", "Verb"]

log = logging.getLogger(__name__)

#: Requests that may wait to be answered; a further request is dropped, and its sender asks again.
_WAITING = 1024

#: Carries a request out, with the request's arguments by name, and returns the answer's arguments.
Verb = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


class Answers:
    """Answers requests, each in a task of its own.

    Parameters
    ----------
    verbs
        The requests that are known, by name.
    of_readers
        Further requests, which readers alone make about themselves: the reader's name comes before the
        request's arguments.
    of_guests
        The requests that readers of other tenants, with which the flow is shared, may make.

    Attributes
    ----------
    refusals
        Requests that were refused, since their answers were to go elsewhere than to the asker.
    """

    def __init__(
        self,
        connection: Connection,
        subjects: Subjects,
        verbs: Mapping[str, Verb],
        of_readers: Mapping[str, Verb] = MappingProxyType({}),
        of_guests: Collection[str] = (),
    ) -> None:
        self.refusals = Refusals()
        self._connection = connection
        self._subjects = subjects
        self._verbs = verbs
        self._of_readers = of_readers
        self._of_guests = of_guests
        self._work: asyncio.Queue[Signal] = asyncio.Queue(_WAITING)

    def on_signal(self, signal: Signal) -> None:
        """Take a request; the callback of the subscription."""
        if not signal.reply:
            return
        if not self._reaches_asker(signal):
            self.refusals.note(
                f"a request under {signal.subject!r} is refused: its answer was to go to {signal.reply!r}, "
                "which is no inbox of the asker"
            )
            return
        try:
            self._work.put_nowait(signal)
        except asyncio.QueueFull:
            log.warning("too many requests at once; a request was dropped")

    def _reaches_asker(self, signal: Signal) -> bool:
        """Return whether the answer goes to an inbox of the asker: of a reader, or else of another edge.

        The server itself makes the reply subject of a request from another account.
        """
        try:
            inbox = Party(self._subjects.flow, "reader", self._subjects.reader_of(signal.subject)).inbox
        except FrameError:
            inbox = Party(self._subjects.flow, "edge").inbox
        return signal.reply.startswith((f"{inbox}.", OTHER_ACCOUNT))

    async def run(self) -> None:
        """Answer requests until cancelled."""
        async with asyncio.TaskGroup() as group:
            room = asyncio.Semaphore(_WAITING)
            while True:
                signal = await self._work.get()
                await room.acquire()
                task = group.create_task(self._answer(signal))
                task.add_done_callback(lambda _: room.release())

    async def _answer(self, signal: Signal) -> None:
        try:
            frame = decode(signal.data, ControlFrame)
            answer = ControlFrame("ok", await self._done(signal.subject, frame))
        except (PratipadError, TypeError) as error:
            answer = ControlFrame("error", {"kind": type(error).__name__, "text": str(error)})
        try:
            await self._connection.publish(signal.reply, encode(answer))
        except PratipadError as error:
            log.info("the answer to %s could not be sent: %s", signal.reply, error)

    async def _done(self, subject: str, frame: ControlFrame) -> dict[str, Any]:
        """Carry a request out that came under `subject`."""
        if is_guests(subject) and frame.verb not in self._of_guests:
            guest, may = self._subjects.reader_of(subject), ", ".join(self._of_guests)
            raise FlowError(
                f"the flow is shared with the reader {guest!r} to be read, and not for the request "
                f"{frame.verb!r:.100}. Such a reader asks for {may}."
            )
        if (verb := self._verbs.get(frame.verb)) is not None:
            return await verb(**frame.arguments)
        if (verb := self._of_readers.get(frame.verb)) is not None:
            return await verb(self._subjects.reader_of(subject), **frame.arguments)
        known = ", ".join([*self._verbs, *self._of_readers])
        raise FlowError(f"a flow doesn't know the request {frame.verb!r:.100}; it knows {known}.")
