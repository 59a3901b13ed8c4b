"""Upkeep of a run's logs: the janitor's rounds, the barriers of checkpoints, and the looks at the input.

Owns when each of these happens. Deleting frames is for `janitor`, and storing a checkpoint for `checkpoints`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from pratipad_nb.errors import FlowError, TransportError, WaitTimeout
from pratipad_nb.runtime.positions.janitor import Janitor
from pratipad_nb.runtime.values.batch import Barrier

__all__ = ["Upkeep"]

#: Seconds between two rounds of the janitor, in general, and while the output is full.
_SWEEP, _FULL_TICK = 1.0, 0.05
#: Seconds between two looks at the logs: each is a question to the server.
_LOOK = 0.5


class Upkeep:
    """Keeps the logs of one run.

    Parameters
    ----------
    janitor
        Deletes old frames of the output; None where another partition's run does, or in fast delivery.
    full
        Set while the output log takes no frame; None in fast delivery.
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
        looks: Sequence[Callable[[], Awaitable[None]]],
        inject: Callable[[Barrier], Awaitable[None]],
        checkpoint_seconds: float,
        always: bool,
    ) -> None:
        self._janitor = janitor
        self._full = full
        self._looks = looks
        self._inject = inject
        self._checkpoint_seconds = checkpoint_seconds
        self._always = always
        self._moved = False
        self._sweep_now = asyncio.Event()

    def note_append(self) -> None:
        """Take note that a frame was stored."""
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
        """Send a barrier through the pipeline every `checkpoint_seconds`, if a frame was stored since."""
        while self._full is not None:
            await asyncio.sleep(self._checkpoint_seconds)
            if self._moved or self._always:
                self._moved = False
                with contextlib.suppress(FlowError):  # the run ends, and makes its last checkpoint by itself
                    await self._inject(Barrier())
