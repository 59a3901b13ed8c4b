"""Where messages come from, and how far what is at Output completes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.runtime.values.batch import InputFrame, Source


def source(counts):
    frames = [InputFrame(f"d{at}", 7, 10, 2.0, [float(n) for n in range(c)]) for at, c in enumerate(counts)]
    return Source("house", frames)


counts = st.lists(st.integers(1, 5), min_size=1, max_size=6)


@given(counts)
def test_every_message_is_found_with_its_own_metadata(counts):
    whole = source(counts)
    found = [whole.message(index, "x") for index in range(whole.size)]
    assert [m.id for m in found] == [
        f"d{d}-7-{10 + n}" for d, count in enumerate(counts) for n in range(count)
    ]
    assert [m.time for m in found] == [float(n) for count in counts for n in range(count)]


@given(counts, st.lists(st.integers(0, 5), max_size=40))
def test_however_it_is_stored_every_frame_is_complete_once_and_positions_never_fall(counts, steps):
    whole = source(counts)
    done, covers, complete, finished = 0, [], [], 0
    for step in (*steps, whole.size):
        done = min(whole.size, done + step)
        finished += whole.advance(done, covers, complete)
        assert sum(len(frame.times) for frame in complete) <= done
    assert finished == whole.size
    assert [frame.device for frame in complete] == [f"d{at}" for at in range(len(counts))]
    for at, count in enumerate(counts):
        numbers = [number for device, _, number in covers if device == f"d{at}"]
        assert numbers == sorted(numbers)
        assert numbers[-1] == 9 + count


def test_a_retried_dead_letter_completes_its_own_place_and_not_its_devices():
    frame = InputFrame("d0", 7, 10, 2.0, [0.0], retry=3, covers=("#dead-3", 0, 1))
    covers = []
    Source("house", [frame]).advance(1, covers, [])
    assert covers == [("#dead-3", 0, 1)]
    assert Source("house", [frame]).message(0, None).id == "d0-7-10-retry3"
