"""The budget of each device: how often its word may make the edge do work that concerns others too.

Owns the count alone. What the work is, is for those that ask for it.
"""

from __future__ import annotations

import time

__all__ = ["Budget"]


class Budget:
    """Each device may cause `most` pieces of work within `seconds`, counted from the first of them."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        #: For each device that has caused any, since when is counted, and how many there were.
        self._counts: dict[str, tuple[float, int]] = {}

    def take(self, device: str) -> bool:
        """Return whether `device` may cause one piece of work more, and count it if so."""
        now = time.monotonic()
        since, count = self._counts.get(device, (now, 0))
        if now >= since + self._seconds:
            since, count = now, 0
        if count >= self._most:
            return False
        self._counts[device] = since, count + 1
        return True
