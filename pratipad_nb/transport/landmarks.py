"""Landmarks: entries by which the holder of a sequence tells that its log went back.

Owns the comparison of a log with what its holder saw there earlier. What the holder does about a log that
went back is the holder's matter.

A log goes back when its server comes up with an older store: a backup was restored, a power cut took the
last seconds, or the store vanished. A sequence alone doesn't show that, for the log grows again and gives the
lost entries' sequences to new entries. So a landmark is a sequence and the time at which the server appended
that entry: no other entry has both. And of two logs that part at some entry, the newer log's entries behind
it were appended later than all that was seen before, so the times also show where the log was taken up again.
"""

from __future__ import annotations

from dataclasses import dataclass

from pratipad_nb.transport.protocol import Log, LogState, Record

__all__ = ["LATER", "Landmark", "entry_at", "first_since", "holds", "landmark_of"]

#: Times of one entry that come by different ways may differ by so much, in seconds: by the microseconds that
#: a way rounds to, and by the rounding of floating-point numbers.
_SAME = 5e-6
#: An entry that was appended so much later than another, in seconds, is another entry.
LATER = 2 * _SAME


@dataclass(frozen=True, slots=True)
class Landmark:
    """An entry that was seen: its sequence, and the server's clock at its append, in seconds since 1970."""

    sequence: int
    time: float

    def is_of(self, record: Record) -> bool:
        """Return whether `record` is the entry that was seen."""
        return record.sequence == self.sequence and abs(record.time - self.time) < _SAME


def landmark_of(record: Record) -> Landmark:
    """Return the landmark that `record` is."""
    return Landmark(record.sequence, record.time)


async def holds(log: Log, seen: Landmark, state: LogState) -> bool:
    """Return whether `log` goes on from the entry `seen`: False if the log went back behind that entry.

    An entry that was deleted since can't be compared: the log is held to go on from there.

    Parameters
    ----------
    state
        The log's state.
    """
    if state.last < seen.sequence:
        return False
    record = await entry_at(log, seen.sequence) if seen.sequence >= state.first else None
    return record is None or record.sequence != seen.sequence or seen.is_of(record)


async def first_since(log: Log, time: float, state: LogState) -> int:
    """Return the sequence of the first entry appended at `time` or later; ``last + 1`` if there is none.

    Found by bisection, for the times grow along the log.

    Parameters
    ----------
    state
        The log's state.
    """
    low, high = state.first, state.last + 1
    while low < high:
        middle = (low + high) // 2
        record = await entry_at(log, middle)
        if record is not None and record.time < time:
            low = record.sequence + 1
        else:
            high = middle
    return low


async def entry_at(log: Log, sequence: int) -> Record | None:
    """Return the entry at `sequence`, or else the next entry behind it; None if there is no such entry."""
    async for record in log.read(sequence):
        return record
    return None
