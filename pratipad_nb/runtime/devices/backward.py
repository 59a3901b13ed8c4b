"""The backward pipeline: orders from the cloud, and replies of processors, on their way to devices.

Owns the order log's reading and appending, and the passage through the processors' `backward`. An order's
number is its place in the log: numbers grow for every device, and a device drops an order that it has run.

Which entries of the log pass at all is for `order_check`. Sending each device its orders, again and again
until the device confirms them, is for `order_queues`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from pratipad_nb.backoff import Backoff
from pratipad_nb.dataflow import Dataflow
from pratipad_nb.errors import (
    Fenced,
    FrameError,
    LogFull,
    PayloadError,
    ProcessorError,
    SettingsError,
    TransportClosed,
    TransportError,
    WaitTimeout,
)
from pratipad_nb.message import Message
from pratipad_nb.processors import copied
from pratipad_nb.processors.reply import preparing
from pratipad_nb.runtime.devices.budget import Budget
from pratipad_nb.runtime.devices.foreign import PlainDevices
from pratipad_nb.runtime.devices.order_check import MOST_TARGETS, OrderCheck, check_open
from pratipad_nb.runtime.devices.order_queues import OrderQueues, order_number
from pratipad_nb.runtime.devices.roster import Roster
from pratipad_nb.runtime.positions.dead_letters import ORDER_STEP, DeadLetters
from pratipad_nb.runtime.positions.lineage import Footprint, Lineage
from pratipad_nb.runtime.positions.unreadable import Unreadable
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.stages.member import Member
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.runtime.values.refusals import Refusals
from pratipad_nb.runtime.values.stats import BackwardStats
from pratipad_nb.settings import valid_address
from pratipad_nb.transport.codec import decode, encode, order_payload
from pratipad_nb.transport.frames import (
    DeadEntry,
    DownFrame,
    FailureNote,
    HelloFrame,
    MarkFrame,
    Order,
    OrderFrame,
    new_epoch,
)
from pratipad_nb.transport.protocol import Connection, ConsumerSpec, Delivery, Log, Record
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Backward", "append_order"]

log = logging.getLogger(__name__)

_MARK = "orders"
#: Most replies of one entry of the log: a thousand entries would take a thousand round trips.
_TOGETHER = 1024
#: So many times in so many seconds one device may have all orders numbered anew, and sent again to all.
_NUMBERED_ANEW, _NUMBERED_SECONDS = 5, 600.0
#: After so many devices of one order the event loop goes on with other work.
_TARGETS_AT_ONCE = 1000
#: First and longest pause before an append or a read that failed is tried again, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class Backward:
    """Orders and replies of one run.

    Parameters
    ----------
    orders, marks
        The log of orders, and the log that holds the mark of the orders' numbering.
    lineage
        Compares the order log, too, and says when entries may be deleted.
    roster
        The devices that an order to all devices goes to.
    plain
        The foreign devices.
    dead_letters
        Stores an order that a processor failed on.
    unreadable
        Counts the entries that are no orders.
    line
        Returns the current line of processors: a change may replace the line while an order passes.

    Attributes
    ----------
    full
        Whether the order log takes no replies now.
    epoch
        The numbering of orders that holds; a device compares it with the numbering that it knows.
    received, replies, failed
        How many orders were read, how many replies were appended, and how many orders a processor failed on.
    refusals
        Entries of the order log that were refused.
    """

    def __init__(
        self,
        connection: Connection,
        settings: EdgeSettings,
        orders: Log,
        marks: Log,
        lineage: Lineage,
        *,
        roster: Roster,
        plain: PlainDevices,
        dead_letters: DeadLetters,
        unreadable: Unreadable,
        line: Callable[[], Line],
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._subjects = Subjects(settings.name)
        self._log = orders
        self._marks = marks
        self._roster = roster
        self._dead_letters = dead_letters
        self._unreadable = unreadable
        self._line = line
        self._queues = OrderQueues(connection, self._subjects, orders, lineage, plain)
        self._read_to = 0
        #: The log's newest entry when the log was opened.
        self._last = 0
        #: Set when a device may be ahead of the log: it has run an order beyond the end that is known here
        #: (`_run_beyond`), or wouldn't run an order with a number of this numbering (`_run_twice`).
        self._ahead = asyncio.Event()
        self._run_beyond, self._run_twice = 0, False
        self._alarms = Budget(_NUMBERED_ANEW, _NUMBERED_SECONDS)
        #: When the numbering began, by the server's clock.
        self._since = 0.0
        self._lineage = lineage
        self._footprint = Footprint(orders)
        lineage.add([self._footprint.holder])
        self.full = False
        self.epoch = 0
        self.received = self.replies = self.failed = 0
        self.refusals = Refusals()
        self._check = OrderCheck(
            self._subjects,
            orders.spec.name,
            line=line,
            known=lambda: len(roster.known),
            unreadable=unreadable,
            refusals=self.refusals,
        )

    async def open(self) -> None:
        """Find out which numbering of orders holds: numbers begin anew when the flow was forgotten."""
        self._last = (await self._log.state()).last
        await self._number_after(0)

    async def _number_after(self, before: int) -> None:
        """Go on in the numbering that holds; begin a new one if that is `before`, or there is none."""
        subject = self._subjects.mark(_MARK)
        while True:
            record = await self._marks.latest(subject)
            epoch = self._epoch_of(record) if record is not None else 0
            if record is not None and epoch not in (0, before):
                self.epoch, self._since = epoch, record.time
                return
            expect = record.sequence if record is not None else 0
            with contextlib.suppress(Fenced):  # another partition's edge was first
                await self._connection.append(subject, encode(MarkFrame(new_epoch(), [])), expect=expect)

    def _epoch_of(self, record: Record) -> int:
        """Return the numbering in `record`; 0 if it can't be read, and another numbering has to begin."""
        try:
            return decode(record.data, MarkFrame).sequence
        except FrameError as error:
            self._unreadable.note(self._marks.spec.name, record, error, shared=True)
            return 0

    async def _number_anew(self) -> None:
        """Begin a new numbering whenever a device has run orders that the log lost, for the log went back.

        The log gives the lost orders' numbers to new orders, which the device would take for repeats.
        """
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            await self._ahead.wait()
            await self._lineage.compared()
            try:
                self._last = (await self._log.state()).last
                if not self._run_twice and self._run_beyond < order_number(self._last + 1, 0):
                    self._ahead.clear()  # another edge has read the log further, and sent the order
                    continue
                await self._number_after(self.epoch)
            except (TransportError, WaitTimeout) as error:
                log.debug("the orders can't be numbered anew now: %s", error)
                await asyncio.sleep(backoff.next())
                continue
            log.warning(
                "log %s went back: devices have run orders that it has lost. Orders are numbered anew.",
                self._log.spec.name,
            )
            self._queues.number_anew(self.epoch)
            self._run_beyond, self._run_twice = 0, False
            self._ahead.clear()

    async def run(self) -> None:
        """Read orders and send them on, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queues.run(), name=f"{self._settings.name}: queues")
            group.create_task(self._number_anew(), name=f"{self._settings.name}: numbering")
            async with contextlib.aclosing(self._deliveries()) as deliveries:
                async for delivery in deliveries:
                    await self._take(delivery)
                    self._read_to = delivery.sequence
                    self._footprint.note(delivery)

    async def _deliveries(self) -> AsyncGenerator[Delivery, None]:
        """Yield the log's entries from the first one on, through losses of the link and of the consumer."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                consumer = await self._log.consumer(
                    ConsumerSpec("", "all", max_pending=256, start=self._read_to + 1)
                )
            except TransportClosed:
                raise
            except (TransportError, WaitTimeout) as error:
                log.debug("the orders can't be read now: %s", error)
                await asyncio.sleep(backoff.next())
                continue
            try:
                while True:
                    deliveries = await consumer.get()
                    backoff.reset()
                    for delivery in deliveries:
                        if delivery.sequence > self._read_to:
                            yield delivery
                    consumer.acknowledge(deliveries[-1])
            except TransportClosed:
                raise
            except TransportError as error:  # the consumer went with a server that was killed
                log.debug("the orders are read anew: %s", error)
                await asyncio.sleep(backoff.next())
            finally:
                await consumer.close()

    # -- from the cloud, and from processors -----------------------------------------------------------------

    async def order(self, payload: Any, to: str | Sequence[str] | None = None) -> str:
        """Append an order and return its id; the order is safe by then.

        Raises
        ------
        OneWayError
            If a hop is one-way.
        LogFull
            If too many orders wait for devices that are away.
        """
        return await append_order(self._connection, self._line().dataflow, self._subjects, payload, to)

    async def reply(self, replies: Sequence[tuple[Any, Message]]) -> None:
        """Append the replies of processors; wait while the log is full.

        `preparing` has checked at each call of `reply` that the payload can travel.
        """
        for at in range(0, len(replies), _TOGETHER):
            some = replies[at : at + _TOGETHER]
            await self._append(
                [Order(uuid.uuid4().hex, payload, [message.device]) for payload, message in some]
            )
        self.replies += len(replies)

    async def _append(self, orders: list[Order]) -> None:
        """Append replies to the log, in as few entries as the replies fit into."""
        subject = self._subjects.edge_order
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                await self._connection.append(subject, encode(OrderFrame(time.time(), orders, reply=True)))
            except PayloadError:
                if len(orders) == 1:
                    raise
                middle = len(orders) // 2
                await self._append(orders[:middle])
                await self._append(orders[middle:])
                return
            except (LogFull, WaitTimeout) as error:
                self.full = isinstance(error, LogFull)
                await asyncio.sleep(backoff.next())
            else:
                self.full = False
                return

    @property
    def crowded(self) -> bool:
        """Whether further orders wait in the log, for those that were read take all memory that they may."""
        return self._queues.full

    async def again(self, entry: DeadEntry) -> None:
        """Append once more an order that a processor failed on, to the same devices.

        Raises
        ------
        OneWayError
            If a hop is one-way by now.
        """
        check_open(self._line().dataflow)
        frame = OrderFrame(time.time(), [Order(uuid.uuid4().hex, entry.payload, entry.to)])
        await self._connection.append(self._subjects.edge_order, encode(frame))

    async def _take(self, delivery: Delivery) -> None:
        """Pass an entry's orders through the processors, then put the orders into their devices' queues."""
        sequence, appended = delivery.sequence, delivery.time
        await self._queues.room()
        frame = self._check.accepted(delivery)
        expires = appended + self._settings.options.order_seconds
        if all(map(self._is_ours_alone, frame.orders)):
            self._queues.begin(sequence)
        for place, order in enumerate(frame.orders):
            self.received += not frame.reply
            await self._put(order, order_number(sequence, place), frame, appended, expires)
        self._queues.end(sequence)

    async def _put(self, order: Order, number: int, frame: OrderFrame, stored: float, expires: float) -> None:
        targets = order.to if order.to is not None else self._roster.known
        mine = self._mine(targets)
        if not mine:
            return
        payload = order.payload
        if not frame.reply:
            try:
                payload = await self._through_processors(order, number, frame.time, mine)
            except _StopsHere:
                return
        try:
            # One payload for all devices, as it goes on the wire: the objects would take far more memory.
            payload = msgspec.Raw(order_payload(payload))
        except PayloadError as error:
            self.refusals.note(f"flow {self._settings.name!r} drops the order {order.id!r:.80}: {error}")
            return
        for count, (device, behind) in enumerate(mine.items(), 1):
            if count % _TARGETS_AT_ONCE == 0:
                await asyncio.sleep(0)
            to = None if behind == [""] else behind
            down = DownFrame(
                self._settings.name, self.epoch, number, order.id, frame.time, payload, to, stored=stored
            )
            self._queues.put(device, down, expires=expires, connected=self._roster.says_hello(device))

    def _is_ours_alone(self, order: Order) -> bool:
        """Return whether `order` is for no other partition's devices: then this edge may delete its entry."""
        if not self._settings.partitioned:
            return True
        if order.to is None:
            return False
        return sum(map(len, self._mine(order.to).values())) == len(order.to)

    def _mine(self, targets: Iterable[str]) -> dict[str, list[str]]:
        """Return this partition's devices among `targets`, each with the names behind it ("": the device)."""
        mine: dict[str, list[str]] = {}
        for target in targets:
            device, _, behind = target.partition(".")
            if self._settings.owns(device):
                mine.setdefault(device, []).append(behind)
        return mine

    async def _through_processors(
        self, order: Order, number: int, sent: float, mine: dict[str, list[str]]
    ) -> Any:
        """Pass the order through every processor's `backward`, from the last to the first.

        If a change replaces the line meanwhile, the order begins anew, at the last processor of the new line.
        """
        while True:
            line = self._line()
            try:
                return await self._through(line, order, sent)
            except _Failed as failed:
                await self._bury(failed, order, number, sent, mine)
                raise _StopsHere from None
            except ProcessorError:  # a processor was torn down: a change has replaced the line
                if line is self._line():
                    raise

    async def _through(self, line: Line, order: Order, sent: float) -> Any:
        # A copy: if a processor fails on the order, the order is kept as the cloud sent it.
        payload, changed_by = copied(order.payload), None
        for member in [member for stage in reversed(line.stages) for member in reversed(stage.members)]:
            message = Message(
                payload=payload,
                id=order.id,
                device="",
                time=sent,
                received=sent,
                flow=self._settings.name,
            )
            with preparing(_refused):
                outcome = await member.runners[0].run_backward(payload, message)
            if outcome is None:
                continue
            if outcome.failures:
                raise _Failed(member, outcome.failures[0].error, outcome.failures[0].traceback)
            if not outcome.payloads:  # a generator that yields nothing filters the order
                raise _StopsHere
            payload, changed_by = outcome.payloads[-1], member
        if changed_by is not None:
            try:
                order_payload(payload)
            except PayloadError as error:
                raise _Failed(changed_by, f"PayloadError: {error}", "") from None
        return payload

    async def _bury(
        self, failed: _Failed, order: Order, number: int, sent: float, mine: dict[str, list[str]]
    ) -> None:
        """Store `order`, as the cloud sent it, among the dead letters of the processor that failed on it."""
        member = failed.member
        self.failed += 1
        member.meter.failed += 1
        member.meter.last_error = f"backward: {failed.error}"
        await self._dead_letters.room.free.wait()
        note = FailureNote(member.key, failed.error, failed.traceback)
        to = list(_addresses(mine))
        entry = DeadEntry("", self.epoch, number, 0, sent, sent, order.payload, [note], to=to)
        await self._dead_letters.store([(member.key + ORDER_STEP, entry)])

    # -- devices ---------------------------------------------------------------------------------------------

    def hello(self, frame: HelloFrame, *, connected: bool) -> None:
        """Take note of the orders that a device has run, and send the device the orders that wait."""
        # Another numbering is that of a flow that was forgotten meanwhile, or whose order log went back. A
        # device that has run later orders in another numbering has left the one that holds here.
        same = frame.numbering == self.epoch
        ready = frame.ready if same or frame.ready_at else 0
        beyond = same and ready >= order_number(max(self._last, self._read_to) + 1, 0)
        ahead = self._queues.hello(frame.device, ready, frame.ready_at, connected=connected, anew=not same)
        twice = ahead if same else frame.ready_at > self._since
        alarms = twice or beyond
        if alarms and not self._ahead.is_set() and not self._alarms.take(frame.device):
            log.info("device %s says again and again that the order log went back", frame.device)
        elif alarms:
            self._run_beyond = max(self._run_beyond, ready)
            self._run_twice = self._run_twice or twice
            self._ahead.set()

    def came(self, device: str) -> None:
        """Take note that a device has connected; the device may be a foreign device."""
        self._queues.came(device)

    def gone(self, device: str) -> None:
        """Take note that a device is away."""
        self._queues.gone(device)

    def counts(self, device: str) -> tuple[int, int]:
        """Return how many orders were sent to a device, and how many of them the device has run."""
        return self._queues.counts(device)

    def stats(self) -> BackwardStats:
        """Return the counts as they stand."""
        queues = self._queues
        return BackwardStats(
            self.received,
            self.replies,
            queues.sent,
            self.failed,
            queues.expired,
            queues.waiting,
            queues.rate,
            self.refusals.count,
        )


