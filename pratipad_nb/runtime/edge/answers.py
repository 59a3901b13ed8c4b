"""Answers: answers to the requests that other processes send to an edge.

Owns taking requests and sending answers; errors travel by their class's name. Which requests there are is for
`control` and `pratipad_nb.runtime.sharing.partitioned`.

An asker chooses its request's reply subject, and the edge may publish under every subject of its flow. So an
answer goes to an inbox of the asker alone, whom the request's subject names.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, get_type_hints

import msgspec

from pratipad_nb.errors import FlowError, FrameError, PratipadError
from pratipad_nb.runtime.values.refusals import Refusals
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ControlFrame
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.protocol import Connection, Signal
from pratipad_nb.transport.subjects import OTHER_ACCOUNT, Subjects, is_guests

__all__ = ["Answers", "Verb"]

log = logging.getLogger(__name__)

#: Requests of one asker that may be worked on at a time; a further one is dropped, and its asker asks again.
_AT_ONCE = 1024
#: Most bytes of a request: a verb, and a few numbers and names.
_MOST_BYTES = 4096

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
        self._arguments = {
            **{name: _arguments_of(verb, 0) for name, verb in verbs.items()},
            **{name: _arguments_of(verb, 1) for name, verb in of_readers.items()},
        }
        #: How many requests of each asker are worked on, by the requests' subject.
        self._at_work: Counter[str] = Counter()
        #: Bounded by `_AT_ONCE` for each asker, of whom there are as many as certificates.
        self._work: asyncio.Queue[Signal] = asyncio.Queue()
        self._of_guests = of_guests

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
        if len(signal.data) > _MOST_BYTES:
            self.refusals.note(
                f"a request of {len(signal.data):,} bytes under {signal.subject!r} is refused; a request has "
                f"at most {_MOST_BYTES:,}"
            )
            return
        if self._at_work[signal.subject] >= _AT_ONCE:
            self.refusals.note(f"a request under {signal.subject!r} is dropped: {_AT_ONCE:,} are worked on")
            return
        self._at_work[signal.subject] += 1
        self._work.put_nowait(signal)

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
            while True:
                signal = await self._work.get()
                task = group.create_task(self._answer(signal))
                task.add_done_callback(partial(self._note_done, signal.subject))

    def _note_done(self, subject: str, _: object) -> None:
        self._at_work[subject] -= 1
        if not self._at_work[subject]:
            del self._at_work[subject]

    async def _answer(self, signal: Signal) -> None:
        try:
            frame = decode(signal.data, ControlFrame)
            answer = ControlFrame("ok", await self._done(signal.subject, frame))
        except PratipadError as error:
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
            return await verb(**self._checked(frame))
        if (verb := self._of_readers.get(frame.verb)) is not None:
            return await verb(self._subjects.reader_of(subject), **self._checked(frame))
        known = ", ".join([*self._verbs, *self._of_readers])
        raise FlowError(f"a flow doesn't know the request {frame.verb!r:.100}; it knows {known}.")

    def _checked(self, frame: ControlFrame) -> dict[str, Any]:
        """Return the arguments of a request, which are of the types that its verb declares."""
        try:
            arguments = msgspec.convert(frame.arguments, self._arguments[frame.verb])
        except msgspec.ValidationError as error:
            raise FlowError(f"a request {frame.verb!r} has wrong arguments: {f'{error}':.300}.") from error
        return msgspec.structs.asdict(arguments)


def _arguments_of(verb: Verb, given: int) -> type[msgspec.Struct]:
    """Return the type of the arguments of `verb`, behind the `given` first ones."""
    hints = get_type_hints(verb)
    fields: list[Any] = [
        (name, hints[name])
        if parameter.default is parameter.empty
        else (name, hints[name], parameter.default)
        for name, parameter in list(inspect.signature(verb).parameters.items())[given:]
    ]
    return msgspec.defstruct("Arguments", fields, forbid_unknown_fields=True)
