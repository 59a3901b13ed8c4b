"""Arriving frames: repeats are dropped, gaps rewound for, malformed frames told; JSON is a message."""

from __future__ import annotations

import pytest

from pratipad_nb.errors import WaitTimeout
from pratipad_nb.runtime.positions.gatekeeper import Gatekeeper
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.runtime.positions.rebuilding import Rebuild
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import UplinkFrame
from pratipad_nb.transport.protocol import Delivery
from pratipad_nb.transport.subjects import Subjects


class Seen:
    """An input that notes what it is told."""

    def __init__(self):
        self.acknowledged, self.rewinds, self.down = [], 0, False

    def acknowledge(self, delivery):
        self.acknowledged.append(delivery.sequence)

    async def rewind(self):
        if self.down:
            raise WaitTimeout("the link went down")
        self.rewinds += 1

    async def waiting(self):
        return 5


class Door:
    def __init__(self, *stored, durable=True):
        self.input, self.bad = Seen(), []
        self.gate = Gatekeeper(
            Subjects("house"),
            self.input,
            Positions(stored),
            durable,
            self._malformed,
        )
        self.sequence = 0

    async def _malformed(self, delivery, error):
        self.bad.append((delivery.sequence, str(error)))

    async def come(self, first, count, *, device="room1", epoch=7, flow="house"):
        payloads = list(range(first, first + count))
        frame = encode(UplinkFrame(flow, device, epoch, first, [1.0] * count, payloads))
        return await self.raw(frame, device)

    async def raw(self, data, device="room1"):
        self.sequence += 1
        admitted = await self.gate.admit(Delivery(f"pratipad.house.up.{device}", data, self.sequence, 2.0))
        return admitted and admitted.payloads


async def test_what_is_new_is_let_in_and_counted():
    door = Door()
    assert await door.come(1, 3) == [1, 2, 3]
    assert await door.come(4, 2) == [4, 5]
    assert (door.gate.received, door.gate.counts["room1"].received) == (5, 5)


async def test_what_waits_is_what_the_input_has_and_what_is_here_and_not_admitted():
    door = Door()
    door.gate.arrived.append(Delivery("pratipad.house.up.room1", b"", 1, 2.0))
    await door.gate.look()
    assert door.gate.waiting == 6


async def test_a_repeat_of_what_is_stored_is_acknowledged_at_once():
    door = Door(("room1", 7, 5))
    assert await door.come(1, 5) is None
    assert door.input.acknowledged == [1]
    assert door.gate.repeats == 5


async def test_a_repeat_that_comes_while_many_wait_costs_no_more_than_the_first():
    class Counting(Positions):
        asked = 0

        def number(self, device, epoch):
            self.asked += 1
            return super().number(device, epoch)

    door = Door()
    await door.come(1, 100)
    door.gate.stored = Counting()
    for _ in range(1000):
        assert await door.come(1, 100) is None
    assert door.gate.stored.asked == 1000
    door.gate.stored.advance([("room1", 7, 100)])
    door.gate.sweep()
    assert len(door.input.acknowledged) == 1000


async def test_of_a_frame_that_came_in_part_before_the_rest_is_let_in():
    door = Door(("room1", 7, 2))
    assert await door.come(1, 5) == [3, 4, 5]
    assert door.gate.repeats == 2


async def test_a_repeat_of_what_is_still_worked_on_is_acknowledged_once_that_is_stored():
    door = Door()
    await door.come(1, 3)
    assert await door.come(1, 3) is None
    assert door.input.acknowledged == []
    door.gate.stored.advance([("room1", 7, 2)])
    door.gate.sweep()
    assert door.input.acknowledged == []
    door.gate.stored.advance([("room1", 7, 3)])
    door.gate.sweep()
    assert door.input.acknowledged == [2]


async def test_before_a_gap_the_input_is_rewound_and_what_was_missing_comes_first():
    door = Door()
    await door.come(1, 2)
    assert await door.come(5, 2) is None
    assert door.input.rewinds == 1
    assert await door.come(3, 2) == [3, 4]
    assert await door.come(5, 2) == [5, 6]
    assert door.gate.missing == 0


async def test_a_link_that_goes_down_during_a_rewind_ends_nothing_and_the_rewind_is_made_when_it_is_back():
    door = Door()
    door.input.down = True
    assert await door.come(4, 2) is None
    door.input.down = False
    for first in (4, 1, 4):
        await door.come(first, 3 if first == 1 else 2)
    assert (door.gate.received, door.gate.missing, door.input.rewinds) == (5, 0, 1)


async def test_gaps_that_are_closed_are_forgotten():
    door = Door()
    for first in (9, 5, 1, 5, 9):
        await door.come(first, 4)
    assert (door.gate.received, door.gate.missing) == (12, 0)
    assert door.gate._rewound_for == {}


async def test_what_was_missing_may_come_after_several_rewinds_in_which_others_overtook_it():
    door = Door()
    await door.come(1, 2)
    for _ in range(3):
        assert await door.come(7, 2) is None
        assert await door.come(5, 2) is None
    assert await door.come(3, 2) == [3, 4]
    assert await door.come(5, 2) == [5, 6]
    assert await door.come(7, 2) == [7, 8]
    assert (door.gate.missing, door.input.rewinds) == (0, 6)


async def test_a_gap_that_is_there_after_many_rewinds_is_counted_and_passed():
    door = Door()
    await door.come(1, 2)
    admitted = None
    while admitted is None:
        admitted = await door.come(5, 2)
    assert admitted == [5, 6]
    assert (door.gate.missing, door.gate.counts["room1"].gaps, door.input.rewinds) == (2, 2, 10)


