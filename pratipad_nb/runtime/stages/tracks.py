"""Tracks: several instances at work on one batch.

Owns how the rows of a batch are spread over instances, and how their results come together again in the
batch's order. Instances that never wait for each other are in `shards`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pratipad_nb.processors import Outcome
from pratipad_nb.runtime.stages.member import Emit, Member, dead_letter, failure_note, message_of
from pratipad_nb.runtime.stages.runner import Runner
from pratipad_nb.runtime.stages.shards import instance_of
from pratipad_nb.runtime.values.batch import Batch
from pratipad_nb.transport.frames import FailureNote

__all__ = ["OnTracks", "Track", "tracks_of"]


@dataclass(slots=True)
class Track:
    """The rows of a batch that one instance works on, in rising order; the first `at` are finished."""

    member: Member
    runner: Runner
    rows: Sequence[int]
    at: int = 0
    results: list[Any] = field(default_factory=list)
    result_rows: list[int] = field(default_factory=list)

    @property
    def next_row(self) -> float:
        """The first row that isn't finished; infinity if all are."""
        return self.rows[self.at] if self.at < len(self.rows) else float("inf")

    def take(self, outcome: Outcome) -> None:
        """Add the results of the next `outcome.done` rows."""
        self.results.extend(outcome.payloads)
        self.result_rows.extend(self.rows[self.at + row] for row in outcome.rows)
        self.at += outcome.done

    def pop_below(self, row: int) -> list[tuple[int, Any]]:
        """Return the results of rows below `row`, and forget them."""
        cut = bisect_left(self.result_rows, row)
        found = list(zip(self.result_rows[:cut], self.results[:cut], strict=True))
        del self.result_rows[:cut], self.results[:cut]
        return found


class OnTracks:
    """Several instances at work on one batch; rows that all of them have finished go on, in order.

    The invariant: the rows below `_emitted` were handed on, each once and in the batch's order. Every track
    has finished them. No message has rows on both sides of `_emitted`.

    It holds for these reasons:

    * A row is on one track, or, in braces, on one track of each member. A track works on its rows in rising
      order, and a call finishes the first ones of the rows it is given. So all rows below a track's
      `next_row` are finished there, and rows below the lowest `next_row` of all tracks are finished
      everywhere: no later outcome adds a result or a failure to them.
    * This lowest row is moved back to the first row of its message. All rows of a message are in one batch,
      next to each other, so the message's results go on in one piece, and every message below the next `done`
      is complete.
    * `_turn` lets one track at a time hand on. Without it, a track could emit later rows while another one
      still waits in `emit` with earlier rows. `_emitted` moves before the wait, so no row is handed on twice.
    * A failure goes on with its row, and a reply with its row at the latest: a track adds both before its
      `next_row` moves. The track that finishes last moves the lowest row to the end, so nothing stays behind.

    Parameters
    ----------
    keep
        Whether the payloads go on as they came (braces); if not, the tracks' results go on.
    """

    def __init__(self, batch: Batch, emit: Emit, tracks: list[Track], *, keep: bool) -> None:
        self._batch = batch
        self._emit = emit
        self._tracks = tracks
        self._keep = keep
        self._emitted = 0
        self._failures: dict[int, tuple[Any, list[FailureNote]]] = {}
        self._dead = batch.dead
        self._replies = batch.replies
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Return once every track has finished its rows, and all results are handed on."""
        async with asyncio.TaskGroup() as group:
            for track in self._tracks:
                group.create_task(self._follow(track), name=f"{track.member.key} on a track")

    async def _follow(self, track: Track) -> None:
        batch = self._batch
        while track.at < len(track.rows):
            rows = track.rows[track.at :]
            payloads = (
                batch.payloads[rows.start :] if isinstance(rows, range) else [batch.payloads[r] for r in rows]
            )
            outcome = await track.runner.run(
                payloads, message_of(batch, rows), counted=not batch.source.rebuilds
            )
            for failure in outcome.failures:
                _, notes = self._failures.setdefault(rows[failure.row], (failure.payload, []))
                notes.append(failure_note(track.member, failure))
            self._replies = self._replies + outcome.replies
            track.take(outcome)
            async with self._turn:
                await self._hand_on()

    async def _hand_on(self) -> None:
        """Emit the rows that every track has finished, except rows of a message with unfinished rows."""
        batch, count = self._batch, len(self._batch)
        ready = int(min(count, *(track.next_row for track in self._tracks), count))
        if ready < count:
            ready = bisect_left(batch.origins, batch.origins[ready])
        if ready <= self._emitted:
            return
        begin, self._emitted = self._emitted, ready
        failed = {row: self._failures.pop(row) for row in sorted(self._failures) if row < ready}
        dead = self._dead + [
            dead_letter(batch, row, batch.payloads[row] if self._keep else payload, notes)
            for row, (payload, notes) in failed.items()
        ]
        replies, self._replies, self._dead = self._replies, [], []
        payloads, origins = self._results(begin, ready, failed)
        done = batch.done if ready == count else batch.origins[ready]
        await self._emit(Batch(batch.source, payloads, origins, done, replies, dead))

    def _results(self, begin: int, end: int, failed: dict[int, Any]) -> tuple[list[Any], Sequence[int]]:
        batch = self._batch
        if not self._keep:
            found = sorted(
                (pair for track in self._tracks for pair in track.pop_below(end)), key=lambda pair: pair[0]
            )
            return [payload for _, payload in found], [batch.origins[row] for row, _ in found]
        if not failed:
            return batch.payloads[begin:end], batch.origins[begin:end]
        rows = [row for row in range(begin, end) if row not in failed]
        return [batch.payloads[row] for row in rows], [batch.origins[row] for row in rows]


def tracks_of(member: Member, batch: Batch, chosen: Sequence[int] | None = None) -> list[Track]:
    """Spread the `chosen` rows of `batch`, or all, over the instances of `member`, by its key."""
    if chosen is None:
        chosen = range(len(batch))
    shards = len(member.runners)
    if shards == 1:
        return [Track(member, member.runners[0], chosen)] if chosen else []
    rows: list[list[int]] = [[] for _ in range(shards)]
    by = member.partition_by
    for row in chosen:
        payload, origin = batch.payloads[row], batch.origins[row]
        key = batch.source.device(origin) if by == "device" else _value(payload, by)
        rows[instance_of(key, by, shards)].append(row)
    return [Track(member, runner, found) for runner, found in zip(member.runners, rows, strict=True) if found]


def _value(payload: Any, key: str) -> object:
    """Return the value to partition by; None, which belongs to an instance too, if the payload has none."""
    try:
        value = payload.get(key) if isinstance(payload, dict) else getattr(payload, key, None)
        return str(value)
    except Exception:  # noqa: BLE001 - a user's property or __str__ raised: the processor will meet the error, not the flow
        return None
