"""The first notebook in Notebook 7, which JupyterLab's server serves too."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(180)

ARTEFACTS = Path(__file__).parents[2] / "artefacts"


def test_the_first_notebook_runs_in_notebook_7_and_stops(unopened, jupyter):
    page = unopened("01_first_dataflow").page
    page.goto(jupyter.url("01_first_dataflow.ipynb", "notebooks"))
    page.locator(".jp-NotebookPanel .jp-Cell").nth(7).wait_for()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first.wait_for()
    for code in (1, 3, 5, 7):  # up to the device
        page.locator(".jp-Notebook .jp-Cell").nth(code).locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
    root = page.locator(".pratipad").first
    page.wait_for_function(
        "() => /[1-9]\\d+ delivered/.test(document.querySelector('.pratipad [data-key=Output]')?.textContent)"
    )
    assert page.locator(".pnb-keyword", has_text="Push").count() == 1
    page.screenshot(path=ARTEFACTS / "notebook-7.png")
    root.get_by_role("button", name="Stop").click()
    root.locator(".pp-badge", has_text="stopped").wait_for()
