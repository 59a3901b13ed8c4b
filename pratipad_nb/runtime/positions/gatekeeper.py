"""The gatekeeper: which messages of a delivery are new, which are repeats, and which are missing.

Owns checking and admitting frames, and the counts of each device. Where deliveries come from is for `inputs`;
the way of admitted messages is for `pipeline`.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from pratipad_nb.errors import FrameError, TransportError, WaitTimeout
from pratipad_nb.runtime.positions.inputs import Input, Succession
from pratipad_nb.runtime.positions.malformed import sender_of
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.runtime.positions.rebuilding import Gap, Rebuild
from pratipad_nb.runtime.values.batch import InputFrame, Kind
from pratipad_nb.runtime.values.metrics import InFlight
from pratipad_nb.transport.codec import decode_plain
from pratipad_nb.transport.frames import MAX_MESSAGES, Position, decode_uplink, new_epoch
from pratipad_nb.transport.protocol import Delivery
from pratipad_nb.transport.room import Place, Room
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Admitted", "DeviceCount", "Gatekeeper", "Tap"]

log = logging.getLogger(__name__)

#: Called with every run of admitted messages of one device: its name, the device's times, when the server
#: received the frame, the payloads.
Tap = Callable[[str, list[float], float, list[Any]], None]

#: So many devices of one gateway are counted, and at most a frame's length more: the bound of that memory.
_MOST_SOURCES = 50_000
#: How often the input is rewound for a gap before the missing messages are held to be gone, while deliveries
#: are missing themselves. A single rewind isn't enough: after a cut of a leaf's link, nats-server 2.15 was
#: seen to send unacknowledged frames again out of order.
_REWINDS = 10
#: The memory for messages in flight if there are no `FlowOptions.memory_bytes`.
_MEMORY = 256 << 20


@dataclass(slots=True)
class DeviceCount:
    """The counts of messages that came in from one device."""

    received: int = 0
    gaps: int = 0
    repeats: int = 0
    malformed: int = 0
    #: If the device is a gateway, the devices that speak through it; the first `_MOST_SOURCES` of them.
    sources: set[str] = field(default_factory=set)

    def note_sources(self, sources: Sequence[str]) -> None:
        """Count the devices that a gateway speaks for."""
        if len(self.sources) < _MOST_SOURCES:
            self.sources.update(sources)


@dataclass(frozen=True, slots=True)
class Admitted:
    """Messages of a delivery that are to pass: their frame and their payloads.

    The last `void` of them are not to pass: they were asked of another device since. `kind` is ``"new"``, or
    ``"rebuild"`` if the messages' results are at Output already.
    """

    frame: InputFrame
    payloads: list[Any]
    kind: Kind = "new"
    void: int = 0


@dataclass(frozen=True, slots=True)
class _Arrived:
    """The messages of a delivery, numbered from `first` on.

    `place` is the memory that the messages take. `numbered` says whether the sender numbers its messages
    without a gap; a foreign client doesn't.
    """

    device: str
    epoch: int
    first: int
    delivery: Delivery
    times: list[float]
    payloads: list[Any]
    place: Place
    sources: list[str] | None = None
    numbered: bool = True

    @property
    def last(self) -> int:
        """The number of the last message."""
        return self.first + len(self.payloads) - 1

    @property
    def position(self) -> Position:
        """The position at the last message."""
        return self.device, self.epoch, self.last

    def part(self, begin: int, end: int, on_safe: Callable[[], None]) -> tuple[InputFrame, list[Any]]:
        """Return the frame and the payloads of the messages numbered `begin` … `end`."""
        taken = slice(begin - self.first, end - self.first + 1)
        sources = self.sources and [
            f"{self.device}.{name}" if name else self.device for name in self.sources[taken]
        ]
        frame = InputFrame(self.device, self.epoch, begin, self.delivery.time, self.times[taken],
                           sources=sources, on_safe=on_safe)  # fmt: skip
        return frame, self.payloads[taken]


@dataclass(slots=True)
class Gatekeeper:
    """Decides which messages of each delivery are new.

    The invariant: of each epoch that is kept, the messages up to its position in `accepted` were admitted,
    each once and in the order of their numbers, but for those counted in `missing`. The messages up to its
    position in `stored` are dealt with besides: their results are at Output, or they were filtered or became
    dead letters. Messages between the two positions are in flight. A frame is acknowledged only if all its
    messages lie at or below `stored`.

    It holds for these reasons:

    * A frame holds consecutive numbers, so its repeats are its first messages and the rest is new. A frame
      behind a gap is not admitted while deliveries are missing: the input is rewound, and the frame arrives
      again behind the missing messages. Where no delivery is missing (`Succession`), the missing messages are
      not in the input. No honest device sends them later, for a device sends the next frame once the last is
      stored. So the gap is passed at once and counted, and a device that leaves gaps costs others nothing. In
      fast delivery, and after `_REWINDS` rewinds, a gap is passed, too.
    * One task calls `admit`, and `admit` awaits nothing between the look at `accepted` and its advance. So no
      two deliveries are judged by the same position.
    * The messages of a device stay in order up to Output, so `stored` moves in the order of `accepted` and
      never beyond it. An admitted frame is acknowledged by the writer, once its last message is at Output. A
      delivery with repeats alone is acknowledged once `stored` has reached its last message, at once or in
      `sweep`: a repeat says nothing about whether its original is safe.
    * `stored` alone decides which epochs are forgotten. `accepted` forgets the same epochs, except epochs
      with messages in flight, for a repeat of such a message would be admitted a second time.

    Beside these, messages that a restored state lacks (see `rebuilding`) are admitted a second time, in the
    order of their numbers, and as messages of a kind of their own: they count nowhere and complete no
    position. While the input is set back, an entry that an earlier run has acknowledged brings no others.

    Attributes
    ----------
    stored
        Positions whose results are at Output: a repeat of a message up to there is acknowledged at once.
    accepted
        Positions of the admitted messages: a repeat of a message beyond `stored` and up to there is dropped,
        and its delivery acknowledged when the original is at Output.
    on_malformed
        Called with a malformed delivery, and the reason; it acknowledges the delivery.
    on_arrival
        Called with the last message of every admitted frame: device, epoch, number.
    void
        Returns how many messages of a frame, the last ones, are not to pass: device, epoch, first and last
        number.
    most_in_flight
        Returns how many messages may be in flight; None for any number.
    in_flight
        Counts the messages that are admitted.
    rebuild
        The messages at Output that the restored states lack.
    room
        The memory for messages in flight.
    """

    subjects: Subjects
    input: Input
    stored: Positions
    durable: bool
    on_malformed: Callable[[Delivery, FrameError], Awaitable[None]]
    on_arrival: Callable[[str, int, int], None] = lambda *_: None
    in_flight: InFlight = field(default_factory=InFlight)
    void: Callable[[str, int, int, int], int] = lambda *_: 0
    most_in_flight: Callable[[], int | None] = lambda: None
    rebuild: Rebuild = field(default_factory=lambda: Rebuild("", {}, Positions()))
    room: Room = field(default_factory=lambda: Room(_MEMORY))
    accepted: Positions = field(init=False)
    counts: dict[str, DeviceCount] = field(default_factory=dict)
    received: int = 0
    repeats: int = 0
    missing: int = 0
    malformed: int = 0
    #: Frames that had arrived and were not admitted when `look` was called last.
    waiting: int = 0
    #: Deliveries to be admitted next.
    arrived: deque[Delivery] = field(default_factory=deque)
    #: Whether every delivery has arrived that was sent before the newest.
    succession: Succession = field(default_factory=Succession)
    #: Called with all admitted messages; the payloads are not to be changed.
    taps: list[Tap] = field(default_factory=list)
    #: For each device: the epoch and the first number behind each of its gaps, and how often the input was
    #: rewound for that gap.
    _rewound_for: dict[str, dict[tuple[int, int], int]] = field(default_factory=dict)
    _foreign_number: int = 0
    #: The delivery that `_is_demanded` was asked about last, and its messages.
    _ahead: tuple[Delivery, _Arrived] | None = None
    #: The memory that those deliveries in `arrived` take that had to wait, by their `id`.
    _places: dict[int, Place] = field(default_factory=dict)
    _waiting_repeats: list[tuple[Position, Delivery]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.accepted = Positions(self.stored.all())
        self._foreign_number = new_epoch()

    async def look(self) -> None:
        """Count anew the frames that wait."""
        self.waiting = await self.input.waiting() + len(self.arrived)

    @property
    def emptied(self) -> bool:
        """Whether the last `look` has found that all messages are admitted that were stored before it."""
        return not self.waiting and (self.succession.whole or not self.durable)

    def take(self, deliveries: Iterable[Delivery]) -> None:
        """Add `deliveries`, which have just come, to those that have `arrived`."""
        for delivery in deliveries:
            self.succession.note(delivery)
            self.arrived.append(delivery)

    def next(self) -> Delivery | None:
        """Take the first delivery of `arrived` whose messages may be in flight besides those that are.

        Return None if there is no such delivery. A delivery that takes too much memory keeps back the later
        deliveries of its device, and no others.
        """
        kept_back: set[str] = set()
        for at, delivery in enumerate(self.arrived):
            device = sender_of(delivery)
            if device in kept_back:
                continue
            if not self._fits(device, delivery):
                kept_back.add(device)
                continue
            if not self._is_demanded(delivery):
                return None
            del self.arrived[at]
            return delivery
        return None

    def _fits(self, device: str, delivery: Delivery) -> bool:
        """Return whether there is memory for the messages of `delivery`, which aren't decoded for that."""
        place = self._places.get(id(delivery)) or Place.of(device, delivery.data)
        try:
            fits = self.room.fits(place)
        except FrameError:
            return True  # `admit` puts the delivery aside
        self._places[id(delivery)] = place
        return fits

    def _is_demanded(self, delivery: Delivery) -> bool:
        """Return whether no more messages are in flight than `most_in_flight` with those of `delivery`."""
        most, count = self.most_in_flight(), self.in_flight.count
        if most is None or not count:
            return True
        if most - count >= MAX_MESSAGES:
            return True
        try:
            frame = self._arrived(delivery)
        except FrameError:
            return True
        self._ahead = delivery, frame
        return count + len(frame.payloads) <= most

    async def admit(self, delivery: Delivery) -> Admitted | None:
        """Return the new messages of `delivery`; None if there are none, and the delivery is dealt with.

        Messages that rebuild a state are returned first; `arrived` then begins with the same delivery, for
        the messages behind them.
        """
        again = self.rebuild.comes_again(delivery.sequence)
        try:
            frame = self._arrived(delivery)
        except FrameError as error:
            if again:  # an earlier run has stored it
                self.input.acknowledge(delivery)
            else:
                await self._refuse(delivery, error)
            return None
        device = frame.device
        gap = self.rebuild.gaps.get((device, frame.epoch)) if self.rebuild.going else None
        if gap is not None and gap.seen < min(frame.last, gap.until):
            return await self._rebuilds(frame, gap)
        if again and not self._is_lost(frame):
            self._settle_repeat(frame.position, delivery)
            return None
        admission = self.accepted.admit(device, frame.epoch, frame.first, len(frame.payloads))
        tally = self.counts.setdefault(device, DeviceCount())
        if admission.missing and frame.numbered and not await self._tolerates(frame, admission.missing):
            return None
        if admission.skip:
            tally.repeats += admission.skip
            self.repeats += admission.skip
            if admission.skip == len(frame.payloads):
                self._settle_repeat(frame.position, delivery)
                return None
        return self._accept(frame, frame.first + admission.skip, tally)

    async def _refuse(self, delivery: Delivery, error: FrameError) -> None:
        """Count a malformed delivery, and put it aside."""
        self.malformed += 1
        with contextlib.suppress(FrameError):  # its subject names no device
            device = self.subjects.device_of(delivery.subject)
            self.counts.setdefault(device, DeviceCount()).malformed += 1
        await self.on_malformed(delivery, error)

    def _is_lost(self, frame: _Arrived) -> bool:
        """Return whether the output lost the results of `frame`, which an earlier run has acknowledged.

        The output went back then, as after a power cut, and the input did not. The position of an epoch that
        was forgotten says nothing.
        """
        return 0 < self.accepted.number(frame.device, frame.epoch) < frame.last

    def _arrived(self, delivery: Delivery) -> _Arrived:
        """Return the messages of `delivery`; the plain JSON of a foreign client is one message.

        The number of such a message is its sequence in the log.
        """
        place = self._places.pop(id(delivery), None)
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] is delivery:
            return ahead[1]
        device = self.subjects.device_of(delivery.subject)
        if place is None:
            place = Place.of(device, delivery.data)
        frame = decode_uplink(delivery.data, self.subjects.flow, device)
        if frame is not None:
            return _Arrived(
                device, frame.epoch, frame.first, delivery, frame.times, frame.payloads, place, frame.sources
            )
        payload = decode_plain(delivery.data)
        self._foreign_number += 1
        number = delivery.sequence or self._foreign_number
        return _Arrived(device, 0, number, delivery, [delivery.time], [payload], place, numbered=False)

    async def _rebuilds(self, frame: _Arrived, gap: Gap) -> Admitted | None:
        """Admit the messages of `frame` that lie in `gap`; none if the input was rewound for others."""
        missing, beyond = frame.first - gap.seen - 1, frame.first > gap.until
        if missing > 0 and (frame.numbered or beyond):
            if not await self._tolerates(frame, missing, counted=False):
                return None
            if beyond:
                self.rebuild.give_up((frame.device, frame.epoch))
                self.arrived.appendleft(frame.delivery)
                return None
        begin, gap.seen = max(frame.first, gap.seen + 1), min(frame.last, gap.until)
        whole = gap.seen == frame.last
        if not whole:
            self.arrived.appendleft(frame.delivery)
        self._forget_gaps(frame.device, frame.epoch, gap.seen)
        self.in_flight.taken += gap.seen - begin + 1
        return Admitted(*frame.part(begin, gap.seen, self._taken(frame, whole=whole)), "rebuild")

    def _taken(self, frame: _Arrived, *, whole: bool = True) -> Callable[[], None]:
        """Count the memory of `frame`, and return what is to be called once the messages are done with.

        `whole`: the delivery is acknowledged then.
        """
        place, delivery = frame.place, frame.delivery
        self.room.take(place, frame.payloads)

        def done_with() -> None:
            self.room.release(place)
            if whole:
                self.input.acknowledge(delivery)

        return done_with

    async def _tolerates(self, frame: _Arrived, missing: int, *, counted: bool = True) -> bool:
        """Return whether a frame behind a gap may be admitted, and count the gap if so.

        In durable delivery, if deliveries are missing, the missing frames were sent into a link that broke,
        and would arrive after this frame; a rewind of the input brings them first. If no delivery is missing,
        or the gap is still there after `_REWINDS` rewinds, the missing frames don't exist (the flow was
        forgotten while its device went on, or the device had to drop messages).
        """
        device, epoch, first = frame.device, frame.epoch, frame.first
        gaps = self._rewound_for.get(device, {})
        rewound = gaps.get((epoch, first), 0)
        if self.durable and not self.succession.whole_up_to(frame.delivery) and rewound < _REWINDS:
            if self.succession.comes_again(frame.delivery):
                return False
            try:
                await self.input.rewind()
            except (TransportError, WaitTimeout) as error:
                # The link is down again. After its return, all deliveries are sent again anyway.
                log.info("the input of %s can't be rewound now: %s", device, error)
                return False
            # Deliveries that have arrived with this one are admitted all the same: the missing frames may be
            # among them, out of order.
            self.succession.rewound(frame.delivery)
            self._rewound_for.setdefault(device, gaps)[epoch, first] = rewound + 1
            return False
        if not self.durable and self.accepted.number(device, epoch) == 0:
            return True  # the device was sending before this edge listened: no message is known to be lost
        if not counted:  # an earlier run has passed the gap
            return True
        log.info("%d messages of %s before number %d are missing", missing, device, first)
        self.counts[device].gaps += missing
        self.missing += missing
        return True

    def _forget_gaps(self, device: str, epoch: int, last: int) -> None:
        """Forget an epoch's gaps below its message `last`: these gaps are closed, or passed."""
        if device not in self._rewound_for:
            return
        gaps = self._rewound_for.pop(device)
        # Gaps of other epochs stay. Of two devices that send under one name, each would otherwise begin the
        # other's count of rewinds anew.
        if left := {gap: count for gap, count in gaps.items() if gap[0] != epoch or gap[1] > last + 1}:
            self._rewound_for[device] = left

    def _settle_repeat(self, position: Position, delivery: Delivery) -> None:
        """Acknowledge a repeat: at once if the original is at Output, else in a later `sweep`."""
        if not self._acknowledge_stored(position, delivery):
            self._waiting_repeats.append((position, delivery))

    def sweep(self) -> None:
        """Acknowledge the repeats whose originals are at Output by now, then forget epochs beyond the limit.

        Repeats come first, for a repeat of a forgotten epoch would wait for ever. `accepted` forgets the
        epochs that `stored` has forgotten, so that the difference of the two is the messages in flight.
        """
        self._waiting_repeats = [
            (position, delivery)
            for position, delivery in self._waiting_repeats
            if not self._acknowledge_stored(position, delivery)
        ]
        self.accepted.drop(self.stored.forget_unused())

    def _acknowledge_stored(self, position: Position, delivery: Delivery) -> bool:
        """Acknowledge a repeat if the original is at Output, and every state has it; return whether so."""
        device, epoch, number = position
        stored = self.stored.number(device, epoch) >= number or self.rebuild.comes_again(delivery.sequence)
        if not stored or not self.rebuild.has_passed(device, epoch, number):
            return False
        self.input.acknowledge(delivery)
        return True

    def _accept(self, frame: _Arrived, first: int, tally: DeviceCount) -> Admitted:
        """Admit the messages of `frame` from number `first` on."""
        device, epoch, last = frame.device, frame.epoch, frame.last
        count = last - first + 1
        void = self.void(device, epoch, first, last)
        self.accepted.advance([frame.position])
        self._forget_gaps(device, epoch, last)
        tally.received += count
        self.received += count
        self.in_flight.taken += count
        self.on_arrival(device, epoch, last)
        admitted = Admitted(*frame.part(first, last, self._taken(frame)), void=void)
        sources = admitted.frame.sources
        if sources:
            tally.note_sources(sources)
        if self.taps:
            self._tap(sources or [device] * count, admitted)
        return admitted

    def _tap(self, devices: Sequence[str], admitted: Admitted) -> None:
        """Call the taps with each run of messages of one device."""
        times, received, payloads = admitted.frame.times, admitted.frame.received, admitted.payloads
        begin = 0
        for device, run in groupby(devices):
            end = begin + sum(1 for _ in run)
            for tap in self.taps:
                tap(device, list(times[begin:end]), received, payloads[begin:end])
            begin = end
