"""The list of flows for JupyterLab's "Dataflows" side panel.

Owns the list's comm: a page opens the target `TARGET`, gets the running flows once a second while it listens,
and may ask to stop a flow. The panel itself is in `extensions/jupyterlab`.
"""

from __future__ import annotations

import threading
from typing import Any

from pratipad_nb.session import flows

__all__ = ["TARGET", "Panel", "summary"]

TARGET = "pratipad_nb.dataflows"
_PACE = 1.0


def summary() -> list[dict[str, Any]]:
    """Return for each running flow its name, notation, state, rate, delivered, devices connected, trouble."""
    found = []
    for name, flow in sorted(flows().items()):
        s = flow.stats()
        found.append(
            {
                "name": name,
                "notation": " ".join(flow.notation.split()),
                "state": s.state,
                "rate": float(f"{s.rate:.3g}"),
                "delivered": s.delivered,
                "connected": sum(d.connected for d in s.devices.values()),
                "trouble": next((each for each in (s.error, *s.blocked_by, *s.warnings) if each), ""),
            }
        )
    return found


class Panel:
    """The kernel's end of the side panels that listen."""

    def __init__(self) -> None:
        self._comms: dict[str, Any] = {}
        self._manager: Any = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def open(self, kernel: Any) -> None:
        """Offer the target `TARGET` to pages."""
        self._manager = getattr(kernel, "comm_manager", None)
        if self._manager is not None:
            self._manager.register_target(TARGET, self._opened)

    def close(self) -> None:
        """Withdraw the target and stop sending."""
        self._closed.set()
        if self._manager is not None:
            self._manager.unregister_target(TARGET, self._opened)
        self._comms.clear()

    def _opened(self, comm: Any, _message: Any) -> None:
        from pratipad_nb.notebook.widget import answer_on_the_asking_subshell

        answer_on_the_asking_subshell(comm)
        self._comms[comm.comm_id] = comm
        comm.on_close(lambda _message: self._comms.pop(comm.comm_id, None))
        comm.on_msg(self._heard)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._tell, name="pratipad-panel", daemon=True)
            self._thread.start()

    def _heard(self, message: Any) -> None:
        data = message["content"]["data"]
        flow = flows().get(str(data.get("name")))
        if data.get("do") == "stop" and flow is not None:
            flow.request_stop()

    def _tell(self) -> None:
        """Send the list while a page listens; the thread ends with the last listening page."""
        while self._comms and not self._closed.is_set():
            found = summary()
            for comm in list(self._comms.values()):
                comm.send({"flows": found})
            self._closed.wait(_PACE)
