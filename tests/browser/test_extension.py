"""The JupyterLab extension's additions: colours in %%dataflow cells, and the side panel of the flows."""

import pytest

pytestmark = pytest.mark.timeout(180)

CELLS = (
    "%load_ext pratipad_nb\nfrom pratipad_nb import Device, HostSensor",
    "def Keep(reading, factor=1):\n    return reading",
    "%%dataflow panel --delivery fast\n# a comment\nPush <~> [Keep, Keep] <~> Output",
    "device = Device('room1', read=HostSensor(), every=0.1).connect(panel)",
)


def test_dataflow_cells_are_coloured_and_python_cells_are_left_alone(lab):
    opened = lab("colours", *CELLS)
    cell = opened.cell(2)
    cell.locator(".pnb-keyword").first.wait_for()
    wanted = {
        "keyword": "PushOutput",
        "arrow": "<~><~>",
        "processor": "KeepKeep",
        "option": "--delivery",
        "comment": "# a comment",
    }
    # Joined, for a word is in several elements where Python's highlighter sees several.
    found = {kind: "".join(cell.locator(f".pnb-{kind}").all_inner_texts()) for kind in wanted}
    assert found == wanted
    assert opened.cell(1).locator("[class^=pnb-]").count() == 0
    keyword, plain = (
        cell.locator(name).first.evaluate("it => getComputedStyle(it).color")
        for name in (".pnb-keyword", ".pnb-bracket")
    )
    assert keyword != plain


def test_the_side_panel_lists_the_kernels_flows_and_stops_them(lab):
    opened = lab("panel", *CELLS)
    opened.run_all()
    opened.cell(2).locator(".pratipad").wait_for()
    opened.page.evaluate("window.jupyterapp.shell.activateById('pratipad-dataflows')")
    row = opened.page.locator(".pnb-flow[data-flow=panel]")
    row.wait_for()
    row.get_by_text("running").wait_for()
    row.get_by_text("1 device").wait_for()
    opened.shot("side-panel")
    row.get_by_role("button", name="Stop panel").click()
    opened.page.get_by_text("Start one in a %%dataflow cell").wait_for()
    assert opened.errors == []
