"""Stages: batches in, batches out, in order, as fast as their processors allow.

A stage here is one processor, or all members of one pair of braces; a sequential stage of the notation is several
stages here, for each of its processors gets what the one before returned. Owns how rows are spread over instances
and put together again, and which failures become dead letters. One instance at work is `runner`; what is before
the first and behind the last stage is `pipeline`.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from msgspec import Raw

from pratipad_nb.calls import LeftBehind
from pratipad_nb.errors import OneWayError, ProcessorError
from pratipad_nb.message import Message
from pratipad_nb.processors import Outcome
from pratipad_nb.processors.outcome import Failure
from pratipad_nb.processors.reply import preparing
from pratipad_nb.runtime.stages.runner import Runner
from pratipad_nb.runtime.values.batch import Batch
from pratipad_nb.runtime.values.metrics import Meter
from pratipad_nb.runtime.values.samples import Samples, following
from pratipad_nb.transport.codec import order_payload
from pratipad_nb.transport.frames import DeadEntry, FailureNote

__all__ = ["Emit", "Member", "Progress", "Stage", "shard_of", "state_key"]

log = logging.getLogger(__name__)

#: Where a stage hands on what it has done.
Emit = Callable[[Batch], Awaitable[None]]


def shard_of(key: object, shards: int) -> int:
    """Return which of `shards` instances sees the messages of `key`: the same one in every run."""
    return crc32(str(key).encode(errors="surrogatepass")) % shards


def state_key(key: str, number: int) -> str:
    """Return under which key the state of a processor's instance is kept."""
    return f"{key}/{number}"


@dataclass(slots=True)
class Member:
    """A processor of a stage with its instances; `runners` are as many as its `concurrency`."""

    key: str
    meter: Meter
    runners: list[Runner]
    samples: Samples = field(default_factory=Samples)

    @property
    def partition_by(self) -> str:
        """What tells which instance sees a message."""
        return self.runners[0].adapted.partition_by


@dataclass(slots=True)
class _Track:
    """Rows of a batch on their way through one instance."""

    member: Member
    runner: Runner
    rows: Sequence[int]
    at: int = 0
    results: list[Any] = field(default_factory=list)
    result_rows: list[int] = field(default_factory=list)

    @property
    def next_row(self) -> float:
        """The first row that isn't finished."""
        return self.rows[self.at] if self.at < len(self.rows) else float("inf")

    def take(self, outcome: Outcome) -> None:
        self.results.extend(outcome.payloads)
        self.result_rows.extend(self.rows[self.at + row] for row in outcome.rows)
        self.at += outcome.done

    def pop_below(self, row: int) -> list[tuple[int, Any]]:
        """Return, and forget, the results of rows below `row`."""
        cut = bisect_left(self.result_rows, row)
        found = list(zip(self.result_rows[:cut], self.results[:cut], strict=True))
        del self.result_rows[:cut], self.results[:cut]
        return found


