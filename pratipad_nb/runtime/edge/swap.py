"""Changing a processor while the flow runs, without draining it; and the receipt of any change.

Owns the hot swap of processors that stay in their places: the instances of each are exchanged between two calls, with
their state, while everything around them goes on. A change of the notation's shape drains the pipeline instead; that
is in `changes`.

Why not always drain: what is in hand may take seconds at full speed, and minutes with a slow processor.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pratipad_nb.runtime.positions.position import Positions

if TYPE_CHECKING:
    from pratipad_nb.dataflow import Difference
    from pratipad_nb.runtime.edge.edge import Edge
    from pratipad_nb.runtime.stages.line import Line

__all__ = ["SwapReceipt", "swap_in_place"]

#: How long a receipt waits for what was in hand to reach Output, in seconds, so that it says what was counted there. What
#: takes longer is still in hand when it is given, and not lost.
_PROOF_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SwapReceipt:
    """What a change to a running flow did, as counted.

    Attributes
    ----------
    added, removed, changed, kept
        Keys of the processors.
    in_hand
        Messages that were in the pipeline when the change began.
    pause
        Seconds for which a processor that was changed, or with a new shape of the flow all of it, worked on nothing.
    lost, doubled
        Messages that were accepted before the change and are neither in hand nor at Output, and positions at Output that
        were never accepted: both 0, or something is badly wrong.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    kept: tuple[str, ...]
    in_hand: int
    pause: float
    lost: int
    doubled: int

    def __repr__(self) -> str:
        parts = [
            f"{what} {', '.join(keys)}"
            for what, keys in (("added", self.added), ("removed", self.removed), ("swapped", self.changed))
            if keys
        ]
        messages = "1 message" if self.in_hand == 1 else f"{self.in_hand} messages"
        return (
            f"{'; '.join(parts) or 'rearranged'}: {messages} in hand, pause {self.pause * 1000:.0f} ms, "
            f"lost {self.lost}, doubled {self.doubled}"
        )


async def swap_in_place(edge: Edge, line: Line, difference: Difference) -> SwapReceipt:
    """Let the instances of `line`, which has the shape of what runs, work in the places of those that changed."""
    in_hand = max(0, edge.pipeline.in_hand)
    edge.stop_timers(difference.changed)
    try:
        pause = await edge.line.exchange(line, difference.changed)
    finally:
        edge.restart_timers(difference.changed)
    before = Positions(edge.gate.accepted.all())
    until = time.monotonic() + _PROOF_SECONDS
    while (missing := before.ahead_of(edge.output.positions)) and _moves(edge) and time.monotonic() < until:
        await edge.stored(until - time.monotonic())
    return SwapReceipt(
        difference.added,
        difference.removed,
        difference.changed,
        difference.kept,
        in_hand,
        pause,
        lost=max(0, missing - max(0, edge.pipeline.in_hand)),
        doubled=edge.output.positions.ahead_of(edge.gate.accepted),
    )


def _moves(edge: Edge) -> bool:
    """Whether what is in hand can reach Output: nothing is paused."""
    return edge.state == "running" and not edge.line.paused
