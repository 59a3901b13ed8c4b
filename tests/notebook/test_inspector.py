"""What a page is shown of one opened node, how much at most, and what it may ask a flow to do."""

import contextlib
import dataclasses
import json
import logging
import time

import pytest

from pratipad_nb import Device, Flow
from pratipad_nb.errors import ProcessorError
from pratipad_nb.notebook import inspector
from pratipad_nb.notebook.inspector import BYTES_PER_SECOND, Inspection
from pratipad_nb.runtime.values.stats import DeviceStats
from pratipad_nb.testing import memory_server


class Celsius:
    def __init__(self, factor=1.8):
        self.factor = factor

    def process(self, reading):
        print("read", reading["f"])
        if reading["f"] > 200:
            logging.getLogger("probe").warning("too hot")
            raise ValueError("that is steam")
        return {"c": round((reading["f"] - 32) / self.factor, 1)}


def same(reading):
    return reading


@contextlib.contextmanager
def running():
    notation = "Push <~> Celsius(factor=2) <~> same <~> Output"
    namespace = {"Celsius": Celsius, "same": same}
    with memory_server() as url, Flow(notation, server=url, name="house", namespace=namespace) as flow:
        yield flow


@pytest.fixture
def flow():
    with running() as flow:
        yield flow


@pytest.fixture
def device(flow):
    with Device("room1", receive=lambda order: None).connect(flow) as device:
        yield device


def pushed(flow, device, *readings):
    for reading in readings:
        device.push({"f": reading})
    device.flush()
    flow.settled()


def seen(flow, key, text=""):
    inspection = Inspection()
    inspection.ask({"key": key, "filter": text})
    return inspection.look(flow)


def test_a_processor_shows_what_came_in_and_went_out_the_newest_first(flow, device):
    pushed(flow, device, 32, 52)
    rows = seen(flow, "Celsius")["messages"]
    assert [(name, came, went, error) for _, name, _, came, went, error in rows] == [
        ("room1", '{"f": 52}', '{"c": 10.0}', ""),
        ("room1", '{"f": 32}', '{"c": 0.0}', ""),
    ]


def test_a_failure_is_shown_with_its_traceback_and_beside_what_came_in(flow, device):
    pushed(flow, device, 300)
    found = seen(flow, "Celsius")
    assert found["messages"][0][3:] == ['{"f": 300}', "", "ValueError: that is steam"]
    error, traceback = found["fault"]
    assert error == "ValueError: that is steam"
    assert traceback.startswith("Traceback")
    assert "raise ValueError" in traceback


def test_what_a_processor_prints_and_logs_is_shown_oldest_first():
    # Started here, for pytest puts a stdout of its own in place between a fixture and its test.
    with running() as flow, Device("room1").connect(flow) as device:
        pushed(flow, device, 32, 300)
        assert [line[1:] for line in seen(flow, "Celsius")["log"]] == [
            ["stdout", "read 32"],
            ["stdout", "read 300"],
            ["WARNING", "probe: too hot"],
        ]
        assert seen(flow, "same")["log"] == []


def test_a_filter_finds_texts_in_payloads_devices_and_errors_in_upper_or_lower_case(flow, device):
    pushed(flow, device, 32, 52, 300)
    for text, found in (("STEAM", 1), ("room1", 3), ('"f": 52', 1), ("nothing like it", 0)):
        assert len(seen(flow, "Celsius", text)["messages"]) == found, text


def test_the_arguments_and_the_source_are_told_once_more_when_asked(flow):
    inspection = Inspection()
    inspection.ask({"key": "Celsius"})
    about = inspection.about(flow)
    assert about["arguments"] == "factor=2"
    assert "class Celsius" in about["source"]


def test_however_long_messages_and_lines_are_a_look_stays_within_its_bytes(flow, device):
    for _ in range(50):
        device.push({"f": 1, "long": "x" * 5000})
    device.flush()
    flow.settled()
    found = seen(flow, "Celsius")
    assert 0 < len(json.dumps(found)) <= BYTES_PER_SECOND
    assert max(len(came) for _, _, _, came, _, _ in found["messages"]) <= 240


def test_nobody_who_looks_is_sent_nothing_and_a_look_is_not_repeated_at_once(flow):
    inspection = Inspection()
    assert inspection.look(flow) is None
    inspection.ask({"key": "Celsius"})
    assert inspection.look(flow)["key"] == "Celsius"
    assert inspection.look(flow) is None
    inspection.ask({"key": None})
    assert inspection.key is None
    assert inspection.look(flow) is None


