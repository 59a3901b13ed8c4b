"""Upkeep of a running flow's logs: the janitor's rounds, the checkpoints, and the looks at what waits.

Owns when they are made. What a round deletes is for `janitor`, what a checkpoint is for `position`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from pratipad_nb.errors import LogFull, PayloadError, TransportError, WaitTimeout
from pratipad_nb.runtime.values.batch import Barrier
from pratipad_nb.transport.codec import decode
from pratipad_nb.transport.frames import MarkFrame

if TYPE_CHECKING:
    from pratipad_nb.runtime.edge.edge import Edge

__all__ = ["Upkeep"]

log = logging.getLogger(__name__)

#: Seconds between two rounds of the janitor, and while the output is full.
_SWEEP, _FULL_TICK = 1.0, 0.05
#: Seconds between two looks at the input: each is a question to the server.
_LOOK = 0.5


class Upkeep:
    """Keeps the logs of one edge.

    Attributes
    ----------
    moved
        Whether anything was stored since the last checkpoint.
    sweep_now
        Set when the output is full.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self.moved = False
        self.sweep_now = asyncio.Event()

    async def sweep(self) -> None:
        """Let the janitor work once a second, and at once when the output is full."""
        if self._edge.janitor is None:
            return
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP):
                    await self.sweep_now.wait()
            self.sweep_now.clear()
            with contextlib.suppress(TransportError, WaitTimeout):
                await self._edge.janitor.sweep()
            if self._edge.chain is not None and self._edge.chain.full.is_set():
                await asyncio.sleep(_FULL_TICK)
                self.sweep_now.set()

    async def looks(self) -> None:
        """Count what waits at the input, for the statistics."""
        while True:
            with contextlib.suppress(TransportError, WaitTimeout):
                await self._edge.gate.look()
            await asyncio.sleep(_LOOK)

    async def checkpoints(self) -> None:
        """Send a barrier through the pipeline now and then, if anything was stored since the last one."""
        while self._edge.chain is not None:
            await asyncio.sleep(self._edge.settings.options.checkpoint_seconds)
            if self.moved or self._edge.settings.shared:
                self.moved = False
                await self._edge.pipeline.inject(Barrier())

    async def checkpointed(self) -> int:
        """Return the output sequence up to which every partition's positions are in a checkpoint."""
        assert self._edge.chain is not None
        lowest = self._edge.chain.checkpointed
        marks = await self._edge.connection.find_log(self._edge.subjects.mark_stream)
        for partition in range(1, self._edge.settings.options.partitions):
            mark = await marks.latest(self._edge.subjects.mark(f"partition-{partition}")) if marks else None
            lowest = min(lowest, decode(mark.data, MarkFrame).sequence if mark else 0)
        return lowest

    async def checkpoint(self, barrier: Barrier) -> None:
        """Make the checkpoint that `barrier` has gathered the states for."""
        if self._edge.chain is not None:
            with contextlib.suppress(WaitTimeout, LogFull):
                if self._edge.settings.shared:
                    await self._edge.chain.keep_up()
                await self._keep(barrier.states)

    async def _keep(self, states: dict[str, bytes]) -> None:
        """Make a checkpoint with `states`, or, where they are too large all together, of the positions alone."""
        assert self._edge.chain is not None
        try:
            await self._edge.chain.checkpoint(states)
        except PayloadError as error:
            log.warning("the processors' states are not kept: %s", error)
            await self._edge.chain.checkpoint({})

    async def last_checkpoint(self) -> None:
        """Make the checkpoint that a clean stop leaves: everything is stored, so states and positions agree."""
        if self._edge.chain is not None:
            with contextlib.suppress(TransportError, WaitTimeout):
                await self._keep(await self._edge.line.snapshot())
