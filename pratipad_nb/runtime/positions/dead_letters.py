"""Dead letters: messages that a processor failed on, kept until somebody retries or clears them.

Owns storing, listing and turning them back into batches. Which messages fail is for `stage`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pratipad_nb.backoff import Backoff
from pratipad_nb.errors import FrameError, LogFull, PayloadError, WaitTimeout
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.runtime.values.batch import Batch, InputFrame, Source
from pratipad_nb.runtime.values.packing import as_text
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import DeadEntry, DeadFrame, message_id
from pratipad_nb.transport.protocol import Connection, Log, Record
from pratipad_nb.transport.subjects import Subjects

__all__ = ["ORDER_STEP", "DeadLetter", "DeadLetters"]

#: Most entries in one frame; large ones are fewer.
_ENTRIES = 128
#: First and longest pause before an append to a full log, or to a server that is away, is tried again, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
#: What stands behind a processor's key where an order, and no reading, failed in it.
ORDER_STEP = "-backward"


def _place(sequence: int) -> str:
    """Return what stands for the device in the positions that retrying the frame at `sequence` completes."""
    return f"#dead-{sequence}"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that a processor failed on.

    Attributes
    ----------
    id, device, time
        Of the message.
    payload
        As it came into the processor.
    processor
        Key of the processor that failed.
    error, traceback
        What it raised.
    """

    id: str
    device: str
    time: float
    payload: Any
    processor: str
    error: str
    traceback: str


