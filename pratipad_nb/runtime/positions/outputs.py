"""Outputs: batches are gathered into output frames and stored, and only then is their input acknowledged.

Owns the order in which things become safe: dead letters and replies first, then results with their positions,
then the acknowledgement. The log of the results is for `chain`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from pratipad_nb.errors import PayloadError
from pratipad_nb.message import Message
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.runtime.positions.segments import (
    ends_of,
    halves,
    segments_of,
    take_out_too_large,
    take_out_unfit,
)
from pratipad_nb.runtime.values.batch import Barrier, Batch, InputFrame, Item
from pratipad_nb.runtime.values.metrics import Histogram, InFlight
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import DeadEntry, OutputFrame, Position, Segment
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.wording import counted

__all__ = ["Chain", "FastChain", "Writer"]

log = logging.getLogger(__name__)

#: Most results that are gathered into one frame. Longer frames would be stored no faster.
_FRAME_MESSAGES = 4096


class Chain(Protocol):
    """The target of appended frames: an `OutputChain`, or a `FastChain`."""

    positions: Positions

    async def append(self, covers: list[Position], segments: list[Segment]) -> int:
        """Make results and positions safe together; return the frame's sequence."""


class FastChain:
    """The output of fast delivery: frames are published and not stored."""

    def __init__(self, connection: Connection, subject: str) -> None:
        self.positions = Positions()
        self._connection = connection
        self._subject = subject
        self._number = 0

    async def append(self, covers: list[Position], segments: list[Segment]) -> int:
        """Publish the results; a frame without results is not sent, for it tells a subscriber nothing."""
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
        Sends off the replies of processors.
    on_stored
        Called after every append, with the positions that it completed.
    on_rebuilt
        Called with the positions up to which messages have passed the processors again, for their state.
    on_barrier
        Called when all results before a barrier are stored: makes the checkpoint.
    in_flight
        Counts the messages that are completed.
    drops
        Returns whether a device has used up its share of the dead letters, and counts the letter that is
        dropped then. A retried message's letter is never dropped: it takes the place of the letter before.
    """

    def __init__(
        self,
        chain: Chain,
        in_flight: InFlight,
        *,
        store_dead: Callable[[Sequence[tuple[str, DeadEntry]]], Awaitable[None]],
        send_replies: Callable[[Sequence[tuple[Any, Message]]], Awaitable[None]],
        on_stored: Callable[[Sequence[Position]], None],
        on_rebuilt: Callable[[Sequence[Position]], None],
        on_barrier: Callable[[Barrier], Awaitable[None]],
        drops: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._chain = chain
        self._drops = drops
        self._in_flight = in_flight
        self._store_dead = store_dead
        self._send_replies = send_replies
        self._on_stored = on_stored
        self._on_rebuilt = on_rebuilt
        self._on_barrier = on_barrier
        self.delivered = 0
        self.latency = Histogram()

    async def run(self, queue: asyncio.Queue[Item]) -> None:
        """Write until the queue brings None. While one frame is in flight, the next frame gathers."""
        item: Item = await queue.get()
        while item is not None:
            batches: list[Batch] = []
            messages = 0
            while isinstance(item, Batch):
                batches.append(item)
                messages += len(item)
                if queue.empty() or messages >= _FRAME_MESSAGES:
                    break
                item = queue.get_nowait()
            if rebuilding := [batch for batch in batches if batch.source.rebuilds]:
                self._pass(rebuilding)
                batches = [batch for batch in batches if not batch.source.rebuilds]
            if batches:
                await self._write(batches)
            if isinstance(item, Barrier):
                await self._on_barrier(item)
            if item is not None:
                item = await queue.get()

    def _pass(self, batches: list[Batch]) -> None:
        """Let batches go that passed for the sake of the state alone: their results are at Output already."""
        covers: list[Position] = []
        complete: list[InputFrame] = []
        finished = sum(batch.source.advance(batch.done, covers, complete) for batch in batches)
        self._in_flight.complete(finished)
        if failed := [letter for batch in batches for letter in batch.dead]:
            step, entry = failed[0]
            log.warning(
                "%s of %s failed on %s while rebuilding the state, which lacks what they changed: %s",
                counted(len(failed), "message"),
                batches[0].source.flow,
                step,
                entry.failures[0].error,
            )
        self._on_rebuilt(covers)
        for frame in complete:
            if frame.on_safe is not None:
                frame.on_safe()

    async def _write(self, batches: list[Batch]) -> None:
        dead = [
            letter for batch in batches for letter in self._kept(batch.dead, retried=batch.source.retried)
        ]
        if dead:
            await self._store_dead(dead)
        replies = [reply for batch in batches if batch.source.kind == "new" for reply in batch.replies]
        if replies:
            await self._send_replies(replies)
        covers: list[Position] = []
        complete: list[InputFrame] = []
        finished = sum(batch.source.advance(batch.done, covers, complete) for batch in batches)
        await self._store([segment for batch in batches for segment in segments_of(batch)], covers)
        self._in_flight.complete(finished)
        now = time.time()
        self.latency.add([now - frame.received for frame in complete])
        for frame in complete:
            if frame.on_safe is not None:
                frame.on_safe()
        self._on_stored(covers)

    def _kept(
        self, letters: Sequence[tuple[str, DeadEntry]], *, retried: bool
    ) -> Sequence[tuple[str, DeadEntry]]:
        """Return the `letters` that are to be stored, of messages some of which may be `retried`."""
        return letters if retried else [letter for letter in letters if not self._drops(letter[1].device)]

    async def _store(self, segments: list[Segment], covers: list[Position]) -> None:
        """Append; payloads that can't travel become dead letters, results too large for a frame are split."""
        try:
            await self._chain.append(covers, segments)
        except PayloadError as error:
            retried = any(segment.retry for segment in segments)
            unfit = take_out_unfit(segments) or take_out_too_large(segments, error)
            if unfit:
                await self._store_dead(self._kept(unfit, retried=retried))
                await self._store([segment for segment in segments if segment.payloads], covers)
                return
            await self._store_in_two(segments, covers)
            return
        self.delivered += sum(len(segment.payloads) for segment in segments)

    async def _store_in_two(self, segments: list[Segment], covers: list[Position]) -> None:
        if segments:
            first, second = halves(segments)
            await self._store(first, ends_of(first))
            await self._store(second, covers)
            return
        # Positions without results, of many devices, all of whose messages were filtered.
        middle = len(covers) // 2
        await self._store([], covers[:middle])
        await self._store([], covers[middle:])
