"""The inspector: the values of one opened node on the page, and the actions that the page may ask for.

Owns which node is open and how long, the values sent of the node and their bounds, and those actions. Draws
nothing (`static/inspector.js` does) and keeps no message: samples belong to the flow.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pratipad_nb import wording
from pratipad_nb.dataflow import DEVICES, OUTPUT
from pratipad_nb.errors import PratipadError
from pratipad_nb.notebook.typed_orders import send_typed
from pratipad_nb.runtime.values.samples import KEPT, Sample
from pratipad_nb.session import Flow

__all__ = ["BYTES_PER_SECOND", "Inspection", "act", "told", "way"]

log = logging.getLogger(__name__)

#: Bytes a second that an open inspector may send, envelope included: half of a picture's.
BYTES_PER_SECOND = 10_000
_BUDGET = 6_500
_LOG_BUDGET = 1_500
#: Seconds between two looks at the flow, and after a wish of the page's (another node, another filter), which
#: is not to wait.
_PACE = 1.0
_AT_ONCE = 0.3
#: Seconds that a page's wish holds: an open page renews its wish, and a closed page can't take its wish back.
_HOLDS = 15.0
#: Rows of messages and of devices in a table, messages searched for the last failure, characters of a value.
_ROWS = 20
_DEVICES = 50
_SEARCHED = 100
_LINES = 30
_CHARACTERS = 240
_SOURCE_CHARACTERS = 6_000
_TRACEBACK_CHARACTERS = 1_500

#: Names in order of their numbers: room2 before room10.
_RUNS = re.compile(r"\d+|\D+")


@dataclass(frozen=True, slots=True)
class _Wish:
    key: str
    text: str
    until: float


class Inspection:
    """The node of a flow that a page has open, and the values that the page is sent of it."""

    def __init__(self) -> None:
        self._wish: _Wish | None = None
        self._asked = threading.Event()
        self._looked_at = float("-inf")

    @property
    def key(self) -> str | None:
        """The key of the open node, or None."""
        wish = self._wish
        return wish.key if wish is not None and time.monotonic() < wish.until else None

    def ask(self, content: dict[str, Any]) -> None:
        """Take a page's wish: ``key`` (None closes the inspector), and ``filter``, a text to seek."""
        key, before = content.get("key"), self._wish
        wish = (
            _Wish(str(key), str(content.get("filter") or "")[:200], time.monotonic() + _HOLDS)
            if key
            else None
        )
        self._wish = wish
        if wish and (before is None or (before.key, before.text) != (wish.key, wish.text)):
            self._asked.set()

    def look(self, flow: Flow) -> dict[str, Any] | None:
        """Return the open node's values, or None if no node is open or its values have just been sent."""
        wish, now = self._wish, time.monotonic()
        if wish is None or now >= wish.until:
            return None
        if now - self._looked_at < (_AT_ONCE if self._asked.is_set() else _PACE):
            return None
        self._asked.clear()
        self._looked_at = now
        if wish.key == DEVICES:
            return {"key": wish.key, "filter": wish.text} | _devices(flow, wish.text)
        if wish.key == OUTPUT:
            return {"key": wish.key, "letters": _letters(flow)}
        if wish.key not in flow:
            return None
        return {"key": wish.key, "filter": wish.text, "log": _log(flow, wish.key)} | _messages(flow, wish)

    def about(self, flow: Flow) -> dict[str, Any]:
        """Return the open node's values that seldom change: a processor's source and arguments."""
        key = self.key
        if key is None or key not in flow:
            return {"key": key}
        step = flow[key]
        arguments = ", ".join(f"{name}={value!r:.{_CHARACTERS}}" for name, value in step.arguments.items())
        return {"key": key, "source": step.source[:_SOURCE_CHARACTERS], "arguments": arguments}


def _devices(flow: Flow, text: str) -> dict[str, Any]:
    """Return the busiest of the devices whose name or error contains `text`, by name, and their number."""
    wanted = text.casefold()
    found = [(name, d) for name, d in flow.stats().devices.items()
             if wanted in name.casefold() or wanted in d.error.casefold()]  # fmt: skip
    found.sort(key=lambda item: (-item[1].rate, item[0]))
    rows: list[list[Any]] = []
    left = _BUDGET
    for name, d in found[:_DEVICES]:
        rate, orders = float(f"{d.rate:.3g}"), [d.orders_run, d.orders_sent]
        row = [name, d.connected, rate, d.received, orders, d.sources, _plain(d.error)]
        left -= len(json.dumps(row))
        if left < 0:
            break
        rows.append(row)
    rows.sort(
        key=lambda row: [(len(run), run) if run.isdigit() else (0, run) for run in _RUNS.findall(row[0])]
    )
    return {"devices": rows, "matching": len(found)}


