"""Retries: dead letters put through a running flow once more.

Owns putting dead letters into the pipeline, and the wait for their results. Storing dead letters and making
batches of them is for `dead_letters`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from pratipad_nb.errors import FlowError
from pratipad_nb.runtime.edge.controls import Controls
from pratipad_nb.runtime.edge.status import Status
from pratipad_nb.runtime.edge.upkeep import Upkeep
from pratipad_nb.runtime.positions.dead_letters import DeadLetters, is_letter
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.runtime.positions.rebuilding import Rebuild
from pratipad_nb.runtime.values.batch import Batch
from pratipad_nb.transport.frames import DeadEntry, Position

__all__ = ["Retries"]

#: How often a retry that waits for its results looks whether the flow still runs, in seconds.
_LOOK = 1.0


class Retries:
    """Retries the dead letters of one run.

    Parameters
    ----------
    stored
        The positions at Output, which tell whether a retry is done.
    owns
        Returns whether a device's messages are retried here, and not by another partition's run.
    send_order
        Sends a failed order once more.
    hanging
        Returns which processors hang, and since when, in words.
    upkeep
        Makes the checkpoint that a retried dead letter is deleted behind.
    rebuild
        The messages at Output that the restored states lack.
    """

    def __init__(
        self,
        status: Status,
        controls: Controls,
        dead_letters: DeadLetters,
        stored: Positions,
        owns: Callable[[str], bool],
        send_order: Callable[[DeadEntry], Awaitable[None]],
        hanging: Callable[[], Sequence[str]],
        upkeep: Upkeep,
        rebuild: Rebuild,
    ) -> None:
        self._status = status
        self._controls = controls
        self._dead_letters = dead_letters
        self._stored = stored
        self._owns = owns
        self._send_order = send_order
        self._hanging = hanging
        self._upkeep = upkeep
        self._rebuild = rebuild
        #: Whether all dead letters are in that pass again.
        self._rebuilt = False
        self._turn = asyncio.Lock()

    async def retry(self) -> int:
        """Put all dead letters through again from the processor that failed; return how many there were.

        Raises
        ------
        FlowError
            If the flow stops before all dead letters are through, or a processor hangs.
        """
        async with self._turn:  # two retries at once would put the same dead letters through twice
            orders = await self._orders()
            retried, messages = await self._readings()
            await self._finished(retried)
            # Until a checkpoint covers them, a start needs the dead letters to rebuild the states that they
            # have changed.
            while not self._rebuilt:
                self._check()
                await self._status.appended(_LOOK)
            await self._upkeep.covered(self._check)
            await self._dead_letters.sweep(self._stored)
            return messages + orders

    async def rebuild(self) -> None:
        """Let dead letters pass again that were retried after the checkpoint of the restored states."""
        gaps = self._rebuild.gaps
        places = {place: (gap.passed, gap.until) for place, gap in gaps.items() if is_letter(place)}
        passing = set()
        with contextlib.suppress(FlowError):  # the run ends
            async for step, batch in self._dead_letters.rebuilds(places, self._rebuild.failed):
                (frame,) = batch.source.frames
                place = frame.position(1)[:2]
                passing.add(place)
                try:
                    await self._controls.inject(batch, step)
                except LookupError:  # the flow has no processor `step` any more
                    self._rebuild.passed([frame.position(1)])
        for place in places.keys() - passing:
            self._rebuild.give_up(place)
        self._rebuilt = True

    async def _orders(self) -> int:
        orders = 0
        async for entry in self._dead_letters.orders(self._owns):
            await self._send_order(entry)
            orders += 1
        return orders

    async def _readings(self) -> tuple[list[Position], int]:
        """Put all failed messages in; return the positions that they complete, and their number."""
        retried: list[Position] = []
        messages = 0
        async for step, batch in self._dead_letters.retries(self._stored, self._owns):
            try:
                await self._inject(batch, step)
            except LookupError:  # the flow has no processor `step` any more: its dead letters stay
                continue
            retried.append(batch.source.frames[0].position(1))
            messages += len(batch)
        return retried, messages

    async def _finished(self, retried: list[Position]) -> None:
        for place, epoch, number in retried:
            while self._stored.number(place, epoch) < number:
                self._check()
                await self._status.appended(_LOOK)

    def _check(self) -> None:
        """Raise `FlowError` if the dead letters won't all be through."""
        self._check_hanging()
        if self._status.state in ("stopped", "failed"):
            raise FlowError(
                f"flow {self._status.name!r} {self._status.state}; dead letters that were not retried are "
                "still there."
            )

    async def _inject(self, batch: Batch, step: str | None) -> None:
        """Put `batch` in; raise `FlowError` if there is no room because a processor hangs."""
        task = asyncio.ensure_future(self._controls.inject(batch, step))
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=_LOOK)
                if not task.done():
                    self._check_hanging()
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _check_hanging(self) -> None:
        hanging = self._hanging()
        if hanging:
            raise FlowError(
                f"dead letters of flow {self._status.name!r} can't all be retried now: {'; '.join(hanging)}. "
                "The others are still there. Mend the processor, run its cell again, then call "
                "retry_dead_letters() again."
            )
