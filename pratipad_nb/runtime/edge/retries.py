"""Retries: dead letters put through a running flow once more.

Owns putting dead letters into the pipeline, and the wait for their results. Storing dead letters and making
batches of them is for `dead_letters`.

A retry moves letters: few frames are in the pipeline at a time, and they are deleted once their last letters
are at Output, or are dead letters again. So the letters that fail again take no more room than they had.
Where processors keep a state, frames are deleted behind a checkpoint: until then, a start needs the frames to
rebuild the state.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from pratipad_nb.errors import FlowError, OneWayError
from pratipad_nb.runtime.edge.controls import Controls
from pratipad_nb.runtime.edge.status import Status
from pratipad_nb.runtime.edge.upkeep import Upkeep
from pratipad_nb.runtime.positions.dead_letters import DeadLetters, Retry, is_letter
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.runtime.positions.rebuilding import Rebuild
from pratipad_nb.transport.frames import DeadEntry

__all__ = ["Retries"]

#: How often a retry that waits for its results looks whether the flow still runs, in seconds.
_LOOK = 1.0
#: Most frames that are in the pipeline and not deleted, most bytes of them, and most bytes of memory that
#: their letters take; a larger frame goes alone.
_FRAMES, _BYTES, _MEMORY = 32, 1 << 20, 64 << 20


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
    standing
        Returns why messages don't pass the processors from a step on, in words: which processors are paused,
        and which hang, since when.
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
        standing: Callable[[str], Sequence[str]],
        upkeep: Upkeep,
        rebuild: Rebuild,
    ) -> None:
        self._status = status
        self._controls = controls
        self._dead_letters = dead_letters
        self._stored = stored
        self._owns = owns
        self._send_order = send_order
        self._standing = standing
        self._upkeep = upkeep
        self._rebuild = rebuild
        #: Whether all dead letters are in that pass again.
        self._rebuilt = False
        self._turn = asyncio.Lock()
        #: How many letters of each frame, the first ones, have been put in by this run and not deleted. They
        #: may still be in flight after a retry that was cancelled, and aren't put in again.
        self._put_in: dict[int, int] = {}
        #: How many letters each frame has whose last letter has been put in.
        self._whole: dict[int, int] = {}

    async def retry(self) -> int:
        """Put all dead letters through again from the processor that failed; return how many there were.

        Raises
        ------
        FlowError
            If the flow stops or is paused before all dead letters are through, or a processor hangs.
        """
        async with self._turn:  # two retries at once would put the same dead letters through twice
            orders = await self._orders()
            messages = await self._readings()
            await self._covered("")
            await self._dead_letters.sweep(self._stored)
            return messages + orders

    async def rebuild(self) -> None:
        """Let dead letters pass again that were retried after the checkpoint of the restored states."""
        gaps = self._rebuild.gaps
        places = {place: (gap.passed, gap.until) for place, gap in gaps.items() if is_letter(place)}
        passing = set()
        with contextlib.suppress(FlowError):  # the run ends
            async for letter in self._dead_letters.rebuilds(places, self._rebuild.failed):
                (frame,) = letter.batch.source.frames
                place = frame.position(1)[:2]
                passing.add(place)
                try:
                    await self._controls.inject(letter.batch, letter.step)
                except LookupError:  # the flow has no such processor any more
                    self._rebuild.passed([frame.position(1)])
        for place in places.keys() - passing:
            self._rebuild.give_up(place)
        self._rebuilt = True

    async def _orders(self) -> int:
        orders = 0
        async with contextlib.aclosing(self._dead_letters.orders(self._owns)) as entries:
            async for entry in entries:
                try:
                    await self._send_order(entry)
                except OneWayError:  # the notation lets no order pass by now: the failed orders stay
                    break
                orders += 1
        return orders

    async def _readings(self) -> int:
        """Put all failed messages in, wait for their results, and return their number."""
        under_way: list[Retry] = []
        messages = 0
        async for letter in self._dead_letters.retries(self._stored, self._owns):
            if letter.at > self._put_in.get(letter.sequence, 0):
                try:
                    await self._inject(letter)
                except LookupError:  # the flow has no such processor any more: its dead letters stay
                    continue
                messages += len(letter.batch)
            if letter.last:
                under_way.append(letter)
            if _is_much(under_way):
                await self._finished(under_way)
                under_way = []
        await self._finished(under_way)
        return messages

    async def _finished(self, lasts: Sequence[Retry]) -> None:
        """Wait until the frames whose last letters are `lasts` are through, and delete the frames."""
        for last in lasts:
            while self._dead_letters.retried(last.sequence, self._stored) < last.at:
                self._check(last.step)
                await self._status.appended(_LOOK)
        if lasts:
            await self._covered(lasts[0].step)
        for last in lasts:
            await self._delete(last.sequence)

    async def _covered(self, step: str) -> None:
        """Wait until no start needs the letters that are through to rebuild a state."""
        while not self._rebuilt:
            self._check(step)
            await self._status.appended(_LOOK)
        await self._upkeep.covered(lambda: self._check(step))

    def _check(self, step: str) -> None:
        """Raise `FlowError` if the letters of `step` won't all be through."""
        self._check_passing(step)
        if self._status.state in ("stopped", "failed"):
            raise FlowError(
                f"flow {self._status.name!r} {self._status.state}; dead letters that were not retried are "
                "still there."
            )

    async def _delete(self, sequence: int) -> None:
        await self._dead_letters.delete(sequence, self._stored)
        self._put_in.pop(sequence, None)
        self._whole.pop(sequence, None)

    async def tidy(self) -> None:
        """Delete the frames that are through, of a retry that was cancelled."""
        if self._turn.locked() or not self._whole or not self._rebuilt:
            return
        async with self._turn:
            retried = self._dead_letters.retried
            through = [at for at, letters in self._whole.items() if retried(at, self._stored) >= letters]
            if through:
                with contextlib.suppress(FlowError):  # the next look, or the next retry, deletes them
                    await self._covered("")
                    for sequence in through:
                        await self._delete(sequence)

    async def _inject(self, letter: Retry) -> None:
        """Put `letter` in; raise `FlowError` if a processor doesn't go on."""
        self._check_passing(letter.step)
        task = asyncio.ensure_future(self._put(letter))
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=_LOOK)
                if not task.done():
                    self._check_passing(letter.step)
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _put(self, letter: Retry) -> None:
        # Both in one task: whether the letter is in is known, whenever the caller is cancelled.
        await self._controls.inject(letter.batch, letter.step)
        self._put_in[letter.sequence] = letter.at
        if letter.last:
            self._whole[letter.sequence] = letter.at

    def _check_passing(self, step: str) -> None:
        standing = self._standing(step)
        if standing:
            raise FlowError(
                f"dead letters of flow {self._status.name!r} can't all be retried now: "
                f"{'; '.join(standing)}. The others are still there. Call retry_dead_letters() again "
                "after that."
            )


def _is_much(under_way: Sequence[Retry]) -> bool:
    """Return whether the frames whose last letters are `under_way` have to be deleted first."""
    size, memory = sum(each.size for each in under_way), sum(each.memory for each in under_way)
    return len(under_way) >= _FRAMES or size >= _BYTES or memory >= _MEMORY
