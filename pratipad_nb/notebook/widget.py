"""The graph widget: one live picture for each flow, fed from a thread of its own.

Owns the traits that reach the page, their pace, and the widget's part in the saved notebook. Its look is
written in `static/`, in the files that `_MODULES` names; the drawn values come from
`pratipad_nb.notebook.scene`.

A thread sets the traits, and neither a task of the flow's loop nor a callback of the kernel's: only a thread
lets the numbers move while a cell runs, and costs the flow nothing but a snapshot.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from pratipad_nb.errors import PratipadError
from pratipad_nb.notebook import inspector, scene
from pratipad_nb.notebook.picture import draw, rendered
from pratipad_nb.notebook.text import headline

__all__ = ["FlowWidget", "answer_on_the_asking_subshell"]

_STATIC = Path(__file__).with_name("static")
_MODULES = ("cards.js", "inspector.js", "geometry.js", "camera.js", "graph.js")

#: The least time between two updates, in seconds: five updates a second look live, more can't be read.
_PACE = 0.2
#: The longest time between two updates, in seconds: the page greys a picture after 3 s of silence, so that
#: one update may get lost.
_HEARTBEAT = 1.0
#: Bytes a second that one picture may send, and bytes of an update beside its numbers.
_BYTES_PER_SECOND = 20_000
_ENVELOPE = 1_000
#: The sparklines' length (samples, one a second), and the seconds after which all samples are sent again, for
#: pages that open late.
_MINUTE = 60
_HISTORY_EVERY = 20.0

_ENDED = ("stopped", "failed")

#: Asks our JupyterLab extension to show the saved picture where no kernel has the widget; other front ends
#: ignore this type.
_SAVED_PICTURE = "application/vnd.pratipad.flow+json"


def _read(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


class FlowWidget(anywidget.AnyWidget):
    """The picture of one flow: after `watch` the widget follows that flow until it has stopped.

    Parameters
    ----------
    on_end
        Called from the widget's thread once the flow has stopped and its last numbers are in.

    Notes
    -----
    A click on a button arrives as a message of the page on a subshell's thread, also while a cell blocks
    the kernel; the handler only asks the flow (`request_stop` sets an event), which does the rest on its own
    thread.
    """

    # The files are joined and don't import each other, since a widget is one module and there is no bundler.
    _esm = "\n".join(map(_read, _MODULES))
    _css = "\n".join(map(_read, ("graph.css", "inspector.css")))
    structure = traitlets.Dict().tag(sync=True)
    numbers = traitlets.Dict().tag(sync=True)
    history = traitlets.Dict().tag(sync=True)
    # Values of the node that a page has open, sent only while a node is open: see `inspector`.
    about = traitlets.Dict().tag(sync=True)
    inspected = traitlets.Dict().tag(sync=True)
    way = traitlets.Dict().tag(sync=True)
    told = traitlets.Dict().tag(sync=True)

    def __init__(self, on_end: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._on_end = on_end
        self._feed: _Feed | None = None
        answer_on_the_asking_subshell(self.comm)
        self.on_msg(self._heard)

    @property
    def flow(self) -> Any:
        """The watched flow, or None before the first `watch`."""
        return self._feed.flow if self._feed else None

    def watch(self, flow: Any) -> None:
        """Show `flow` from now on, in place of any other flow."""
        if self._feed is not None:
            if self._feed.flow is flow and self._feed.is_alive():
                return
            self._feed.leave()
        self._feed = _Feed(self, flow, self._on_end)
        self._feed.first()
        self._feed.start()

    def settle(self, timeout: float = 5.0) -> None:
        """Wait until a stopped flow is shown as stopped; return at once if the flow runs."""
        if self._feed is not None and self._feed.flow.stats().state in _ENDED:
            self._feed.wake.set()
            self._feed.join(timeout)

    def close(self) -> None:
        """Stop watching and take the picture off the page."""
        if self._feed is not None:
            self._feed.leave()
        super().close()

    def _heard(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        feed, action = self._feed, content.get("do")
        if feed is None:
            return
        if action == "inspect":
            feed.inspection.ask(content)
            feed.wake.set()
        else:
            # A thread of its own, since pausing waits for a batch and this thread serves other pictures too.
            threading.Thread(target=self._act, args=(feed.flow, content), daemon=True).start()

    def _act(self, flow: Any, content: dict[str, Any]) -> None:
        if content.get("do") == "way":
            try:
                self.way = inspector.way(flow, str(content.get("id")))
            except PratipadError as error:
                self.told = {"text": str(error), "fault": True, "at": time.time()}
            return
        told = inspector.told(flow, content)
        if told["text"]:
            self.told = told

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Add a picture and one line of text, for front ends without widgets.

        The text has no numbers, since tools that compare a notebook's outputs compare text and skip pictures.
        """
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        if self.structure:
            figure = draw(self.structure, self.numbers, self.history.get("rates", {}))
            data = data | {
                "image/png": rendered(figure, "png"),
                "text/plain": headline(self.structure),
                _SAVED_PICTURE: {},
            }
            width, _ = figure.get_size_inches() * 96
            metadata = metadata | {"image/png": {"width": round(width)}}
        return data, metadata


