"""Positions: any starts of a device, by any clocks and in any overlap, and each message is taken once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from pratipad_nb.runtime.positions.positions import Admission, Positions
from pratipad_nb.server.config import MAX_PAYLOAD
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import MarkFrame, new_epoch


class TestPositions:
    def test_a_frame_is_new_from_the_first_number_that_is_not_dealt_with(self):
        positions = Positions([("room1", 7, 10)])
        assert positions.admit("room1", 7, 11, 5) == Admission(skip=0, missing=0)
        assert positions.admit("room1", 7, 9, 5) == Admission(skip=2, missing=0)
        assert positions.admit("room1", 7, 1, 10) == Admission(skip=10, missing=0)
        assert positions.admit("room1", 7, 14, 1) == Admission(skip=0, missing=3)

    def test_devices_and_their_restarts_are_counted_apart(self):
        positions = Positions([("room1", 7, 10)])
        assert positions.admit("room2", 7, 1, 1) == Admission(0, 0)
        assert positions.admit("room1", 8, 1, 1) == Admission(0, 0)

    def test_what_lies_behind_changes_nothing(self):
        positions = Positions([("room1", 7, 10)])
        positions.advance([("room1", 7, 3)])
        assert positions.number("room1", 7) == 10

    def test_the_starts_that_are_remembered_are_bounded_and_those_that_moved_last_are_kept(self):
        positions = Positions(("room1", epoch, 5) for epoch in range(2000, 0, -1))
        forgotten = positions.forget_unused()
        assert forgotten == [("room1", epoch, 5) for epoch in range(2000, 1024, -1)]
        assert positions.all() == [("room1", epoch, 5) for epoch in range(1024, 0, -1)]

    def test_an_epoch_that_is_in_use_is_kept_however_many_others_come_and_however_low_it_is(self):
        positions = Positions()
        for number in range(1, 3001):
            positions.advance([("room1", 1, number), ("room1", 10_000 - number, 5)])
            positions.forget_unused()
            assert positions.number("room1", 1) == number
        assert len(positions.all()) == 1024

    def test_an_epoch_that_comes_again_after_it_was_forgotten_is_taken_once_more_and_then_kept(self):
        positions = Positions(("room1", epoch, 5) for epoch in range(1, 1026))
        assert positions.forget_unused() == [("room1", 1, 5)]
        assert positions.admit("room1", 1, 1, 5) == Admission(skip=0, missing=0)
        positions.advance([("room1", 1, 5)])
        assert positions.forget_unused() == [("room1", 2, 5)]
        assert positions.admit("room1", 1, 1, 5) == Admission(skip=5, missing=0)

    def test_devices_that_make_epochs_without_end_are_forgotten_themselves_and_no_other(self):
        positions = Positions((f"room{device}", epoch, 1) for device in range(100) for epoch in range(1, 41))
        for epoch in range(1, 1200):
            positions.advance((f"hostile{device}", epoch, 1) for device in range(200))
            positions.forget_unused()
            assert epoch % 100 or len(positions.all()) <= 1 << 16
        assert all(positions.number(f"room{device}", 1) for device in range(100))
        assert positions.number("hostile1", 1) == 0
        assert len(positions.all()) == 100 * 40 + 200 * 256

    def test_in_a_flow_of_many_devices_one_is_started_as_often_as_in_a_small_one(self):
        positions = Positions((f"room{device}", 1, 1) for device in range(20_000))
        positions.advance(("room1", epoch, 1) for epoch in range(2, 1001))
        assert positions.forget_unused() == []

    def test_the_checkpoint_of_ten_thousand_devices_that_started_often_is_bounded(self):
        name = "x" * 50
        positions = Positions()
        for _ in range(50):
            positions.advance((f"{name}{device}", new_epoch(), 1 << 40) for device in range(10_000))
            positions.forget_unused()
        assert len(positions.all()) == 80_000
        assert len(encode(MarkFrame(1, positions.all(), {}, "writer"))) < MAX_PAYLOAD // 2

    def test_dead_letters_that_are_retried_take_no_room_from_devices(self):
        positions = Positions(("room1", epoch, 5) for epoch in range(1, 1025))
        positions.advance((f"#dead-{sequence}", 0, 1) for sequence in range(10_000))
        assert positions.forget_unused() == []

    def test_who_follows_forgets_the_same_but_not_what_has_moved_beyond(self):
        accepted = Positions([("room1", 7, 10), ("room1", 8, 10)])
        accepted.drop([("room1", 7, 10), ("room1", 8, 9), ("room1", 9, 1), ("room2", 1, 1)])
        assert accepted.all() == [("room1", 8, 10)]

    def test_what_is_ahead_is_counted_but_not_what_was_retried(self):
        ahead = Positions([("room1", 7, 10), ("room2", 1, 4), ("#dead-3", 0, 9)])
        assert ahead.ahead_of(Positions([("room1", 7, 8), ("room2", 1, 6)])) == 2

    @given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 10)), max_size=40))
    def test_of_any_frames_each_number_is_taken_once_and_in_order(self, frames):
        positions, taken = Positions(), []
        for first, count in frames:
            admission = positions.admit("room1", 7, first, count)
            taken += range(first + admission.skip, first + count)
            positions.advance([("room1", 7, first + count - 1)])
        assert taken == sorted(set(taken))


class Start:
    """One start of a device: it sends its messages one after the other, each until that is acknowledged."""

    def __init__(self, epoch):
        self.epoch = epoch
        self.number = 0


class Starts(RuleBasedStateMachine):
    """A device's name is started any number of times, with any epochs, and starts go on beside each other.
    Frames come again, and edges are started anew from a checkpoint.
    """

    def __init__(self):
        super().__init__()
        self.stored, self.accepted = Positions(), Positions()
        self.starts, self.taken = [], {}
        self.since, self.checkpoint = [], []

    @rule(
        count=st.integers(1, 40),
        epoch=st.integers(0, 2_000_000_000_000),
        step=st.sampled_from([-1, 1, 3_600_000]),
    )
    def it_is_started(self, count, epoch, step):
        """Start the name so often, by a clock that goes on, goes back or jumps. No two have one epoch."""
        for _ in range(count):
            while epoch in self.taken:
                epoch += 1
            self.taken[epoch] = []
            self.starts.append(Start(epoch))
            self.come(self.starts[-1], 1)
            epoch = max(0, epoch + step)

    @rule(data=st.data(), count=st.integers(1, 5), repeats=st.integers(0, 2))
    def one_of_them_sends(self, data, count, repeats):
        if self.starts:
            start = data.draw(st.sampled_from(self.starts))
            for again in range(1 + repeats):
                self.come(start, count, first=start.number - count + 1 if again else None)

    def come(self, start, count, first=None):
        first = start.number + 1 if first is None else first
        admission = self.accepted.admit("room1", start.epoch, first, count)
        assert admission.missing == 0
        self.taken[start.epoch] += range(first + admission.skip, first + count)
        start.number = max(start.number, first + count - 1)
        covers = [("room1", start.epoch, first + count - 1)]
        self.accepted.advance(covers)
        self.stored.advance(covers)
        self.since += covers
        self.accepted.drop(self.stored.forget_unused())

    @rule()
    def a_checkpoint_is_made(self):
        data = encode(MarkFrame(1, self.stored.all(), {}, "writer"))
        self.checkpoint, self.since = decode(data, MarkFrame).positions, []

    @rule()
    def the_edge_is_killed_and_started_again(self):
        self.stored = Positions(self.checkpoint)
        self.stored.advance(self.since)
        self.accepted = Positions(self.stored.all())

    @invariant()
    def every_message_is_taken_once_and_in_order_within_its_start(self):
        for start in self.starts:
            assert self.taken[start.epoch] == list(range(1, start.number + 1))


def test_in_any_starts_by_any_clocks_in_any_overlap_each_message_is_taken_once_and_in_order():
    run_state_machine_as_test(
        Starts, settings=settings(max_examples=60, stateful_step_count=25, deadline=None)
    )
