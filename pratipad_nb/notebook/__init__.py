"""The notebook's face of a flow: magics, completion, the live picture and its static forms.

A thin layer over `pratipad_nb.session.Flow`: whatever it does can be done by the handle too.

=========== =============================================================================
magics      ``%%dataflow`` and ``%dataflow``
options     the line after ``%%dataflow``
commands    the commands of ``%dataflow``
completer   completion in such cells
environment what is taken from environment variables
extension   what loading sets up, and what runs after each cell
faults      errors as a notebook shows them
scene       what is drawn, as plain values
widget      the live picture; `static/` holds its front end
inspector   what the page sees of an opened node, and what it may ask for
shows       one widget for each name, and what the saved file keeps
picture     the static picture (matplotlib)
plots       the last hour in curves, and the graph as a file
rates       throughput as plain widgets
orders      what a person types to send to a device
text        the picture in text
led         a device's light as a widget
panel       the list of flows for JupyterLab's side panel
=========== =============================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load", "unload"]

_loaded: dict[int, Any] = {}


def load(ipython: InteractiveShell) -> None:
    """Set up ``%%dataflow`` in `ipython`; a second call changes nothing. ``%load_ext pratipad_nb`` calls it."""
    if id(ipython) in _loaded:
        return
    from pratipad_nb.notebook.extension import Extension

    _loaded[id(ipython)] = Extension(ipython)


def unload(ipython: InteractiveShell) -> None:
    """Take it all out again; flows that run go on, without their pictures."""
    extension = _loaded.pop(id(ipython), None)
    if extension is not None:
        extension.close()
