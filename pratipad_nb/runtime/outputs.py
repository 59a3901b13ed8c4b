"""Where results go out: batches are gathered into output frames, stored, and only then is their input acknowledged.

Owns the order of what must be safe before what: dead letters and replies first, then results with their positions,
then the acknowledgement. The chain itself is in `position`.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol

import msgspec

from pratipad_nb.errors import PayloadError
from pratipad_nb.message import Message
from pratipad_nb.runtime.batch import Barrier, Batch, InputFrame, Item
from pratipad_nb.runtime.metrics import Histogram
from pratipad_nb.runtime.packing import as_text
from pratipad_nb.runtime.position import Positions
from pratipad_nb.transport.codec import encode, encode_payload
from pratipad_nb.transport.frames import DeadEntry, FailureNote, OutputFrame, Position, Segment
from pratipad_nb.transport.protocol import Connection

__all__ = ["Chain", "FastChain", "Writer"]

#: Results are gathered into one frame up to so many; one append carries them about as fast as 4,096.
_FRAME_MESSAGES = 4096

#: What stands where the key of a failing processor would, for a result that can't be stored.
OUTPUT_KEY = "Output"


class Chain(Protocol):
    """What frames are appended to: an `OutputChain`, or a `FastChain`."""

    positions: Positions

    async def append(self, covers: list[Position], segments: list[Segment]) -> int:
        """Make results and positions safe, together."""


class FastChain:
    """Output of fast delivery: frames are published and forgotten."""

    def __init__(self, connection: Connection, subject: str) -> None:
        self.positions = Positions()
        self._connection = connection
        self._subject = subject
        self._number = 0

    async def append(self, covers: list[Position], segments: list[Segment]) -> int:
        """Publish; an empty frame says nothing to anybody and is not sent."""
        self._number += 1
        if segments:
            frame = OutputFrame("", self._number, [], segments)
            await self._connection.publish(self._subject, encode(frame))
        self.positions.advance(covers)
        return self._number


class Writer:
    """Takes finished batches off a queue and makes them safe.

    Parameters
    ----------
    store_dead
        Makes dead letters safe: called with (step key, entry) pairs.
    send_replies
        Sends off what processors answered.
    on_stored
        Called after every append, with the positions that it completed.
    on_barrier
        Called when all before a barrier is stored: makes the checkpoint.
    """

    def __init__(
        self,
        chain: Chain,
        *,
        store_dead: Callable[[Sequence[tuple[str, DeadEntry]]], Awaitable[None]],
        send_replies: Callable[[Sequence[tuple[Any, Message]]], Awaitable[None]],
        on_stored: Callable[[Sequence[Position]], None],
        on_barrier: Callable[[Barrier], Awaitable[None]],
    ) -> None:
        self._chain = chain
        self._store_dead = store_dead
        self._send_replies = send_replies
        self._on_stored = on_stored
        self._on_barrier = on_barrier
        self.delivered = 0
        self.completed = 0
        self.latency = Histogram()

    async def run(self, queue: asyncio.Queue[Item]) -> None:
        """Write until the queue brings None. While one frame is on its way, the next one gathers."""
        item: Item = await queue.get()
        while item is not None:
            batches: list[Batch] = []
            while isinstance(item, Batch):
                batches.append(item)
                if queue.empty() or sum(map(len, batches)) >= _FRAME_MESSAGES:
                    break
                item = queue.get_nowait()
            if batches:
                await self._write(batches)
            if isinstance(item, Barrier):
                await self._on_barrier(item)
            if item is not None:
                item = await queue.get()

    async def _write(self, batches: list[Batch]) -> None:
        dead = [entry for batch in batches for entry in batch.dead]
        if dead:
            await self._store_dead(dead)
        replies = [reply for batch in batches if not batch.source.replayed for reply in batch.replies]
        if replies:
            await self._send_replies(replies)
        covers: list[Position] = []
        complete: list[InputFrame] = []
        finished = sum(batch.source.advance(batch.done, covers, complete) for batch in batches)
        await self._store([segment for batch in batches for segment in _segments(batch)], covers)
        self.completed += finished
        now = time.time()
        self.latency.add([now - frame.received for frame in complete])
        for frame in complete:
            if frame.on_safe is not None:
                frame.on_safe()
        self._on_stored(covers)

    async def _store(self, segments: list[Segment], covers: list[Position]) -> None:
        """Append; what can't travel goes to the dead letters, and what is too much for one frame into several."""
        try:
            await self._chain.append(covers, segments)
        except PayloadError as error:
            unfit = _take_out_unfit(segments) or _take_out_too_large(segments, error)
            if unfit:
                await self._store_dead(unfit)
                await self._store([segment for segment in segments if segment.payloads], covers)
                return
            await self._store_in_two(segments, covers)
            return
        self.delivered += sum(len(segment.payloads) for segment in segments)

    async def _store_in_two(self, segments: list[Segment], covers: list[Position]) -> None:
        if segments:
            first, second = _halves(segments)
            await self._store(first, _ends(first))
            await self._store(second, covers)
            return
        # Nothing but positions: those of many devices, all of whose messages were filtered.
        middle = len(covers) // 2
        await self._store([], covers[:middle])
        await self._store([], covers[middle:])


