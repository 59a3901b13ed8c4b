"""Order queues: the orders that each device has yet to run.

Owns that the orders of each device wait, are sent in order, and are sent again until the device confirms
them; and that an entry of the order log is deleted once all its orders are dealt with. Reading the order log,
and the passage of orders through processors, is for `backward`.

A flow may have ten thousand devices, of which hardly any has an order at a given moment. So a hello and
an order cost work for their own device alone, a round costs work for the devices that have orders, and a
device without orders costs nothing at all.

Each order is in three places: in its device's `_OrderQueue`, in `_expiring`, and counted in `_left` for its
entry of the log. `put` fills all three and `_take_out` alone empties them, so an entry's count reaches zero
when the last of its orders was confirmed, sent to a foreign device, or has expired. `begin` counts the entry
itself too, and `end` takes that count back: an entry isn't deleted while some of its orders have yet to be
put into their queues.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice, takewhile

from msgspec import Raw

from pratipad_nb.errors import TransportError, WaitTimeout
from pratipad_nb.runtime.devices.foreign import PlainDevices
from pratipad_nb.runtime.positions.lineage import Lineage
from pratipad_nb.runtime.values.metrics import Rate
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import MAX_MESSAGES, DownFrame
from pratipad_nb.transport.protocol import Connection, Log
from pratipad_nb.transport.subjects import Subjects

__all__ = ["OrderQueues", "order_number"]

log = logging.getLogger(__name__)

#: Most orders that are sent to one device and not confirmed yet; further orders wait in the device's queue.
_WINDOW = 64
#: An order that isn't confirmed after so many seconds is sent again, for signals may be lost.
_AGAIN = 2.0
#: Seconds between two rounds over all devices that have orders: to send orders again, and to find foreign
#: devices that listen now.
_LOOK = _AGAIN / 4
#: Most memory that the payloads of all orders take, in bytes.
_MEMORY = 256 << 20
#: Entries that are deleted at a time: one round trip after the other would hold up the orders that wait.
_DELETED_AT_ONCE = 64


def order_number(sequence: int, place: int) -> int:
    """Return the number of the order at `place` in the log's entry `sequence`: numbers grow along the log."""
    return sequence * MAX_MESSAGES + place


@dataclass(slots=True)
class _Pending:
    """An order of one device.

    Attributes
    ----------
    sent
        When the order was last sent, by the monotonic clock; 0.0 if the order was sent and is to be sent
        again at once; None before the first time.
    """

    frame: DownFrame
    sent: float | None = None


@dataclass(slots=True)
class _OrderQueue:
    """The orders of one device, by their numbers, which grow from the first to the last.

    `sent` and `run` count the orders that were sent to the device, and those that the device has run.
    """

    orders: OrderedDict[int, _Pending] = field(default_factory=OrderedDict)
    sent: int = 0
    run: int = 0

    def due(self, now: float) -> Iterator[_Pending]:
        """Yield the orders that are to be sent now, each with the number of the order before it (`after`)."""
        before = 0
        for number, pending in tuple(islice(self.orders.items(), _WINDOW)):
            if not pending.sent or now - pending.sent > _AGAIN:
                pending.frame.after = before
                yield pending
            before = number


