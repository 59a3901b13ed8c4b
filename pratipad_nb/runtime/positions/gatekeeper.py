"""The gatekeeper: which messages of a delivery are new, which are repeats, and which are missing.

Owns checking and admitting frames, and the counts of each device. Where deliveries come from is for `inputs`; what is
done with admitted messages is for `pipeline`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from pratipad_nb.errors import FrameError, TransportError, WaitTimeout
from pratipad_nb.runtime.positions.inputs import Input
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.runtime.values.batch import InputFrame
from pratipad_nb.runtime.values.metrics import InFlight
from pratipad_nb.transport.codec import decode_plain
from pratipad_nb.transport.frames import Position, decode_uplink, new_epoch
from pratipad_nb.transport.protocol import Delivery
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Admitted", "DeviceCount", "Gatekeeper", "Tap"]

log = logging.getLogger(__name__)

#: Is told of what is admitted: device, its times, when the server got it, payloads.
Tap = Callable[[str, list[float], float, list[Any]], None]

#: So many devices of one gateway are counted, at most a frame's length more: more would be memory without a bound.
_MOST_SOURCES = 50_000
#: How often a gap is looked at anew before what is missing is held to be gone. Once isn't enough: when a leaf's link has
#: been cut, nats-server 2.15 was seen to bring what isn't acknowledged back out of order.
_REWINDS = 10


@dataclass(slots=True)
class DeviceCount:
    """What came in from one device."""

    received: int = 0
    gaps: int = 0
    repeats: int = 0
    #: Devices that speak through it, if it is a gateway; the first `_MOST_SOURCES` of them.
    sources: set[str] = field(default_factory=set)

    def note_sources(self, sources: Sequence[str]) -> None:
        """Count the devices that a gateway speaks for."""
        if len(self.sources) < _MOST_SOURCES:
            self.sources.update(sources)


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a delivery came to: a frame with new messages and their payloads."""

    frame: InputFrame
    payloads: list[Any]


