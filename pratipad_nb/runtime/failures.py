"""What becomes of a running edge's failures: what is no frame is put aside, and what was put aside is retried.

Owns when. Storing dead letters and making batches of them is in `dead_letters`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pratipad_nb.errors import FlowError, FrameError
from pratipad_nb.transport.frames import DeadEntry, FailureNote, Position, new_epoch
from pratipad_nb.transport.protocol import Delivery

if TYPE_CHECKING:
    from pratipad_nb.runtime.edge import Edge

__all__ = ["Failures"]

#: How often a retry that waits for its results looks whether the flow still runs, in seconds.
_LOOK = 1.0


class Failures:
    """Puts aside what failed at one edge, and retries it."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._turn = asyncio.Lock()

    def malformed(self, delivery: Delivery, error: FrameError) -> None:
        """Put what is no frame to the dead letters, then take it off the input."""
        edge = self._edge
        device = edge.subjects.device_of(delivery.subject)
        note = FailureNote(edge.line.dataflow.input, f"FrameError: {error}", "")
        # Fast delivery has no sequences, and of two dead letters with one id a single one would be listed.
        number = delivery.sequence or new_epoch()
        entry = DeadEntry(
            device, 0, number, 0, delivery.time, delivery.time, repr(delivery.data[:256]), [note]
        )
        edge.control.later(self._bury(delivery, entry))

    async def _bury(self, delivery: Delivery, entry: DeadEntry) -> None:
        await self._edge.dead_letters.store([(self._edge.line.dataflow.input, entry)])
        self._edge.input.acknowledge(delivery)

    async def retry(self) -> int:
        """Put all dead letters through again from where they failed; return how many there were.

        Raises
        ------
        FlowError
            If the flow stops before all are through.
        """
        async with self._turn:  # two at once would both run what neither has finished
            return await self._retry()

    async def _retry(self) -> int:
        edge, positions = self._edge, self._edge.output.positions
        orders = 0
        async for entry in edge.dead_letters.orders(edge.settings.owns):
            await edge.backward.again(entry)
            orders += 1
        retried: list[Position] = []
        messages = 0
        async for step, batch in edge.dead_letters.retries(positions, edge.settings.owns):
            try:
                await edge.inject(batch, step)
            except LookupError:  # the flow has no such processor any more: its dead letters stay
                continue
            retried.append(batch.source.frames[0].position(1))
            messages += len(batch)
        for place, epoch, number in retried:
            while positions.number(place, epoch) < number:
                if edge.state in ("stopped", "failed"):
                    raise FlowError(
                        f"flow {edge.settings.name!r} {edge.state}; what wasn't retried is still there."
                    )
                await edge.stored(_LOOK)
        await edge.dead_letters.sweep(positions)
        return messages + orders
