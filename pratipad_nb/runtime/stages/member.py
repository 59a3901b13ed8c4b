"""Members: one processor of a stage with its instances, and the messages and dead letters of its rows.

Owns these values. How rows are spread over the instances is for `tracks`
and `shards`; one instance at work is `runner`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pratipad_nb.message import Message
from pratipad_nb.processors.outcome import Failure
from pratipad_nb.runtime.stages.runner import Runner
from pratipad_nb.runtime.values.batch import Batch
from pratipad_nb.runtime.values.metrics import Meter
from pratipad_nb.runtime.values.samples import Samples
from pratipad_nb.transport.frames import DeadEntry, FailureNote

__all__ = ["Emit", "Member", "dead_letter", "failure_note", "message_of"]

#: Called with each batch that a stage has finished.
Emit = Callable[[Batch], Awaitable[None]]


@dataclass(slots=True)
class Member:
    """A processor of a stage with its instances: as many `runners` as its `concurrency`."""

    key: str
    meter: Meter
    runners: list[Runner]
    samples: Samples = field(default_factory=Samples)

    @property
    def partition_by(self) -> str:
        """The name that decides which instance sees a message: ``"device"``, or a key of the payload."""
        return self.runners[0].adapted.partition_by


def message_of(batch: Batch, rows: Sequence[int]) -> Callable[[int], Message]:
    """Return a function that makes the message of a row, counted within `rows` of `batch`."""

    def message(row: int) -> Message:
        at = rows[row]
        return batch.message(at, batch.payloads[at])

    return message


def failure_note(member: Member, failure: Failure) -> FailureNote:
    """Return the note of a `failure` at `member`, for a dead letter."""
    return FailureNote(member.key, failure.error, failure.traceback)


def dead_letter(batch: Batch, row: int, payload: Any, notes: list[FailureNote]) -> tuple[str, DeadEntry]:
    """Return the dead letter of a row, behind the key of the first processor that failed on the row."""
    origin = batch.origins[row]
    frame, offset = batch.source.locate(origin)
    part = frame.part + row - bisect_left(batch.origins, origin)
    entry = DeadEntry(
        frame.device,
        frame.epoch,
        frame.first + offset,
        part,
        frame.times[offset],
        frame.received,
        payload,
        notes,
        frame.sources[offset] if frame.sources else "",
    )
    return notes[0].processor, entry