async def test_in_fast_delivery_a_gap_is_counted_at_once():
    door = Door(durable=False)
    await door.come(1, 2)
    assert await door.come(5, 2) == [5, 6]
    assert (door.gate.missing, door.input.rewinds) == (2, 0)


async def test_in_fast_delivery_what_was_sent_before_anybody_listened_is_not_called_missing():
    door = Door(durable=False)
    assert await door.come(100, 2) == [100, 101]
    assert door.gate.missing == 0


async def test_a_device_that_starts_again_begins_at_one():
    door = Door()
    await door.come(1, 5, epoch=7)
    assert await door.come(1, 2, epoch=8) == [1, 2]


async def test_of_starts_without_end_each_message_is_let_in_once_and_their_repeats_are_acknowledged():
    door = Door()
    for epoch in range(3000, 0, -1):
        assert await door.come(1, 2, epoch=epoch) == [1, 2]
        assert await door.come(1, 2, epoch=epoch) is None
        assert await door.come(3, 1, epoch=epoch) == [3]
        door.gate.stored.advance([("room1", epoch, 3)])
        door.gate.sweep()
    assert door.input.acknowledged == [3 * start + 2 for start in range(3000)]
    assert (door.gate.missing, door.input.rewinds) == (0, 0)
    assert door.gate.accepted == door.gate.stored
    assert len(door.gate.stored.all()) == 1024


async def test_an_epoch_in_flight_is_not_forgotten_with_what_is_stored():
    door = Door()
    await door.come(1, 2, epoch=7)
    door.gate.stored.advance([("room1", 7, 1)])
    for epoch in range(100, 1200):
        await door.come(1, 1, epoch=epoch)
        door.gate.stored.advance([("room1", epoch, 1)])
        door.gate.sweep()
    assert door.gate.stored.number("room1", 7) == 0
    assert await door.come(1, 2, epoch=7) is None


async def test_a_repeat_of_an_epoch_that_is_forgotten_with_the_same_frame_is_acknowledged_all_the_same():
    door = Door()
    await door.come(1, 1, epoch=7)
    await door.come(1, 1, epoch=7)
    for epoch in range(100, 1200):
        await door.come(1, 1, epoch=epoch)
    door.gate.stored.advance([("room1", epoch, 1) for epoch in (7, *range(100, 1200))])
    door.gate.sweep()
    assert door.gate.stored.number("room1", 7) == 0
    assert door.input.acknowledged == [2]


async def test_a_gap_of_one_start_is_passed_while_another_start_of_the_name_sends_on():
    door = Door()
    await door.come(1, 2, epoch=7)
    other, admitted = 0, None
    while admitted is None and other < 50:
        other += 1
        await door.come(other, 1, epoch=8)
        admitted = await door.come(5, 2, epoch=7)
    assert admitted == [5, 6]
    assert (door.gate.missing, door.input.rewinds) == (2, 10)


async def test_a_name_that_python_used_first_and_mqtt_next_is_let_in_once():
    door = Door()
    for epoch in range(10, 30):
        await door.come(1, 1, epoch=epoch)
    for _ in range(3):
        assert await door.raw(b'{"t": 21}') == [{"t": 21}]
        door.sequence -= 1
        assert await door.raw(b'{"t": 21}') is None


@pytest.mark.parametrize("data", [b"", b"\xff\x00", b"PNB\x00\x93", b"PNB\x01\xff\xff\xff\xff\xff", b"NaN"])
async def test_what_is_no_frame_is_told_and_stops_nothing(data):
    door = Door()
    assert await door.raw(data) is None
    assert [sequence for sequence, _ in door.bad] == [1]
    assert await door.come(1, 1) == [1]
    assert door.gate.malformed == 1


@pytest.mark.parametrize("claim", [{"device": "room2"}, {"flow": "other"}])
async def test_who_claims_to_be_somebody_else_is_not_believed(claim):
    door = Door()
    frame = encode(
        UplinkFrame(
            **{"flow": "house", "device": "room1"} | claim, epoch=7, first=1, times=[1.0], payloads=[1]
        )
    )
    assert await door.raw(frame) is None
    assert len(door.bad) == 1


async def test_plain_json_is_one_message_and_its_repeat_from_the_log_is_dropped():
    door = Door()
    assert await door.raw(b'{"t": 21}') == [{"t": 21}]
    door.sequence -= 1
    assert await door.raw(b'{"t": 21}') is None
    assert await door.raw(b'{"t": 21}') == [{"t": 21}]


async def test_taps_hear_what_is_let_in_and_no_repeats():
    door, heard = Door(("room1", 7, 2)), []
    door.gate.taps.append(lambda device, times, received, payloads: heard.append((device, payloads)))
    await door.come(1, 4)
    assert heard == [("room1", [3, 4])]


async def test_what_an_earlier_run_has_acknowledged_is_new_if_the_output_lost_its_results():
    door = Door(("room1", 7, 2))
    door.gate.rebuild = Rebuild("house", {}, door.gate.stored, floor=3, last=9)
    assert await door.come(1, 2) is None
    assert await door.come(3, 2) == [3, 4]
    assert await door.come(1, 9, epoch=8) is None  # an epoch that may have been forgotten
    assert await door.come(5, 1) == [5]
    assert door.input.acknowledged == [1, 3]