def _refused(_: Any) -> Any:
    raise ProcessorError(
        "reply() was called in `backward`, where there is no reading to answer: return the new order instead."
    )


def _addresses(devices: dict[str, list[str]]) -> Iterator[str]:
    for device, behind in devices.items():
        for name in behind:
            yield f"{device}.{name}" if name else device


async def append_order(
    connection: Connection,
    dataflow: Dataflow,
    subjects: Subjects,
    payload: Any,
    to: str | Sequence[str] | None,
) -> str:
    """Append an order to the flow's log; see `Backward.order`."""
    check_open(dataflow)
    if to is not None and not isinstance(to, Iterable):
        raise SettingsError(f"send(to={to!r}): to is a device's name, a list of them, or None for all.")
    names = None if to is None else [valid_address(name) for name in ([to] if isinstance(to, str) else to)]
    if names is not None and len(names) > MOST_TARGETS:
        raise SettingsError(
            f"send(to=…) names {len(names):,} devices; {MOST_TARGETS:,} at most. Send to some at a time, or "
            "leave `to` out to send to all known devices."
        )
    if names == []:
        raise SettingsError("send(to=[]) names no device; leave `to` out to send to all known devices.")
    order = Order(uuid.uuid4().hex, payload, names)
    data = encode(OrderFrame(time.time(), [order]))
    await connection.append(subjects.edge_order, data, message_id=order.id)
    return order.id


class _Failed(Exception):
    """A processor failed on an order."""

    def __init__(self, member: Member, error: str, traceback: str) -> None:
        super().__init__(error)
        self.member = member
        self.error = error
        self.traceback = traceback


class _StopsHere(Exception):
    """An order goes no further: a processor failed on it, or filtered it."""
