"""The downlink: runs the orders that come to a device, each once and in order.

Owns what is a repeat, what is a gap and what is confirmed. The edge keeps every order until this device has confirmed
it (`HelloFrame.ready`), so nothing here needs to be kept, and what doesn't fit may be dropped: it comes again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from pratipad_nb.device.reading import is_async
from pratipad_nb.device.worker import Worker
from pratipad_nb.errors import DeviceError, FrameError
from pratipad_nb.transport.frames import DownFrame, decode

__all__ = ["Downlink", "checked_receive"]

log = logging.getLogger(__name__)

#: Most orders that wait to be run. Further ones are dropped, and come again once these are confirmed.
_MAX_ORDERS = 256


def checked_receive(receive: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    """Return `receive` if it is None or can be called, else raise `DeviceError`."""
    if receive is not None and not callable(receive):
        raise DeviceError(
            f"receive is {receive!r:.200}; it is what runs an order: a function of its payload."
        )
    return receive


class Downlink:
    """Runs orders by `receive`.

    Parameters
    ----------
    receive
        Called with each order's payload; ``def`` (on a thread of its own) or ``async def``. None: orders are refused,
        which shows in `error`.
    changed
        Called when there is something to tell the edge: an order was run, or is missing.

    Attributes
    ----------
    ready
        Number of the last order that was run, in the epoch of orders that counts now.
    error
        What `receive` last failed with; empty if it didn't.
    """

    def __init__(
        self, flow: str, device: str, receive: Callable[[Any], Any] | None, changed: Callable[[], None]
    ) -> None:
        self.ready = 0
        self.error = ""
        self._flow = flow
        self._device = device
        self._receive = receive
        self._changed = changed
        self._epoch = -1
        self._gap = 0
        self._orders: asyncio.Queue[DownFrame] = asyncio.Queue(_MAX_ORDERS)
        self._worker = Worker(f"pratipad-receive-{device}")

    def take(self, data: bytes) -> None:
        """Take what came from the edge; on the event loop.

        Raises
        ------
        FrameError
            If it is no order for this flow.
        """
        frame = decode(data, DownFrame)
        if frame.flow != self._flow or frame.epoch < 0 or frame.number < 1:
            raise FrameError(
                f"an order of flow {frame.flow!r:.80}, epoch {frame.epoch}, number {frame.number}"
            )
        if not self._orders.full():
            self._orders.put_nowait(frame)

    async def run(self) -> None:
        """Run orders for ever."""
        while True:
            frame = await self._orders.get()
            if self._is_next(frame):
                await self._carry_out(frame)
                self.ready = frame.number
            # Of a repeat, too: that it was sent again says that the confirmation got lost.
            self._changed()

    async def close(self, patience: float) -> None:
        """End the thread, if there is one; an order that runs gets `patience` seconds."""
        await self._worker.close(patience)

    def _is_next(self, frame: DownFrame) -> bool:
        if frame.epoch != self._epoch:
            if frame.epoch < self._epoch:
                return False
            # The first that is seen of an epoch counts as the next: what was before it went to this device's
            # predecessor.
            self._epoch, self.ready, self._gap = frame.epoch, frame.number - 1, 0
        if frame.number <= self.ready:
            return False
        if frame.number > self.ready + 1 and frame.number != self._gap:
            # One is missing: ask by confirming the last. If this one comes again in its place, the missing one has
            # expired at the edge.
            self._gap = self._gap or frame.number
            return False
        self._gap = 0
        return True

    async def _carry_out(self, frame: DownFrame) -> None:
        try:
            if self._receive is None:
                raise DeviceError(f"device {self._device!r} got an order and has no `receive` to run it.")
            if is_async(self._receive):
                await self._receive(frame.payload)
            else:
                receive, payload = self._receive, frame.payload
                await self._worker.call(lambda: receive(payload))
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"[:500]
            log.warning("device %s: order %s failed: %s", self._device, frame.id, self.error, exc_info=error)
        else:
            self.error = ""
