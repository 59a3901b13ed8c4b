"""Counting: rates and percentiles over the last seconds, right to about 10 %."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.hardware.clock import ManualClock
from pratipad_nb.processors import Outcome
from pratipad_nb.processors.outcome import Failure
from pratipad_nb.runtime.values import metrics
from pratipad_nb.runtime.values.metrics import Histogram, InFlight, Meter, Rate


@pytest.fixture
def clock(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(metrics, "time", clock)
    return clock


@given(st.lists(st.floats(1e-5, 100.0), min_size=1, max_size=200))
def test_a_percentile_is_right_to_about_ten_percent(durations):
    histogram = Histogram()
    histogram.add(durations)
    (median,) = histogram.percentiles(0.5)
    exact = sorted(durations)[(len(durations) + 1) // 2 - 1]
    assert median == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("odd", [0.0, -1.0, 1e-12, 1e12])
def test_odd_durations_fall_into_the_first_or_last_bucket(odd):
    histogram = Histogram()
    histogram.add([odd])
    assert histogram.percentiles(0.5)[0] > 0


def test_durations_are_forgotten_after_a_while(clock):
    histogram = Histogram()
    histogram.add([1.0])
    clock.advance(6)
    histogram.add([2.0])
    assert histogram.percentiles(0.01)[0] == pytest.approx(1.0, rel=0.1)
    clock.advance(6)
    assert histogram.percentiles(0.01)[0] == pytest.approx(2.0, rel=0.1)
    clock.advance(60)
    assert histogram.percentiles(0.5) == (0.0,)


def test_a_rate_is_what_the_count_grew_by_over_the_last_second(clock):
    rate, count = Rate(), 0
    for _ in range(50):
        clock.advance(0.2)
        count += 20
        rate.sample(count)
    assert rate.value == pytest.approx(100)
    for _ in range(6):
        clock.advance(0.2)
        rate.sample(count)
    assert rate.value == 0


def test_samples_that_follow_at_once_make_no_noise(clock):
    rate = Rate()
    rate.sample(1000)
    clock.advance(0.01)
    rate.sample(2000)
    assert rate.value == 0


def test_a_meter_counts_what_every_call_did():
    meter = Meter()
    failure = Failure(1, "x", "ValueError: no", "")
    meter.record(Outcome(3, ["a", "b"], [0, 2], [failure], [], [0.1, 0.1, 0.1], 0.3))
    meter.record(Outcome(1, ["c"], range(1)))
    stats = meter.snapshot()
    assert (stats.received, stats.emitted, stats.failed) == (4, 3, 1)
    assert stats.last_error == "ValueError: no"
    assert stats.p50 == pytest.approx(0.1, rel=0.1)


def test_a_meter_counts_retries():
    meter = Meter()
    meter.record(Outcome(1, [], [], retried=2))
    meter.record(Outcome(1, [], [], retried=3))
    assert meter.snapshot().retried == 5


def test_busy_is_the_share_of_time_that_an_instance_was_at_work_on_average(clock):
    meter = Meter()
    for _ in range(10):
        clock.advance(0.2)
        for _ in range(4):
            meter.record(Outcome(1, ["a"], range(1), elapsed=0.1), instances=4)
        meter.sample()
    assert meter.snapshot().busy == pytest.approx(0.5)


async def test_progress_that_was_made_before_it_is_waited_for_is_not_missed():
    in_flight = InFlight()
    in_flight.taken = 2
    waiting = asyncio.create_task(in_flight.progress(in_flight.completed))
    in_flight.complete(1)  # before the task begins
    await asyncio.wait_for(waiting, 10)
    waiting = asyncio.create_task(in_flight.progress(in_flight.completed))
    await asyncio.sleep(0)
    assert not waiting.done()
    in_flight.complete(1)
    await asyncio.wait_for(waiting, 10)
