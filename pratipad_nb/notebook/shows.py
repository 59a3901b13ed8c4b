"""The pictures on show: one widget for each flow's key, and its place in the saved notebook.

Owns which widget shows which name, and that a stopped flow's last numbers reach the notebook's file.
"""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass
from typing import Any

from IPython.display import display, update_display

from pratipad_nb.notebook.widget import FlowWidget
from pratipad_nb.session import Flow
from pratipad_nb.settings import file_key
from pratipad_nb.transport.parties import flow_key

__all__ = ["Shows"]


@dataclass(slots=True)
class _Show:
    widget: FlowWidget
    display_id: str = ""


class Shows:
    """The widgets of one kernel, by the flow's key."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._by_key: dict[str, _Show] = {}

    def show(self, flow: Flow) -> None:
        """Display the picture of `flow` below the running cell; older pictures of its name follow it too."""
        key = flow_key(flow.name, flow.tenant)
        shown = self._by_key.get(key)
        if shown is None:
            shown = self._by_key[key] = _Show(FlowWidget(on_end=lambda: self._keep_last(key)))
        shown.widget.watch(flow)
        shown.display_id = f"pratipad-{file_key(key)}-{uuid.uuid4().hex[:8]}"
        display(shown.widget, display_id=shown.display_id)

    def settle(self) -> None:
        """Bring every stopped flow's picture to its last numbers, before the cell's end is reported."""
        for shown in list(self._by_key.values()):
            shown.widget.settle()

    def close(self) -> None:
        """Take all pictures off the page and end their threads."""
        while self._by_key:
            self._by_key.popitem()[1].widget.close()

    def _keep_last(self, key: str) -> None:
        """Replace the cell's static picture, so that a saved notebook shows the last numbers."""
        shown = self._by_key.get(key)
        # A terminal can't replace an output, and would print the picture's line a second time.
        if shown is None or getattr(self._shell, "kernel", None) is None:
            return
        with contextlib.suppress(OSError):  # the kernel is going down and its sockets are closed
            update_display(shown.widget, display_id=shown.display_id)
