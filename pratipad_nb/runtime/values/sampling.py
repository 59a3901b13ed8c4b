"""Sampling: which messages are followed through the flow, for the inspector.

Owns the choice and its bounds. Sampling is always on, since a question about a message mostly comes after the
message. Two bounds keep the cost too small to be measured: at most `PER_SECOND` messages a second are
followed, and following takes at most the fraction `SHARE` of the time however large the messages are. How
much of a message is kept is for `samples`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["PER_SECOND", "SHARE", "Followed", "Sampler"]

#: Most messages that are followed a second: nobody can read more. At lower rates, all messages are followed.
PER_SECOND = 50
#: Most messages that are followed at once after a quiet moment: a handful of messages sent together are all
#: followed.
_BURST = 100
#: The fraction of the time that following may take.
SHARE = 0.01
#: Seconds that following may spend in advance before it rests, so that a first large message is kept.
_LOAN = 0.02


class Sampler:
    """Decides which messages are followed, and counts the time that following takes."""

    def __init__(self) -> None:
        self._tokens = float(_BURST)
        self._seconds = _LOAN
        self._filled = time.monotonic()

    def choose(self, count: int) -> Followed | None:
        """Return which of `count` messages of one batch are to be followed; None for no message."""
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
        # One message in every `step`, at a place that changes: a batch often begins with the same device.
        step = count / wanted
        at = random.random()  # noqa: S311 - which message is looked at is no secret
        return Followed(self, [int((number + at) * step) for number in range(wanted)])

    def spend(self, seconds: float) -> None:
        """Count `seconds` that following took."""
        self._seconds -= seconds


@dataclass(frozen=True, slots=True)
class Followed:
    """The messages of a source that are followed: their indices, rising."""

    sampler: Sampler
    indices: Sequence[int]