class _Feed(threading.Thread):
    """The thread that carries one flow's snapshots into one widget, until the flow ends or `leave`."""

    def __init__(self, widget: FlowWidget, flow: Any, on_end: Callable[[], None]) -> None:
        super().__init__(name=f"pratipad-picture-{flow.name}", daemon=True)
        self.flow = flow
        self.wake = threading.Event()
        self._widget = widget
        self._on_end = on_end
        self._left = threading.Event()
        self._rates: dict[str, deque[float]] = {}
        self._sampled = 0
        self._notation: str | None = None
        self._sent: dict[str, Any] = {}
        self._sent_at = self._history_at = self._looked_at = float("-inf")
        self._pause = _PACE
        self.inspection = inspector.Inspection()

    def leave(self) -> None:
        """End the thread; the flow goes on."""
        self._left.set()
        self.wake.set()
        if self is not threading.current_thread():
            self.join(5.0)

    def first(self) -> None:
        """Send the first snapshot from the caller's thread, so that the widget is shown complete."""
        self._widget.history = {}
        self._send(self.flow.stats())

    def run(self) -> None:
        while True:
            self.wake.wait(self._pause)
            # The bound holds for every page: many clicks don't make the kernel send more.
            self._left.wait(max(0.0, self._looked_at + _PACE - time.monotonic()))
            self.wake.clear()
            if self._left.is_set():
                return
            try:
                stats = self.flow.stats()
            except PratipadError:
                return  # the flow is forgotten: its last picture stays
            ended = stats.state in _ENDED
            self._send(stats, last=ended)
            if ended:
                self._on_end()
                return

    def _send(self, stats: Any, *, last: bool = False) -> None:
        # Traits that are due together go out as one message: a page is woken five times a second at most.
        with self._widget.hold_sync():
            self._set(stats, last=last)

    def _set(self, stats: Any, *, last: bool) -> None:
        self._looked_at = now = time.monotonic()
        if self.flow.notation != self._notation:
            self._notation = self.flow.notation
            self._widget.structure = scene.structure(self.flow)
        numbers = scene.numbers(stats) | {"set": [self.flow.rate, self.flow.max_demand]}
        self._sample(numbers)
        if last or now - self._history_at >= _HISTORY_EVERY:
            self._history_at = now
            self._widget.history = {"rates": {key: list(rates) for key, rates in self._rates.items()}}
        self._inspect()
        moved = {k: v for k, v in numbers.items() if k not in ("time", "uptime")}
        if moved == self._sent and not last and now - self._sent_at < _HEARTBEAT:
            return
        self._sent, self._sent_at = moved, now
        self._widget.numbers = numbers
        allowed = _BYTES_PER_SECOND - (inspector.BYTES_PER_SECOND if self.inspection.key else 0)
        self._pause = max(_PACE, (len(json.dumps(numbers)) + _ENVELOPE) / allowed)

    def _inspect(self) -> None:
        """Send the values of the node that a page has open, if there is one."""
        try:
            seen = self.inspection.look(self.flow)
            if seen is not None:
                self._widget.about = self.inspection.about(self.flow)
                self._widget.inspected = seen
        except (
            PratipadError
        ) as error:  # a node has disappeared, or a server is away: the next look may find it
            self._widget.told = {"text": str(error), "fault": True, "at": time.time()}

    def _sample(self, numbers: dict[str, Any]) -> None:
        second = int(numbers["time"])
        if second == self._sampled:
            return
        self._sampled = second
        now = {key: processor[1] for key, processor in numbers["processors"].items()}
        for key, rate in {**now, scene.OUTPUT: numbers["rate"]}.items():
            self._rates.setdefault(key, deque(maxlen=_MINUTE)).append(rate)


def answer_on_the_asking_subshell(comm: Any) -> None:
    """Let clicks run on the subshell that they were sent to.

    ipykernel 7.4 hands a message of the page to the subshell that last *sent* on the comm. That is the main
    thread's, since the picture's updates go out with the main thread's header: a click on Stop would wait for
    the cell that the click is to end.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _data, default: default  # noqa: SLF001
