"""Positions among the frames that wait, and the messages of a frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.cloud.backlog import Backlog, messages_of
from pratipad_nb.transport.frames import OutputFrame, ReadFrame, Segment, message_id


def test_messages_carry_the_numbers_parts_and_retry_of_their_segment():
    frame = OutputFrame(
        "edge",
        1,
        [],
        [
            Segment("a", 7, 5, 9.0, [1.0, 2.0], ["x", "y"]),
            Segment("b", 8, 1, 9.0, [1.0, 1.0, 3.0], [1, 2, 3], numbers=[1, 1, 4], parts=[0, 1, 0]),
            Segment("c", 9, 2, 9.0, [1.0], [4], retry=33),
        ],
    )
    assert [(m.id, m.payload, m.time) for m in messages_of(frame, "house")] == [
        ("a-7-5", "x", 1.0),
        ("a-7-6", "y", 2.0),
        ("b-8-1", 1, 1.0),
        (message_id("b", 8, 1, part=1), 2, 1.0),
        ("b-8-4", 3, 3.0),
        (message_id("c", 9, 2, retry=33), 4, 1.0),
    ]


def test_a_segment_with_too_few_times_is_refused():
    with pytest.raises(ValueError, match="zip"):
        messages_of(OutputFrame("edge", 1, [], [Segment("a", 7, 1, 9.0, [1.0], ["x", "y"])]), "house")


@given(sizes=st.lists(st.integers(0, 5), max_size=20), steps=st.lists(st.integers(0, 7)), data=st.data())
def test_the_position_after_any_steps_is_where_a_new_backlog_goes_on(sizes, steps, data):
    numbers = iter(range(1000))
    frames = [(n + 1, [next(numbers) for _ in range(size)]) for n, size in enumerate(sizes)]
    total = sum(sizes)
    one = filled(frames, ReadFrame(1, 0))
    taken: list[int] = []
    for step in steps:
        n = min(step, one.count)
        messages, after = one.peek(n)
        one.drop(n)
        taken += messages
        assert one.position == after
    assert taken == list(range(len(taken)))
    again = filled(frames, one.position)
    assert again.peek(again.count)[0] == list(range(len(taken), total))


def filled(frames, position):
    backlog = Backlog()
    backlog.begin(position)
    for sequence, messages in frames:
        if sequence >= position.sequence:
            backlog.add(sequence, messages)
    return backlog
