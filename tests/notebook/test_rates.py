"""Throughput as plain widgets."""

import threading

import pytest

from pratipad_nb import Device, Flow
from pratipad_nb.testing import memory_server


def double(payload):
    return payload * 2


def fails(payload):
    raise ValueError(payload)


@pytest.fixture
def flow():
    with memory_server() as url, Flow("Push ~> double ~> Output", server=url, name="house") as flow:
        yield flow


def texts(panel):
    return {key: row.children[1].value for key, row in panel.rows.items()}


def test_there_is_a_row_for_each_processor_and_for_output(flow):
    panel = flow.panel()
    assert list(panel.rows) == ["double", "Output"]
    assert panel.children == tuple(panel.rows.values())
    panel.close()


def test_it_follows_the_flow_and_ends_with_it(flow, until):
    panel = flow.panel()
    with Device("room1").connect(flow) as device:
        device.push(1).wait(10)
        until(lambda: "1 delivered" in texts(panel)["Output"])
    flow.stop()
    until(lambda: texts(panel)["double"] == "stopped, in 1, out 1")
    assert texts(panel)["Output"] == "stopped, 1 delivered"
    panel._thread.join(5)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pratipad-rates")]


def test_failures_pauses_and_changed_rows_show(flow, until):
    panel = flow.panel()
    flow.update("Push ~> double ~> fails ~> Output")
    until(lambda: list(panel.rows) == ["double", "fails", "Output"])
    flow.pause("double")
    until(lambda: "paused" in texts(panel)["double"])
    flow.resume("double")
    with Device("room1").connect(flow) as device:
        device.push(1).wait(10)
        until(lambda: "1 failed" in texts(panel)["fails"])
    assert panel.rows["fails"].children[0].bar_style == "danger"
    panel.close()


def test_closing_it_leaves_the_flow_alone_and_no_thread(flow):
    panel = flow.panel()
    panel.close()
    assert not panel._thread.is_alive()
    assert flow.state == "running"


def test_it_changes_at_most_five_times_a_second(flow):
    panel = flow.panel()
    panel.close()
    changes = []
    panel = flow.panel()
    panel.rows["Output"].children[1].observe(lambda change: changes.append(change), "value")
    stop = threading.Event()
    with Device("room1", read=iter(int, 1)).connect(flow):
        stop.wait(1.2)
    panel.close()
    assert 2 <= len(changes) <= 7
