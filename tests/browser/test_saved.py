"""What is left of a flow in a saved notebook, where no kernel and no network is."""

import json
import subprocess
import sys

import nbformat
import pytest
from nbconvert import HTMLExporter
from patience import until

from .markup import EVIL, is_text_alone

pytestmark = pytest.mark.timeout(180)

CELLS = (
    f"%load_ext pratipad_nb\nfrom pratipad_nb import Device\nEVIL = {EVIL!r}",
    """class Same:
    def __init__(self, words):
        pass
    def process(self, reading):
        return reading""",
    f"%%dataflow kept\nPush <~> Same(words='{EVIL}') <~> Output",
    """with Device('room1').connect(kept) as device:
    for n in range(37):
        device.push({'n': n, EVIL: EVIL})
kept.settled()
shown = kept['Same'].show()
kept.stop()
shown""",
    # The picture's file as it were if the flow had failed, and the widgets' state, which a notebook may hold.
    """import json, ipywidgets
from pratipad_nb.notebook import picture, scene
numbers = scene.numbers(kept.stats()) | {'state': 'failed', 'error': EVIL}
with open('kept.svg', 'wb') as file:
    file.write(picture.rendered(picture.draw(scene.structure(kept), numbers, {}), 'svg'))
with open('kept.json', 'w') as file:
    json.dump(ipywidgets.Widget.get_manager_state(drop_defaults=True), file)""",
)


def test_without_a_kernel_the_last_picture_is_shown_and_nothing_claims_to_run(lab):
    opened = lab("kept", *CELLS)
    opened.run_all()
    page = opened.page
    page.locator(".pratipad .pp-badge", has_text="stopped").wait_for()
    opened.until_idle()
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    file = opened.jupyter.notebooks / opened.notebook
    state = file.with_suffix(".json")
    until(lambda: "image/png" in file.read_text() and state.exists())
    page.goto("about:blank")
    opened.jupyter.end_kernels()

    opened.open()
    saved = page.locator("img.pnb-saved")
    saved.wait_for()
    assert saved.get_attribute("alt") == f"kept: Push <~> Same(words='{EVIL}') <~> Output"
    assert saved.evaluate("it => it.naturalWidth") > 500
    page.get_by_text("no kernel of this notebook runs this flow").wait_for()
    assert page.locator(".pratipad").count() == 0
    assert page.get_by_text("Error displaying widget").count() == 0
    for theme in ("Light", "Dark"):
        opened.theme(f"JupyterLab {theme}")
        opened.shot(f"reopened-{theme.lower()}")
    assert opened.errors == []
    assert is_text_alone(page)

    subprocess.run([sys.executable, "-m", "nbconvert", "--to", "html", file], check=True, capture_output=True)
    page.context.set_offline(True)
    page.goto(file.with_suffix(".html").as_uri())
    picture = page.locator(".jp-OutputArea img")
    picture.wait_for()
    assert picture.evaluate("it => it.naturalWidth") > 500
    opened.shot("offline-html")
    assert is_text_alone(page)
    # A notebook may be saved with its widgets' state, which an exported page holds in a script's element.
    widgets = json.loads(state.read_text())
    assert json.dumps(EVIL)[1:-1] in json.dumps(widgets)
    with_state = nbformat.read(file, as_version=4)
    with_state.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": widgets}
    file.with_suffix(".html").write_text(HTMLExporter().from_notebook_node(with_state)[0])
    for exported in (file.with_suffix(".html"), file.with_suffix(".svg")):
        page.goto(exported.as_uri())
        assert is_text_alone(page)
        assert "window.__pwned" in page.content()
    page.context.set_offline(False)