@dataclass(slots=True)
class Gatekeeper:
    """Decides what of each delivery is new.

    Attributes
    ----------
    stored
        Positions whose results are at Output: a repeat up to there is acknowledged at once.
    accepted
        Positions that were taken in: a repeat up to there is dropped without a word, for the first one, still being
        worked on, will be acknowledged.
    on_malformed
        Takes over a delivery that is malformed, with the reason.
    on_arrival
        Told of the last message of every frame that is admitted: device, epoch, number.
    in_flight
        Counts what is admitted.
    """

    subjects: Subjects
    input: Input
    stored: Positions
    durable: bool
    on_malformed: Callable[[Delivery, FrameError], Awaitable[None]]
    on_arrival: Callable[[str, int, int], None] = lambda *_: None
    in_flight: InFlight = field(default_factory=InFlight)
    accepted: Positions = field(init=False)
    counts: dict[str, DeviceCount] = field(default_factory=dict)
    received: int = 0
    repeats: int = 0
    missing: int = 0
    malformed: int = 0
    #: Frames that nothing was done about yet, when `look` was called last.
    waiting: int = 0
    #: What was delivered and is to be admitted next.
    arrived: deque[Delivery] = field(default_factory=deque)
    #: Told of all that is admitted: device, its times, when the server got it, payloads (which are not to be changed).
    taps: list[Tap] = field(default_factory=list)
    #: For a device: the epoch and first number behind each of its gaps, and how often that was looked at anew.
    _rewound_for: dict[str, dict[tuple[int, int], int]] = field(default_factory=dict)
    _foreign_number: int = 0
    _waiting_repeats: list[tuple[Position, Delivery]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.accepted = Positions(self.stored.all())
        self._foreign_number = new_epoch()

    async def look(self) -> None:
        """Count anew what waits."""
        self.waiting = await self.input.waiting() + len(self.arrived)

    async def admit(self, delivery: Delivery) -> Admitted | None:
        """Return what is new in `delivery`, None if nothing is (then it is dealt with)."""
        device = self.subjects.device_of(delivery.subject)
        try:
            frame = decode_uplink(delivery.data, self.subjects.flow, device)
            if frame is None:
                return self._foreign(device, delivery)
        except FrameError as error:
            self.malformed += 1
            await self.on_malformed(delivery, error)
            return None
        count = len(frame.payloads)
        admission = self.accepted.admit(device, frame.epoch, frame.first, count)
        tally = self.counts.setdefault(device, DeviceCount())
        if admission.missing and not await self._tolerates(
            device, frame.epoch, frame.first, admission.missing
        ):
            return None
        if admission.skip:
            tally.repeats += admission.skip
            self.repeats += admission.skip
            if admission.skip == count:
                self._settle_repeat((device, frame.epoch, frame.first + count - 1), delivery)
                return None
        new = slice(admission.skip, None)
        sources = frame.sources and [f"{device}.{name}" if name else device for name in frame.sources[new]]
        return self._accept(device, frame.epoch, frame.first + admission.skip, delivery, tally,
                            frame.times[new], frame.payloads[new], sources)  # fmt: skip

    async def _tolerates(self, device: str, epoch: int, first: int, missing: int) -> bool:
        """Decide about a gap before a frame.

        Durable: the frames between were sent into a link that broke, and would come after this one; a rewind brings
        them first. Is the gap there still, then they don't exist (the flow was forgotten while its device went on).
        """
        gaps = self._rewound_for.setdefault(device, {})
        rewound = gaps.get((epoch, first), 0)
        if self.durable and rewound < _REWINDS:
            try:
                await self.input.rewind()
            except (TransportError, WaitTimeout) as error:
                # The link is down again, and after that all is rewound anyway.
                log.info("the input of %s can't be rewound now: %s", device, error)
                return False
            # What has arrived with it is admitted all the same: what is missing may be among it, out of order.
            gaps[epoch, first] = rewound + 1
            return False
        if not self.durable and self.accepted.number(device, epoch) == 0:
            return True  # it was sending before this edge listened: nothing is known to be lost
        log.info("%d messages of %s before number %d are missing", missing, device, first)
        self.counts[device].gaps += missing
        self.missing += missing
        return True

    def _forget_gaps(self, device: str, epoch: int, last: int) -> None:
        """Drop what is known of an epoch's gaps below its message `last`: they are closed, or passed."""
        gaps = self._rewound_for.pop(device, {})
        # Gaps of other epochs stay: of two devices that send under one name, each would begin the other's
        # count anew.
        if left := {gap: count for gap, count in gaps.items() if gap[0] != epoch or gap[1] > last + 1}:
            self._rewound_for[device] = left

    def _foreign(self, device: str, delivery: Delivery) -> Admitted | None:
        """Take plain JSON of a foreign client as one message; its number is where it stands in the log."""
        payload = decode_plain(delivery.data)
        self._foreign_number += 1
        number = delivery.sequence or self._foreign_number
        tally = self.counts.setdefault(device, DeviceCount())
        if self.accepted.number(device, 0) >= number:
            tally.repeats += 1
            self.repeats += 1
            self._settle_repeat((device, 0, number), delivery)
            return None
        return self._accept(device, 0, number, delivery, tally, [delivery.time], [payload])

    def _settle_repeat(self, position: Position, delivery: Delivery) -> None:
        """Acknowledge a repeat at once if its first one is stored, else when it will be."""
        if not self._acknowledge_stored(position, delivery):
            self._waiting_repeats.append((position, delivery))

    def sweep(self) -> None:
        """Acknowledge the repeats whose first one is stored by now, then forget the epochs that are too many.

        Repeats come first, for a repeat of a forgotten epoch would wait for ever. `stored` alone decides
        which epochs are forgotten, and `accepted` follows, so that the two of them tell what is in flight.
        """
        self._waiting_repeats = [
            (position, delivery)
            for position, delivery in self._waiting_repeats
            if not self._acknowledge_stored(position, delivery)
        ]
        self.accepted.drop(self.stored.forget_unused())

    def _acknowledge_stored(self, position: Position, delivery: Delivery) -> bool:
        """Acknowledge a repeat if its first one is stored, and return whether it is."""
        device, epoch, number = position
        stored = self.stored.number(device, epoch) >= number
        if stored:
            self.input.acknowledge(delivery)
        return stored

    def _accept(
        self,
        device: str,
        epoch: int,
        first: int,
        delivery: Delivery,
        tally: DeviceCount,
        times: list[float],
        payloads: list[Any],
        sources: list[str] | None = None,
    ) -> Admitted:
        count = len(payloads)
        self.accepted.advance([(device, epoch, first + count - 1)])
        if device in self._rewound_for:
            self._forget_gaps(device, epoch, first + count - 1)
        tally.received += count
        self.received += count
        self.in_flight.taken += count
        self.on_arrival(device, epoch, first + count - 1)
        if sources:
            tally.note_sources(sources)
        if self.taps:
            self._tap(sources or [device] * count, times, delivery.time, payloads)
        frame = InputFrame(device, epoch, first, delivery.time, times, sources=sources,
                           on_safe=lambda: self.input.acknowledge(delivery))  # fmt: skip
        return Admitted(frame, payloads)

    def _tap(self, devices: Sequence[str], times: list[float], received: float, payloads: list[Any]) -> None:
        """Tell the taps of each run of messages of one device."""
        begin = 0
        for device, run in groupby(devices):
            end = begin + sum(1 for _ in run)
            for tap in self.taps:
                tap(device, times[begin:end], received, payloads[begin:end])
            begin = end
