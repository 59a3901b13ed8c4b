"""The panel that `flow.panel()` returns: each processor's throughput as ipywidgets, for the user's dashboard.

Owns these widgets and the thread that feeds them. The live graph belongs to `pratipad_nb.notebook.widget`.
"""

from __future__ import annotations

import threading
from typing import Any

import ipywidgets

from pratipad_nb import wording
from pratipad_nb.errors import PratipadError
from pratipad_nb.runtime.values.stats import FlowStats, ProcessorStats
from pratipad_nb.session import Flow

__all__ = ["RatesPanel", "panel"]

#: The least time between two updates, in seconds: five updates a second look live, more can't be read.
_PACE = 0.2
#: Bytes of one widget's change on the wire, and bytes that a panel may send a second.
_CHANGE, _BYTES_PER_SECOND = 700, 20_000
_ENDED = ("stopped", "failed")


class RatesPanel(ipywidgets.VBox):
    """A row for each processor, and a row for Output: a bar for how busy it is, its rate, its failures.

    Attributes
    ----------
    rows
        The rows by processor key, and by ``"Output"``: each an `HBox` of bar and label that may be put
        anywhere.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.rows: dict[str, ipywidgets.HBox] = {}
        self._flow = flow
        self._left = threading.Event()
        self._update(flow.stats())
        self._thread = threading.Thread(target=self._follow, name=f"pratipad-rates-{flow.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following the flow, and take the widgets off the page."""
        self._left.set()
        if self._thread is not threading.current_thread():
            self._thread.join(5.0)
        for row in self.rows.values():
            for widget in (*row.children, row):
                widget.close()
        super().close()

    def _follow(self) -> None:
        while not self._left.wait(max(_PACE, 2 * len(self.rows) * _CHANGE / _BYTES_PER_SECOND)):
            try:
                stats = self._flow.stats()
            except PratipadError:
                return
            self._update(stats)
            if stats.state in _ENDED:
                return

    def _update(self, stats: FlowStats) -> None:
        names = [*stats.processors, "Output"]
        if names != list(self.rows):
            self.rows = {name: self.rows.get(name) or _row(name) for name in names}
            self.children = tuple(self.rows.values())
        ended = stats.state in _ENDED
        for key, p in stats.processors.items():
            bar, label = self.rows[key].children
            # To two digits: a change too small to be seen is not sent.
            bar.value = 0.0 if ended else round(min(1.0, p.busy), 2)
            bar.bar_style = "danger" if p.failed else "info"
            label.value = _stopped(p) if ended else _words(p)
        moving = stats.state if ended else f"{wording.rate(stats.rate)} /s"
        self.rows["Output"].children[1].value = f"{moving}, {wording.count(stats.delivered)} delivered"


def _row(name: str) -> ipywidgets.HBox:
    wide = ipywidgets.Layout(width="20em")
    bar: Any
    if name == "Output":
        bar = ipywidgets.Label(name, layout=wide)
    else:
        bar = ipywidgets.FloatProgress(
            value=0.0,
            min=0.0,
            max=1.0,
            description=name,
            tooltip=f"how busy {name} is",
            layout=wide,
            style={"description_width": "50%"},
        )
    return ipywidgets.HBox([bar, ipywidgets.Label("")])


def _stopped(p: ProcessorStats) -> str:
    words = [p.state, f"in {wording.count(p.received)}", f"out {wording.count(p.emitted)}"]
    return ", ".join([*words, f"{wording.count(p.failed)} failed"] if p.failed else words)


def _words(p: ProcessorStats) -> str:
    words = [f"{wording.rate(p.rate)} /s", f"{wording.share(p.busy)} busy"]
    words += [f"{wording.count(p.failed)} failed"] if p.failed else []
    words += [p.state] if p.state != "running" else []
    words += ["newer code"] if p.newer else []
    return ", ".join(words)


def panel(flow: Flow) -> RatesPanel:
    """Return a panel that follows `flow` until the flow has stopped."""
    return RatesPanel(flow)
