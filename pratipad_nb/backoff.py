"""Back-off: how long to wait before a thing that failed is tried again.

Owns the growth of the pauses and their jitter. How short the first pause and how long the longest one is, who tries again
decides, and says why beside the two numbers.
"""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Pauses in seconds, each twice as long as the last, from `first` to `longest`: endless, so that trying again is, too.

    Half of every pause is random, so that a thousand devices whose server was restarted don't come back in step.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._coming = first

    def next(self) -> float:
        """Return how long to wait now: at least half of, and at most the whole of, what the growth has come to."""
        pause = self._coming
        self._coming = min(self._longest, 2 * pause)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

    def reset(self) -> None:
        """Begin with the first pause again: the last try succeeded."""
        self._coming = self._first
