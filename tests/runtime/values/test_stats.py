"""Snapshots: frozen, and shown as tables."""

import copy
import dataclasses
import json
import pickle

import pytest

from pratipad_nb.runtime.edge.swap import SwapReceipt
from pratipad_nb.runtime.values.history import FlowHistory
from pratipad_nb.runtime.values.stats import DeviceStats, FlowStats, ProcessorStats, ReaderStats
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ControlFrame


def stats(devices=1, **more):
    processors = {"Celsius": ProcessorStats(received=12_345, failed=1, p50=0.0012, busy=0.34, newer=True)}
    found = {f"room{n}": DeviceStats(connected=n > 0, received=n) for n in range(devices)}
    return FlowStats(
        "house", "Push ~> Celsius ~> Output", "durable", "running", 0.0, 0.0, processors, found, **more
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.update(x=1),
        lambda found: found.__setitem__("x", 1),
        lambda found: found.pop("Celsius"),
        lambda found: found.clear(),
        lambda found: found.__ior__({}),
    ],
)
def test_a_snapshot_can_not_be_changed(change):
    with pytest.raises(TypeError, match="a snapshot"):
        change(stats().processors)
    assert list(stats().processors) == ["Celsius"]


def test_a_snapshot_is_compared_copied_and_sent_as_any_value():
    one = stats()
    assert one == stats() == copy.deepcopy(one) == pickle.loads(pickle.dumps(one))
    assert one.processors == dict(one.processors)
    assert dataclasses.replace(one, rate=2.0).devices == one.devices
    plain = dataclasses.asdict(one)
    assert json.loads(json.dumps(plain))["processors"]["Celsius"]["received"] == 12_345
    assert (
        decode(encode(ControlFrame("ok", plain)), ControlFrame).arguments["devices"]["room0"]["received"] == 0
    )


def test_what_it_is_made_of_can_be_changed_without_a_change_of_it():
    processors = {"P": ProcessorStats()}
    found = FlowStats("house", processors=processors)
    processors.clear()
    assert list(found.processors) == ["P"]


def test_it_shows_a_row_for_each_processor_and_each_device():
    waits = "1 frame waiting; waits: reader audit; warning: lamp ends"
    shown = stats(2, delivered=7, waiting=1, blocked_by=("reader audit",), warnings=("lamp ends",))
    assert repr(shown).splitlines() == [
        f"house: Push ~> Celsius ~> Output; running, durable; 7 delivered; 0/s; 0 in flight; {waits}",
        "processor  /s  in     out  failed  p50     p99  busy  waiting  state",
        "Celsius    0   12.3k  0    1       1.2 ms  –    34 %  0        running, newer code",
        "",
        "2 devices",
        "device  /s  received  orders run  state",
        "room0   0   0         –           away",
        "room1   0   1         –           connected",
    ]
    assert stats(2)._repr_html_().count("<tr>") == 5


def test_a_device_that_says_hello_far_too_often_is_named():
    devices = {"room1": DeviceStats(True, hellos_dropped=3), "room2": DeviceStats(True, hellos_dropped=1500)}
    lines = repr(FlowStats("house", devices=devices).devices).splitlines()[2:]
    assert [line.split("  ")[-1].strip() for line in lines] == ["connected", "1,500 hellos dropped"]


def test_a_device_with_too_many_connections_is_named():
    devices = {"room1": DeviceStats(True, connections=8), "room2": DeviceStats(True, connections=9)}
    assert [
        line.split("  ")[-1].strip()
        for line in repr(FlowStats("house", devices=devices).devices).splitlines()
    ] == [
        "2 devices",
        "state",
        "connected",
        "9 connections at once",
    ]


def test_of_many_devices_it_shows_the_first():
    lines = repr(stats(1000)).splitlines()
    assert len(lines) == 18
    assert "1,000 devices; the first 12" in lines


def test_its_parts_show_themselves_too_and_none_as_an_empty_dictionary():
    found = stats(2)
    assert repr(found.devices).splitlines()[0] == "2 devices"
    assert repr(found.processors).splitlines()[0] == "1 processor"
    assert found.devices == {"room0": DeviceStats(), "room1": DeviceStats(connected=True, received=1)}
    assert (repr(FlowStats("house").devices), FlowStats("house").devices._repr_html_()) == ("{}", None)


def test_a_flow_that_has_ended_has_no_rate_and_says_so():
    ended = dataclasses.replace(stats(), rate=5.0, state="draining").at_rest()
    assert (ended.rate, ended.state) == (0.0, "stopped")
    assert dataclasses.replace(stats(), error="no").at_rest().state == "failed"


def test_a_receipt_shows_itself_as_its_sentence():
    receipt = SwapReceipt((), (), ("P",), (), 1, 0.012, 0, 0)
    assert repr(receipt) == str(receipt) == "swapped P: 1 message in flight, pause 12 ms, lost 0, doubled 0"


def test_a_history_shows_what_it_holds_and_not_all_of_it():
    numbers = [float(n) for n in range(3600)]
    found = FlowHistory(numbers, {"rate": numbers}, {"P": {"rate": numbers}})
    assert repr(found) == (
        "<FlowHistory: 3,600 seconds of P; numbers in .flow[rate] and .processors; flow.plot() draws them>"
    )


def test_its_line_says_who_missed_what():
    found = dataclasses.replace(
        stats(), readers={"notebook": ReaderStats(skipped=3), "sqlite": ReaderStats()}
    )
    assert "; notebook missed 3 frames" in str(found).splitlines()[0]
    assert "sqlite" not in str(found).splitlines()[0]
