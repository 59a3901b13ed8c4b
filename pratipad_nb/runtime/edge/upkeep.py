"""Upkeep of a run's logs: the janitor's rounds, the barriers of checkpoints, and the looks at the input.

Owns when each of these happens. Deleting frames is for `janitor`, and storing a checkpoint for `checkpoints`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from pratipad_nb.backoff import Backoff
from pratipad_nb.errors import Fenced, FlowError, TransportClosed, TransportError, WaitTimeout
from pratipad_nb.runtime.positions.checkpoints import Checkpoints
from pratipad_nb.runtime.positions.inputs import Input
from pratipad_nb.runtime.positions.janitor import Janitor
from pratipad_nb.runtime.positions.rebuilding import Rebuild
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.batch import Barrier
from pratipad_nb.transport.protocol import ConsumerState

__all__ = ["Upkeep"]

#: Seconds between two rounds of the janitor, in general, and while the output is full.
_SWEEP, _FULL_TICK = 1.0, 0.05
#: Seconds between two looks at the logs: each is a question to the server.
_LOOK = 0.5
#: First and longest pause, in seconds, before the input's progress is asked for again.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class Upkeep:
    """Keeps the logs of one run.

    Parameters
    ----------
    janitor
        Deletes old frames of the output; None where another partition's run does, or in fast delivery.
    full
        Set while the output log takes no frame; None in fast delivery.
    checkpoints
        Makes checkpoints; None in fast delivery.
    source
        The input, which is purged up to what no start will need again.
    rebuild
        The messages at Output that the restored states lack.
    keeps_state
        Returns whether a processor keeps a state: then the input is purged behind a checkpoint alone.
    looks
        Each asks the server how a log stands: which messages wait at the input, and whether there is room for
        dead letters.
    inject
        Puts a barrier into the pipeline.
    checkpoint_seconds
        Pause between two checkpoints.
    always
        Whether a checkpoint is made though this run has stored no frame since the last checkpoint. Other
        partitions may have stored frames, and the janitor waits for the checkpoints of all partitions.
    """

    def __init__(
        self,
        *,
        janitor: Janitor | None,
        full: asyncio.Event | None,
        checkpoints: Checkpoints | None,
        source: Input,
        rebuild: Rebuild,
        keeps_state: Callable[[], bool],
        looks: Sequence[Callable[[], Awaitable[None]]],
        inject: Callable[[Barrier], Awaitable[None]],
        checkpoint_seconds: float,
        always: bool,
    ) -> None:
        self._janitor = janitor
        self._full = full
        self._checkpoints = checkpoints
        self._input = source
        self._rebuild = rebuild
        self._keeps_state = keeps_state
        self._looks = looks
        self._inject = inject
        self._checkpoint_seconds = checkpoint_seconds
        self._always = always
        self._moved = False
        self._sweep_now = asyncio.Event()
        self._purge_now = asyncio.Event()
        self._purge_through = 0
        #: Set for a moment when a barrier has arrived.
        self._arrived = asyncio.Event()

    def note_append(self) -> None:
        """Take note that a frame was stored, or messages have rebuilt a state."""
        self._moved = True
        if self._is_full:
            self._sweep_now.set()

    @property
    def _is_full(self) -> bool:
        return self._full is not None and self._full.is_set()

    async def sweep(self) -> None:
        """Let the janitor work once a second, and at once when the output is full."""
        if self._janitor is None:
            return
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP):
                    await self._sweep_now.wait()
            self._sweep_now.clear()
            with contextlib.suppress(TransportError, WaitTimeout):
                await self._janitor.sweep()
            if self._is_full:
                await asyncio.sleep(_FULL_TICK)
                self._sweep_now.set()

    async def looks(self) -> None:
        """Look at the logs, for the statistics and for what waits for room."""
        while True:
            for look in self._looks:
                with contextlib.suppress(TransportError, WaitTimeout):
                    await look()
            await asyncio.sleep(_LOOK)

    async def checkpoints(self) -> None:
        """Make checkpoints, and purge the input: every `checkpoint_seconds`, or when the input asks for it.

        Nothing is done while nothing was stored or acknowledged.
        """
        if self._checkpoints is None:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + self._checkpoint_seconds
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._input.due.wait()
            self._input.due.clear()
            early = loop.time() < due
            if not early:
                due = loop.time() + self._checkpoint_seconds
            if not (self._moved or self._always or self._input.moved):
                continue
            # The run ends, and makes its last checkpoint by itself; or the server is away.
            with contextlib.suppress(FlowError, TransportError, WaitTimeout):
                await self._round(early)

    async def _round(self, early: bool) -> None:
        if early and not self._keeps_state():
            await self._input.purge((await self._input.progress()).floor)
            return
        self._moved = False
        await self.begin_checkpoint()

    async def begin_checkpoint(self) -> Barrier:
        """Put a barrier in, and return the barrier; `store` makes a checkpoint when the barrier arrives.

        Where no state is kept, the input is purged at once: what is acknowledged is needed no more.

        Raises
        ------
        FlowError
            If the flow stops before.
        TransportError, WaitTimeout
            If the server is away.
        """
        progress = await self._input.progress()
        barrier = Barrier()
        if self._keeps_state():
            # What is acknowledged by now is in every state once the barrier has passed.
            barrier.progress = progress
        else:
            await self._input.purge(progress.floor)
        await self._inject(barrier)
        return barrier

    async def store(self, barrier: Barrier) -> None:
        """Make the checkpoint of a barrier that has arrived at the output."""
        if self._checkpoints is None:
            return
        progress = barrier.progress
        if progress is not None:
            self._rebuild.caught_up(progress)
        floor = None if progress is None else progress.floor
        barrier.outcome = await self._checkpoints.make(barrier.states, floor)
        self._arrived.set()
        self._arrived.clear()
        if barrier.outcome and floor is not None:
            self._purge_through = floor
            self._purge_now.set()

    async def covered(self, check: Callable[[], None]) -> None:
        """Wait until a checkpoint covers all that is stored by now; return at once if no state is kept.

        Parameters
        ----------
        check
            Called about once a second; raises if there will be no checkpoint.

        Raises
        ------
        FlowError
            If the flow stops before.
        """
        barrier: Barrier | None = None
        while self._checkpoints is not None and self._keeps_state():
            check()
            if barrier is None or barrier.outcome is False:
                with contextlib.suppress(WaitTimeout, TransportError):
                    barrier = await self.begin_checkpoint()
            if barrier is not None and barrier.outcome:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._arrived.wait()

    async def purges(self) -> None:
        """Purge the input up to each checkpoint once it is made; the writer doesn't wait for the purge."""
        while True:
            await self._purge_now.wait()
            self._purge_now.clear()
            with contextlib.suppress(TransportError, WaitTimeout):
                await self._input.purge(self._purge_through)

    async def begin(self, line: Line) -> None:
        """Store where the states of `line` begin, or that no state is kept, if the last checkpoint differs.

        Before, no start could tell which of the input's messages the states have.
        """
        if self._checkpoints is not None and line.keeps_state != self._checkpoints.keeps_state:
            await self.checkpoint(line)

    async def checkpoint(self, line: Line) -> None:
        """Make a checkpoint of this moment, at which no message is in flight; wait until it is stored.

        Called where processors that keep a state begin or end: messages before are none of theirs.
        """
        if self._checkpoints is None or not (line.keeps_state or self._checkpoints.keeps_state):
            return
        floor = (await self._progress()).floor if line.keeps_state else None
        await self._checkpoints.insist(await line.snapshot(), floor)

    async def _progress(self) -> ConsumerState:
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                return await self._input.progress()
            except (TransportClosed, Fenced):
                raise
            except (TransportError, WaitTimeout):
                await asyncio.sleep(backoff.next())

    async def last_checkpoint(self, line: Line) -> None:
        """Store positions and states, which agree now that all messages are at Output; purge the input."""
        if self._checkpoints is None:
            return
        with contextlib.suppress(TransportError, WaitTimeout):
            progress = await self._input.progress()
            if await self._checkpoints.make(
                await line.snapshot(), progress.floor if line.keeps_state else None
            ):
                await self._input.purge(progress.floor)
