"""OrderQueues: the orders that devices have yet to run.

Owns what waits for each device, that it is sent in order and again until it is confirmed, and that an entry of the order
log is deleted once all its orders are dealt with. What an order is, and what processors make of it, is for `backward`.

A flow may have ten thousand devices, of which hardly any has an order at a given moment. So a hello, an order and a look
cost what the devices with orders cost, and a device without orders costs nothing at all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, takewhile

from pratipad_nb.errors import TransportError, WaitTimeout
from pratipad_nb.runtime.devices.foreign import PlainDevices
from pratipad_nb.runtime.values.metrics import Rate
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import MAX_MESSAGES, DownFrame
from pratipad_nb.transport.protocol import Connection, Log
from pratipad_nb.transport.subjects import Subjects

__all__ = ["OrderQueues", "order_number"]

log = logging.getLogger(__name__)

#: Orders on their way to one device that it hasn't confirmed; further ones wait here.
_WINDOW = 64
#: An order that isn't confirmed after so many seconds is sent again, for signals may be lost.
_AGAIN = 2.0
#: Seconds between two looks at all devices that have orders: for what is to go again, and for foreign ones that listen now.
_LOOK = _AGAIN / 4
#: Entries that are deleted at a time: a round trip each would hold up the orders behind them.
_DELETED_AT_ONCE = 64


def order_number(sequence: int, place: int) -> int:
    """Return the number of the order at `place` in the log's entry `sequence`: it grows along the log."""
    return sequence * MAX_MESSAGES + place


@dataclass(slots=True)
class _Pending:
    """An order as it goes to a device; `sent` is when it last went, by the monotonic clock, None before the first time."""

    frame: DownFrame
    sent: float | None = None


@dataclass(slots=True)
class _OrderQueue:
    """What waits for one device, by its number, which grows from the first to the last."""

    orders: OrderedDict[int, _Pending] = field(default_factory=OrderedDict)
    sent: int = 0
    run: int = 0

    def due(self, now: float) -> Iterator[_Pending]:
        """Iterate over what is to be sent now, each knowing which order has to have come before it."""
        before = 0
        for number, pending in tuple(islice(self.orders.items(), _WINDOW)):
            if not pending.sent or now - pending.sent > _AGAIN:
                pending.frame.after = before
                yield pending
            before = number


