"""The static picture."""

import struct
import xml.etree.ElementTree as ET

import pytest

from pratipad_nb import Device, Flow
from pratipad_nb.errors import SettingsError
from pratipad_nb.notebook.picture import picture
from pratipad_nb.testing import memory_server


def double(payload):
    return payload * 2


NAMES = {f"p{n}": double for n in range(30)}


def size(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def test_a_running_flow_is_drawn_as_png_and_as_svg():
    with (
        memory_server() as url,
        Flow("Push ~> double ~> Output", server=url) as flow,
        Device("room1").connect(flow) as device,
    ):
        device.push(1).wait(10)
        flow.settled()
        width, height = size(picture(flow))
        assert 500 < width < 4000
        assert 100 < height < 2000
        assert ET.fromstring(picture(flow, "svg")).tag.endswith("svg")


def test_a_flow_that_never_ran_is_drawn_too():
    assert size(picture(Flow("Push ~> double ~> Output")))


def test_thirty_processors_wrap_into_lines_and_stay_legible():
    chain = Flow(f"Push ~> {' ~> '.join(NAMES)} ~> Output", namespace=NAMES)
    width, height = size(picture(chain))
    assert width < 3600
    assert height > 1500
    braces = Flow(f"Push ~> {{{', '.join(NAMES)}}} ~> Output", namespace=NAMES)
    assert size(picture(braces))[1] > 5000


def test_a_name_with_a_dollar_sign_is_no_mathematics():
    flow = Flow("Push ~> double ~> Output")
    assert picture(flow, "svg")


def test_another_format_is_refused_with_those_there_are():
    with pytest.raises(SettingsError, match="'gif'; format can be 'png' or 'svg'"):
        picture(Flow("Push ~> double ~> Output"), "gif")


def test_drawing_touches_no_figure_of_the_user():
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.close("all")
    picture(Flow("Push ~> double ~> Output"))
    assert plt.get_fignums() == []
