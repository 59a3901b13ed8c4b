"""Changes to a running edge: one at a time, in place or by draining, and never half.

Owns which way a change takes, and the way that drains. Exchanging processors in their places is in `swap`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pratipad_nb.dataflow import Dataflow, Difference
from pratipad_nb.errors import FlowError
from pratipad_nb.runtime.edge.swap import SwapReceipt, swap_in_place
from pratipad_nb.runtime.stages.line import Line

if TYPE_CHECKING:
    from pratipad_nb.runtime.edge.edge import Edge

__all__ = ["Changes"]


@dataclass(slots=True)
class _Pending:
    """A change that waits for what is in hand to be finished."""

    line: Line
    difference: Difference
    in_hand: int
    began: float = field(default_factory=time.monotonic)
    receipt: asyncio.Future[SwapReceipt] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Changes:
    """Changes what one edge runs."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._turn = asyncio.Lock()
        self._pending: _Pending | None = None

    async def swap(self, dataflow: Dataflow) -> SwapReceipt | None:
        """Change what runs; None if nothing differs.

        New processors are set up first: if one can't be, the old ones stay. Where the shape of the flow stays, each
        changed processor is exchanged between two of its calls (see `swap`). Else the pump pauses, what is in hand is
        finished by the old ones and stored, state is carried over, and the new ones go on.

        Raises
        ------
        ProcessorError
            If a new processor can't be set up.
        FlowError
            If the flow isn't running, or ends before the change is made.
        """
        async with self._turn:
            edge = self._edge
            if edge.state not in ("running", "paused"):
                raise FlowError(f"flow {edge.settings.name!r} is {edge.state}, so it can't be changed.")
            old = edge.line.dataflow
            difference = old.diff(dataflow)
            if str(old.tree) == str(dataflow.tree) and not difference.changed:
                return None
            line = await edge.line.prepare(dataflow, difference.kept)
            if line.shape == edge.line.shape and dataflow.hops == old.hops and dataflow.input == old.input:
                return await swap_in_place(edge, line, difference)
            return await self._drained(line, difference)

    async def _drained(self, line: Line, difference: Difference) -> SwapReceipt:
        edge = self._edge
        resting = None if edge.state == "paused" else edge.line.paused
        pending = self._pending = _Pending(line, difference, edge.pipeline.in_hand)
        edge.line.resume()
        edge.pipeline.drain(leaving=True)
        receipt = await pending.receipt
        self._rest_again(resting)
        return receipt

    def _rest_again(self, keys: Sequence[str] | None) -> None:
        """Pause again what was paused before a change (None: the flow), which had to finish what was in hand."""
        if keys is None:
            self._edge.pause()
        for key in keys or ():
            if key in self._edge.line.meters:
                self._edge.line.pause(key)

    async def carried_out(self) -> bool:
        """Carry out the change that waited for the pipeline to end; return whether there was one."""
        pending, self._pending = self._pending, None
        if pending is None:
            return False
        try:
            receipt = await self._carry_out(pending)
        except BaseException:
            self._give_up(pending)
            raise
        if not pending.receipt.done():  # who asked may have gone away
            pending.receipt.set_result(receipt)
        return True

    async def _carry_out(self, pending: _Pending) -> SwapReceipt:
        edge, old, line, difference = self._edge, self._edge.line, pending.line, pending.difference
        accepted, stored = edge.gate.accepted, edge.output.positions
        kept = old.shared_with(line)
        edge.stop_timers(key for key in old.meters if key not in kept)
        await old.carry_over(line)
        edge.go_on_with(line)  # before the old ones are torn down: orders pass at any moment
        await old.close_all_but(line)
        return SwapReceipt(
            difference.added,
            difference.removed,
            difference.changed,
            difference.kept,
            pending.in_hand,
            time.monotonic() - pending.began,
            lost=accepted.ahead_of(stored),
            doubled=stored.ahead_of(accepted),
        )

    async def close(self) -> None:
        """Give up a change that can't be made any more, as the run has ended."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        old, self._edge.line = self._edge.line, pending.line
        await old.carry_over(pending.line)
        await old.close_all_but(pending.line)
        self._give_up(pending)

    def _give_up(self, pending: _Pending) -> None:
        if not pending.receipt.done():
            pending.receipt.set_exception(
                FlowError(
                    f"flow {self._edge.settings.name!r} has ended before it could be changed. Start it anew."
                )
            )
