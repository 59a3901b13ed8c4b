"""Back-off: how long to wait before an operation that failed is tried again.

Owns the growth of the pauses and their jitter. The caller decides how long the first and the longest pause
are, and says why beside the two numbers.
"""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Endless pauses in seconds, from `first` to `longest`, each twice as long as the pause before.

    Half of every pause is random, so that a thousand devices whose server was restarted don't come back in
    step.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._coming = first

    def next(self) -> float:
        """Return how long to wait now: a random time from half of the current pause to the whole of it."""
        pause = self._coming
        self._coming = min(self._longest, 2 * pause)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

    def reset(self) -> None:
        """Begin with the first pause again: the last try succeeded."""
        self._coming = self._first
