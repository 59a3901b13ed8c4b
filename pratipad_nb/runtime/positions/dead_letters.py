"""Dead letters: messages that a processor failed on, kept until somebody retries or clears them.

Owns storing and listing dead letters, and turning them back into batches. Which messages fail is for `stage`;
when a dead letter is retried is for `retries`; the bound is for `letter_room`, and each device's share for
`letter_shares`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pratipad_nb.backoff import Backoff
from pratipad_nb.errors import FrameError, LogFull, PayloadError, WaitTimeout
from pratipad_nb.runtime.positions.letter_room import LetterRoom
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.runtime.positions.rebuilding import Gap, Place
from pratipad_nb.runtime.positions.unreadable import Unreadable
from pratipad_nb.runtime.values.batch import Batch, Failed, InputFrame, Kind, Source
from pratipad_nb.runtime.values.packing import Shown, as_text
from pratipad_nb.transport.codec import decode, encode, memory_of, most_memory_of
from pratipad_nb.transport.frames import DeadEntry, DeadFrame, FailureNote, PackedDeadFrame, message_id
from pratipad_nb.transport.protocol import Connection, Log, Record
from pratipad_nb.transport.subjects import Subjects

__all__ = ["LATE_STEP", "ORDER_STEP", "DeadLetter", "DeadLetters", "Retry"]

#: Most entries in one frame; of large entries a frame has fewer.
_ENTRIES = 128
#: Most memory that the payloads of a list of dead letters take.
_LISTED_BYTES = 256 << 20
#: In the place of a payload beyond that.
_NOT_SHOWN = Shown("<not shown: the payloads before this one fill 256 MiB of memory>")
#: First and longest pause, in seconds, before an append to a full log, or to a server that is away, is tried
#: again.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
#: The suffix of a processor's key in the dead letters of its `backward`: an order failed, and no reading.
ORDER_STEP = "-backward"
#: In the place of a processor's key, in the dead letters of readings that came after they were asked of
#: another device: no processor has seen them.
LATE_STEP = "Pull-late"


#: Begins the name in place of a device, in the positions of retried entries.
_PLACE = "#dead-"


def _place(sequence: int) -> str:
    """Return the name in place of a device, in the positions of retried entries of frame `sequence`."""
    return f"{_PLACE}{sequence}"


def is_letter(place: Place) -> bool:
    """Return whether `place` is that of retried dead letters."""
    return place[0].startswith(_PLACE)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that a processor failed on.

    Attributes
    ----------
    id, device, time
        The message's id, its device, and the device's clock when the payload was pushed.
    payload
        The payload that the processor was given; a text in its place if there are too many to be in memory
        at a time.
    processor
        Key of the processor that failed.
    error, traceback
        The exception that the processor raised, and its traceback.
    """

    id: str
    device: str
    time: float
    payload: Any
    processor: str
    error: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Retry:
    """A dead letter as a batch for the pipeline.

    Attributes
    ----------
    step
        Key of the (first) processor that failed.
    batch
        The letter's message; a batch without messages if a later letter is of the same message.
    sequence
        The letter's frame.
    at, last
        The letter's place in the frame, from 1 on, and whether the frame ends there.
    size, memory
        The frame's bytes, and how many bytes of memory the frame takes at most.
    """

    step: str
    batch: Batch
    sequence: int
    at: int
    last: bool
    size: int
    memory: int


