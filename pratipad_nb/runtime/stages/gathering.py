"""Gathering: rows of several batches, put together for a processor that waits for its batches to fill.

Owns the waiting (`Processor.batch_timeout`), and that each result goes on with the batch of its row. A
processor without a `batch_timeout` needs no gathering: its batches pass as they come.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

from pratipad_nb.message import Message
from pratipad_nb.processors import Outcome
from pratipad_nb.runtime.stages.member import Emit
from pratipad_nb.runtime.stages.stage import Progress, Stage
from pratipad_nb.runtime.values.batch import Barrier, Batch, Item

__all__ = ["Gathering"]


class Gathering:
    """The rows that one instance holds until they fill a batch, or have waited long enough.

    Parameters
    ----------
    stage, shard
        The stage, which has one processor, and the number of the instance.
    emit
        Called with each batch of results.
    """

    def __init__(self, stage: Stage, shard: int, emit: Emit) -> None:
        self._stage = stage
        self._emit = emit
        self._runner = stage.runners[shard]
        self._size = self._runner.adapted.batch_size
        self._seconds = self._runner.adapted.batch_timeout
        #: The held batches: how far each batch is, the `emit` of its results, and when its rows are due.
        self._held: deque[tuple[Progress, Emit, float]] = deque()
        self._rows = 0

    async def get(self, queue: asyncio.Queue[Item]) -> Item:
        """Gather rows from `queue`, working on full batches; return the next item that isn't gathered.

        Such an item is the end, a batch that passes this stage, or a barrier. The held rows are worked on
        before the item is returned; before a barrier only if a state goes with it, for the state has to
        include the held rows.
        """
        while True:
            try:
                async with asyncio.timeout_at(self._held[0][2] if self._held else None):
                    item = await queue.get()
            except TimeoutError:
                await self._work(self._rows)
                continue
            if isinstance(item, Batch) and item.stage <= self._stage.index:
                item = self._stage.entering(item)
            if isinstance(item, Batch) and item.payloads and item.stage <= self._stage.index:
                if self._held and self._held[0][0].rebuilds != item.source.rebuilds:
                    await self._work(self._rows)
                self._add(item)
                await self._work(self._rows - self._rows % self._size)
                queue.task_done()
                continue
            if not isinstance(item, Barrier) or item.behind_state or self._stage.keeps_state:
                await self._work(self._rows)
            return item

    def _add(self, batch: Batch) -> None:
        due = asyncio.get_running_loop().time() + self._seconds
        emit = self._stage.noting(batch, self._emit)
        self._held.append((Progress(self._stage.members[0], batch), emit, due))
        self._rows += len(batch)

    async def _work(self, rows: int) -> None:
        """Let the instance work on the first `rows` held rows."""
        with self._stage.calling():
            while rows > 0:
                parts = self._first(rows)
                payloads = [
                    payload for progress, count in parts for payload in islice(progress.payloads, count)
                ]
                counted = not parts[0][0].rebuilds
                outcome = await self._runner.run(payloads, _message_of(parts), counted=counted)
                rows -= outcome.done
                self._rows -= outcome.done
                await self._hand_on(parts, outcome)

    def _first(self, rows: int) -> list[tuple[Progress, int]]:
        """Return the batches that hold the first `rows` rows, and how many of these rows each batch holds."""
        parts: list[tuple[Progress, int]] = []
        for progress, _, _ in self._held:
            if rows <= 0:
                break
            parts.append((progress, min(rows, progress.left)))
            rows -= progress.left
        return parts

    async def _hand_on(self, parts: list[tuple[Progress, int]], outcome: Outcome) -> None:
        start = 0
        for progress, count in parts:
            done = min(count, outcome.done - start)
            if done <= 0:
                return
            emit = self._held[0][1]
            await emit(progress.take(_part(outcome, start, done)))
            if not progress.left:
                self._held.popleft()
            start += count


def _message_of(parts: list[tuple[Progress, int]]) -> Callable[[int], Message]:
    """Return a function that makes the message of a row, the rows of all parts counted through."""
    starts, total = [], 0
    for _, count in parts:
        starts.append(total)
        total += count

    def message(row: int) -> Message:
        part = bisect_left(starts, row + 1) - 1
        return parts[part][0].message(row - starts[part])

    return message


def _part(outcome: Outcome, start: int, done: int) -> Outcome:
    """Return the part of `outcome` for the `done` rows from `start` on, counted from `start`."""
    low, high = bisect_left(outcome.rows, start), bisect_left(outcome.rows, start + done)
    rows = [row - start for row in outcome.rows[low:high]]
    failures = [replace(f, row=f.row - start) for f in outcome.failures if start <= f.row < start + done]
    # Replies have no row. They go with the first part, so that they are sent before any result is stored.
    replies: list[tuple[Any, Message]] = outcome.replies if start == 0 else []
    return Outcome(done, outcome.payloads[low:high], rows, failures, replies)
