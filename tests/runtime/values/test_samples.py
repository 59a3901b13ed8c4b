"""Which messages are followed, and the bounds of what is kept."""

import math
from itertools import pairwise

import pytest

from pratipad_nb.runtime.values import samples
from pratipad_nb.runtime.values.packing import pack
from pratipad_nb.runtime.values.samples import KEPT, KEPT_BYTES, Samples
from pratipad_nb.runtime.values.sampling import PER_SECOND, SHARE, Sampler


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when told to."""

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(samples.time, "monotonic", clock)
    return clock


def kept(number, payload=0):
    return samples._Kept("room1", "room1", 1, number, 0.0, 0.0, "house", [pack(payload)])


def test_after_a_quiet_moment_a_hundred_are_followed_at_once(clock):
    sampler = Sampler()
    assert list(sampler.choose(100).indices) == list(range(100))
    assert sampler.choose(1) is None


def test_in_the_long_run_fifty_a_second_are_followed(clock):
    sampler = Sampler()
    sampler.choose(100)
    followed = 0
    for _ in range(1000):  # ten seconds of 100 batches of 2,048 a second
        clock.now += 0.01
        chosen = sampler.choose(2048)
        followed += len(chosen.indices) if chosen else 0
    assert math.isclose(followed, 10 * PER_SECOND, abs_tol=1)


def test_those_that_are_followed_are_spread_over_the_batch_and_over_time(clock):
    sampler = Sampler()
    indices = list(sampler.choose(10_000).indices)
    assert indices == sorted(set(indices))
    assert max(after - before for before, after in pairwise(indices)) <= 101
    places = set()
    for _ in range(200):
        clock.now += 1 / PER_SECOND
        chosen = sampler.choose(2048)
        places |= {index // 512 for index in chosen.indices} if chosen else set()
    assert places == {0, 1, 2, 3}


def test_following_takes_no_more_than_its_share_of_the_time_however_large_messages_are(clock):
    sampler = Sampler()
    spent = 0.0
    for _ in range(10_000):
        clock.now += 0.01
        if sampler.choose(1) is not None:
            sampler.spend(0.005)  # a message of some megabytes
            spent += 0.005
    assert spent <= SHARE * clock.now + 0.03


def test_a_processor_keeps_so_many_and_no_more():
    ring = Samples()
    for number in range(1, KEPT + 51):
        ring.add(kept(number), 0)
    assert len(ring) == KEPT
    assert [sample.message.id for sample in ring.last("P", 1)] == [f"room1-1-{KEPT + 50}"]
    assert ring.find("P", "room1-1-50") is None
    assert ring.find("P", "room1-1-51").message.id == "room1-1-51"


def test_large_messages_push_older_ones_out_and_the_newest_stays():
    ring = Samples()
    for number in range(1, 20):
        ring.add(kept(number, "x" * (KEPT_BYTES // 4)), 0)
    assert len(ring) == 3
    ring.add(kept(20, "x" * (2 * KEPT_BYTES)), 0)
    assert len(ring) == 1
    ring.add(kept(21), 0)
    assert [sample.message.id for sample in ring.last("P", 9)] == ["room1-1-21"]


def test_the_id_of_one_of_several_results_finds_its_message_and_no_other():
    ring = Samples()
    for number in (1, 10):
        ring.add(kept(number), 0)
    assert ring.find("P", "room1-1-1-3").message.id == "room1-1-1"
    assert ring.find("P", "room1-1-10").message.id == "room1-1-10"
    assert ring.find("P", "room1-1-2") is None
