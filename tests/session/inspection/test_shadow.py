"""What would come out otherwise, without touching what runs."""

import threading

import pytest

from pratipad_nb import Device, Flow, NotationError
from pratipad_nb.errors import ProcessorError
from pratipad_nb.session.inspection.tape import Recorder

made = []


class Celsius:
    def __init__(self):
        made.append(threading.current_thread().name)

    def process(self, reading):
        return (reading - 32) / 1.8


def same(payload):
    return payload


def grows(payload):
    payload["seen"].append("once")
    return payload


def above_zero(payload):
    if payload > 0:
        yield payload


class Counts:
    """Keeps state, and changes its input in place where it can."""

    def setup(self):
        self.seen = 0

    def process(self, payload):
        self.seen += 1
        return self.seen

    def snapshot(self):
        return self.seen

    def restore(self, state):
        self.seen = state


@pytest.fixture
def start(url):
    flows = []

    def make(notation):
        flow = Flow(notation, server=url, name="house").start()
        flows.append(flow)
        return flow

    yield make
    for flow in flows:
        flow.stop()


def tape(*payloads, device="room1"):
    recorder = Recorder("house", None, 1 << 20)
    for number, payload in enumerate(payloads):
        recorder(device, [float(number)], float(number), [payload])
    return recorder.tape()


def test_the_outputs_that_differ_are_told_with_the_first_processor_that_made_them(start):
    flow = start("Push ~> [Celsius, same] ~> Output")

    class Rounded:
        def process(self, reading):
            return round((reading - 32) / 1.8) if reading > 100 else (reading - 32) / 1.8

    found = flow.shadow(tape(32, 212.5, 50), {"Celsius": Rounded, "same": same})
    assert (found.compared, found.differing, found.changed) == (3, 1, ("Celsius",))
    (row,) = found
    assert (row.device, row.payload, row.processor) == ("room1", 212.5, "Celsius")
    assert (row.old, row.new) == (((212.5 - 32) / 1.8,), (100,))


def test_nothing_of_the_running_flow_is_touched(start):
    flow = start("Push ~> [Celsius, Counts] ~> Output")
    with Device("room1").connect(flow) as device:
        device.push(32).wait(10)
        flow.settled()
        before = flow.stats()
        made.clear()
        found = flow.shadow(tape(*range(1000)), {"Celsius": Celsius, "Counts": Counts})
        assert len(made) == 2  # one for each side
        assert found.differing == 0
        after = flow.stats()
        assert (after.received, after.delivered, after.processors["Counts"].received) == (1, 1, 1)
        assert before.processors["Counts"].version == after.processors["Counts"].version == 0
        device.push(32).wait(10)
        assert [m.payload for m in flow.take(2)] == [1, 2]
    assert not [t for t in threading.enumerate() if "shadow" in t.name]


def test_what_a_side_changes_in_place_the_other_does_not_see(start):
    flow = start("Push ~> grows ~> Output")
    found = flow.shadow(tape({"seen": []}), {"grows": lambda payload: grows(payload)})
    assert (found.compared, found.differing) == (1, 0)


def test_names_are_looked_up_where_it_is_called(start):
    flow = start("Push ~> same ~> Output")

    def same(payload):
        return payload + 1

    assert [row.new for row in flow.shadow(tape(1, 2))] == [(2,), (3,)]


def test_without_a_tape_the_last_inputs_that_were_followed_are_compared(start):
    flow = start("Push ~> [Celsius, above_zero] ~> Output")
    with Device("room1").connect(flow) as device:
        for reading in (14, 32, 50):
            device.push(reading).wait(10)
        flow.settled()
    found = flow.shadow(None, {"Celsius": same, "above_zero": above_zero})
    assert found.compared == 3
    assert [row.old for row in found] == [(), (), (10.0,)]


def test_filtering_failing_and_fanning_out_are_differences(start):
    flow = start("Push ~> same ~> Output")

    def other(payload):
        if payload == 1:
            raise ValueError("unlucky")
        if payload > 2:
            yield payload
            yield payload

    found = flow.shadow(tape(1, 2, 3), {"same": other})
    assert [(row.old, row.new, row.new_error) for row in found] == [
        ((1,), (), "same: ValueError: unlucky"),
        ((2,), (), ""),
        ((3,), (3, 3), ""),
    ]
    assert "✗ same: ValueError: unlucky" in repr(found)
    assert found._repr_html_().count("<tr>") == 4


def test_another_notation_can_be_compared(start):
    found = start("Push ~> same ~> Output").shadow(
        tape(-1, 1), notation="Push ~> [same, above_zero] ~> Output"
    )
    assert found.changed == ("above_zero",)
    assert [(row.payload, row.new, row.processor) for row in found] == [(-1, (), "")]


def test_maps_with_their_keys_in_another_order_and_values_that_are_no_number_are_the_same(start):
    flow = start("Push ~> same ~> Output")
    readings = tape({"a": 1, "b": float("nan")}, {"a": 1, "b": 2})
    assert flow.shadow(readings, {"same": lambda p: dict(p)}).differing == 0
    assert flow.shadow(readings[1:], {"same": lambda p: {"b": p["b"], "a": p["a"]}}).differing == 0


def test_what_is_changed_in_place_is_seen_by_the_other_side_no_more_than_by_the_tape(start):
    flow = start("Push ~> same ~> Output")
    readings = tape({"a": 1})

    def spoils(payload):
        payload["a"] = 2
        return payload

    (row,) = flow.shadow(readings, {"same": spoils})
    assert (row.payload, row.old, row.new) == ({"a": 1}, ({"a": 1},), ({"a": 2},))
    assert readings[0].payload == {"a": 1}


def test_a_new_one_that_cannot_be_set_up_is_named_and_the_flow_goes_on(start):
    flow = start("Push ~> Celsius ~> Output")

    class Broken:
        def setup(self):
            raise OSError("no such sensor")

        def process(self, payload):
            return payload

    with pytest.raises(ProcessorError, match="setup failed with OSError: no such sensor"):
        flow.shadow(tape(1), {"Celsius": Broken})
    with pytest.raises(NotationError):
        flow.shadow(tape(1), {})
    assert flow.state == "running"


def test_without_inputs_there_is_nothing_to_compare_and_it_says_so(start):
    assert "there was no input to compare" in repr(start("Push ~> same ~> Output").shadow())


def test_many_differences_are_counted_and_the_first_shown(start):
    found = start("Push ~> same ~> Output").shadow(tape(*range(5000)), {"same": lambda p: -1})
    assert (found.compared, found.differing, len(found)) == (5000, 5000, 1000)
    assert repr(found).startswith("same changed: 5,000 of 5,000 inputs come out otherwise; the first 20")
    assert len(repr(found).splitlines()) == 22
