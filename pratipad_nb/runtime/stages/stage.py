"""A stage: batches in, batches out, in order, as fast as its processors allow.

A `Stage` is one processor, or all members of one pair of braces. A sequential stage of the notation is
several `Stage` objects, for each of its processors gets the results of the processor before. Owns which
instances a batch is for, and which rows of a batch can go on. Several instances at work on one batch are in
`tracks`, one instance at work is in `runner`, and the queues between stages are in `pipeline`.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import Raw

from pratipad_nb.calls import LeftBehind
from pratipad_nb.errors import OneWayError, ProcessorError
from pratipad_nb.message import Message
from pratipad_nb.processors import Outcome, copied, keeping
from pratipad_nb.processors.reply import preparing
from pratipad_nb.runtime.stages.member import Emit, Member, dead_letter, failure_note, message_of
from pratipad_nb.runtime.stages.runner import Runner
from pratipad_nb.runtime.stages.tracks import OnTracks, tracks_of
from pratipad_nb.runtime.values.batch import Batch
from pratipad_nb.runtime.values.packing import sealed
from pratipad_nb.runtime.values.samples import following
from pratipad_nb.runtime.values.state_keys import StateKey
from pratipad_nb.transport.codec import order_payload

__all__ = ["Progress", "Stage"]

log = logging.getLogger(__name__)


class Stage:
    """One processor, or the members of braces.

    Parameters
    ----------
    index
        The stage's place in the pipeline; a batch that enters behind the stage passes it unchanged.
    members
        The stage's processors.
    concurrent
        Whether the members stand in braces: all see every message, their results are dropped, and the message
        goes on unchanged.
    one_way
        Why the members can't reply to devices; empty if they can.
    final
        Whether no stage follows. The results of such a stage are encoded at once (`sealed`); the results of
        others are copied.
    """

    def __init__(
        self,
        index: int,
        members: Sequence[Member],
        *,
        concurrent: bool,
        one_way: str = "",
        final: bool = False,
    ) -> None:
        self.index = index
        self.members = list(members)
        self.concurrent = concurrent
        self.one_way = one_way
        self._keep = sealed if final else copied

    @property
    def runners(self) -> list[Runner]:
        """All instances of all members."""
        return [runner for member in self.members for runner in member.runners]

    @property
    def shards(self) -> int:
        """How many instances work independently, each on devices of its own; 1: batches are one sequence."""
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
        """The properties that tasks and queues depend on: members, their instances, how rows are spread.

        Also whether a member keeps state: its state begins, or ends, between two messages of the whole flow.
        """
        first = self.runners[0].adapted
        return (
            self.concurrent,
            self.one_way,
            [
                (m.key, len(m.runners), m.partition_by, m.runners[0].adapted.has_snapshot)
                for m in self.members
            ],
            (first.batch_size, first.batch_timeout) if self.gathers else None,
        )

    @property
    def keeps_state(self) -> bool:
        """Whether an instance has state to carry over a restart."""
        return any(runner.adapted.has_snapshot for runner in self.runners)

    async def snapshot(self, states: dict[str, bytes]) -> None:
        """Add the state of every instance that keeps one to `states`, by its `StateKey`.

        A state that can't be kept is logged, once, and left out. Of an instance whose call hangs, the last
        known state holds.
        """
        for member in self.members:
            for number, runner in enumerate(member.runners):
                try:
                    state = await runner.snapshot()
                    if state is not None:
                        state.check_size(member.key)
                except ProcessorError as error:
                    if member.meter.last_error != str(error):
                        log.warning("%s", error)
                    member.meter.last_error = str(error)
                    state = runner.last_state if isinstance(error, LeftBehind) else None
                if state is not None:
                    states[str(StateKey(member.key, number, len(member.runners)))] = state.packed()

    async def process(self, batch: Batch, emit: Emit, shard: int = 0) -> None:
        """Work on `batch`, and emit results as they come; return when all rows are done."""
        with self.calling():
            await self._process(batch, emit, shard)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Let members that are called inside the block reply, and keep their results, as this stage needs."""
        with preparing(self._prepared_reply), keeping(self._keep):
            yield

    def _prepared_reply(self, payload: Any) -> Raw:
        """Return the reply of a member as it is sent.

        Raises
        ------
        OneWayError
            If no reply can pass from this stage to devices.
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
            await self._in_braces(batch, emit)
        elif not (batch := self.entering(batch)).payloads:
            await emit(batch)
        elif self.shards == 1 and len(self.members[0].runners) > 1:
            await OnTracks(batch, emit, tracks_of(self.members[0], batch), keep=False).run()
        else:
            await _in_sequence(self.members[0], self.members[0].runners[shard], batch, emit)

    def entering(self, batch: Batch) -> Batch:
        """Return `batch` with the rows that are for this stage's one processor."""
        return batch.only_rows(batch.passing({self.members[0].key}, self.index))

    async def _in_braces(self, batch: Batch, emit: Emit) -> None:
        members = [m for m in self.members if self._concerned(batch, m)]
        tracks = [t for m in members for t in tracks_of(m, batch, batch.passing({m.key}, self.index))]
        if batch.source.failed:
            # What failed on one member passed the others, and went no further.
            keys, all_of = {member.key for member in members}, emit

            async def emit(done: Batch) -> None:
                await all_of(done.only_rows(done.passing(keys, self.index)))

        if tracks:
            await OnTracks(batch, emit, tracks, keep=True).run()
        else:
            await emit(batch)

    def noting(self, batch: Batch, emit: Emit) -> Emit:
        """Return an `emit` that also notes the results of the messages that are followed."""
        if batch.source.followed is None or batch.stage > self.index:
            return emit
        return following(batch, {m.key: (m.samples, m.meter.version) for m in self.members}, emit)

    def _concerned(self, batch: Batch, member: Member) -> bool:
        return batch.stage != self.index or batch.only is None or member.key in batch.only