def _messages(flow: Flow, wish: _Wish) -> dict[str, Any]:
    samples = flow[wish.key].samples(KEPT if wish.text else _SEARCHED)
    broken = next((s for s in reversed(samples) if s.error), None)
    fault = [_plain(broken.error), _told(broken.traceback, _TRACEBACK_CHARACTERS)] if broken else None
    rows: list[list[Any]] = []
    left = _BUDGET - len(json.dumps(fault))
    for sample in reversed(samples):
        row = _row(sample)
        if wish.text and not any(wish.text.casefold() in str(part).casefold() for part in row):
            continue
        left -= len(json.dumps(row))
        if left < 0 or len(rows) == _ROWS:
            break
        rows.append(row)
    return {"messages": rows, "fault": fault}


def _log(flow: Flow, key: str) -> list[list[Any]]:
    """Return the last lines that a processor printed or logged, oldest first."""
    lines: list[list[Any]] = []
    left = _LOG_BUDGET
    for line in reversed(flow[key].log[-_LINES:]):
        shown = [round(line.time, 3), line.stream, _plain(line.text)]
        left -= len(json.dumps(shown))
        if left < 0:
            break
        lines.append(shown)
    return lines[::-1]


def _row(sample: Sample) -> list[Any]:
    message = sample.message
    return [message.id, message.device, round(sample.time, 3), *_in_out(sample)]


def _in_out(sample: Sample) -> list[str]:
    return [_texts(sample.inputs), _texts(sample.results), _plain(sample.error)]


def _texts(values: tuple[Any, ...]) -> str:
    return "\n".join(map(_text, values[:5])) + ("\n…" if len(values) > 5 else "")


def _text(value: Any) -> str:
    text = wording.printable(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…"


def _plain(text: str) -> str:
    """Return the beginning of a text of others, printable."""
    return wording.printable(text[:_CHARACTERS], lines=True)


def _told(traceback: str, most: int) -> str:
    """Return the end of a traceback, which has the place and the error, printable."""
    return wording.printable(traceback[-most:], lines=True)


def _letters(flow: Flow) -> list[list[str]]:
    found = flow.dead_letters()[-5:]
    return [
        [x.processor, _text(x.payload), _plain(x.error), _told(x.traceback, _TRACEBACK_CHARACTERS // 2)]
        for x in reversed(found)
    ]


def way(flow: Flow, message: str) -> dict[str, Any]:
    """Return a message's way through the flow: for each processor its input, its output and the error."""
    found = flow.trace(message)
    steps = [[key, *(_in_out(sample) if sample else ("", "", ""))] for key, sample in found.items()]
    return {"id": found.message.id, "device": found.message.device, "steps": steps}


def act(flow: Flow, content: dict[str, Any]) -> str:
    """Carry out the action that a page asks for, and return the line to be shown, "" for none.

    Raises
    ------
    PratipadError
        If the action fails; the error's text is for the page.
    """
    action = _ACTIONS.get(str(content.get("do")))
    return action(flow, content) if action is not None else ""


def _pause(flow: Flow, content: dict[str, Any]) -> str:
    flow.pause(content.get("key"))
    return ""


def _resume(flow: Flow, content: dict[str, Any]) -> str:
    flow.resume(content.get("key"))
    return ""


def _stop(flow: Flow, _content: dict[str, Any]) -> str:
    flow.request_stop()
    return ""


def _retry(flow: Flow, _content: dict[str, Any]) -> str:
    return f"{wording.counted(flow.retry_dead_letters(), 'dead letter')} put through again."


def _set_rate(flow: Flow, content: dict[str, Any]) -> str:
    flow.rate = content.get("value")
    return ""


def _set_demand(flow: Flow, content: dict[str, Any]) -> str:
    flow.max_demand = int(content.get("value") or 1)
    return ""


def _order(flow: Flow, content: dict[str, Any]) -> str:
    said = send_typed(flow, str(content.get("payload", "")), str(content.get("to") or "").strip() or None)
    return said[:1].upper() + said[1:]


_ACTIONS: dict[str, Callable[[Flow, dict[str, Any]], str]] = {
    "stop": _stop,
    "pause": _pause,
    "resume": _resume,
    "retry": _retry,
    "rate": _set_rate,
    "demand": _set_demand,
    "order": _order,
}


def told(flow: Flow, content: dict[str, Any]) -> dict[str, Any]:
    """Carry out the action that a page asks for, and return the line to be shown, of a failure too."""
    try:
        return {"text": act(flow, content), "fault": False, "at": time.time()}
    except PratipadError as error:
        return {"text": str(error)[:1000], "fault": True, "at": time.time()}
    except Exception as error:  # this thread has no caller that would report it
        log.exception("%s: what a page asked for failed", flow.name)
        return {"text": wording.in_words(error), "fault": True, "at": time.time()}
