"""The notebook's face of a flow: magics, completion, the live picture and its static forms.

A thin layer over `pratipad_nb.session.Flow`: the handle can do everything that a notebook can.

================  ==========================================================================================
``extension``     the hooks in IPython: magics, completion, work after each cell
``environment``   the environment variables
``magics``        ``%%dataflow`` and ``%dataflow``
``cell_line``     the line of a ``%%dataflow`` cell: a name and options
``commands``      the commands of ``%dataflow``
``completer``     completion in both
``typed_orders``  orders that a person types: JSON and a device's name
``faults``        errors as a notebook shows them
``scene``         the drawn values of a flow, as plain JSON
``widget``        the live picture; ``static/`` holds its front end
``inspector``     an opened node on the page, and the actions that the page may ask for
``shows``         one widget for each flow's name, and its place in the saved notebook
``picture``       the static picture (matplotlib)
``text``          the picture in plain text
``plots``         the last hour in curves, and the graph as a file
``rates``         throughput as plain widgets
``led``           a device's light as a widget
``panel``         the list of flows for JupyterLab's side panel
================  ==========================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load", "unload"]

_loaded: dict[int, Any] = {}


def load(ipython: InteractiveShell) -> None:
    """Set up ``%%dataflow`` in `ipython`, for ``%load_ext pratipad_nb``; a second call changes nothing."""
    if id(ipython) in _loaded:
        return
    from pratipad_nb.notebook.extension import Extension

    _loaded[id(ipython)] = Extension(ipython)


def unload(ipython: InteractiveShell) -> None:
    """Take all hooks out of `ipython`; running flows go on, without their pictures."""
    extension = _loaded.pop(id(ipython), None)
    if extension is not None:
        extension.close()
