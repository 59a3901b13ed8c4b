"""A notebook's code cells, run without a browser.

Owns the IPython shell that runs the cells, in this process, so that magics work and flows stay. The shell's
output is text on stdout (with ``run --json`` on stderr). Nothing is written back into the notebook.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pratipad_nb.cli.programs import ProgramError, told

__all__ = ["SKIPPED_TAG", "CodeCell", "code_cells", "execute_notebook"]

#: Cells with this tag make sense in a browser alone.
SKIPPED_TAG = "notebook-only"
#: Jupyter's own tag for cells that show an error.
_FAILING_TAG = "raises-exception"


@dataclass(frozen=True, slots=True)
class CodeCell:
    """A code cell.

    `number` counts the code cells from 1; `skipped` is true for a cell that is for notebooks alone,
    `may_fail` for a cell that shows an error.
    """

    number: int
    source: str
    skipped: bool = False
    may_fail: bool = False


def code_cells(path: Path) -> list[CodeCell]:
    """Return the code cells of a notebook file.

    Raises
    ------
    ProgramError
        If the file can't be read, or is no notebook.
    """
    try:
        return list(_code_cells(json.loads(path.read_bytes())))
    except OSError as error:
        raise ProgramError(f"{path} can't be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProgramError(f"{path} is no notebook (nbformat 4): {error}.") from error


def _code_cells(notebook: Any) -> Iterator[CodeCell]:
    number = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            number += 1
            source = cell["source"]
            text = source if isinstance(source, str) else "".join(source)
            tags = cell.get("metadata", {}).get("tags", ())
            yield CodeCell(number, text, SKIPPED_TAG in tags, _FAILING_TAG in tags)


def execute_notebook(path: Path) -> dict[str, Any]:
    """Run the code cells of `path` from top to bottom, and return the names that they have defined.

    Raises
    ------
    ProgramError
        If a cell fails; the error names the cell and its line. The cells after it are not run.
    KeyboardInterrupt
        If a cell is interrupted.
    """
    cells = code_cells(path)
    # Before a cell imports matplotlib: there is no screen to open a window on.
    os.environ.setdefault("MPLBACKEND", "agg")
    sys.path.insert(0, str(path.absolute().parent))
    with tempfile.TemporaryDirectory(prefix="pratipad-run-", ignore_cleanup_errors=True) as folder:
        shell = _shell(folder)
        for cell in cells:
            if not cell.skipped and cell.source.strip():
                _run(shell, path, cell)
        return dict(shell.user_ns)


def _shell(folder: str) -> Any:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Headless(InteractiveShell):  # type: ignore[misc, unused-ignore]
        """A shell that leaves faults to its caller, and has no windows."""

        def _showtraceback(self, etype: Any, evalue: Any, stb: Any) -> None:
            """Show nothing."""

        def show_usage_error(self, exc: Any) -> None:
            """Show nothing."""

        def enable_gui(self, gui: Any = None) -> None:
            """Change nothing."""

    config = Config()
    config.HistoryManager.enabled = False
    return Headless.instance(config=config, ipython_dir=folder)


def _run(shell: Any, path: Path, cell: CodeCell) -> None:
    result = shell.run_cell(cell.source, store_history=True)
    error = result.error_before_exec or result.error_in_exec
    if isinstance(error, KeyboardInterrupt):
        raise KeyboardInterrupt
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return
    if error is not None and not cell.may_fail:
        what = f"{path}, code cell {cell.number}"
        raise ProgramError(told(error, what, lambda name: name.startswith("<ipython-input"))) from error
