"""Arriving frames: repeats are dropped, gaps rewound for, malformed frames told; JSON is a message."""

from __future__ import annotations

import pytest

from pratipad_nb.errors import WaitTimeout
from pratipad_nb.runtime.positions.gatekeeper import Gatekeeper
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.runtime.positions.rebuilding import Rebuild
from pratipad_nb.transport.codec import MAGIC, encode
from pratipad_nb.transport.frames import UplinkFrame
from pratipad_nb.transport.protocol import Delivery
from pratipad_nb.transport.room import Room
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
        #: The number of the next delivery as the consumer counts; 0: the consumer doesn't count.
        self.number = self.series = 0

    async def _malformed(self, delivery, error):
        self.bad.append((delivery.sequence, str(error)))

    async def come(self, first, count, *, device="room1", epoch=7, flow="house"):
        admitted = await self.admitted(first, count, device=device, epoch=epoch, flow=flow)
        return admitted and admitted.payloads

    async def kind(self, first, count):
        admitted = await self.admitted(first, count)
        return admitted and (admitted.payloads, admitted.kind)

    async def admitted(self, first, count, *, device="room1", epoch=7, flow="house"):
        payloads = list(range(first, first + count))
        frame = encode(UplinkFrame(flow, device, epoch, first, [1.0] * count, payloads))
        return await self.delivered(frame, device)

    async def raw(self, data, device="room1"):
        admitted = await self.delivered(data, device)
        return admitted and admitted.payloads

    async def delivered(self, data, device="room1"):
        self.sequence += 1
        delivery = Delivery(
            f"pratipad.house.up.{device}",
            data,
            self.sequence,
            2.0,
            number=self.number,
            series=self.series,
        )
        self.number += self.number > 0
        self.gate.take([delivery])
        return await self.gate.admit(self.gate.arrived.pop())

    def rewound(self):
        """Have the consumer count its deliveries anew."""
        self.number, self.series = 1, self.series + 1


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


async def test_a_gap_in_deliveries_of_which_none_is_missing_is_counted_and_passed_at_once():
    door = Door()
    door.rewound()
    await door.come(1, 2)
    assert await door.come(5, 2) == [5, 6]
    assert await door.come(9, 2, epoch=8) == [9, 10]
    assert (door.gate.missing, door.gate.counts["room1"].gaps, door.input.rewinds) == (10, 10, 0)


async def test_before_a_gap_in_deliveries_of_which_one_is_missing_the_input_is_rewound():
    door = Door()
    door.rewound()
    await door.come(1, 2)
    door.number += 1  # lost on the way, with messages 3 and 4
    assert await door.come(5, 2) is None
    assert door.input.rewinds == 1
    door.rewound()
    assert await door.come(3, 2) == [3, 4]
    assert await door.come(5, 2) == [5, 6]
    assert (door.gate.missing, door.input.rewinds) == (0, 1)


async def test_one_rewind_serves_all_gaps_of_all_devices_that_came_before_it():
    door = Door()
    door.rewound()
    await door.come(1, 2)
    door.number += 1
    for first in range(10, 5000, 10):
        assert await door.come(first, 1, device="hostile") is None
    assert await door.come(5, 2) is None
    assert door.input.rewinds == 1
    door.number += 1  # and once more
    assert await door.come(7, 2) is None
    assert door.input.rewinds == 1
    door.rewound()
    assert await door.come(3, 2) == [3, 4]
    door.number += 1
    assert await door.come(7, 2) is None
    assert door.input.rewinds == 2


async def test_the_first_deliveries_after_a_rewind_may_be_missing_too():
    door = Door()
    door.rewound()
    await door.come(1, 2)
    door.rewound()
    door.number += 1  # the new number is the next of the old series
    assert await door.come(5, 2) is None
    assert door.input.rewinds == 1


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


def rebuilding(states, stored, *, floor=10, last=20):
    """Return a door behind which states are rebuilt that stand at `states`, as positions of epoch 7."""
    door = Door(*((device, 7, number) for device, number in stored.items()))
    behind = {(device, 7): number for device, number in states.items()}
    door.gate.rebuild = door.rebuild = Rebuild("house", behind, door.gate.stored, floor=floor, last=last)
    return door


