"""The ready-made processors, each through the batch call that the runtime makes."""

from __future__ import annotations

import math

import pytest

from pratipad_nb.errors import ProcessorError
from pratipad_nb.message import Message
from pratipad_nb.processors import Deadband, Filter, Throttle, Window, adapt


def passed(processor, payloads, times=None, devices=None):
    """Return what the processor makes of these payloads; fails the test if it raised for one."""
    outcome = outcome_of(processor, payloads, times, devices)
    assert outcome.failures == []
    return outcome.payloads


def outcome_of(processor, payloads, times=None, devices=None):
    def message_of(row):
        device = devices[row] if devices else "room1"
        time = times[row] if times else float(row)
        return Message(
            payload=payloads[row], id=str(row), device=device, time=time, received=0.0, flow="house"
        )

    return adapt(processor).run(payloads, message_of, math.inf)


class TestFilter:
    def test_passes_what_lies_between_its_bounds_and_not_the_bounds(self):
        readings = [{"co2": n} for n in (400, 401, 799, 800)]
        assert passed(Filter(key="co2", above=400, below=800), readings) == readings[1:3]

    def test_compares_the_payload_itself_without_a_key(self):
        assert passed(Filter(equals=None), [1, None]) == [None]

    def test_asks_a_function(self):
        assert passed(Filter(lambda p: p % 2), [1, 2, 3]) == [1, 3]

    def test_reaches_into_what_is_nested(self):
        inside, flat = {"air": {"co2": 900}}, {"air.co2": 900}
        assert passed(Filter(key="air.co2", above=800), [inside, flat]) == [inside, flat]

    def test_a_missing_key_is_a_failure_that_names_the_keys(self):
        [failure] = outcome_of(Filter(key="co2", above=1), [{"co": 2}]).failures
        assert "has no 'co2': its keys are 'co'" in failure.error

    def test_without_a_condition_is_refused(self):
        with pytest.raises(ProcessorError, match="no condition"):
            Filter(key="co2")
        with pytest.raises(ProcessorError, match="is called with each payload"):
            Filter("co2 > 800")


class TestThrottle:
    def test_passes_the_first_of_each_device_in_each_interval(self):
        payloads, times = list("abcdef"), [0.0, 0.5, 0.9, 1.0, 1.1, 2.0]
        assert passed(Throttle(), payloads, times) == ["a", "d", "f"]
        assert passed(Throttle(), ["a", "b"], [0.0, 0.1], ["room1", "room2"]) == ["a", "b"]

    def test_does_not_starve_a_device_whose_clock_was_set_back(self):
        assert passed(Throttle(10), [1, 2], [100.0, 5.0]) == [1, 2]

    def test_goes_on_from_its_snapshot(self):
        first, second = Throttle(), Throttle()
        passed(first, ["a"], [0.0])
        second.restore(first.snapshot())
        assert passed(second, ["b", "c"], [0.5, 1.0]) == ["c"]

    @pytest.mark.parametrize("seconds", [0, -1, "1", True, math.nan])
    def test_refuses_what_is_no_interval(self, seconds):
        with pytest.raises(ProcessorError, match=f"seconds is {seconds!r}"):
            Throttle(seconds)


class TestDeadband:
    def test_passes_what_moved_far_enough_from_the_last_that_passed(self):
        assert passed(Deadband(delta=1.0), [20.0, 20.6, 21.0, 20.5, 20.0]) == [20.0, 21.0, 20.0]

    def test_keeps_devices_apart(self):
        assert passed(Deadband(delta=1), [1, 1], devices=["room1", "room2"]) == [1, 1]

    def test_a_nan_holds_back_nobody(self):
        assert passed(Deadband(delta=1), [math.nan, 5.0, 5.1])[1:] == [5.0]

    def test_goes_on_from_its_snapshot(self):
        first, second = Deadband("t", 1), Deadband("t", 1)
        passed(first, [{"t": 20}])
        second.restore(first.snapshot())
        assert passed(second, [{"t": 20.5}, {"t": 22}]) == [{"t": 22}]

    def test_needs_a_delta(self):
        with pytest.raises(ProcessorError, match="needs delta"):
            Deadband("t")


class TestWindow:
    @pytest.mark.parametrize(
        ("aggregate", "value"),
        [
            ("mean", 3.0),
            ("min", 1),
            ("max", 6),
            ("sum", 9.0),
            ("count", 3),
            ("median", 2),
            (sorted, [1, 2, 6]),
        ],
    )
    def test_aggregates_by_count(self, aggregate, value):
        made = passed(Window(count=3, key="n", aggregate=aggregate), [{"n": n} for n in (2, 6, 1, 9)])
        assert made == [{"n": value, "count": 3, "start": 0.0, "end": 2.0}]

    def test_by_time_is_closed_by_the_first_message_after_it(self):
        made = passed(Window(seconds=10), [1, 3, 5, 7], [10.0, 19.9, 20.0, 45.0])
        assert made == [
            {"value": 2.0, "count": 2, "start": 10.0, "end": 19.9},
            {"value": 5.0, "count": 1, "start": 20.0, "end": 20.0},
        ]

    def test_keeps_devices_apart(self):
        made = passed(Window(count=2), [1, 10, 3, 30], devices=["a", "b", "a", "b"])
        assert [m["value"] for m in made] == [2.0, 20.0]

    def test_goes_on_from_its_snapshot_which_later_messages_do_not_change(self):
        first, second = Window(count=3), Window(count=3)
        passed(first, [1, 2])
        state = first.snapshot()
        passed(first, [100])
        second.restore(state)
        assert passed(second, [3])[0]["value"] == 2.0

    def test_a_value_that_is_no_number_fails_alone_and_at_once(self):
        outcome = outcome_of(Window(count=2), [1, "hot", 3])
        assert [f.row for f in outcome.failures] == [1]
        assert outcome.payloads[0]["value"] == 2.0

    def test_a_function_that_raises_costs_its_window_and_not_the_next(self):
        outcome = outcome_of(Window(count=2, aggregate=lambda v: 1 / v[0]), [0, 1, 2, 2])
        assert [f.row for f in outcome.failures] == [1]
        assert [p["value"] for p in outcome.payloads] == [0.5]

    def test_one_that_grows_too_large_is_passed_on_in_parts(self, monkeypatch):
        monkeypatch.setattr("pratipad_nb.processors.window.MOST_VALUES", 2)
        assert [p["count"] for p in passed(Window(seconds=1000), [1, 2, 3])] == [2]

    @pytest.mark.parametrize(
        "wrong",
        [
            {},
            {"count": 1, "seconds": 1},
            {"count": 0},
            {"count": 1.5},
            {"seconds": 0},
            {"count": 1, "aggregate": "avg"},
        ],
    )
    def test_refuses_what_is_no_window(self, wrong):
        with pytest.raises(ProcessorError, match="Window"):
            Window(**wrong)
