"""Samples: some messages as they came into a processor and as they left it, for the inspector.

Owns which messages are kept and how many. The same ones are kept at every processor, so that a message's way through the
flow can be followed. Sampling is per batch, at most `PER_SECOND` a second: it costs the flow nothing that can be measured.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pratipad_nb.message import Message
from pratipad_nb.processors import copy_payload

if TYPE_CHECKING:
    from pratipad_nb.runtime.batch import Batch

__all__ = ["PER_SECOND", "Sample", "Sampler", "Samples"]

#: Messages that are followed, a second. At lower rates than this, all are.
PER_SECOND = 50
_KEPT = 500


@dataclass(frozen=True, slots=True)
class Sample:
    """One message at one processor.

    Attributes
    ----------
    message
        As it came in.
    results
        What the processor made of it: one for a plain one, any number for a generator; in braces, the payload as it
        goes on.
    error
        What the processor raised, empty if nothing.
    time
        When it was done, in seconds since 1970-01-01 UTC.
    """

    message: Message
    results: tuple[Any, ...]
    error: str
    time: float


class Sampler:
    """Decides which sources are sampled."""

    def __init__(self) -> None:
        self._last = 0.0

    def wants(self) -> bool:
        """Return whether the batch that is being made is to be followed."""
        now = time.monotonic()
        if now - self._last < 1 / PER_SECOND:
            return False
        self._last = now
        return True


class Samples:
    """The last samples of one processor."""

    def __init__(self) -> None:
        self._ring: deque[Sample] = deque(maxlen=_KEPT)

    def last(self, count: int) -> list[Sample]:
        """Return the last `count`, oldest first."""
        return list(self._ring)[-count:] if count > 0 else []

    def find(self, message_id: str) -> Sample | None:
        """Return the sample of that message, None if it wasn't followed or is too old."""
        return next((s for s in reversed(self._ring) if s.message.id == message_id), None)

    def add(self, message: Message, results: Sequence[Any], error: str) -> None:
        """Keep a sample; results are copied, for what comes next may change them."""
        copies = tuple(copy_payload(result) for result in results)
        self._ring.append(Sample(message, copies, error, time.time()))


def followed(batch: Batch) -> Message | None:
    """Return the message of `batch` that is to be followed, with a copy of its payload; None if there is none."""
    if not batch.source.sampled or not batch.payloads or batch.origins[0] != 0:
        return None
    return batch.source.message(0, copy_payload(batch.payloads[0]))