class Progress:
    """How far one instance is with a batch, all rows of which it sees in their order."""

    def __init__(self, member: Member, batch: Batch) -> None:
        self._member = member
        self._batch = batch
        self._at = 0
        self._held: tuple[list[Any], Sequence[int]] = ([], range(0))
        self._dead, self._replies = batch.dead, batch.replies

    @property
    def rebuilds(self) -> bool:
        """Whether the rows pass for the sake of the state alone."""
        return self._batch.source.rebuilds

    @property
    def left(self) -> int:
        """How many rows aren't finished."""
        return len(self._batch) - self._at

    @property
    def payloads(self) -> list[Any]:
        """The payloads of the rows that aren't finished."""
        return self._batch.payloads[self._at :] if self._at else self._batch.payloads

    def message(self, row: int) -> Message:
        """Return the message of a row, counted from the first unfinished row."""
        return message_of(self._batch, range(self._at, len(self._batch)))(row)

    def take(self, outcome: Outcome) -> Batch:
        """Take in the outcome of the next rows, and return the batch that can go on."""
        batch, count, at = self._batch, len(self._batch), self._at
        dead = self._dead + [
            dead_letter(batch, at + f.row, f.payload, [failure_note(self._member, f)])
            for f in outcome.failures
        ]
        origins = _origins(batch.origins[at : at + outcome.done], outcome)
        payloads = outcome.payloads
        if self._held[0]:
            payloads, origins = self._held[0] + payloads, [*self._held[1], *origins]
        self._at = at = at + outcome.done
        done = batch.done if at == count else batch.origins[at]
        # Results of an unfinished message wait for its other rows, so that its results are stored all at
        # once.
        cut = len(payloads) if at == count else bisect_left(origins, done)
        self._held = payloads[cut:], origins[cut:]
        replies = self._replies + outcome.replies
        self._dead, self._replies = [], []
        ready = payloads[:cut] if self._held[0] else payloads
        return Batch(batch.source, ready, origins[:cut], done, replies, dead)


async def _in_sequence(member: Member, runner: Runner, batch: Batch, emit: Emit) -> None:
    """Let one instance work on all rows of `batch` in their order."""
    progress, count, counted = Progress(member, batch), len(batch), not batch.source.rebuilds
    while progress.left:
        message_of_row = message_of(batch, range(count - progress.left, count))
        outcome = await runner.run(progress.payloads, message_of_row, counted=counted)
        await emit(progress.take(outcome))


def _origins(origins: Sequence[int], outcome: Outcome) -> Sequence[int]:
    if isinstance(outcome.rows, range) and len(outcome.rows) == outcome.done:
        return origins
    return [origins[row] for row in outcome.rows]
