"""The backward pipeline: orders from the cloud, and replies of processors, on their way to devices.

Owns the order log's reading, the passage through the processors' `backward`, and what each device has yet to confirm.
An order's number is its place in the log: it grows for every device, and a device drops what it has run. What a device
has confirmed is deleted; what it hasn't is sent again whenever it says hello, until it expires in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pratipad_nb.dataflow import Dataflow
from pratipad_nb.errors import Fenced, FrameError, OneWayError, SettingsError, TransportError, WaitTimeout
from pratipad_nb.message import Message
from pratipad_nb.runtime.metrics import Rate
from pratipad_nb.runtime.plain import PlainDevices
from pratipad_nb.runtime.stats import BackwardStats
from pratipad_nb.settings import valid_address
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import DeadEntry, DownFrame, FailureNote, HelloFrame, MarkFrame, OrderFrame
from pratipad_nb.transport.protocol import Connection, ConsumerSpec, Log
from pratipad_nb.transport.subjects import Subjects

if TYPE_CHECKING:
    from pratipad_nb.runtime.edge import Edge

__all__ = ["Backward", "append_order", "check_open"]

log = logging.getLogger(__name__)

#: Orders on their way to one device that it hasn't confirmed; further ones wait here.
_WINDOW = 64
#: An order that isn't confirmed after so many seconds is sent again, for signals may be lost.
_AGAIN = 2.0
_MARK = "orders"


@dataclass(slots=True)
class _Pending:
    """An order as it goes to a device."""

    number: int
    data: bytes
    expires: float
    sent: float = 0.0


@dataclass(slots=True)
class _Box:
    """What waits for one device."""

    orders: OrderedDict[int, _Pending] = field(default_factory=OrderedDict)
    connected: bool = False
    sent: int = 0
    run: int = 0


class Backward:
    """Orders and replies of one flow."""

    def __init__(self, edge: Edge, log: Log, marks: Log) -> None:
        self._edge = edge
        self._log = log
        self._marks = marks
        self._boxes: dict[str, _Box] = {}
        self._holders: dict[int, set[str]] = {}
        self._finished: list[int] = []
        self._plain = PlainDevices(edge.connection, edge.subjects)
        self._wake = asyncio.Event()
        self._rate = Rate()
        self.epoch = 0
        self.received = self.replies = self.sent = self.failed = self.expired = 0

    async def open(self) -> None:
        """Find out which numbering holds: it begins anew when the flow was forgotten."""
        subject = self._edge.subjects.mark(_MARK)
        while (record := await self._marks.latest(subject)) is None:
            frame = MarkFrame(time.time_ns() // 1_000_000, [])
            with contextlib.suppress(Fenced):  # another partition's edge was first
                await self._edge.connection.append(subject, encode(frame), expect=0)
        self.epoch = decode(record.data, MarkFrame).sequence

    async def run(self) -> None:
        """Read orders and send them on, until cancelled."""
        consumer = await self._log.consumer(ConsumerSpec("", "all", max_pending=256))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send())
                while True:
                    deliveries = await consumer.get()
                    for delivery in deliveries:
                        await self._take(delivery.sequence, delivery.time, delivery.data)
                    consumer.acknowledge(deliveries[-1])
        finally:
            await consumer.close()

    # -- from the cloud, and from processors --------------------------------------------------------------------

    async def order(self, payload: Any, to: str | Sequence[str] | None = None) -> str:
        """Append an order; it is safe when this returns. Returns its id.

        Raises
        ------
        OneWayError
            If a hop is one-way.
        LogFull
            If too many orders wait for devices that are away.
        """
        return await append_order(
            self._edge.connection, self._edge.line.dataflow, self._edge.subjects, payload, to
        )

    async def reply(self, replies: Sequence[tuple[Any, Message]]) -> None:
        """Append what processors answered; replies the arrows don't let pass are counted and logged by `stage`."""
        for payload, message in replies:
            frame = OrderFrame(uuid.uuid4().hex, time.time(), payload, [message.device], reply=True)
            try:
                await self._edge.connection.append(self._edge.subjects.order, encode(frame))
                self.replies += 1
            except (TransportError, WaitTimeout):
                # Replies are "at least once" only with their message: it isn't lost, the device is not answered.
                self.failed += 1

    async def _take(self, number: int, appended: float, data: bytes) -> None:
        """Let an order through the processors, then put it into its devices' boxes."""
        try:
            frame = decode(data, OrderFrame)
        except FrameError:
            self._finished.append(number)
            return
        self.received += not frame.reply
        accounts = self._edge.ledger.accounts
        targets = frame.to if frame.to is not None else self._edge.presence.known
        mine = self._mine(targets)
        if self._edge.settings.shared and not mine:
            return
        # An order that other partitions' devices get too stays in the log until it expires.
        alone = not self._edge.settings.shared or (
            frame.to is not None and sum(map(len, mine.values())) == len(targets)
        )
        payload = frame.payload
        if not frame.reply:
            try:
                payload = await self._through_processors(frame, number)
            except _FailedError:
                if alone:
                    self._finished.append(number)
                return
        expires = appended + self._edge.settings.options.order_seconds
        if alone:
            self._holders[number] = set(mine)
        for device, behind in mine.items():
            to = None if behind == [""] else behind
            down = DownFrame(self._edge.settings.name, self.epoch, number, frame.id, frame.time, payload, to)
            box = self._boxes.setdefault(device, _Box())
            account = accounts.get(device)
            box.connected = account is not None and account.connected
            box.orders[number] = _Pending(number, encode(down), expires)
        if not mine:
            self._finish(number, None)
        self._wake.set()

    def _mine(self, targets: Sequence[str]) -> dict[str, list[str]]:
        """Return this partition's devices among `targets`, each with those behind it that are meant; "": itself."""
        mine: dict[str, list[str]] = {}
        for target in targets:
            try:
                device, _, behind = valid_address(target).partition(".")
            except SettingsError as error:
                log.warning("an order for %r goes nowhere: %s", target, error)
                continue
            if self._edge.settings.owns(device):
                mine.setdefault(device, []).append(behind)
        return mine

    async def _through_processors(self, frame: OrderFrame, number: int) -> Any:
        """Pass the order through every processor's `backward`, from the last to the first."""
        payload = frame.payload
        name = self._edge.settings.name
        for stage in reversed(self._edge.line.stages):
            for member in reversed(stage.members):
                message = Message(
                    payload=payload, id=frame.id, device="", time=frame.time, received=frame.time, flow=name
                )
                outcome = await member.runners[0].run_backward(payload, message)
                if outcome is None:
                    continue
                if outcome.failures:
                    failure = outcome.failures[0]
                    self.failed += 1
                    member.meter.failed += 1
                    member.meter.last_error = f"backward: {failure.error}"
                    note = FailureNote(member.key, failure.error, failure.traceback)
                    entry = DeadEntry("", self.epoch, number, 0, frame.time, frame.time, payload, [note])
                    await self._edge.dead_letters.store([(f"{member.key}-backward", entry)])
                    raise _FailedError
                if not outcome.payloads:  # a generator that emits none: the order is filtered
                    raise _FailedError
                payload = outcome.payloads[-1]
        return payload

    # -- to devices ---------------------------------------------------------------------------------------------

    def hello(self, frame: HelloFrame, *, connected: bool) -> None:
        """Take note of what a device has run, and send it what waits."""
        box = self._boxes.setdefault(frame.device, _Box())
        box.connected = connected
        for number in [n for n in box.orders if n <= frame.ready]:
            del box.orders[number]
            box.run += 1
            self._finish(number, frame.device)
        for pending in box.orders.values():
            if not frame.ready:  # it has just started, or lost what was sent
                pending.sent = 0.0
        self._wake.set()

    def gone(self, device: str) -> None:
        """Take note that a device is away."""
        if box := self._boxes.get(device):
            box.connected = False
            for pending in box.orders.values():
                pending.sent = 0.0

    def _finish(self, number: int, device: str | None) -> None:
        holders = self._holders.get(number)
        if holders is None and device is not None:
            return
        holders = holders or set()
        holders.discard(device or "")
        if not holders:
            self._holders.pop(number, None)
            self._finished.append(number)

    async def _send(self) -> None:
        while True:
            self._wake.clear()
            now, monotonic = time.time(), time.monotonic()
            for device, box in self._boxes.items():
                if not box.orders:
                    continue
                for number in [n for n, p in box.orders.items() if p.expires < now]:
                    del box.orders[number]
                    self.expired += 1
                    self._finish(number, device)
                if box.connected:
                    await self._send_box(device, box, monotonic)
            await self._send_plain()
            finished, self._finished = self._finished, []
            for number in finished:
                await self._log.delete(number)
            self._rate.sample(self.sent)
            try:
                async with asyncio.timeout(_AGAIN / 4):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _send_box(self, device: str, box: _Box, now: float) -> None:
        subject = self._edge.subjects.down(device)
        for pending in list(box.orders.values())[:_WINDOW]:
            if now - pending.sent > _AGAIN:
                if not pending.sent:
                    box.sent += 1
                    self.sent += 1
                pending.sent = now
                await self._edge.connection.publish(subject, pending.data)

    async def _send_plain(self) -> None:
        """Send what waits to devices that are there and don't speak frames: once, for they confirm nothing."""
        waiting = {device for device, box in self._boxes.items() if box.orders and not box.connected}
        for device in await self._plain.listening(waiting):
            box = self._boxes[device]
            for number, pending in list(box.orders.items()):
                if not await self._plain.send(device, pending.data):
                    return
                del box.orders[number]
                box.sent += 1
                self.sent += 1
                self._finish(number, device)

    def counts(self, device: str) -> tuple[int, int]:
        """Return how many orders went to a device, and how many it has run."""
        box = self._boxes.get(device)
        return (box.sent, box.run) if box else (0, 0)

    def stats(self) -> BackwardStats:
        """Return the counts as they stand."""
        waiting = sum(len(box.orders) for box in self._boxes.values())
        return BackwardStats(
            self.received, self.replies, self.sent, self.failed, self.expired, waiting, self._rate.value
        )


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
    if names == []:
        raise SettingsError("send(to=[]) names no device; leave `to` out to send to all that are known.")
    frame = OrderFrame(uuid.uuid4().hex, time.time(), payload, names)
    await connection.append(subjects.order, encode(frame), message_id=frame.id)
    return frame.id


def check_open(dataflow: Dataflow) -> None:
    """Raise `OneWayError` if orders of the cloud can't reach devices."""
    hop = dataflow.first_one_way_hop
    if hop is not None:
        raise OneWayError(
            f"an order can't pass arrow {hop + 1} of `{dataflow.notation}`: it is `~>`, forward only. "
            "Write `<~>` there."
        )


class _FailedError(Exception):
    """An order stops here: it failed, or was filtered."""