class DeadLetters:
    """The dead letters of a flow."""

    def __init__(self, connection: Connection, log: Log, subjects: Subjects) -> None:
        self._connection = connection
        self._log = log
        self._subjects = subjects
        #: How many entries each frame of this edge's devices holds, by its sequence. A sum alone would go wrong where
        #: two delete the same frame, or where one was stored whose acknowledgement was lost.
        self._sizes: dict[int, int] = {}
        self.full = asyncio.Event()

    @property
    def count(self) -> int:
        """How many there are of this edge's devices."""
        return sum(self._sizes.values())

    async def find(self, owns: Callable[[str], bool]) -> None:
        """Count what an earlier run has left of the devices that this edge `owns`."""
        self._sizes = {
            record.sequence: len(frame.entries)
            async for record, frame in self._frames()
            if owns(_whose(frame))
        }

    async def store(self, entries: Sequence[tuple[str, DeadEntry]]) -> None:
        """Make `entries` safe: pairs of the failing processor's key and the entry. Waits while the log is full."""
        by_step = sorted(entries, key=lambda entry: entry[0])
        for step, group in groupby(by_step, key=lambda entry: entry[0]):
            letters = [entry for _, entry in group]
            for at in range(0, len(letters), _ENTRIES):
                await self._append(step, letters[at : at + _ENTRIES])

    async def _append(self, step: str, letters: list[DeadEntry]) -> None:
        """Store in as few frames as they fit into; a payload that can't travel, or is too large, as its text."""
        data = self._fitting(DeadFrame(step, time.time(), letters))
        if data is None and len(letters) > 1:
            middle = len(letters) // 2
            await self._append(step, letters[:middle])
            await self._append(step, letters[middle:])
            return
        if data is None:
            (letter,) = letters
            letter.payload = str(as_text(letter.payload))
            data = encode(DeadFrame(step, time.time(), letters))
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                sequence = await self._connection.append(self._subjects.dead(step), data)
                break
            except (LogFull, WaitTimeout) as error:
                if isinstance(error, LogFull):
                    self.full.set()
                await asyncio.sleep(backoff.next())
        self._sizes[sequence] = len(letters)
        self.full.clear()

    def _fitting(self, frame: DeadFrame) -> bytes | None:
        """Return the bytes of `frame`, None if it can't travel as it is."""
        try:
            data = encode(frame)
        except PayloadError:
            return None
        return data if len(data) <= self._connection.max_frame_bytes else None

    async def _frames(self) -> AsyncIterator[tuple[Record, DeadFrame]]:
        async for record in self._log.read(0):
            try:
                yield record, decode(record.data, DeadFrame)
            except FrameError:
                continue

    async def list(self) -> list[DeadLetter]:
        """Return all, oldest first; a message that failed in several processors is there once for each."""
        found: dict[tuple[str, str], DeadLetter] = {}
        async for _, frame in self._frames():
            for entry in frame.entries:
                identity = message_id(entry.device, entry.epoch, entry.number, entry.part)
                for note in entry.failures:
                    # After a crash between two writes a message may be stored twice; the later one counts.
                    found[identity, note.processor] = DeadLetter(
                        identity,
                        entry.source or entry.device,
                        entry.time,
                        entry.payload,
                        note.processor,
                        note.error,
                        note.traceback,
                    )
        return list(found.values())

    async def retries(
        self,
        positions: Positions,
        owns: Callable[[str], bool] = lambda _: True,
    ) -> AsyncIterator[tuple[str, Batch]]:
        """Iterate over batches that retry all that is there now, each with the key of the (first) processor that failed.

        Parameters
        ----------
        positions
            Those at Output: they say which entries were retried before a crash.
        owns
            Says whether a device's messages are retried here, not by another partition's edge.
        """
        last, newest = 0, {}
        async for record, frame in self._frames():
            last = record.sequence
            for at, entry in enumerate(frame.entries, 1):
                newest[_identity(frame.step, entry)] = (last, at)
        async for record, frame in self._frames():
            if record.sequence > last:  # it has come since, maybe of what is being retried
                return
            if frame.step.endswith(ORDER_STEP) or not owns(_whose(frame)):
                continue
            done = positions.number(_place(record.sequence), 0)
            for at, entry in enumerate(frame.entries[done:], done + 1):
                source = Source(self._subjects.flow, [_input(entry, record.sequence, at)])
                if newest[_identity(frame.step, entry)] != (record.sequence, at):
                    # After a crash between two writes a message may be stored twice: this one is done with by itself.
                    yield frame.step, Batch(source, [], range(0), 1)
                    continue
                only = frozenset(note.processor for note in entry.failures)
                yield frame.step, Batch(source, [entry.payload], range(1), 1, only=only)

    async def orders(self, owns: Callable[[str], bool] = lambda _: True) -> AsyncIterator[DeadEntry]:
        """Iterate over the orders that failed on their way to devices that this edge `owns`, and delete each after it."""
        async for record, frame in self._frames():
            if frame.step.endswith(ORDER_STEP) and owns(_whose(frame)):
                for entry in frame.entries:
                    yield entry
                await self._delete(record.sequence)

    async def sweep(self, positions: Positions) -> None:
        """Delete the frames whose entries have all been retried."""
        # What isn't there now was cleared by another edge, or its deletion was not confirmed.
        gone = set(self._sizes)
        async for record, frame in self._frames():
            gone.discard(record.sequence)
            place = _place(record.sequence)
            if positions.number(place, 0) >= len(frame.entries):
                await self._delete(record.sequence)
                positions.forget(place)
        for sequence in gone:
            self._sizes.pop(sequence, None)

    async def _delete(self, sequence: int) -> None:
        await self._log.delete(sequence)
        self._sizes.pop(sequence, None)

    async def clear(self, beside: Iterable[DeadLetters] = ()) -> int:
        """Delete all; return how many there were. Those `beside`, of the flow's other partitions, take note of it."""
        count = len(await self.list())
        below = (await self._log.state()).last + 1
        await self._log.purge(below)
        for letters in (self, *beside):
            letters.purged(below)
        return count

    def purged(self, below: int) -> None:
        """Take note that all frames before the sequence `below` are deleted."""
        self._sizes = {sequence: size for sequence, size in self._sizes.items() if sequence >= below}


def _input(entry: DeadEntry, sequence: int, at: int) -> InputFrame:
    return InputFrame(
        entry.device,
        entry.epoch,
        entry.number,
        entry.received,
        [entry.time],
        retry=sequence,
        part=entry.part,
        covers=(_place(sequence), 0, at),
        sources=[entry.source] if entry.source else None,
    )


def _whose(frame: DeadFrame) -> str:
    """Return a device in whose partition the whole frame belongs: its entries come from one edge.

    An order has no device. It is of those that it was for, which the edge where it failed owned, all of them.
    """
    entry = frame.entries[0]
    return entry.to[0] if entry.to else entry.device


def _identity(step: str, entry: DeadEntry) -> tuple[str, str, int, int, int]:
    return step, entry.device, entry.epoch, entry.number, entry.part
