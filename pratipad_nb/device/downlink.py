"""The downlink: runs the orders that come to a device, each once and in order.

Owns which orders are repeats, and how far orders are acknowledged. The edge keeps every order until this
device has acknowledged it (`HelloFrame.ready`), so no order needs to be kept here, and an order that doesn't
fit may be dropped: the edge sends the order again. Sending the acknowledgement is for
`pratipad_nb.device.greeter`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

from pratipad_nb.calls import Worker, is_async
from pratipad_nb.errors import DeviceError, FrameError
from pratipad_nb.transport.codec import decode
from pratipad_nb.transport.frames import DownFrame
from pratipad_nb.transport.room import Place, Room
from pratipad_nb.wording import in_words

__all__ = ["Downlink", "checked_receive"]

log = logging.getLogger(__name__)

#: Most orders that wait to be run: four times as many as the edge has in flight to one device. Further orders
#: are dropped, and come again once earlier orders are acknowledged.
_MAX_ORDERS = 256
#: Most memory that those orders take. A larger order waits alone.
_MEMORY = 64 << 20
#: How long a `receive` may take to end once the device is being closed, in seconds.
_PATIENCE = 1.0
#: So many replaced epochs are remembered, so that their late orders are not run.
_REPLACED = 8
#: So many orders are known by their ids after they were run: more than can be sent and not confirmed, and
#: more than come back with an order log that went back.
_REMEMBERED = 1024


def checked_receive(receive: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """Return `receive` if it is None or can be called, else raise `DeviceError`."""
    if receive is not None and not callable(receive):
        raise DeviceError(
            f"receive is {receive!r:.200}; it is a function that runs an order, given its payload."
        )
    return receive


class Downlink:
    """Runs orders by `receive`.

    Parameters
    ----------
    receive
        Called with each order's payload; ``def`` (on a thread of its own) or ``async def``. None: orders are
        refused, which shows in `error`.
    addressed
        Whether the device is a gateway. A gateway's `receive` gets ``device=``, too: the name of the device
        behind the gateway that the order is for, or None for the gateway itself.
    changed
        Called when the edge has to be told that an order was run, now or before.

    Attributes
    ----------
    error
        The error of the last order; empty if the order succeeded.
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
        # Epoch and number of the newest order that was queued, and of the last that was run; and when the
        # latter was stored.
        self._newest = self._run = (-1, 0)
        self._run_at = 0.0
        # Ids of the orders that were run last.
        self._done: dict[str, None] = {}
        self._replaced: deque[int] = deque(maxlen=_REPLACED)
        self._orders: asyncio.Queue[tuple[DownFrame, Place]] = asyncio.Queue(_MAX_ORDERS)
        self._room = Room(_MEMORY)
        self._worker = Worker(
            f"receive-{device}",
            on_loop=is_async(receive),
            owner=f"device {device!r}: receive",
            kind=DeviceError,
            patience=_PATIENCE,
        )

    def take(self, data: bytes) -> None:
        """Take an order's frame from the edge; on the event loop.

        Numbers grow and have gaps, for an order's number is its place in the log of all devices'
        orders. A flow that was forgotten, or whose order log went back, numbers in another epoch. Two epochs
        don't say which of them is newer: the epoch that came before is left for the epoch that comes next,
        and orders of an epoch that was left are late. An order that comes in the next epoch, too, is known by
        its id (for `_REMEMBERED` orders).

        No order is run twice or before its predecessor, because `_newest` only grows within an epoch, an
        epoch that was left is not entered again (for `_REPLACED` epochs), and an order is queued only once
        all orders up to ``frame.after`` were queued.

        Raises
        ------
        FrameError
            If `data` is no order of this flow.
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
            newest = 0
        if frame.number > newest:
            # An order whose predecessor got lost waits at the edge until the predecessor has come.
            place = Place.of(frame.id, data)
            if frame.after <= newest and not self._orders.full() and self._room.fits(place):
                if frame.epoch != epoch:
                    self._replaced.append(epoch)
                self._newest = (frame.epoch, frame.number)
                self._orders.put_nowait((frame, place))
                self._room.take(place)
        elif frame.epoch == self._run[0] and frame.number <= self._run[1]:
            self._changed()  # a repeat says that the acknowledgement got lost

    @property
    def ready(self) -> int:
        """Number of the last order that was run, 0 before the first."""
        return self._run[1]

    @property
    def ready_at(self) -> float:
        """When the last order that was run was stored, by the server's clock; 0 before the first."""
        return self._run_at

    @property
    def numbering(self) -> int:
        """The epoch of the last order that was run, 0 before the first."""
        return max(0, self._run[0])

    async def run(self) -> None:
        """Run orders for ever."""
        while True:
            frame, place = await self._orders.get()
            if frame.id not in self._done:
                await self._carry_out(frame)
                self._remember(frame.id)
            self._room.release(place)
            self._run, self._run_at = (frame.epoch, frame.number), frame.stored
            self._changed()

    def _remember(self, order: str) -> None:
        self._done[order] = None
        if len(self._done) > _REMEMBERED:
            del self._done[next(iter(self._done))]

    async def close(self, patience: float) -> None:
        """End the thread, if there is one; a call in progress gets `patience` seconds."""
        await self._worker.close(patience)

    async def _carry_out(self, frame: DownFrame) -> None:
        """Run an order for each device that it is for; a failure for one device keeps it from no other.

        Each device gets a payload of its own, for `receive` may change it.
        """
        failed = ""
        for device in frame.to or [""]:
            try:
                await self._run_for(device, deepcopy(frame.payload) if frame.to else frame.payload)
            except DeviceError as error:  # its text names the device, the fault and the next step already
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
