"""The registry: the flows that run in this process, by their keys: name, or of a tenant's flow TENANT/NAME.

Owns that table, and draining the flows in it when the program ends. The notebook's magics and the panel find
flows here. Refusing a flow that runs in another process is for the edge.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
from typing import TYPE_CHECKING

from pratipad_nb.errors import FlowError, PratipadError
from pratipad_nb.forks import forget_in_child
from pratipad_nb.transport.parties import flow_key

if TYPE_CHECKING:
    from pratipad_nb.session.flow import Flow

__all__ = ["enter", "flows", "leave"]

_lock = threading.Lock()
_flows: dict[str, Flow] = {}


def flows() -> dict[str, Flow]:
    """Return the flows that run in this process, by their keys."""
    with _lock:
        return dict(_flows)


def enter(flow: Flow) -> None:
    """Note that `flow` is started.

    Raises
    ------
    FlowError
        If another flow of that name, and of the same tenant, runs here.
    """
    key = flow_key(flow.name, flow.tenant)
    with _lock:
        if _flows.setdefault(key, flow) is not flow:
            raise FlowError(
                f"a flow named {key!r} runs in this process already: {_flows[key].notation}. "
                "Stop it first, change it with update(), or give this one another name."
            )


def leave(flow: Flow) -> None:
    """Note that `flow` is stopped."""
    key = flow_key(flow.name, flow.tenant)
    with _lock:
        if _flows.get(key) is flow:
            del _flows[key]


def _forget_all() -> None:
    """Forget the flows, which run in the process from which this process was forked."""
    global _lock
    _lock = threading.Lock()  # another thread may have held the lock
    _flows.clear()


forget_in_child(_forget_all)


def _stop_all() -> None:
    """Stop all flows when the program ends, so that no next start has to wait for a time-out."""
    for flow in flows().values():
        with contextlib.suppress(PratipadError):
            flow.stop()


# When `atexit` calls, the thread pools that event loops use are closed already. `threading._register_atexit`
# registers what closes the pools, and calls the last registered function first. Python has no public name for
# it.
getattr(threading, "_register_atexit", atexit.register)(_stop_all)
