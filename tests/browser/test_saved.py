"""What is left of a flow in a saved notebook, where no kernel and no network is."""

import subprocess
import sys

import pytest
from patience import until

pytestmark = pytest.mark.timeout(180)

CELLS = (
    "%load_ext pratipad_nb\nfrom pratipad_nb import Device",
    "def Same(reading):\n    return reading",
    "%%dataflow kept\nPush <~> Same <~> Output",
    """with Device('room1').connect(kept) as device:
    for n in range(37):
        device.push({'n': n})
kept.settled()
kept.stop()""",
)


def test_without_a_kernel_the_last_picture_is_shown_and_nothing_claims_to_run(lab):
    opened = lab("kept", *CELLS)
    opened.run_all()
    page = opened.page
    page.locator(".pratipad .pp-badge", has_text="stopped").wait_for()
    opened.until_idle()
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    file = opened.jupyter.notebooks / opened.notebook
    until(lambda: "image/png" in file.read_text())
    page.goto("about:blank")
    opened.jupyter.end_kernels()

    opened.open()
    saved = page.locator("img.pnb-saved")
    saved.wait_for()
    assert saved.get_attribute("alt") == "kept: Push <~> Same <~> Output"
    assert saved.evaluate("it => it.naturalWidth") > 500
    page.get_by_text("no kernel of this notebook runs this flow").wait_for()
    assert page.locator(".pratipad").count() == 0
    assert page.get_by_text("Error displaying widget").count() == 0
    for theme in ("Light", "Dark"):
        opened.theme(f"JupyterLab {theme}")
        opened.shot(f"reopened-{theme.lower()}")
    assert opened.errors == []

    subprocess.run([sys.executable, "-m", "nbconvert", "--to", "html", file], check=True, capture_output=True)
    page.context.set_offline(True)
    page.goto(file.with_suffix(".html").as_uri())
    picture = page.locator(".jp-OutputArea img")
    picture.wait_for()
    assert picture.evaluate("it => it.naturalWidth") > 500
    opened.shot("offline-html")
    page.context.set_offline(False)
