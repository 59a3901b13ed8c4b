"""Sampling: which messages are followed through the flow.

Owns the choice and its bounds. Sampling is always on, since what a user wants to look at has mostly happened already.
Two bounds make that cost nothing that can be measured: at most `PER_SECOND` messages a second are followed, and
following takes at most `SHARE` of the time however large the messages are. What is kept of a message is for `samples`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["PER_SECOND", "SHARE", "Followed", "Sampler"]

#: Messages that are followed, a second: more can't be read. Below this, all are.
PER_SECOND = 50
#: So many may be followed at once after a quiet moment: a handful that is sent in one go is followed whole.
_BURST = 100
#: The share of the time that following may take.
SHARE = 0.01
#: What following may have spent before it rests, in seconds: a loan on the share, so that a first large message is kept.
_LOAN = 0.02


class Sampler:
    """Decides which messages are followed, and counts what that costs."""

    def __init__(self) -> None:
        self._tokens = float(_BURST)
        self._seconds = _LOAN
        self._filled = time.monotonic()

    def choose(self, count: int) -> Followed | None:
        """Return which of `count` messages that are taken in together are to be followed."""
        now = time.monotonic()
        passed, self._filled = now - self._filled, now
        self._tokens = min(_BURST, self._tokens + passed * PER_SECOND)
        self._seconds = min(_LOAN, self._seconds + passed * SHARE)
        wanted = min(count, int(self._tokens))
        if wanted <= 0 or self._seconds <= 0:
            return None
        self._tokens -= wanted
        if wanted == count:
            return Followed(self, range(count))
        # One of every so many, at a place that changes: a batch often begins with the same device.
        step = count / wanted
        at = random.random()  # noqa: S311 - which message is looked at is no secret
        return Followed(self, [int((number + at) * step) for number in range(wanted)])

    def spend(self, seconds: float) -> None:
        """Count `seconds` of following."""
        self._seconds -= seconds


@dataclass(frozen=True, slots=True)
class Followed:
    """Which messages of a source are followed: their indices, rising."""

    sampler: Sampler
    indices: Sequence[int]