class OrderQueues:
    """The queues of one edge's devices.

    Parameters
    ----------
    lineage
        Says whether `orders` is known to be the log that the orders were read from: entries are deleted by
        their sequences.
    plain
        The foreign devices.
    """

    def __init__(
        self,
        connection: Connection,
        subjects: Subjects,
        orders: Log,
        lineage: Lineage,
        plain: PlainDevices,
    ) -> None:
        self._connection = connection
        self._subjects = subjects
        self._log = orders
        self._lineage = lineage
        self._queues: dict[str, _OrderQueue] = {}
        #: The queues with orders whose device is connected, and those whose device is not.
        self._connected: dict[str, _OrderQueue] = {}
        self._away: dict[str, _OrderQueue] = {}
        #: Devices that the next round looks at, even if that round isn't one over all devices.
        self._woken: dict[str, None] = {}
        #: When each order expires, by its device and number. The soonest is first, for orders expire in the
        #: order of the log.
        self._expiring: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._next_look = 0.0
        #: How many orders of each entry of the log are not dealt with, plus 1 until `end`. Entries for
        #: devices of other partitions too are not here: such an entry stays in the log until it expires.
        self._left: dict[int, int] = {}
        #: How many devices each order waits for whose payload is packed, by the order's number.
        self._packed: Counter[int] = Counter()
        self._memory = 0
        self._room = asyncio.Event()
        self._room.set()
        #: Entries of the log that are to be deleted.
        self._finished: list[int] = []
        self._plain = plain
        self._wake = asyncio.Event()
        self._rate = Rate()
        self.sent = self.expired = 0

    # -- entries of the log ----------------------------------------------------------------------------------

    def begin(self, sequence: int) -> None:
        """Open an entry of the log, which is deleted after `end` once its orders are dealt with."""
        self._left[sequence] = 1

    def end(self, sequence: int) -> None:
        """Take note that all orders of an entry are in their queues."""
        self._deal_with(sequence)
        self._wake.set()

    def put(self, device: str, frame: DownFrame, *, expires: float, connected: bool) -> None:
        """Put an order into a device's queue; `expires` is in seconds since 1970."""
        sequence = frame.number // MAX_MESSAGES
        if sequence in self._left:
            self._left[sequence] += 1
        queue = self._queues.setdefault(device, _OrderQueue())
        queue.orders[frame.number] = _Pending(frame)
        self._count(frame, 1)
        self._expiring[device, frame.number] = expires
        self._place(device, queue, connected=connected)

    def _count(self, frame: DownFrame, devices: int) -> None:
        """Count the memory of an order's payload, which is one for all devices that the order is for."""
        if not isinstance(frame.payload, Raw):
            return
        before = self._packed[frame.number]
        self._packed[frame.number] += devices
        if not self._packed[frame.number]:
            del self._packed[frame.number]
        if not before or before + devices == 0:
            self._memory += devices * len(frame.payload)
        if self._memory < _MEMORY:
            self._room.set()
        else:
            self._room.clear()

    @property
    def full(self) -> bool:
        """Whether the orders take as much memory as they may."""
        return not self._room.is_set()

    async def room(self) -> None:
        """Return once there is memory for further orders."""
        await self._room.wait()

    def _deal_with(self, sequence: int) -> None:
        left = self._left.get(sequence)
        if left is None:  # the entry is for devices of other partitions too, and stays until it expires
            return
        if left > 1:
            self._left[sequence] = left - 1
            return
        del self._left[sequence]
        self._finished.append(sequence)

    # -- devices ---------------------------------------------------------------------------------------------

    def hello(
        self, device: str, ready: int, ready_at: float = 0.0, *, connected: bool, anew: bool = False
    ) -> bool:
        """Take note that a device has run its orders up to number `ready`; send the orders that wait.

        Parameters
        ----------
        ready_at
            When the order `ready` was stored; 0 if that isn't known. An order of a lower number that was
            stored later is another order: the log went back after the device had run the order `ready`.
        anew
            Whether the orders that were sent are sent again. They are in any case if `ready` is 0: the device
            has just started.

        Returns
        -------
        bool
            Whether an order waits whose number the device has run already.
        """
        queue = self._queues.get(device)
        if queue is None or not queue.orders:
            return False
        for number, pending in tuple(takewhile(lambda item: item[0] <= ready, queue.orders.items())):
            if ready_at and pending.frame.stored > ready_at:
                break
            queue.run += 1
            self._take_out(device, queue, number)
        if anew or not ready:
            self._send_anew(queue)
        self._place(device, queue, connected=connected)
        return next(iter(queue.orders), ready + 1) <= ready

    def number_anew(self, epoch: int) -> None:
        """Send all orders again, in the numbering `epoch`."""
        for device, queue in self._queues.items():
            for pending in queue.orders.values():
                pending.frame.epoch = epoch
            self._send_anew(queue)
            self._woken[device] = None
        self._wake.set()

    def came(self, device: str) -> None:
        """Take note that a device has connected, which may be a foreign device."""
        if device in self._away:
            self._woken[device] = None
            self._wake.set()

    def gone(self, device: str) -> None:
        """Take note that a device is away."""
        queue = self._queues.get(device)
        if queue is not None and queue.orders:
            self._send_anew(queue)
            self._place(device, queue, connected=False)

    def _place(self, device: str, queue: _OrderQueue, *, connected: bool) -> None:
        """Note whether a queue's device is connected, and let the next round look at the device."""
        place, other = (self._connected, self._away) if connected else (self._away, self._connected)
        other.pop(device, None)
        if queue.orders:
            place[device] = queue
        self._woken[device] = None
        self._wake.set()

    def _send_anew(self, queue: _OrderQueue) -> None:
        # No order beyond the window was sent: orders leave a queue at its front alone, and join at its end.
        for pending in islice(queue.orders.values(), _WINDOW):
            pending.sent = pending.sent and 0.0

    def _take_out(self, device: str, queue: _OrderQueue, number: int) -> None:
        pending = queue.orders.pop(number, None)
        if pending is None:
            return
        self._count(pending.frame, -1)
        self._expiring.pop((device, number), None)
        if not queue.orders:
            self._connected.pop(device, None)
            self._away.pop(device, None)
            self._plain.forget(device)
        self._deal_with(number // MAX_MESSAGES)

    def counts(self, device: str) -> tuple[int, int]:
        """Return how many orders were sent to a device, and how many of them the device has run."""
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

    # -- sending ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send orders, and delete the log's entries that are dealt with, until cancelled.

        While the link is down all orders wait.
        """
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
        """Send the orders of devices that were woken, and every `_LOOK` seconds those of all devices."""
        woken, self._woken = self._woken, {}
        now = time.monotonic()
        looks_at_all, news_of = now >= self._next_look, tuple(woken)
        if looks_at_all:
            woken |= dict.fromkeys(self._connected) | dict.fromkeys(self._away)
        try:
            for device in woken:
                if queue := self._connected.get(device):
                    await self._send(device, queue)
            await self._send_plain({device for device in woken if device in self._away}, news_of)
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

    async def _send_plain(self, devices: set[str], news_of: Collection[str]) -> None:
        """Send the orders of foreign `devices` that listen: once, for a foreign device confirms nothing."""
        for device in await self._plain.listening(devices, news_of):
            queue = self._queues[device]
            for number, pending in tuple(queue.orders.items()):
                if not await self._plain.send(device, pending.frame):
                    return
                self._note_sent(queue, pending)
                self._take_out(device, queue, number)

    async def _delete_finished(self) -> None:
        while self._finished and self._lineage.known:
            some = self._finished[:_DELETED_AT_ONCE]
            async with asyncio.TaskGroup() as group:
                deleted = [group.create_task(self._deleted(sequence)) for sequence in some]
            left = [sequence for sequence, task in zip(some, deleted, strict=True) if not task.result()]
            self._finished[: len(some)] = left
            if left:
                return  # the next round tries these again

    async def _deleted(self, sequence: int) -> bool:
        try:
            await self._log.delete(sequence)
        except (TransportError, WaitTimeout):
            return False
        return True
