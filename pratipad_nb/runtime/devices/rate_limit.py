"""The limit of a flow's rate: at most so many messages are asked for in a time.

Owns the bucket alone. Who is asked for messages is for `credit`.
"""

from __future__ import annotations

import time

__all__ = ["RateLimit"]


class RateLimit:
    """A limit of `allowed` messages in `interval` seconds, as a bucket that fills steadily; see `set`."""

    def __init__(self, allowed: float | None = None, interval: float = 1.0) -> None:
        self.allowed = allowed
        self.interval = interval
        self._tokens = 0.0
        self._filled = time.monotonic()

    def set(self, allowed: float | None, interval: float = 1.0) -> None:
        """Change the limit; None lifts it."""
        self.allowed = allowed
        self.interval = interval
        self._tokens = min(self._tokens, allowed or 0.0)

    def room(self, wanted: int) -> int:
        """Return how many of `wanted` may be granted now."""
        if self.allowed is None:
            return wanted
        now = time.monotonic()
        # Never more than a tenth of a second's messages at once (but one), so that the rate has no bursts.
        most = max(1.0, self.allowed / self.interval / 10)
        self._tokens = min(most, self._tokens + (now - self._filled) * self.allowed / self.interval)
        self._filled = now
        return min(wanted, int(self._tokens))

    def take(self, count: int) -> None:
        """Take `count` granted messages out of the bucket."""
        if self.allowed is not None:
            self._tokens -= count