class TestStateThatIsRebuilt:
    async def test_what_it_lacks_comes_again_and_what_it_has_and_what_is_new_do_not_mix(self):
        door = rebuilding({"room1": 2}, {"room1": 4}, floor=0)
        admitted = await door.kind(1, 6)
        assert admitted == ([3, 4], "rebuild")
        assert door.input.acknowledged == []
        again = await door.gate.admit(door.gate.arrived.popleft())
        assert (again.payloads, again.kind, again.frame.first) == ([5, 6], "new", 5)
        assert not door.gate.arrived

    async def test_it_is_not_counted_again(self):
        door = rebuilding({"room1": 0}, {"room1": 4})
        taps, arrivals = [], []
        door.gate.taps.append(lambda *tapped: taps.append(tapped))
        door.gate.on_arrival = lambda *arrival: arrivals.append(arrival)
        assert await door.kind(1, 4) == ([1, 2, 3, 4], "rebuild")
        door.rebuild.passed([("room1", 7, 4)])
        assert await door.kind(1, 4) is None
        gate = door.gate
        assert (gate.received, gate.repeats, gate.missing, gate.counts, taps, arrivals) == (
            0,
            0,
            0,
            {},
            [],
            [],
        )
        assert gate.in_flight.taken == 4  # but it is in flight

    async def test_a_frame_is_acknowledged_once_it_has_passed(self):
        door = rebuilding({"room1": 0}, {"room1": 4})
        admitted = await door.admitted(1, 4)
        assert door.input.acknowledged == []
        admitted.frame.on_safe()
        assert door.input.acknowledged == [1]

    async def test_a_repeat_of_what_is_yet_to_pass_waits(self):
        door = rebuilding({"room1": 0}, {"room1": 4}, floor=0)
        await door.kind(1, 4)
        assert await door.kind(1, 4) is None  # the input was rewound
        door.gate.sweep()
        assert door.input.acknowledged == []
        door.rebuild.passed([("room1", 7, 4)])
        door.gate.sweep()
        assert door.input.acknowledged == [2]

    async def test_what_it_has_already_is_acknowledged_at_once(self):
        door = rebuilding({"room1": 4}, {"room1": 8})
        assert await door.kind(1, 4) is None
        assert door.input.acknowledged == [1]

    async def test_a_message_of_a_foreign_client_comes_again_though_its_numbers_jump(self):
        door = Door(("plain", 0, 9))
        door.gate.rebuild = Rebuild("house", {("plain", 0): 2}, door.gate.stored, floor=9, last=20)
        door.sequence = 2
        kinds = []
        for text in ("3", "4"):
            admitted = await door.delivered(text.encode(), "plain")
            kinds.append((admitted.payloads, admitted.kind))
        door.sequence = 9
        admitted = await door.delivered(b"10", "plain")
        assert kinds == [([3], "rebuild"), ([4], "rebuild")]
        assert admitted is None
        assert door.input.rewinds == 1  # number 9 hasn't come: the delivery is out of order

    async def test_a_gateways_messages_come_again_as_those_of_its_devices(self):
        door = rebuilding({"hall": 1}, {"hall": 2})
        frame = UplinkFrame("house", "hall", 7, 1, [1.0] * 2, [1, 2], ["a", "b"])
        admitted = await door.delivered(encode(frame), "hall")
        assert (admitted.kind, admitted.frame.sources) == ("rebuild", ["hall.b"])

    async def test_what_was_malformed_is_not_stored_again(self):
        door = rebuilding({}, {}, floor=1)
        assert await door.raw(MAGIC + b"no frame") is None
        assert (door.bad, door.input.acknowledged) == ([], [1])
        await door.raw(MAGIC + b"no frame")  # behind what was acknowledged
        assert [sequence for sequence, _ in door.bad] == [2]

    async def test_an_acknowledged_frame_of_a_forgotten_epoch_is_not_new(self):
        door = rebuilding({}, {}, floor=1)
        assert await door.come(1, 3, epoch=99) is None
        assert (door.input.acknowledged, door.gate.repeats) == ([1], 0)
        assert (
            await door.come(4, 3, epoch=99) is None
        )  # behind the floor: the device's messages 1 to 3 are missing
        assert door.input.rewinds == 1

    async def test_a_gap_is_rewound_for_and_passed_without_counting_it(self):
        door = rebuilding({"room1": 2}, {"room1": 8})
        for _ in range(10):
            assert await door.kind(5, 2) is None
        assert await door.kind(5, 2) == ([5, 6], "rebuild")
        assert (door.input.rewinds, door.gate.missing) == (10, 0)

    async def test_new_messages_wait_for_those_that_come_again(self):
        door = rebuilding({"room1": 2}, {"room1": 4}, floor=0)
        assert await door.kind(5, 2) is None
        assert door.input.rewinds == 1
        assert await door.kind(3, 2) == ([3, 4], "rebuild")
        assert await door.kind(5, 2) == ([5, 6], "new")

    async def test_new_messages_pass_in_the_end_though_those_before_are_gone(self, caplog):
        door = rebuilding({"room1": 2}, {"room1": 4}, floor=0)
        for _ in range(10):
            assert await door.kind(5, 2) is None
        assert await door.kind(5, 2) is None
        assert (await door.gate.admit(door.gate.arrived.popleft())).payloads == [5, 6]
        assert "2 messages of room1 are gone from the input" in caplog.text
        assert not door.rebuild.going