class DeadLetters:
    """The dead letters of a flow.

    Attributes
    ----------
    room
        The bound of the letters, which new messages wait for.
    shares
        What is known of the letters of this edge's devices, and the devices' shares in the room.
    """

    def __init__(
        self, connection: Connection, log: Log, subjects: Subjects, unreadable: Unreadable | None = None
    ) -> None:
        self._unreadable = unreadable or Unreadable()
        self._connection = connection
        self._log = log
        self._subjects = subjects
        self.room = LetterRoom(connection, log, subjects.flow)
        self.shares = self.room.shares
        #: The last output frame of the run before: its writer, and its number by that writer.
        self._before: tuple[str, int] = ("", 0)

    @property
    def count(self) -> int:
        """How many dead letters this edge's devices have."""
        return self.shares.count

    @property
    def blocked_by(self) -> tuple[str, ...]:
        """Why no new message is admitted, or of which devices the newest letters are dropped; else empty."""
        if self.room.free.is_set():
            return self.shares.words
        named = ", ".join(f"{count:,} of {step}" for step, count in self.shares.by_step.most_common())
        full = f"{self.room.words}; {named or 'other edges have stored them'}"
        next_step = "retry_dead_letters() or clear_dead_letters()"
        why = f"the dead letters are full ({full}), so no new message is taken: {next_step}"
        return (why, *self.shares.words)

    async def find(self, owns: Callable[[str], bool], before: tuple[str, int] = ("", 0)) -> None:
        """Count the dead letters that an earlier run has left of the devices that this edge `owns`.

        Parameters
        ----------
        before
            The last output frame of the run before: its writer, and its number by that writer.
        """
        self._before = before
        self.shares.clear()
        void: list[int] = []
        async for record, frame in self._all_frames():
            if self._is_void(frame):
                void.append(record.sequence)
            elif owns(_device_of(frame)):
                self.shares.note(record.sequence, frame, len(record.data))
        for sequence in void:
            await self._delete(sequence)
        await self.room.look()

    async def look(self) -> None:
        """Find out whether there is room, where this edge has dead letters or waits for room."""
        if self.count or not self.room.free.is_set():
            await self.room.look()

    async def store(
        self, entries: Sequence[tuple[str, DeadEntry]], completed_by: tuple[str, int] = ("", 0)
    ) -> None:
        """Store `entries`, pairs of the failing processor's key and the entry, also beyond the bound.

        Parameters
        ----------
        completed_by
            The output frame that will complete the messages: its writer, and its number by that writer.
        """
        by_step = sorted(entries, key=lambda entry: entry[0])
        for step, group in groupby(by_step, key=lambda entry: entry[0]):
            letters = [entry for _, entry in group]
            for at in range(0, len(letters), _ENTRIES):
                await self._append(step, letters[at : at + _ENTRIES], completed_by)

    async def store_malformed(self, entries: Sequence[tuple[str, DeadEntry]]) -> None:
        """Store `entries` of malformed deliveries, as far as their devices' shares go; count the others."""
        if fitting := self.shares.fitting(entries):
            await self.store(fitting)

    async def _append(self, step: str, letters: list[DeadEntry], completed_by: tuple[str, int]) -> None:
        """Store `letters` in as few frames as can hold them.

        A payload that can't travel, or is too large, is stored as its text.
        """
        frame = DeadFrame(step, time.time(), letters, *completed_by)
        data = self._fitting(frame)
        if data is None and len(letters) > 1:
            middle = len(letters) // 2
            await self._append(step, letters[:middle], completed_by)
            await self._append(step, letters[middle:], completed_by)
            return
        if data is None:
            (letter,) = letters
            letter.payload = str(as_text(letter.payload))
            data = encode(frame)
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                sequence = await self._connection.append(self._subjects.dead(step), data)
                break
            except LogFull:
                await self.room.enlarge(len(data))
                if not self.room.refusal:
                    continue
            except WaitTimeout:
                pass
            await asyncio.sleep(backoff.next())
        self.shares.note(sequence, frame, len(data))
        self.room.stored(len(data))

    def _fitting(self, frame: DeadFrame) -> bytes | None:
        """Return the bytes of `frame`; None if the frame can't be encoded, or is too large."""
        try:
            data = encode(frame)
        except PayloadError:
            return None
        return data if len(data) <= self._connection.max_frame_bytes else None

    async def _frames(self) -> AsyncIterator[tuple[Record, DeadFrame]]:
        async for record, frame in self._all_frames():
            if not self._is_void(frame):
                yield record, frame

    async def _all_frames(self) -> AsyncIterator[tuple[Record, DeadFrame]]:
        """Iterate over the frames that are stored, with their payloads as they are on the wire."""
        async for record in self._log.read(0):
            try:
                frame = decode(record.data, PackedDeadFrame)
                if not frame.entries:
                    raise FrameError("a frame of dead letters has none.")
            except FrameError as error:
                self._unreadable.note(self._log.spec.name, record, error, shared=True)
            else:
                yield record, frame

    def _is_void(self, frame: DeadFrame) -> bool:
        """Return whether the run before ended between storing the letters and completing the messages.

        The messages pass the processors once more, and may have been mended: they must not arrive twice.
        """
        writer, number = self._before
        return writer != "" and frame.writer == writer and frame.number > number

    async def _delete_void(self) -> None:
        async for record, frame in self._all_frames():
            if self._is_void(frame):
                await self._delete(record.sequence)

    async def list(self) -> list[DeadLetter]:
        """Return all dead letters, oldest first; a message has one for each processor that failed on it."""
        found: dict[tuple[str, str], DeadLetter] = {}
        left = _LISTED_BYTES
        async for record, frame in self._frames():
            memory = memory_of(record.data)
            shown = memory <= left
            left -= memory if shown else 0
            entries = decode(record.data, DeadFrame).entries if shown else frame.entries
            for entry in entries:
                identity = message_id(entry.device, entry.epoch, entry.number, entry.part)
                payload = entry.payload if shown else _NOT_SHOWN
                for note in entry.failures:
                    # After a crash between two writes a message may be stored twice; the later entry counts.
                    found[identity, note.processor] = _letter(identity, entry, payload, note)
        return list(found.values())

    async def _count(self) -> int:
        """Return how many letters `list` returns."""
        return len(
            {
                (_message(entry), note.processor)
                async for _, frame in self._frames()
                for entry in frame.entries
                for note in entry.failures
            }
        )

    async def retries(
        self,
        positions: Positions,
        owns: Callable[[str], bool] = lambda _: True,
    ) -> AsyncIterator[Retry]:
        """Iterate over batches that retry all dead letters.

        Parameters
        ----------
        positions
            The positions at Output: they say which entries were retried before a crash.
        owns
            Says whether a device's messages are retried here, not by another partition's edge.
        """

        def left(record: Record, frame: DeadFrame) -> range:
            if frame.step.endswith(ORDER_STEP) or not owns(_device_of(frame)):
                return range(0)
            return range(self.retried(record.sequence, positions), len(frame.entries))

        async for letter in self._chosen(left, "new"):
            yield letter

    async def rebuilds(self, places: Mapping[Place, tuple[int, int]], failed: Failed) -> AsyncIterator[Retry]:
        """Iterate over batches of dead letters that pass again.

        Parameters
        ----------
        places
            For each place of retried entries, how many entries the states have, and how many were retried.
        failed
            As of `failed_in`.
        """

        def lacking(record: Record, _: DeadFrame) -> range:
            return range(*places.get((_place(record.sequence), 0), (0, 0)))

        if places:
            async for letter in self._chosen(lacking, "rebuild", failed):
                yield letter

    async def failed_in(self, gaps: Mapping[Place, Gap]) -> Failed:
        """Return the messages in `gaps` that have dead letters, and the processors that failed on them."""
        retried: set[tuple[str, int, int, int]] = set()
        async for record, frame in self._frames():
            if gap := gaps.get((_place(record.sequence), 0)):
                retried.update(map(_message, frame.entries[gap.passed : gap.until]))
        found: dict[tuple[str, int, int, int], frozenset[str]] = {}
        async for _, frame in self._frames():
            for entry in frame.entries:
                gap, message = gaps.get((entry.device, entry.epoch)), _message(entry)
                if message in retried or (gap is not None and gap.passed < entry.number <= gap.until):
                    keys = frozenset(note.processor for note in entry.failures)
                    found[message] = found.get(message, frozenset()) | keys
        return found

    async def _chosen(
        self, chosen: Callable[[Record, DeadFrame], range], kind: Kind, failed: Failed | None = None
    ) -> AsyncIterator[Retry]:
        """Iterate over batches of the entries that `chosen` returns for a frame, counted from 0."""
        last, newest = 0, {}
        async for record, frame in self._frames():
            last = record.sequence
            for at, entry in enumerate(frame.entries, 1):
                newest[_identity(frame.step, entry)] = (last, at)
        async for record, frame in self._frames():
            if record.sequence > last:  # stored since the call, maybe by one of these retries
                return
            places = chosen(record, frame)
            entries = decode(record.data, DeadFrame).entries if places else []
            for index in places:
                at, entry = index + 1, entries[index]
                frames = [_input(entry, record.sequence, at)]
                source = Source(self._subjects.flow, frames, kind=kind, failed=failed)
                if newest[_identity(frame.step, entry)] != (record.sequence, at):
                    # After a crash between two writes a message may be stored twice. The older entry is
                    # completed without a retry.
                    batch = Batch(source, [], range(0), 1)
                else:
                    keys = frozenset(note.processor for note in entry.failures)
                    only = None if frame.step == LATE_STEP else keys
                    batch = Batch(source, [entry.payload], range(1), 1, only=only)
                ends = at == len(frame.entries)
                memory = most_memory_of(record.data)
                yield Retry(frame.step, batch, record.sequence, at, ends, len(record.data), memory)

    @staticmethod
    def retried(sequence: int, positions: Positions) -> int:
        """Return how many letters of the frame `sequence`, the first ones, were retried."""
        return positions.number(_place(sequence), 0)

    async def orders(self, owns: Callable[[str], bool] = lambda _: True) -> AsyncGenerator[DeadEntry, None]:
        """Iterate over the failed orders to devices that this edge `owns`, deleting each frame afterwards."""
        async for record, frame in self._frames():
            if frame.step.endswith(ORDER_STEP) and owns(_device_of(frame)):
                for entry in decode(record.data, DeadFrame).entries:
                    yield entry
                await self._delete(record.sequence)

    async def sweep(self, positions: Positions) -> None:
        """Delete the frames all of whose letters have been retried, and find out how much room there is."""
        await self._delete_void()  # the run before may have been frozen, and have stored more
        # A frame that is gone was cleared by another edge, or its deletion by this edge was not confirmed.
        gone = self.shares.sequences
        async for record, frame in self._frames():
            gone.discard(record.sequence)
            if self.retried(record.sequence, positions) >= len(frame.entries):
                await self.delete(record.sequence, positions)
        for sequence in gone:
            self.shares.forget(sequence)
        await self.room.look()

    async def delete(self, sequence: int, positions: Positions) -> None:
        """Delete the frame `sequence`, all of whose letters were retried."""
        await self._delete(sequence)
        positions.forget(_place(sequence))

    async def _delete(self, sequence: int) -> None:
        await self._log.delete(sequence)
        self.shares.forget(sequence)

    async def clear(self, beside: Iterable[DeadLetters] = ()) -> int:
        """Delete all dead letters; return how many there were.

        The counts `beside`, of the flow's other partitions in this process, are brought up to date.
        """
        count = await self._count()
        below = (await self._log.state()).last + 1
        await self._log.purge(below)
        for letters in (self, *beside):
            letters.purged(below)
        return count

    def purged(self, below: int) -> None:
        """Note that all frames before the sequence `below` are deleted."""
        for sequence in self.shares.sequences:
            if sequence < below:
                self.shares.forget(sequence)
        self.room.emptied()


def _letter(identity: str, entry: DeadEntry, payload: Any, note: FailureNote) -> DeadLetter:
    device = entry.source or entry.device
    return DeadLetter(identity, device, entry.time, payload, note.processor, note.error, note.traceback)


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


def _device_of(frame: DeadFrame) -> str:
    """Return a device whose partition owns the whole frame.

    All entries of a frame come from one edge. The entry of a failed order has no device, but names the
    devices that the order was for: the edge that stored the entry owns all of them, so any device will do.
    """
    entry = frame.entries[0]
    return entry.to[0] if entry.to else entry.device


def _message(entry: DeadEntry) -> tuple[str, int, int, int]:
    return entry.device, entry.epoch, entry.number, entry.part


def _identity(step: str, entry: DeadEntry) -> tuple[str, str, int, int, int]:
    return step, *_message(entry)
