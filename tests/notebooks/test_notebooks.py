"""The tutorials run from top to bottom, in a fresh kernel each, and what they show is still so.

Outputs that are the same everywhere (cells tagged ``nbval-check-output``) are committed and compared; all
others are not committed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def code_cells(notebook):
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def is_compared(cell):
    return "nbval-check-output" in cell["metadata"].get("tags", [])


@pytest.mark.timeout(180)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_committed_outputs_are_true(notebook, tmp_path):
    # In a process of its own: state folder, Jupyter's and IPython's folders are a newcomer's, empty.
    private = {
        "PRATIPAD_HOME": str(tmp_path / "state"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        **{f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")},
    }
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider", "--timeout=120", "-q"]
    run = subprocess.run(
        [*command, "--color=no", str(notebook)],
        env=os.environ | private,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_with_compared_outputs_alone(notebook):
    cells = code_cells(notebook)
    assert [cell["id"] for cell in cells if bool(cell["outputs"]) != is_compared(cell)] == []
    assert (
        "widgets" not in json.loads(notebook.read_text())["metadata"]
    )  # JupyterLab's copy of their state, and code


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_stops_every_flow_that_it_starts(notebook):
    cells = [
        cell for cell in code_cells(notebook) if "raises-exception" not in cell["metadata"].get("tags", [])
    ]
    sources = ["".join(cell["source"]) for cell in cells]
    started = {source.split()[1] for source in sources if source.startswith("%%dataflow ")}
    stopping = "\n".join(source for source in sources if ".stop()" in source)
    assert [name for name in started if name not in stopping] == []
