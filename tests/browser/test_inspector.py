"""The cockpit on the page: a node is opened, looked into and touched, with the keyboard too."""

from pathlib import Path

import pytest
from patience import until

ARTEFACTS = Path(__file__).parents[2] / "artefacts"

pytestmark = pytest.mark.timeout(180)

PROCESSORS = """
class Celsius:
    def __init__(self, factor=1.8):
        self.factor = factor

    def process(self, reading):
        if reading["n"] % 10 == 0:
            raise ValueError("a tenth one")
        return {"celsius": (reading["n"] - 32) / self.factor}

def Same(reading):
    return reading
"""
DEVICE = """
readings = ({"n": n} for n in itertools.count(1))
device = Device("room1", read=readings, receive=print, every=0.05).connect(cockpit)
"""
CELLS = (
    "%load_ext pratipad_nb\nimport itertools\nfrom pratipad_nb import Device",
    PROCESSORS,
    "%%dataflow cockpit --delivery fast\nDemand <~> Celsius(factor=2) <~> Same <~> Output",
    DEVICE,
)


def rows_of(panel, name):
    """Return what the table's rows say of themselves, all of the same moment."""
    return panel.locator("tr[data-id]").evaluate_all(
        "(rows, name) => rows.map((row) => row.dataset[name])", name
    )


def test_a_node_is_looked_into_and_touched(lab):
    opened = lab("inspector", *CELLS, height=1400)
    opened.run_all()
    page, root = opened.page, opened.page.locator(".pratipad").first
    node = root.locator("[data-key=Celsius]")
    node.get_by_text("failed").wait_for()
    node.focus()
    page.keyboard.press("Enter")
    panel = root.locator(".pp-inspect")
    panel.get_by_text("Celsius(factor=2)").wait_for()
    panel.locator("summary", has_text="a tenth one").click()
    panel.get_by_text("Traceback", exact=False).first.wait_for()
    panel.get_by_text("Source").click()
    panel.get_by_text("self.factor = factor").wait_for()
    panel.locator("tr[data-id] >> text=celsius").first.wait_for()
    opened.shot("inspector")

    panel.get_by_label("filter").fill("a tenth one")
    until(lambda: set(rows_of(panel, "error")) == {"true"})
    panel.get_by_label("filter").fill("")
    rows = panel.locator("tr[data-id][data-error=false]")
    rows.first.wait_for()
    panel.get_by_role("button", name="Hold").click()
    rows.first.click()
    panel.locator(".pp-way li", has_text="Same").wait_for()
    panel.get_by_label("filter").fill(
        "a tenth one"
    )  # a held table shows what is sought, and stands still again
    until(lambda: set(rows_of(panel, "error")) == {"true"})
    held = rows_of(panel, "id")
    opened.page.wait_for_timeout(1500)  # longer than the pace at which a table that isn't held moves
    assert rows_of(panel, "id") == held
    panel.get_by_label("filter").fill("")
    opened.theme("JupyterLab Dark")
    opened.shot("inspector-way-dark")

    panel.get_by_role("button", name="Pause Celsius").click()
    node.get_by_text("paused").wait_for()
    panel.get_by_role("button", name="Resume Celsius").click()
    panel.get_by_role("button", name="Pause Celsius").wait_for()
    page.keyboard.press("Escape")
    panel.wait_for(state="hidden")

    root.get_by_label("rate").fill("20")
    root.get_by_text("1 /s", exact=True).wait_for()
    root.locator("[data-key=devices]").click()
    panel.get_by_role("button", name="Send").click()
    panel.get_by_text("The order goes to all devices").wait_for()
    root.locator("[data-key=Output]").click()
    panel.locator("summary", has_text="a tenth one").first.wait_for()
    panel.get_by_role("button", name="Retry dead letters").click()
    panel.get_by_text("put through again").wait_for()
    opened.shot("inspector-output")
    assert opened.errors == []


def test_an_open_inspector_sends_little_and_a_reloaded_page_is_live_again(lab):
    opened = lab("reload", *CELLS, height=1400)
    opened.run_all()
    root = opened.page.locator(".pratipad").first
    root.locator("[data-key=Output]").get_by_text("delivered").wait_for()
    root.locator("[data-key=Same]").click()
    root.locator("tr[data-id]").nth(19).wait_for()
    opened.until_idle()
    opened.frames.clear()
    opened.page.wait_for_timeout(5_000)  # a rate takes time to measure
    a_second = sum(opened.frames) / 5
    (ARTEFACTS / "bytes-a-second.txt").write_text(f"{a_second:.0f}\n")
    assert 0 < a_second <= 20_000

    opened.write(1, PROCESSORS.replace("return reading", "return reading | {'swapped': True}"))
    opened.run(1)
    opened.cell(1).get_by_text("lost 0").wait_for()

    opened.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    opened.open()
    root.locator("[data-key=Output]").get_by_text("delivered").wait_for()
    until(lambda: root.locator(".pp-badge").inner_text().strip() == "running")
    root.locator("[data-key=Same]").click()
    root.locator("tr[data-id] >> text=swapped").first.wait_for()
    opened.shot("reloaded")
