"""A flow's last hour in curves, and its graph as a file."""

import math
import xml.etree.ElementTree as ET

import pytest

from pratipad_nb import Device, Flow
from pratipad_nb.errors import FlowError, SettingsError
from pratipad_nb.notebook.plots import plot
from pratipad_nb.runtime.values.history import FlowHistory
from pratipad_nb.testing import memory_server


def double(payload):
    return payload * 2


class Recorded:
    """A flow with a history that would take an hour to make."""

    name = "plant_$1"
    notation = "Push ~> double ~> Output"

    def __init__(self, times, keys=("double",)):
        numbers = [float(n % 7) for n, _ in enumerate(times)]
        flow = dict.fromkeys(("rate", "p50", "p99", "in_flight", "waiting"), numbers)
        self.history = FlowHistory(list(times), flow, {key: {**flow, "busy": numbers} for key in keys})


def test_a_running_flow_draws_throughput_latency_and_queues_with_a_curve_for_each_processor(until):
    with (
        memory_server() as url,
        Flow("Push ~> double ~> Output", server=url) as flow,
        Device("room1").connect(flow) as device,
    ):
        device.push(1).wait(10)
        until(lambda: len(flow.history) >= 1)
        figure = flow.plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
    titles = [axes.get_title(loc="left").split(",")[0] for axes in figure.axes]
    assert titles == ["throughput", "latency from the server's receipt to Output", "queues"]
    labels = [[line.get_label() for line in axes.get_lines()] for axes in figure.axes]
    assert labels == [["double", "Output"], ["p99", "p50"], ["input (frames)", "double", "in flight"]]


def test_a_stopped_flow_still_has_its_curves():
    with memory_server() as url:
        flow = Flow("Push ~> double ~> Output", server=url).start()
        flow.stop()
        assert len(flow.history) >= 1
        assert flow.plot()


def test_a_flow_that_never_ran_says_so():
    with pytest.raises(FlowError, match=r"'flow' has not run yet.*Start it first"):
        Flow("Push ~> double ~> Output").plot()


def test_a_line_is_interrupted_where_the_flow_was_stopped():
    figure = plot(Recorded([0.0, 1.0, 2.0, 60.0, 61.0]))
    values = figure.axes[0].get_lines()[0].get_ydata()
    assert len(values) == 6
    assert math.isnan(values[3])


def test_an_hour_of_many_processors_is_drawn_with_lines_that_differ_and_names_as_they_are():
    keys = [f"_p${n}" for n in range(24)]
    figure = plot(Recorded([float(n) for n in range(3600)], keys))
    lines = figure.axes[0].get_lines()[:24]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 24
    shown = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert len(shown) == 25
    assert figure._repr_png_()


def test_drawing_touches_no_figure_of_the_user():
    plt = pytest.importorskip("matplotlib.pyplot")
    plot(Recorded([0.0, 1.0]))
    assert plt.get_fignums() == []


def test_the_graph_is_shown_or_written_as_its_ending_says(tmp_path):
    flow = Flow("Push ~> double ~> Output", name="house")
    shown = flow.picture()
    assert shown.data.startswith(b"\x89PNG")
    assert shown.alt == "Graph of the dataflow house: Push ~> double ~> Output"
    assert flow.picture(tmp_path / "graph.SVG") == tmp_path / "graph.SVG"
    assert ET.parse(tmp_path / "graph.SVG").getroot().tag.endswith("svg")
    assert flow.picture(str(tmp_path / "graph.png")).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "said"),
    [("graph.gif", "ends in neither"), ("graph", "ends in neither"), ("no/graph.svg", "No such file")],
)
def test_a_file_that_cannot_be_written_is_told(tmp_path, name, said):
    with pytest.raises(SettingsError, match=said):
        Flow("Push ~> double ~> Output").picture(tmp_path / name)
