"""The first notebook in JupyterLab, as a newcomer sees it."""

import re

import pytest
from patience import until

pytestmark = pytest.mark.timeout(180)

SETUP = "%load_ext pratipad_nb\nfrom pratipad_nb import Device, HostSensor"
PROCESSOR = "def Keep(reading):\n    return reading"
FLOW = "%%dataflow house\nPush <~> Keep <~> Output"
DEVICE = "device = Device('room1', read=HostSensor(), every=0.1).connect(house)"


class Picture:
    """The live picture of a flow on a page."""

    def __init__(self, lab):
        self.lab = lab
        self.root = lab.page.locator(".pratipad").first
        self.root.wait_for()

    @property
    def state(self):
        return self.root.locator(".pp-badge").first.inner_text().strip()

    @property
    def delivered(self):
        found = re.search(r"([\d,]+) delivered", self.root.locator("[data-key=Output]").text_content())
        return int(found[1].replace(",", "")) if found else 0


def test_the_first_notebook_runs_and_its_numbers_rise_in_both_themes(lab):
    opened = lab("01_first_dataflow")
    opened.run(1)
    for code in (3, 5, 7):  # up to the device
        opened.run(code)
    picture = Picture(opened)
    until(lambda: picture.delivered > 5)
    before = picture.delivered
    until(lambda: picture.delivered > before)
    assert picture.state == "running"
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        opened.theme(theme)
        opened.shot(f"first-notebook-{theme.split()[-1].lower()}")
    assert opened.errors == []


def test_stop_works_while_a_cell_runs(lab):
    opened = lab("stop", SETUP, PROCESSOR, FLOW, DEVICE, "import time\ntime.sleep(60)\nprint('slept')")
    opened.run_all()
    picture = Picture(opened)
    until(lambda: picture.delivered > 5)
    assert opened.cell(4).locator(".jp-InputPrompt").inner_text() == "[*]:"
    picture.root.get_by_role("button", name="Stop").click()
    until(lambda: picture.state == "stopped", 10.0)
    assert opened.cell(4).locator(".jp-InputPrompt").inner_text() == "[*]:"