class Stage:
    """One processor, or the members of braces.

    Parameters
    ----------
    index
        Its place in the pipeline; batches that enter behind it pass.
    members
        Its processors.
    concurrent
        They stand in braces: all see every message, what they return is dropped, the message goes on unchanged.
    one_way
        Why they can't reply to devices; empty if they can.
    """

    def __init__(self, index: int, members: Sequence[Member], *, concurrent: bool, one_way: str = "") -> None:
        self.index = index
        self.members = list(members)
        self.concurrent = concurrent
        self.one_way = one_way

    @property
    def runners(self) -> list[Runner]:
        """All instances of all members."""
        return [runner for member in self.members for runner in member.runners]

    @property
    def shards(self) -> int:
        """How many instances can work independently, each on devices of its own; 1: all is one sequence."""
        (first, *others) = self.members
        if self.concurrent or others or first.partition_by != "device":
            return 1
        return len(first.runners)

    @property
    def gathers(self) -> bool:
        """Whether the processor waits for its batches to fill."""
        return (
            not self.concurrent
            and self.shards == len(self.runners)
            and self.runners[0].adapted.batch_timeout > 0
        )

    @property
    def shape(self) -> object:
        """All that tasks and queues were made for: who works here, in how many instances, on what rows."""
        first = self.runners[0].adapted
        return (
            self.concurrent,
            self.one_way,
            [(member.key, len(member.runners), member.partition_by) for member in self.members],
            (first.batch_size, first.batch_timeout) if self.gathers else None,
        )

    @property
    def keeps_state(self) -> bool:
        """Whether an instance has state to carry over a restart."""
        return any(runner.adapted.has_snapshot for runner in self.runners)

    async def snapshot(self, states: dict[str, bytes]) -> None:
        """Add the state of every instance that keeps one, under the processor's key and the instance's number.

        A state that can't be kept holds nothing up: that is told, once, and the state left out. Of an
        instance whose call hangs, the last known state holds.
        """
        for member in self.members:
            for number, runner in enumerate(member.runners):
                try:
                    state = await runner.snapshot()
                except ProcessorError as error:
                    if member.meter.last_error != str(error):
                        log.warning("%s", error)
                    member.meter.last_error = str(error)
                    state = runner.last_state if isinstance(error, LeftBehind) else None
                if state is not None:
                    states[state_key(member.key, number)] = state

    async def process(self, batch: Batch, emit: Emit, shard: int = 0) -> None:
        """Work on `batch` and hand on results as they come; returns when all of it is done."""
        with preparing(self.prepared_reply):
            await self._process(batch, emit, shard)

    def prepared_reply(self, payload: Any) -> Raw:
        """Return a reply of one of these processors as it is sent.

        Raises
        ------
        OneWayError
            If no reply can pass from here to devices.
        PayloadError
            If `payload` can't travel.
        """
        if self.one_way:
            raise OneWayError(self.one_way)
        return Raw(order_payload(payload))

    async def _process(self, batch: Batch, emit: Emit, shard: int) -> None:
        emit = self.noting(batch, emit)
        if batch.stage > self.index or not batch.payloads:
            await emit(batch)
        elif self.concurrent:
            members = [m for m in self.members if self._concerned(batch, m)]
            await _OnTracks(batch, emit, [t for m in members for t in _tracks(m, batch)], keep=True).run()
        elif self.shards == 1 and len(self.members[0].runners) > 1:
            await _OnTracks(batch, emit, _tracks(self.members[0], batch), keep=False).run()
        else:
            await _in_sequence(self.members[0], self.members[0].runners[shard], batch, emit)

    def noting(self, batch: Batch, emit: Emit) -> Emit:
        """Return `emit`, noting on the way what becomes of messages that are followed."""
        if batch.source.followed is None or batch.stage > self.index:
            return emit
        return following(batch, {m.key: (m.samples, m.meter.version) for m in self.members}, emit)

    def _concerned(self, batch: Batch, member: Member) -> bool:
        return batch.stage != self.index or batch.only is None or member.key in batch.only


def _message_of(batch: Batch, rows: Sequence[int]) -> Callable[[int], Message]:
    """Return what makes a row's message."""

    def message(row: int) -> Message:
        at = rows[row]
        return batch.message(at, batch.payloads[at])

    return message


class Progress:
    """How far one instance is with a batch, every row of which it sees, one after the other."""

    def __init__(self, member: Member, batch: Batch) -> None:
        self._member = member
        self._batch = batch
        self._at = 0
        self._held: tuple[list[Any], Sequence[int]] = ([], range(0))
        self._dead, self._replies = batch.dead, batch.replies

    @property
    def left(self) -> int:
        """Rows that aren't finished."""
        return len(self._batch) - self._at

    @property
    def payloads(self) -> list[Any]:
        """Theirs."""
        return self._batch.payloads[self._at :] if self._at else self._batch.payloads

    def message(self, row: int) -> Message:
        """Return the message of a row, counted from the first that isn't finished."""
        return _message_of(self._batch, range(self._at, len(self._batch)))(row)

    def take(self, outcome: Outcome) -> Batch:
        """Take in what has become of the next rows, and return what can go on of it."""
        batch, count, at = self._batch, len(self._batch), self._at
        dead = self._dead + [
            _dead_letter(batch, at + f.row, f.payload, [_note(self._member, f)]) for f in outcome.failures
        ]
        origins = _origins(batch.origins[at : at + outcome.done], outcome)
        payloads = outcome.payloads
        if self._held[0]:
            payloads, origins = self._held[0] + payloads, [*self._held[1], *origins]
        self._at = at = at + outcome.done
        done = batch.done if at == count else batch.origins[at]
        # Results of a message that isn't done wait for the rest of it, so that they are stored all at once.
        cut = len(payloads) if at == count else bisect_left(origins, done)
        self._held = payloads[cut:], origins[cut:]
        replies = self._replies + outcome.replies
        self._dead, self._replies = [], []
        ready = payloads[:cut] if self._held[0] else payloads
        return Batch(batch.source, ready, origins[:cut], done, replies, dead)


