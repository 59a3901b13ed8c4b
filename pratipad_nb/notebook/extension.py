"""What is hung into IPython by ``%load_ext pratipad_nb``, and taken out again.

Owns the hooks alone: magics, completion, what runs after each cell.
"""

from __future__ import annotations

import re
import threading
from typing import Any

from pratipad_nb.notebook.completer import dataflow_matcher
from pratipad_nb.notebook.environment import surroundings
from pratipad_nb.notebook.magics import DataflowMagics
from pratipad_nb.notebook.panel import Panel
from pratipad_nb.notebook.shows import Shows
from pratipad_nb.session.defaults import set_defaults

__all__ = ["Extension", "help_without_body"]

_ASKS_FOR_HELP = re.compile(r"\s*%%dataflow(\s+(--help|-h))?\s*$")


def help_without_body(lines: list[str]) -> list[str]:
    """Let ``%%dataflow --help`` work in a cell with nothing below it, which IPython refuses to run as a cell magic."""
    if lines and _ASKS_FOR_HELP.match(lines[0]) and not "".join(lines[1:]).strip():
        return ["get_ipython().run_cell_magic('dataflow', '--help', ' ')\n"]
    return lines


class Extension:
    """The package in one IPython shell."""

    def __init__(self, shell: Any) -> None:
        set_defaults(surroundings())
        self._shell = shell
        self._shows = Shows(shell)
        self._magics = DataflowMagics(shell, self._shows)
        self._matcher = dataflow_matcher(lambda: shell.user_ns)
        self._panel = Panel()
        shell.register_magics(self._magics)
        shell.Completer.custom_matchers.append(self._matcher)
        shell.input_transformers_cleanup.append(help_without_body)
        shell.events.register("post_run_cell", self._after_cell)
        if getattr(shell, "kernel", None) is not None:
            self._panel.open(shell.kernel)
            # Drawing the first static picture needs matplotlib, whose import takes a second: begin early, beside.
            threading.Thread(target=_warm_up, name="pratipad-warm-up", daemon=True).start()

    def close(self) -> None:
        """Take the hooks out."""
        shell = self._shell
        shell.events.unregister("post_run_cell", self._after_cell)
        shell.input_transformers_cleanup.remove(help_without_body)
        shell.Completer.custom_matchers.remove(self._matcher)
        for kind in ("line", "cell"):
            shell.magics_manager.magics[kind].pop("dataflow", None)
        self._panel.close()
        self._shows.close()

    def _after_cell(self, _result: Any) -> None:
        self._magics.swap_redefined()
        self._shows.settle()


def _warm_up() -> None:
    import matplotlib.backends.backend_agg
    import matplotlib.figure
    import matplotlib.patches  # noqa: F401 - imported for the next one who needs it
