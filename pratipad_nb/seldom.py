"""Log lines at a bounded rate, about events that another party can cause as often as it likes.

Owns the moment of the next line, and the count of the events that the line tells of. The words are the
caller's.
"""

from __future__ import annotations

import math
import time

__all__ = ["Seldom"]

#: Least time between two lines about events of one kind, in seconds.
_PAUSE = 10.0


class Seldom:
    """Events of one kind: the first gets a line at once, later events share a line every `pause` seconds."""

    def __init__(self, pause: float = _PAUSE) -> None:
        self._pause = pause
        self._told = -math.inf
        self._untold = 0

    def note(self, events: int = 1) -> int:
        """Count `events`; return how many events a line is to tell of now, or 0 if no line is due."""
        self._untold += events
        now = time.monotonic()
        if now - self._told < self._pause:
            return 0
        told, self._untold, self._told = self._untold, 0, now
        return told
