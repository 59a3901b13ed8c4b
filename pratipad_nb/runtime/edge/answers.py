"""Answers: answers to the requests that other processes send to an edge.

Owns taking requests and sending answers; errors travel by their class's name. Which requests there are is for
`control` and `pratipad_nb.runtime.sharing.partitioned`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from pratipad_nb.errors import FlowError, PratipadError
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ControlFrame
from pratipad_nb.transport.protocol import Connection, Signal

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
    """

    def __init__(self, connection: Connection, verbs: Mapping[str, Verb]) -> None:
        self._connection = connection
        self._verbs = verbs
        self._work: asyncio.Queue[Signal] = asyncio.Queue(_WAITING)

    def on_signal(self, signal: Signal) -> None:
        """Take a request; the callback of the subscription."""
        if not signal.reply:
            return
        try:
            self._work.put_nowait(signal)
        except asyncio.QueueFull:
            log.warning("too many requests at once; a request was dropped")

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
            verb = self._verbs.get(frame.verb)
            if verb is None:
                raise FlowError(
                    f"a flow doesn't know the request {frame.verb!r}; it knows {', '.join(self._verbs)}."
                )
            answer = ControlFrame("ok", await verb(**frame.arguments))
        except (PratipadError, TypeError) as error:
            answer = ControlFrame("error", {"kind": type(error).__name__, "text": str(error)})
        try:
            await self._connection.publish(signal.reply, encode(answer))
        except PratipadError as error:
            log.info("the answer to %s could not be sent: %s", signal.reply, error)
