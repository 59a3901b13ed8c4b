"""The downlink: runs the orders that come to a device, each once and in order.

Owns what is a repeat and what is confirmed. The edge keeps every order until this device has confirmed
it (`HelloFrame.ready`), so nothing here needs to be kept, and what doesn't fit may be dropped: it comes again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from pratipad_nb.calls import Worker, is_async
from pratipad_nb.errors import DeviceError, FrameError
from pratipad_nb.transport.codec import decode
from pratipad_nb.transport.frames import DownFrame
from pratipad_nb.wording import in_words

__all__ = ["Downlink", "checked_receive"]

log = logging.getLogger(__name__)

#: Most orders that wait to be run: four times what the edge has out to one device. Further ones are dropped, and come
#: again once these are confirmed.
_MAX_ORDERS = 256
#: How long a `receive` may take to end once the device is being closed, in seconds.
_PATIENCE = 1.0
#: So many numberings that others have replaced are remembered, so that their late orders are not run.
_REPLACED = 8


def checked_receive(receive: Callable[..., Any] | None) -> Callable[..., Any] | None:
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
    addressed
        A gateway's: `receive` gets ``device=``, too, which of those behind it the order is for; None: itself.
    changed
        Called when there is something to tell the edge: an order was run, or was run before.

    Attributes
    ----------
    error
        What `receive` last failed with; empty if it didn't.
    failed
        How many calls of `receive` have failed.
    """

    def __init__(
        self,
        flow: str,
        device: str,
        receive: Callable[..., Any] | None,
        changed: Callable[[], None],
        *,
        addressed: bool = False,
    ) -> None:
        self.error = ""
        self.failed = 0
        self._flow = flow
        self._device = device
        self._receive = receive
        self._changed = changed
        self._addressed = addressed
        self._newest = self._run = (-1, 0)  # epoch and number of the last one that came, and that was run
        self._replaced: deque[int] = deque(maxlen=_REPLACED)
        self._orders: asyncio.Queue[DownFrame] = asyncio.Queue(_MAX_ORDERS)
        self._worker = Worker(
            f"receive-{device}",
            on_loop=is_async(receive),
            owner=f"device {device!r}: receive",
            kind=DeviceError,
            patience=_PATIENCE,
        )

    def take(self, data: bytes) -> None:
        """Take what came from the edge; on the event loop.

        Numbers grow and have gaps, for an order's number is its place in the log of all devices' orders. A
        flow that was forgotten numbers in another epoch. No epoch says that it is the newer: the epoch that
        came before is left for the epoch that comes next, and orders of an epoch that was left are late.

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
        if frame.epoch in self._replaced:
            return
        epoch, newest = self._newest
        if frame.epoch != epoch:
            self._replaced.append(epoch)
            self._newest, newest = (frame.epoch, 0), 0
        if frame.number > newest:
            # One whose predecessor got lost waits at the edge until that has come.
            if frame.after <= newest and not self._orders.full():
                self._newest = (frame.epoch, frame.number)
                self._orders.put_nowait(frame)
        elif frame.epoch == self._run[0] and frame.number <= self._run[1]:
            self._changed()  # that it was sent again says that the confirmation got lost

    @property
    def ready(self) -> int:
        """Number of the last order that was run, 0 before the first."""
        return self._run[1]

    @property
    def numbering(self) -> int:
        """The epoch whose number that is, 0 before the first."""
        return max(0, self._run[0])

    async def run(self) -> None:
        """Run orders for ever."""
        while True:
            frame = await self._orders.get()
            await self._carry_out(frame)
            self._run = (frame.epoch, frame.number)
            self._changed()

    async def close(self, patience: float) -> None:
        """End the thread, if there is one; an order that runs gets `patience` seconds."""
        await self._worker.close(patience)

    async def _carry_out(self, frame: DownFrame) -> None:
        """Run an order, for each device that it is for; what one of them fails at keeps it from no other."""
        failed = ""
        for device in frame.to or [""]:
            try:
                await self._run_for(device, frame.payload)
            except DeviceError as error:  # it says all: who, what, and the next step
                failed = str(error)[:500]
                self.failed += 1
                log.warning("order %s failed: %s", frame.id, failed, exc_info=error.__cause__)
            except Exception as error:
                failed = in_words(error)[:500]
                self.failed += 1
                log.warning("device %s: order %s failed: %s", self._device, frame.id, failed, exc_info=error)
        self.error = failed

    async def _run_for(self, device: str, payload: Any) -> None:
        receive = self._receive
        if receive is None:
            raise DeviceError(f"device {self._device!r} got an order and has no `receive` to run it.")
        if device and not self._addressed:
            raise DeviceError(
                f"device {self._device!r} got an order for {device!r} behind it and is no Gateway. Send to "
                f"{self._device!r}."
            )
        name = {"device": device or None} if self._addressed else {}
        await self._worker.call(partial(receive, payload, **name))