class OrderQueues:
    """The queues of one edge's devices."""

    def __init__(self, connection: Connection, subjects: Subjects, orders: Log) -> None:
        self._connection = connection
        self._subjects = subjects
        self._log = orders
        self._queues: dict[str, _OrderQueue] = {}
        #: Of the queues, those with orders whose device is connected, and those with orders whose device is not.
        self._here: dict[str, _OrderQueue] = {}
        self._away: dict[str, _OrderQueue] = {}
        #: Devices that may be sent something before the next look at all that are here.
        self._woken: dict[str, None] = {}
        #: When each order expires, by its device and number: in the order in which they do, for that of the log is the same.
        self._expiring: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._next_look = 0.0
        self._left: dict[int, int] = {}
        self._finished: list[int] = []
        self._plain = PlainDevices(connection, subjects)
        self._wake = asyncio.Event()
        self._rate = Rate()
        self.sent = self.expired = 0

    # -- what comes in ------------------------------------------------------------------------------------------

    def begin(self, sequence: int) -> None:
        """Open an entry of the log, which is to be deleted once `end` was called and its orders are dealt with."""
        self._left[sequence] = 1

    def end(self, sequence: int) -> None:
        """Say that all orders of an entry are in their queues."""
        self._deal_with(sequence)
        self._wake.set()

    def put(self, device: str, frame: DownFrame, *, expires: float, connected: bool) -> None:
        """Put an order into a device's queue; `expires` is in seconds since 1970."""
        sequence = frame.number // MAX_MESSAGES
        if sequence in self._left:
            self._left[sequence] += 1
        queue = self._queues.setdefault(device, _OrderQueue())
        queue.orders[frame.number] = _Pending(frame)
        self._expiring[device, frame.number] = expires
        self._place(device, queue, connected=connected)

    def _deal_with(self, sequence: int) -> None:
        left = self._left.get(sequence)
        if left is None:  # an entry that others' devices get too: it stays in the log until it expires
            return
        if left > 1:
            self._left[sequence] = left - 1
            return
        del self._left[sequence]
        self._finished.append(sequence)

    # -- devices ------------------------------------------------------------------------------------------------

    def hello(self, device: str, ready: int, *, connected: bool) -> None:
        """Take note that a device has run its orders up to number `ready`, and send it what waits."""
        queue = self._queues.get(device)
        if queue is None or not queue.orders:  # there is nothing to confirm, and nothing to send
            return
        for number in tuple(takewhile(lambda n: n <= ready, queue.orders)):
            queue.run += 1
            self._take_out(device, queue, number)
        if not ready:  # it has just started, or lost what was sent
            self._send_anew(queue)
        self._place(device, queue, connected=connected)

    def gone(self, device: str) -> None:
        """Take note that a device is away."""
        queue = self._queues.get(device)
        if queue is not None and queue.orders:
            self._send_anew(queue)
            self._place(device, queue, connected=False)

    def _place(self, device: str, queue: _OrderQueue, *, connected: bool) -> None:
        """Put a queue where it belongs now, and let the next round look at it."""
        here, elsewhere = (self._here, self._away) if connected else (self._away, self._here)
        elsewhere.pop(device, None)
        if queue.orders:
            here[device] = queue
        self._woken[device] = None
        self._wake.set()

    def _send_anew(self, queue: _OrderQueue) -> None:
        # Nothing beyond the window was sent: orders leave a queue at its front alone, and come in at its end.
        for pending in islice(queue.orders.values(), _WINDOW):
            pending.sent = pending.sent and 0.0

    def _take_out(self, device: str, queue: _OrderQueue, number: int) -> None:
        if queue.orders.pop(number, None) is None:
            return
        self._expiring.pop((device, number), None)
        if not queue.orders:
            self._here.pop(device, None)
            self._away.pop(device, None)
        self._deal_with(number // MAX_MESSAGES)

    def counts(self, device: str) -> tuple[int, int]:
        """Return how many orders went to a device, and how many it has run."""
        queue = self._queues.get(device)
        return (queue.sent, queue.run) if queue else (0, 0)

    @property
    def waiting(self) -> int:
        """Orders that are not confirmed."""
        return len(self._expiring)

    @property
    def rate(self) -> float:
        """Orders sent, a second."""
        return self._rate.value

    # -- what goes out ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what waits and delete what is dealt with, until cancelled. While the link is down all of it waits."""
        while True:
            self._wake.clear()
            try:
                self._expire()
                await self._round()
                await self._delete_finished()
            except (TransportError, WaitTimeout) as error:
                log.debug("orders wait: %s", error)
            self._rate.sample(self.sent)
            try:
                async with asyncio.timeout(_LOOK):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _expire(self) -> None:
        now = time.time()
        while self._expiring:
            (device, number), expires = next(iter(self._expiring.items()))
            if expires >= now:
                return
            self.expired += 1
            self._take_out(device, self._queues[device], number)

    async def _round(self) -> None:
        """Look at the devices that something has happened to, and now and then at all that have orders."""
        woken, self._woken = self._woken, {}
        now = time.monotonic()
        looks_at_all = now >= self._next_look
        if looks_at_all:
            woken |= dict.fromkeys(self._here) | dict.fromkeys(self._away)
        try:
            for device in woken:
                if queue := self._here.get(device):
                    await self._send(device, queue)
            await self._send_plain({device for device in woken if device in self._away})
        except BaseException:
            self._woken = woken | self._woken
            raise
        if looks_at_all:
            self._next_look = now + _LOOK

    async def _send(self, device: str, queue: _OrderQueue) -> None:
        subject, now = self._subjects.down(device), time.monotonic()
        for pending in queue.due(now):
            await self._connection.publish(subject, encode(pending.frame))
            self._note_sent(queue, pending)
            pending.sent = now

    def _note_sent(self, queue: _OrderQueue, pending: _Pending) -> None:
        if pending.sent is None:
            queue.sent += 1
            self.sent += 1

    async def _send_plain(self, devices: set[str]) -> None:
        """Send what waits to those that listen and don't speak frames: once, for they confirm nothing."""
        for device in await self._plain.listening(devices):
            queue = self._queues[device]
            for number, pending in tuple(queue.orders.items()):
                if not await self._plain.send(device, pending.frame):
                    return
                self._note_sent(queue, pending)
                self._take_out(device, queue, number)

    async def _delete_finished(self) -> None:
        while self._finished:
            some = self._finished[:_DELETED_AT_ONCE]
            async with asyncio.TaskGroup() as group:
                deleted = [group.create_task(self._deleted(sequence)) for sequence in some]
            left = [sequence for sequence, task in zip(some, deleted, strict=True) if not task.result()]
            self._finished[: len(some)] = left
            if left:
                return  # the next round tries again

    async def _deleted(self, sequence: int) -> bool:
        try:
            await self._log.delete(sequence)
        except (TransportError, WaitTimeout):
            return False
        return True
