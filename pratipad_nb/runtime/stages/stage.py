"""Stages: batches in, batches out, in order, as fast as their processors allow.

A stage here is one processor, or all members of one pair of braces; a sequential stage of the notation is several
stages here, for each of its processors gets what the one before returned. Owns
which instances a batch is for, and what of a batch can go on. Several instances at work on one batch are `tracks`; one
instance at work is `runner`; what is before the first and behind the last stage is `pipeline`.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from msgspec import Raw

from pratipad_nb.calls import LeftBehind
from pratipad_nb.errors import OneWayError, ProcessorError
from pratipad_nb.message import Message
from pratipad_nb.processors import Outcome
from pratipad_nb.processors.reply import preparing
from pratipad_nb.runtime.stages.member import Emit, Member, dead_letter, failure_note, message_of, state_key
from pratipad_nb.runtime.stages.runner import Runner
from pratipad_nb.runtime.stages.tracks import OnTracks, tracks_of
from pratipad_nb.runtime.values.batch import Batch
from pratipad_nb.runtime.values.samples import following
from pratipad_nb.transport.codec import order_payload

__all__ = ["Progress", "Stage"]

log = logging.getLogger(__name__)


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
            await OnTracks(batch, emit, [t for m in members for t in tracks_of(m, batch)], keep=True).run()
        elif self.shards == 1 and len(self.members[0].runners) > 1:
            await OnTracks(batch, emit, tracks_of(self.members[0], batch), keep=False).run()
        else:
            await _in_sequence(self.members[0], self.members[0].runners[shard], batch, emit)

    def noting(self, batch: Batch, emit: Emit) -> Emit:
        """Return `emit`, noting on the way what becomes of messages that are followed."""
        if batch.source.followed is None or batch.stage > self.index:
            return emit
        return following(batch, {m.key: (m.samples, m.meter.version) for m in self.members}, emit)

    def _concerned(self, batch: Batch, member: Member) -> bool:
        return batch.stage != self.index or batch.only is None or member.key in batch.only


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
        return message_of(self._batch, range(self._at, len(self._batch)))(row)

    def take(self, outcome: Outcome) -> Batch:
        """Take in what has become of the next rows, and return what can go on of it."""
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
        message_of_row = message_of(batch, range(count - progress.left, count))
        await emit(progress.take(await runner.run(progress.payloads, message_of_row)))


def _origins(origins: Sequence[int], outcome: Outcome) -> Sequence[int]:
    if isinstance(outcome.rows, range) and len(outcome.rows) == outcome.done:
        return origins
    return [origins[row] for row in outcome.rows]
