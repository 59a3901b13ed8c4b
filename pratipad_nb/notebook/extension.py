"""The hooks that ``%load_ext pratipad_nb`` puts into IPython, and takes out again.

Owns the hooks alone: magics, completion, the work after each cell.
"""

from __future__ import annotations

import re
import threading
from typing import Any

from pratipad_nb.notebook import faults, led
from pratipad_nb.notebook.completer import dataflow_matcher
from pratipad_nb.notebook.environment import surroundings
from pratipad_nb.notebook.magics import DataflowMagics
from pratipad_nb.notebook.panel import Panel
from pratipad_nb.notebook.shows import Shows
from pratipad_nb.session import Flow
from pratipad_nb.session.defaults import set_defaults

__all__ = ["Extension", "without_body"]

_FIRST_LINE = re.compile(r"\s*%%dataflow(?:\s+(.*))?$")


def without_body(lines: list[str]) -> list[str]:
    """Return a ``%%dataflow`` line with nothing below it, which IPython refuses, as a call of the magic.

    So ``%%dataflow --help`` works, and a user who forgot the notation is told how to write it.
    """
    first = _FIRST_LINE.match(lines[0].rstrip()) if lines else None
    if first is None or "".join(lines[1:]).strip():
        return lines
    return [f"get_ipython().run_cell_magic('dataflow', {first[1] or '--help'!r}, ' ')\n"]


class Extension:
    """The package in one IPython shell."""

    def __init__(self, shell: Any) -> None:
        set_defaults(surroundings())
        self._shell = shell
        self._shows = Shows(shell)
        self._magics = DataflowMagics(shell, self._shows)
        self._matcher = dataflow_matcher(self._users_names)
        self._panel = Panel()
        shell.register_magics(self._magics)
        shell.Completer.custom_matchers.append(self._matcher)
        shell.input_transformers_cleanup.append(without_body)
        shell.events.register("post_run_cell", self._after_cell)
        led.hang_into(shell)
        faults.hang_in(shell)
        # A flow that is a cell's value is shown live, as a flow of a `%%dataflow` cell is.
        shell.display_formatter.ipython_display_formatter.for_type(Flow, self._shows.show)
        if getattr(shell, "kernel", None) is not None:
            self._panel.open(shell.kernel)
            # Drawing the first static picture needs matplotlib, whose import takes a second: begin early, in
            # a thread.
            threading.Thread(target=_warm_up, name="pratipad-warm-up", daemon=True).start()

    def close(self) -> None:
        """Take the hooks out."""
        shell = self._shell
        shell.events.unregister("post_run_cell", self._after_cell)
        shell.input_transformers_cleanup.remove(without_body)
        shell.Completer.custom_matchers.remove(self._matcher)
        for kind in ("line", "cell"):
            shell.magics_manager.magics[kind].pop("dataflow", None)
        led.take_out_of(shell)
        faults.take_out()
        shell.display_formatter.ipython_display_formatter.pop(Flow, None)
        self._panel.close()
        self._shows.close()

    def _users_names(self) -> dict[str, Any]:
        """Return the notebook's names without IPython's own (``get_ipython``, ``open``)."""
        hidden = self._shell.user_ns_hidden
        return {name: value for name, value in self._shell.user_ns.items() if hidden.get(name) is not value}

    def _after_cell(self, _result: Any) -> None:
        self._magics.swap_redefined()
        self._shows.settle()


def _warm_up() -> None:
    import matplotlib.backends.backend_agg
    import matplotlib.figure
    import matplotlib.patches  # noqa: F401 - so that a later import is quick