async def test_what_an_earlier_run_has_acknowledged_is_new_if_the_output_lost_its_results():
    door = Door(("room1", 7, 2))
    door.gate.rebuild = Rebuild("house", {}, door.gate.stored, floor=3, last=9)
    assert await door.come(1, 2) is None
    assert await door.come(3, 2) == [3, 4]
    assert await door.come(1, 9, epoch=8) is None  # an epoch that may have been forgotten
    assert await door.come(5, 1) == [5]
    assert door.input.acknowledged == [1, 3]


def packed(*payloads, first=1, device="room1"):
    return encode(UplinkFrame("house", device, 7, first, [1.0] * len(payloads), list(payloads)))


def arriving(door, *frames):
    for device, data in frames:
        door.sequence += 1
        door.gate.take([Delivery(f"pratipad.house.up.{device}", data, door.sequence, 2.0)])


async def let_in(door):
    """Admit the frames for which there is memory, and return them."""
    admitted = []
    while (delivery := door.gate.next()) is not None:
        found = await door.gate.admit(delivery)
        if found is not None:
            admitted.append(found.frame)
    return admitted


async def test_a_device_without_memory_keeps_back_its_own_frames_in_order_and_no_others():
    door = Door()
    door.gate.room = Room(1 << 20)
    large = [0.5] * 6_000
    frames = [("greedy", packed(large, first=number, device="greedy")) for number in (1, 2)]
    frames += [("greedy", packed(0, first=3, device="greedy")), ("honest", packed(1, device="honest"))]
    arriving(door, *frames)
    first = await let_in(door)
    assert [(frame.device, frame.first) for frame in first] == [("greedy", 1), ("honest", 1)]
    assert len(door.gate.arrived) == 2
    first[0].on_safe()
    assert [(frame.device, frame.first) for frame in await let_in(door)] == [("greedy", 2), ("greedy", 3)]
    assert door.input.acknowledged == [1]
    assert door.gate._places == {}


async def test_frames_whose_length_leaves_their_memory_open_are_looked_into_before_they_wait():
    door = Door()
    door.gate.room = Room(4 << 20)
    arriving(door, *[("room1", packed("x" * 20_000, first=number)) for number in range(1, 9)])
    assert len(await let_in(door)) == 8


async def test_a_repeat_takes_no_memory():
    door = Door(("room1", 7, 1))
    await door.come(1, 1)
    assert door.gate.room.taken == 0


async def test_a_malformed_frame_waits_for_no_memory():
    door = Door()
    door.gate.room = Room(1 << 20)
    arriving(door, ("room1", packed([0.5] * 10_000)), ("room1", MAGIC + b"\x01" + bytes(9_000)))
    assert len(await let_in(door)) == 1
    assert [sequence for sequence, _ in door.bad] == [2]