async def _in_sequence(member: Member, runner: Runner, batch: Batch, emit: Emit) -> None:
    """One instance sees every row, one after the other."""
    progress, count = Progress(member, batch), len(batch)
    while progress.left:
        message_of = _message_of(batch, range(count - progress.left, count))
        await emit(progress.take(await runner.run(progress.payloads, message_of)))


def _origins(origins: Sequence[int], outcome: Outcome) -> Sequence[int]:
    if isinstance(outcome.rows, range) and len(outcome.rows) == outcome.done:
        return origins
    return [origins[row] for row in outcome.rows]


def _note(member: Member, failure: Failure) -> FailureNote:
    return FailureNote(member.key, failure.error, failure.traceback)


def _dead_letter(batch: Batch, row: int, payload: Any, notes: list[FailureNote]) -> tuple[str, DeadEntry]:
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


def _tracks(member: Member, batch: Batch) -> list[_Track]:
    """Spread the rows of `batch` over the instances of `member`, by its key."""
    shards = len(member.runners)
    if shards == 1:
        return [_Track(member, member.runners[0], range(len(batch)))]
    rows: list[list[int]] = [[] for _ in range(shards)]
    by = member.partition_by
    for row, (payload, origin) in enumerate(zip(batch.payloads, batch.origins, strict=True)):
        key = batch.source.device(origin) if by == "device" else _value(payload, by)
        rows[shard_of(key, shards)].append(row)
    return [
        _Track(member, runner, found) for runner, found in zip(member.runners, rows, strict=True) if found
    ]


def _value(payload: Any, key: str) -> object:
    """Return the value to partition by; None, which has its own instance, too, if the payload doesn't give any."""
    try:
        value = payload.get(key) if isinstance(payload, dict) else getattr(payload, key, None)
        return str(value)
    except Exception:  # noqa: BLE001 - a user's property, or __str__: the processor is to meet it, not the flow
        return None


class _OnTracks:
    """Several instances at work on one batch; what all of them have finished goes on, in order.

    Parameters
    ----------
    keep
        The payloads go on as they came (braces); else the tracks' results do.
    """

    def __init__(self, batch: Batch, emit: Emit, tracks: list[_Track], *, keep: bool) -> None:
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
        async with asyncio.TaskGroup() as group:
            for track in self._tracks:
                group.create_task(self._follow(track), name=f"{track.member.key} on a track")

    async def _follow(self, track: _Track) -> None:
        batch = self._batch
        while track.at < len(track.rows):
            rows = track.rows[track.at :]
            payloads = (
                batch.payloads[rows.start :] if isinstance(rows, range) else [batch.payloads[r] for r in rows]
            )
            outcome = await track.runner.run(payloads, _message_of(batch, rows))
            for failure in outcome.failures:
                _, notes = self._failures.setdefault(rows[failure.row], (failure.payload, []))
                notes.append(_note(track.member, failure))
            self._replies = self._replies + outcome.replies
            track.take(outcome)
            async with self._turn:
                await self._hand_on()

    async def _hand_on(self) -> None:
        """Emit the rows that every track has finished, but no part of a message whose other results aren't."""
        batch, count = self._batch, len(self._batch)
        ready = int(min(count, *(track.next_row for track in self._tracks), count))
        if ready < count:
            ready = bisect_left(batch.origins, batch.origins[ready])
        if ready <= self._emitted:
            return
        begin, self._emitted = self._emitted, ready
        failed = {row: self._failures.pop(row) for row in sorted(self._failures) if row < ready}
        dead = self._dead + [
            _dead_letter(batch, row, batch.payloads[row] if self._keep else payload, notes)
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
