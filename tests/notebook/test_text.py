"""A flow in text."""

import pytest

from pratipad_nb import Device, Flow
from pratipad_nb.notebook.text import headline, listing, text_picture
from pratipad_nb.testing import memory_server


def double(payload):
    return payload * 2


def look(payload):
    pass


def fails(payload):
    raise ValueError("no")


@pytest.fixture
def url():
    with memory_server() as found:
        yield found


def test_a_picture_has_a_line_for_each_node_from_the_devices_down(url):
    with (
        Flow("Push <~> double ~> {look, fails} ~> Output", server=url, name="plant") as flow,
        Device("room1").connect(flow) as device,
    ):
        device.push(1).wait(10)
        flow.settled()
        lines = text_picture(flow).splitlines()
    assert lines[0] == "plant: Push <~> double ~> {look, fails} ~> Output"
    assert lines[1].startswith("running, durable, up ")
    drawn = [line.strip("┌│└ ").split()[0] for line in lines[3:]]
    assert drawn == ["devices", "↕", "double", "↓", "look", "fails", "↓", "Output"]
    (failing,) = [line for line in lines if "fails " in line and "in 1" in line]
    assert "failed 1" in failing
    assert "1 dead-lettered" in lines[-1]


def test_a_stopped_flow_is_drawn_with_its_last_numbers(url):
    flow = Flow("Push ~> double ~> Output", server=url).start()
    with Device("room1").connect(flow) as device:
        device.push(1).wait(10)
        flow.settled()
        flow.stop()
    assert "stopped, durable" in text_picture(flow)
    assert "1 delivered" in text_picture(flow)


def test_a_listing_is_a_line_for_each_flow_below_each_other(url):
    with (
        Flow("Push ~> double ~> Output", server=url, name="b") as b,
        Flow("Pull <~> double <~> Output", server=url, name="a_long_name") as a,
    ):
        first, second = listing({"b": b, "a_long_name": a}).splitlines()
    assert first.startswith("a_long_name  running")
    assert second.index("running") == first.index("running")


def test_the_headline_has_no_line_breaks():
    assert headline({"name": "x", "notation": "Push\n  ~> A\n~> Output"}) == "x: Push ~> A ~> Output"
