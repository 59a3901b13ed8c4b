"""History: a flow's main numbers, once a second for an hour, for plots.

Owns which numbers are kept, and the bound: a second takes 8 bytes a number, so an hour of ten processors
takes 1.6 MB. Drawing the plots is for `pratipad_nb.notebook`.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from dataclasses import dataclass

from pratipad_nb import wording
from pratipad_nb.runtime.values.stats import FlowStats

__all__ = ["SECONDS", "FlowHistory", "History"]

#: Most rows that are kept, a row a second: an hour.
SECONDS = 3600
_FLOW = ("rate", "p50", "p99", "in_flight", "waiting")
_PROCESSOR = ("rate", "p50", "p99", "busy", "waiting")


@dataclass(frozen=True, slots=True)
class FlowHistory:
    """A flow's numbers over time; every list is as long as `times`.

    Attributes
    ----------
    times
        When each row was taken, in seconds since 1970-01-01 UTC, about a second apart; with a gap where the
        flow was stopped.
    flow
        By name: ``rate`` (delivered, a second), ``p50`` and ``p99`` (server's receipt to Output, seconds),
        ``in_flight`` (messages) and ``waiting`` (frames at the input).
    processors
        By key and name: ``rate``, ``p50``, ``p99`` (seconds for a message), ``busy`` (0 to 1), ``waiting``
        (messages before the processor); NaN while the flow had no such processor.
    """

    times: list[float]
    flow: dict[str, list[float]]
    processors: dict[str, dict[str, list[float]]]

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        keys = ", ".join(self.processors) or "no processor"
        return (
            f"<FlowHistory: {wording.counted(len(self), 'second')} of {keys}; numbers in "
            f".flow[{', '.join(self.flow)}] and .processors; flow.plot() draws them>"
        )


class History:
    """The rows of the last hour. Written on the flow's loop, read from any thread."""

    def __init__(self) -> None:
        self._rows: deque[tuple[tuple[str, ...], array[float]]] = deque(maxlen=SECONDS)
        self._keys: tuple[str, ...] = ()

    def add(self, stats: FlowStats) -> None:
        """Add the row of one moment."""
        keys = tuple(stats.processors)
        if keys != self._keys:  # the rows share one tuple, for keys seldom change
            self._keys = keys
        row = array("d", [stats.time, *(getattr(stats, name) for name in _FLOW)])
        for processor in stats.processors.values():
            row.extend(getattr(processor, name) for name in _PROCESSOR)
        self._rows.append((self._keys, row))

    def read(self) -> FlowHistory:
        """Return all rows, as lists by name."""
        rows = list(self._rows)
        processors: dict[str, dict[str, list[float]]] = {}
        for keys in dict.fromkeys(keys for keys, _ in rows):
            for key in keys:
                processors.setdefault(key, {name: [math.nan] * len(rows) for name in _PROCESSOR})
        for at, (keys, row) in enumerate(rows):
            for number, key in enumerate(keys):
                begin = 1 + len(_FLOW) + number * len(_PROCESSOR)
                for place, name in enumerate(_PROCESSOR, begin):
                    processors[key][name][at] = row[place]
        return FlowHistory(
            [row[0] for _, row in rows],
            {name: [row[place] for _, row in rows] for place, name in enumerate(_FLOW, 1)},
            processors,
        )
