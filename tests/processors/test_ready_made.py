"""The ready-made processors, each through the batch call that the runtime makes."""

from __future__ import annotations

import math

import pytest
from msgspec.msgpack import decode

from pratipad_nb.errors import ProcessorError
from pratipad_nb.message import Message
from pratipad_nb.processors import Deadband, Filter, Throttle, Window, adapt
from pratipad_nb.transport.codec import encode_payload


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

    def test_one_that_keeps_all_values_and_grows_too_large_is_passed_on_in_parts(self, monkeypatch):
        monkeypatch.setattr("pratipad_nb.processors.window.MOST_VALUES", 2)
        assert [p["count"] for p in passed(Window(seconds=1000, aggregate="median"), [1, 2, 3])] == [2]
        with pytest.raises(ProcessorError, match="from 1 to 2 for this aggregate"):
            Window(count=3, aggregate=len)

    @pytest.mark.parametrize(
        ("aggregate", "value"),
        [("count", 70_000), ("sum", 7000.0), ("mean", 0.1), ("min", 0.1), ("max", 0.1)],
    )
    def test_one_that_needs_no_values_may_be_of_any_length_and_its_state_stays_small(self, aggregate, value):
        window = Window(count=70_000, aggregate=aggregate)
        assert passed(window, [0.1] * 69_999, [0.0] * 69_999) == []
        assert len(encode_payload(dict(window.snapshot()))) < 150
        [made] = passed(window, [0.1], [0.0])
        # As exact as if all values had been kept and summed at once.
        assert (made["value"], made["count"]) == (value, 70_000)

    def test_a_sum_that_is_not_finite_is_what_it_is(self):
        values = [1.0, math.inf, 2.0]
        assert [p["value"] for p in passed(Window(count=3, aggregate="sum"), values)] == [math.inf]
        assert math.isnan(passed(Window(count=2, aggregate="mean"), [1.0, math.nan])[0]["value"])

    def test_an_integer_too_large_to_sum_fails_alone(self):
        outcome = outcome_of(Window(count=2, aggregate="sum"), [10**400, 1, 10**400, 2])
        assert [f.row for f in outcome.failures] == [0, 2]
        assert [p["value"] for p in outcome.payloads] == [3.0]

    @pytest.mark.parametrize("aggregate", ["count", "sum", "mean", "min", "max", "median", sum])
    def test_every_aggregate_goes_on_from_its_state_as_it_is_stored(self, aggregate):
        whole, first, second = (Window(count=4, aggregate=aggregate) for _ in range(3))
        passed(first, [3, 1])
        second.restore(decode(encode_payload(dict(first.snapshot()))))
        assert [p["value"] for p in passed(second, [2, 7])] == [
            p["value"] for p in passed(whole, [3, 1, 2, 7])
        ]

    @pytest.mark.parametrize(
        ("aggregate", "others"),
        [("mean", ["sum"]), ("sum", ["mean"]), ("median", [sum]), ("min", []), ("max", []), ("count", [])],
    )
    def test_a_state_is_taken_over_by_an_aggregate_that_keeps_the_same(self, aggregate, others, caplog):
        first = Window(count=4, aggregate=aggregate)
        passed(first, [3, 1])
        for other in ["count", "sum", "mean", "min", "max", "median", sum]:
            second = Window(count=2, aggregate=other)
            second.restore(first.snapshot())
            # One that goes on has its two messages, and is complete with the next.
            taken = passed(second, [1], [9.0])
            assert [p["start"] for p in taken] == ([0.0] if other in [aggregate, *others] else [])

    @pytest.mark.parametrize(
        "state",
        [
            {"room1": [None, 0.0, 1.0, [1, 2]]},
            [1],
            7,
            {"form": ["Window", "sum", "other", None], "open": {"room1": [None, 0.0, 0.0, 1, [1.0, 0.0]]}},
        ],
    )
    def test_a_state_of_another_form_is_dropped_and_that_is_logged(self, state, caplog):
        window = Window(count=2)
        window.restore(state)
        assert "windows that were open are dropped" in caplog.text
        assert [p["value"] for p in passed(window, [1, 3])] == [2.0]

    def test_a_state_of_version_0_1_goes_on(self):
        window = Window(count=2)
        state = {"form": ["Window", "sum", None, None], "open": {"room1": [None, 0.0, 0.0, 1, [5.0, 0.0]]}}
        window.restore(state)
        assert [p["value"] for p in passed(window, [1])] == [3.0]

    def test_a_state_of_no_windows_is_no_loss(self, caplog):
        Window(count=2).restore({})
        assert caplog.text == ""

    def test_a_state_of_another_key_or_length_of_time_is_dropped(self, caplog):
        first = Window(seconds=10, key="a")
        passed(first, [{"a": 1}])
        for other in (Window(seconds=10, key="b"), Window(seconds=60, key="a"), Window(count=5, key="a")):
            caplog.clear()
            other.restore(first.snapshot())
            assert "dropped" in caplog.text
        caplog.clear()
        Window(seconds=10.0, key="a").restore(first.snapshot())
        Window(count=2).restore(None)
        assert caplog.text == ""

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
