"""What is drawn, as plain values."""

import json
from dataclasses import replace

from pratipad_nb import Flow
from pratipad_nb.notebook import panel, scene
from pratipad_nb.notebook.picture import draw
from pratipad_nb.notebook.text import text_picture
from pratipad_nb.runtime.values.stats import DeviceStats, FlowStats, ProcessorStats


def a(x):
    return x


b = c = a
FLOW = Flow("Push <~> a <~> {b, c} ~> Output", name="house")


def test_the_structure_has_the_nodes_in_layers_and_the_ways_back():
    found = scene.structure(FLOW)
    layers = {node["key"]: (node["kind"], node["layer"]) for node in found["nodes"]}
    assert layers == {
        "devices": ("devices", 0),
        "a": ("processor", 1),
        "b": ("processor", 2),
        "c": ("processor", 2),
        "Output": ("output", 3),
    }
    assert sorted(node["row"] for node in found["nodes"] if node["layer"] == 2) == [0, 1]
    back = {(edge["from"], edge["to"]) for edge in found["edges"] if edge["back"]}
    assert back == {("devices", "a"), ("a", "b"), ("a", "c")}


def test_a_flow_that_can_be_paused_and_stopped_says_so():
    assert {"pause", "resume", "stop"} <= set(scene.structure(FLOW)["controls"])


def test_all_of_it_is_plain_json():
    stats = FlowStats(
        "house", processors={"a": ProcessorStats(rate=1 / 3)}, devices={"d": DeviceStats(True, 3, 1 / 3)}
    )
    assert json.loads(json.dumps(scene.numbers(stats))) == scene.numbers(stats)
    json.dumps(scene.structure(FLOW))


def test_numbers_are_as_short_as_can_be_seen():
    numbers = scene.numbers(FlowStats("house", rate=12345.678, p50=0.00123456))
    assert (numbers["rate"], numbers["p50"]) == (12300.0, 0.00123)


def test_many_devices_are_counted_and_the_busiest_named():
    devices = {f"d{n:03}": DeviceStats(n % 2 == 0, n, float(n)) for n in range(100)}
    found = scene.numbers(FlowStats("house", devices=devices))["devices"]
    assert (found["count"], found["connected"]) == (100, 50)
    assert [entry[0] for entry in found["shown"]] == ["d099", "d098", "d097", "d096", "d095"]
    few = scene.numbers(FlowStats("house", devices=dict(list(devices.items())[:12])))["devices"]
    assert len(few["shown"]) == 12


def test_a_gateway_counts_as_the_devices_behind_it():
    devices = {
        "gw": DeviceStats(True, 9, sources=1000),
        "old": DeviceStats(False, 1, sources=10),
        "room1": DeviceStats(True),
    }
    found = scene.numbers(FlowStats("house", devices=devices))["devices"]
    assert (found["count"], found["connected"]) == (1011, 1001)
    assert [entry[0] for entry in found["shown"]] == ["gw", "old", "room1"]


def test_a_long_error_of_a_user_does_not_make_the_update_long():
    stats = ProcessorStats(last_error="x" * 10_000)
    long = scene.numbers(FlowStats("house", processors={"a": stats}))
    short = scene.numbers(FlowStats("house", processors={"a": replace(stats, last_error="")}))
    assert len(json.dumps(long)) - len(json.dumps(short)) <= 300


def test_layers_wrap_into_lines_as_text_does():
    cells = scene.grid(scene.structure(FLOW), 2)
    assert {key: cell[:2] for key, cell in cells.items()} == {
        "devices": (0, 0), "a": (0, 1), "b": (1, 0), "c": (1, 0), "Output": (1, 1)
    }  # fmt: skip


def test_a_warning_stands_in_the_picture_the_text_and_the_side_panel(monkeypatch):
    """A certificate that ends is no error; an error, and what the flow waits for, come first."""
    warned = FlowStats("house", warnings=("the certificate of lamp ends",))
    monkeypatch.setattr(type(FLOW), "stats", lambda _flow: warned)
    monkeypatch.setattr(panel, "flows", lambda: {"house": FLOW})
    assert scene.numbers(warned)["warnings"] == ["the certificate of lamp ends"]
    assert "warning: the certificate of lamp ends" in text_picture(FLOW).splitlines()
    assert panel.summary()[0]["trouble"] == "the certificate of lamp ends"
    plain, drawn = (
        draw(scene.structure(FLOW), scene.numbers(each), {}) for each in (FlowStats("house"), warned)
    )
    assert not _says(plain, "warning")
    assert _says(drawn, "warning: the certificate of lamp ends")
    waiting = draw(scene.structure(FLOW), scene.numbers(replace(warned, blocked_by=("reader x",))), {})
    assert _says(waiting, "waiting: reader x")


def _says(figure, words):
    return any(words in each.get_text() for axes in figure.axes for each in axes.texts)
