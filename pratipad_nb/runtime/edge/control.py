"""Control: answers the requests that handles in other processes send to a running flow.

Owns the verbs on the flow's control subject. Each verb is one small function; errors travel by their class's
name. The pull requests themselves are for `pull`, and the counters for `report`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any

import msgspec

from pratipad_nb.errors import FlowError, FrameError, PratipadError, TransportError
from pratipad_nb.runtime.devices.backward import check_open
from pratipad_nb.runtime.devices.pull import Requests
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.stats import FlowStats
from pratipad_nb.settings import Delivery
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ControlFrame
from pratipad_nb.transport.protocol import Connection, Signal

__all__ = ["Control"]

log = logging.getLogger(__name__)

#: Requests that may wait to be answered; a further request is dropped, and its sender asks again.
_WAITING = 1024
#: Longest wait for the end of a pull request before its present standing is the answer, in seconds.
_PATIENCE = 5.0


class Control:
    """Answers requests on the control subject, each in a task of its own.

    Parameters
    ----------
    line
        Returns the current line of processors.
    snapshot
        Returns the counters as they stand.
    """

    def __init__(
        self,
        connection: Connection,
        delivery: Delivery,
        line: Callable[[], Line],
        requests: Requests,
        snapshot: Callable[[], FlowStats],
    ) -> None:
        self._connection = connection
        self._delivery = delivery
        self._line = line
        self._requests = requests
        self._snapshot = snapshot
        self._work: asyncio.Queue[Signal] = asyncio.Queue(_WAITING)
        self._verbs: dict[str, Callable[..., Coroutine[Any, Any, dict[str, Any]]]] = {
            "who": self._who,
            "describe": self._describe,
            "pull": self._pull,
            "request": self._request,
            "cancel": self._cancel,
            "stats": self._stats,
        }

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
        except (TransportError, FrameError):
            log.info("the answer to %s could not be sent", signal.reply)

    async def _who(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "notation": self._line().dataflow.notation}

    async def _describe(self) -> dict[str, Any]:
        dataflow = self._line().dataflow
        text = ""
        try:
            check_open(dataflow)
        except FlowError as error:
            text = str(error)
        return {
            "notation": dataflow.notation,
            "delivery": self._delivery,
            "cloud_reaches_devices": dataflow.cloud_reaches_devices,
            "text": text,
        }

    async def _pull(self, n: int, device: str | None = None) -> dict[str, Any]:
        return {"request": self._requests.pull(n, device).id}

    async def _request(self, request: str, timeout: float) -> dict[str, Any]:
        found = self._requests.find(request)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(timeout, _PATIENCE)):
                await found.done.wait()
        return msgspec.structs.asdict(found.standing)

    async def _cancel(self, request: str) -> dict[str, Any]:
        found = self._requests.find(request)
        found.cancel()
        return msgspec.structs.asdict(found.standing)

    async def _stats(self) -> dict[str, Any]:
        return asdict(self._snapshot())
