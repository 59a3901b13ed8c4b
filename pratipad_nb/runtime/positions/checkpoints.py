"""Checkpoints: a partition's positions and its processors' states, as of one frame of the output.

Owns which states go into a checkpoint, and how far the checkpoints of all partitions reach. Storing a
checkpoint is for `chain`; when a checkpoint is due is for `upkeep`.
"""

from __future__ import annotations

import asyncio
import logging

from pratipad_nb.backoff import Backoff
from pratipad_nb.errors import FrameError, LogFull, PayloadError, WaitTimeout
from pratipad_nb.runtime.positions.chain import OutputChain
from pratipad_nb.runtime.positions.unreadable import Unreadable
from pratipad_nb.transport.codec import decode
from pratipad_nb.transport.frames import MarkFrame
from pratipad_nb.transport.protocol import Log, Record
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Checkpoints"]

log = logging.getLogger(__name__)

#: First and longest pause, in seconds, before a checkpoint that has to be stored is tried again.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class Checkpoints:
    """Makes the checkpoints of one partition.

    Parameters
    ----------
    chain
        The partition's output.
    marks
        The log that holds the checkpoints of all partitions.
    partitions
        How many partitions the flow has.
    unreadable
        Counts the entries that are no checkpoints.
    """

    def __init__(
        self, chain: OutputChain, marks: Log, subjects: Subjects, partitions: int, unreadable: Unreadable
    ) -> None:
        self._unreadable = unreadable
        self._chain = chain
        self._marks = marks
        self._subjects = subjects
        self._partitions = partitions

    async def reach(self) -> int:
        """Return the output sequence up to which every partition's positions are in a checkpoint."""
        lowest = self._chain.checkpointed
        for partition in range(1, self._partitions):
            mark = await self._marks.latest(self._subjects.mark(f"partition-{partition}"))
            lowest = min(lowest, self._sequence_of(mark) if mark else 0)
        return lowest

    def _sequence_of(self, mark: Record) -> int:
        """Return how far a checkpoint reaches; 0, so that nothing is deleted, if it can't be read."""
        try:
            return decode(mark.data, MarkFrame).sequence
        except FrameError as error:
            self._unreadable.note(self._marks.spec.name, mark, error)
            return 0

    @property
    def keeps_state(self) -> bool:
        """Whether the last checkpoint was made where a state is kept."""
        return self._chain.floor is not None

    async def make(self, states: dict[str, bytes], floor: int | None) -> bool:
        """Make a checkpoint and return True; if it can't be stored now, the next checkpoint replaces it.

        Parameters
        ----------
        floor
            As of `OutputChain.checkpoint`.
        """
        try:
            if self._partitions > 1:
                await self._chain.keep_up()
            await self._make(states, floor)
        except (WaitTimeout, LogFull) as error:
            log.debug("a checkpoint of %s waits: %s", self._subjects.flow, error)
            return False
        return True

    async def insist(self, states: dict[str, bytes], floor: int | None) -> None:
        """Make a checkpoint that what follows depends on; wait for as long as it can't be stored."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while not await self.make(states, floor):  # noqa: ASYNC110 - the server alone knows when it can
            await asyncio.sleep(backoff.next())

    async def _make(self, states: dict[str, bytes], floor: int | None) -> None:
        try:
            await self._chain.checkpoint(states, floor)
        except PayloadError as error:
            log.warning("the processors' states are not kept: %s", error)
            await self._chain.checkpoint({}, floor)
