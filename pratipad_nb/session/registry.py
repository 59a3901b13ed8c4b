"""The registry: which flows run in this process, by name.

Owns that table alone. It is how the notebook's magics, the panel and the clean-up at exit find flows.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pratipad_nb.errors import FlowError

if TYPE_CHECKING:
    from pratipad_nb.session.flow import Flow

__all__ = ["enter", "flows", "leave"]

_lock = threading.Lock()
_flows: dict[str, Flow] = {}


def flows() -> dict[str, Flow]:
    """Return the flows that run in this process, by name."""
    with _lock:
        return dict(_flows)


def enter(flow: Flow) -> None:
    """Note that `flow` is started.

    Raises
    ------
    FlowError
        If another flow of that name runs here.
    """
    with _lock:
        if _flows.setdefault(flow.name, flow) is not flow:
            raise FlowError(
                f"a flow named {flow.name!r} runs in this process already: {_flows[flow.name].notation}. "
                "Stop it first, change it with update(), or give this one another name."
            )


def leave(flow: Flow) -> None:
    """Note that `flow` is stopped."""
    with _lock:
        if _flows.get(flow.name) is flow:
            del _flows[flow.name]
