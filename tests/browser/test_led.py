"""A light in a notebook: an order through a flow lets it blink, also while a cell blocks the kernel."""

import pytest

pytestmark = pytest.mark.timeout(180)

CELLS = (
    (
        "%load_ext pratipad_nb\nimport time\n"
        "from pratipad_nb import Device\nfrom pratipad_nb.device import Blink, Led"
    ),
    "def Same(reading):\n    return reading",
    "%%dataflow lit --delivery fast\nPush <~> Same <~> Output",
    "lamp = Led(name='lamp')\ndevice = Device('room1', receive=lamp).connect(lit)\nlamp",
    "lit.send(Blink(times=60, period=0.5).order(), to='room1')\ntime.sleep(25)",
)


def test_a_light_blinks_when_the_order_arrives_while_a_cell_runs(lab):
    opened = lab("led", *CELLS)
    opened.run_all()
    light = opened.cell(3).locator(".pp-led-light")
    light.wait_for()
    for _ in range(3):
        opened.cell(3).get_by_role("img", name="lit").wait_for()
        opened.cell(3).get_by_role("img", name="dark").wait_for()
    opened.shot("led")
    assert opened.cell(4).locator(".jp-InputPrompt").inner_text() == "[*]:"
    assert opened.cell(3).locator(".pp-led").inner_text() == "lamp"
    assert opened.errors == []