def _segments(batch: Batch) -> Iterator[Segment]:
    """Cut a batch's results where their input frames begin."""
    origins, source = batch.origins, batch.source
    at, count = 0, len(origins)
    while at < count:
        frame, offset = source.locate(origins[at])
        start = origins[at] - offset
        end = bisect_left(origins, start + len(frame.times), at)
        yield _segment(frame, origins[at:end], start, batch.payloads[at:end])
        at = end


def _segment(frame: InputFrame, origins: Sequence[int], start: int, payloads: list[Any]) -> Segment:
    """Make the segment of one frame's results; `start` is the frame's first index in its source."""
    offset, count = origins[0] - start, len(origins)
    segment = Segment(
        device=frame.device,
        epoch=frame.epoch,
        first=frame.first + offset,
        received=frame.received,
        times=list(frame.times[offset : offset + count]),
        payloads=payloads,
        retry=frame.retry,
        sources=frame.sources and frame.sources[offset : offset + count],
    )
    one_to_one = isinstance(origins, range) or list(origins) == list(range(origins[0], origins[0] + count))
    if not one_to_one or frame.part:
        segment.times = [frame.times[origin - start] for origin in origins]
        segment.sources = frame.sources and [frame.sources[origin - start] for origin in origins]
        segment.numbers = [frame.first + origin - start for origin in origins]
        segment.parts = [frame.part + part for _, same in groupby(origins) for part, _ in enumerate(same)]
    return segment


def _numbers(segment: Segment) -> Sequence[int]:
    return segment.numbers or range(segment.first, segment.first + len(segment.payloads))


def _slice(segment: Segment, begin: int, end: int) -> Segment:
    return msgspec.structs.replace(
        segment,
        first=_numbers(segment)[begin],
        times=segment.times[begin:end],
        payloads=segment.payloads[begin:end],
        numbers=segment.numbers and segment.numbers[begin:end],
        parts=segment.parts and segment.parts[begin:end],
        sources=segment.sources and segment.sources[begin:end],
    )


def _halves(segments: list[Segment]) -> tuple[list[Segment], list[Segment]]:
    """Split what is too much for one frame, never between two results of one message."""
    if len(segments) > 1:
        middle = len(segments) // 2
        return segments[:middle], segments[middle:]
    (segment,) = segments
    numbers = _numbers(segment)
    middle = bisect_left(numbers, numbers[len(numbers) // 2]) or bisect_right(numbers, numbers[0])
    return [_slice(segment, 0, middle)], [_slice(segment, middle, len(numbers))]


def _ends(segments: list[Segment]) -> list[Position]:
    """Return the positions that these segments complete by themselves; retried dead letters cover no such ones."""
    return [(s.device, s.epoch, _numbers(s)[-1]) for s in segments if not s.retry]


def _take_out_unfit(segments: list[Segment]) -> list[tuple[str, DeadEntry]]:
    """Take the payloads that are not JSON-like out of `segments`, and return them as dead letters."""
    unfit: list[tuple[str, DeadEntry]] = []
    for segment in segments:
        for at in reversed(range(len(segment.payloads))):
            try:
                encode_payload(segment.payloads[at])
            except PayloadError as error:
                unfit.append((OUTPUT_KEY, _dead_entry(segment, at, error)))
                _remove(segment, at, at + 1)
    return unfit[::-1]


def _take_out_too_large(segments: list[Segment], error: PayloadError) -> list[tuple[str, DeadEntry]]:
    """If all that is left are the results of one message, and still too large, give that up as a dead letter."""
    if len(segments) != 1 or _numbers(segments[0])[0] != _numbers(segments[0])[-1]:
        return []
    first, numbers = segments[0], _numbers(segments[0])
    entry = _dead_entry(first, 0, error)
    _remove(first, 0, len(numbers))
    return [(OUTPUT_KEY, entry)]


def _remove(segment: Segment, begin: int, end: int) -> None:
    if segment.numbers is None:
        segment.numbers = list(_numbers(segment))
    for column in (segment.payloads, segment.times, segment.numbers, segment.parts, segment.sources):
        if column is not None:
            del column[begin:end]


def _dead_entry(segment: Segment, at: int, error: PayloadError) -> DeadEntry:
    note = FailureNote(OUTPUT_KEY, f"PayloadError: {error}", "")
    return DeadEntry(
        segment.device,
        segment.epoch,
        _numbers(segment)[at],
        segment.parts[at] if segment.parts else 0,
        segment.times[at],
        segment.received,
        str(as_text(segment.payloads[at])),
        [note],
        segment.sources[at] if segment.sources else "",
    )