def test_a_wish_that_is_not_renewed_ends(flow, monkeypatch):
    inspection = Inspection()
    inspection.ask({"key": "Celsius"})
    now = time.monotonic()
    monkeypatch.setattr(inspector.time, "monotonic", lambda: now + 60)
    assert inspection.key is None
    assert inspection.look(flow) is None


def test_a_node_that_a_change_took_away_shows_nothing(flow):
    assert seen(flow, "Gone") is None
    inspection = Inspection()
    inspection.ask({"key": "Gone"})
    assert inspection.about(flow) == {"key": "Gone"}


def test_devices_are_listed_by_name_with_what_they_sent_and_ran(flow, device, until):
    pushed(flow, device, 32, 52)
    flow.send({"led": "on"}, to="room1")
    with Device("attic").connect(flow):
        flow.settled()
    until(lambda: flow.stats().devices["room1"].orders_run == 1)
    until(lambda: not flow.stats().devices["attic"].connected)
    found = seen(flow, "devices")
    rows = [[name, on, received, orders] for name, on, _, received, orders, _, _ in found["devices"]]
    assert rows == [["attic", False, 0, [0, 0]], ["room1", True, 2, [1, 1]]]
    assert found["matching"] == 2
    assert [row[0] for row in seen(flow, "devices", "ATT")["devices"]] == ["attic"]


def test_of_many_devices_the_busiest_are_listed(flow, monkeypatch):
    stats = flow.stats()
    many = {f"d{n:04}": DeviceStats(connected=True, rate=n) for n in range(2000)}
    monkeypatch.setattr(flow, "stats", lambda: dataclasses.replace(stats, devices=many))
    found = seen(flow, "devices")
    assert found["matching"] == 2000
    assert [row[0] for row in found["devices"]] == [f"d{n:04}" for n in range(1950, 2000)]
    assert len(json.dumps(found)) <= BYTES_PER_SECOND


def test_output_shows_the_newest_dead_letters_first(flow, device):
    pushed(flow, device, 300, 301)
    letters = seen(flow, "Output")["letters"]
    assert [(key, payload, error) for key, payload, error, _ in letters] == [
        ("Celsius", '{"f": 301}', "ValueError: that is steam"),
        ("Celsius", '{"f": 300}', "ValueError: that is steam"),
    ]


def test_the_way_of_a_message_names_every_processor_with_what_it_made_of_it(flow, device):
    pushed(flow, device, 32)
    message = flow.take(1)[0]
    found = inspector.way(flow, message.id)
    assert found["device"] == "room1"
    assert found["steps"] == [
        ["Celsius", '{"f": 32}', '{"c": 0.0}', ""],
        ["same", '{"c": 0.0}', '{"c": 0.0}', ""],
    ]


def test_a_page_pauses_resumes_orders_and_retries(flow, device):
    pushed(flow, device, 300)
    assert inspector.told(flow, {"do": "pause", "key": "same"})["text"] == ""
    assert flow.stats().processors["same"].state == "paused"
    inspector.told(flow, {"do": "resume", "key": "same"})
    assert flow.stats().processors["same"].state == "running"
    said = inspector.told(flow, {"do": "order", "payload": '{"led": "on"}', "to": "room1"})
    assert (said["text"], said["fault"]) == ("The order goes to room1.", False)
    assert inspector.told(flow, {"do": "retry"})["text"] == "1 dead letter put through again."


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"do": "order", "payload": "{led: on}"}, "is no JSON"),
        ({"do": "order", "payload": "1", "to": "no such name"}, "knows no device 'no such name'"),
        ({"do": "rate", "value": -1}, "rate is -1"),
        ({"do": "pause", "key": "Gone"}, "'Gone' is no processor"),
    ],
)
def test_what_can_not_be_done_is_told_to_the_page(flow, asked, said):
    told = inspector.told(flow, asked)
    assert told["fault"]
    assert said in told["text"]


def test_what_fails_in_a_way_that_nobody_thought_of_is_told_to_the_page_too(flow, monkeypatch, caplog):
    monkeypatch.setattr(type(flow), "pause", lambda *_: 1 / 0)
    told = inspector.told(flow, {"do": "pause", "key": "same"})
    assert (told["text"], told["fault"]) == ("ZeroDivisionError: division by zero", True)
    assert "ZeroDivisionError" in caplog.text


def test_what_no_page_of_ours_asks_for_does_nothing(flow):
    assert inspector.act(flow, {"do": "format the disk"}) == ""
    with pytest.raises(ProcessorError):
        inspector.act(flow, {"do": "pause", "key": "Gone"})
