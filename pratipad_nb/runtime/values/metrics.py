"""Metrics: counters, rates and latencies, kept per batch and never per message.

Owns the counters, rates and latency histograms behind a `FlowStats`. The snapshot's shape is in `stats`; the
snapshot is assembled in `pratipad_nb.runtime.edge.report`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterable

from pratipad_nb.calls import Worker
from pratipad_nb.processors.outcome import Outcome
from pratipad_nb.runtime.values.stats import FlowState, ProcessorStats

__all__ = ["Histogram", "InFlight", "Meter", "Rate"]

#: Buckets grow by 2^(1/4), so that a percentile is right to about 10 %.
_STEPS_PER_OCTAVE = 4
#: The first bucket ends at 2^-20 s, about 1 µs.
_OCTAVES_BELOW_ONE = 20
_BUCKETS = 32 * _STEPS_PER_OCTAVE
_GENERATION_SECONDS = 5.0
#: The shortest time between two samples, in seconds: closer samples would make a rate of noise.
_SAMPLE_SECONDS = 0.15


class Histogram:
    """Durations of the last 5 to 10 seconds, in logarithmic buckets."""

    def __init__(self) -> None:
        self._now = [0] * _BUCKETS
        self._before = [0] * _BUCKETS
        self._turned = time.monotonic()

    def add(self, seconds: Iterable[float]) -> None:
        """Count every duration in `seconds`."""
        self._turn()
        buckets = self._now
        for value in seconds:
            octaves = math.log2(value) + _OCTAVES_BELOW_ONE if value > 0 else 0.0
            buckets[min(_BUCKETS - 1, max(0, math.ceil(octaves * _STEPS_PER_OCTAVE)))] += 1

    def _turn(self) -> None:
        age = time.monotonic() - self._turned
        if age > _GENERATION_SECONDS:
            self._before = self._now if age < 2 * _GENERATION_SECONDS else [0] * _BUCKETS
            self._now = [0] * _BUCKETS
            self._turned = time.monotonic()

    def percentiles(self, *shares: float) -> tuple[float, ...]:
        """Return, for each fraction in `shares` (0 to 1), the duration that this fraction of all lies below.

        Without durations, 0.0 is returned for each.
        """
        self._turn()
        counts = [a + b for a, b in zip(self._now, self._before, strict=True)]
        total = sum(counts)
        return tuple(_percentile(counts, share * total) if total else 0.0 for share in shares)


def _percentile(counts: list[int], rank: float) -> float:
    seen = 0
    for bucket, count in enumerate(counts):
        seen += count
        if count and seen >= rank:
            # The middle of the bucket, geometrically.
            return float(2 ** ((bucket - 0.5) / _STEPS_PER_OCTAVE - _OCTAVES_BELOW_ONE))
    return 0.0


class Rate:
    """The growth of a count a second, over its last `samples`: at five a second, the last second or so."""

    def __init__(self, count: float = 0.0, *, samples: int = 6) -> None:
        self._samples: deque[tuple[float, float]] = deque([(time.monotonic(), count)], maxlen=samples)

    def sample(self, count: float) -> None:
        """Note the current `count`; called about five times a second (more often does no harm)."""
        now = time.monotonic()
        if now - self._samples[-1][0] >= _SAMPLE_SECONDS:
            self._samples.append((now, count))

    @property
    def value(self) -> float:
        """The rate between the oldest and the newest sample."""
        (began, low), (ended, high) = self._samples[0], self._samples[-1]
        return max(0.0, (high - low) / (ended - began)) if ended > began else 0.0


class InFlight:
    """Messages that were taken into a run and are not yet at Output.

    Attributes
    ----------
    taken
        Messages that were admitted, retried or replayed.
    completed
        Messages of `taken` that are dealt with: at Output, filtered, or a dead letter.
    """

    __slots__ = ("_progress", "completed", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self.completed = 0
        self._progress = asyncio.Event()

    def complete(self, count: int) -> None:
        """Count `count` messages as dealt with."""
        self.completed += count
        self._progress.set()

    async def progress(self, completed: int) -> None:
        """Return once more than `completed` messages are dealt with."""
        while self.completed <= completed:
            self._progress.clear()
            await self._progress.wait()

    @property
    def count(self) -> int:
        """How many messages are in flight; 0 if a result is stored before its input is counted."""
        return max(0, self.taken - self.completed)


class Meter:
    """One processor's counters."""

    def __init__(self) -> None:
        self.received = 0
        self.emitted = 0
        self.failed = 0
        self.retried = 0
        self.failed_timers = 0
        self.waiting = 0
        self.busy_seconds = 0.0
        self.last_error = ""
        self.version = 0
        self.newer = False
        self.state: FlowState = "starting"
        self._left: list[Worker] = []
        self._latency = Histogram()
        self._rate = Rate()
        self._busy = Rate()

    def record(self, outcome: Outcome, instances: int = 1) -> None:
        """Count the outcome of a call of one of so many `instances`."""
        self.received += outcome.done
        self.emitted += len(outcome.payloads)
        self.retried += outcome.retried
        self.busy_seconds += outcome.elapsed / instances
        self._latency.add(outcome.durations)
        if outcome.failures:
            self.failed += len(outcome.failures)
            self.last_error = outcome.failures[-1].error

    def leave(self, worker: Worker) -> None:
        """Count the instance of `worker`, which was left behind, for as long as its call goes on."""
        if worker.hangs and worker not in self._left:
            self._left.append(worker)

    @property
    def left_behind(self) -> int:
        """How many instances are left behind in calls in progress."""
        self._left = [worker for worker in self._left if worker.hangs]
        return len(self._left)

    def sample(self) -> None:
        """Note the current counts, for the rates."""
        self._rate.sample(self.received)
        self._busy.sample(self.busy_seconds)

    def snapshot(self) -> ProcessorStats:
        """Return the current counters."""
        p50, p99 = self._latency.percentiles(0.5, 0.99)
        return ProcessorStats(
            received=self.received,
            emitted=self.emitted,
            failed=self.failed,
            retried=self.retried,
            rate=self._rate.value,
            p50=p50,
            p99=p99,
            busy=min(1.0, self._busy.value),
            waiting=self.waiting,
            state=self.state,
            last_error=self.last_error,
            version=self.version,
            newer=self.newer,
            left_behind=self.left_behind,
            failed_timers=self.failed_timers,
        )
