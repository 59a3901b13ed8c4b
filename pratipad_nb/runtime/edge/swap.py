"""Changing a processor while the flow runs, without draining it; and the receipt of any change.

Owns the hot swap of processors that stay in their places: the instances of each are exchanged between two calls, with
their state, while everything around them goes on. A change of the notation's shape drains the pipeline instead; that
is in `changes`.

Why not always drain: what is in flight may take seconds at full speed, and minutes with a slow processor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pratipad_nb.dataflow import Difference
from pratipad_nb.runtime.edge.status import Status
from pratipad_nb.runtime.edge.timers import Timers
from pratipad_nb.runtime.positions.position import Positions
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.metrics import InFlight

__all__ = ["Proof", "SwapReceipt", "swap_in_place"]

#: How long a receipt waits for what was in flight to reach Output, in seconds, so that it says what was counted there. What
#: takes longer is still in flight when it is given, and not lost.
_PROOF_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SwapReceipt:
    """What a change to a running flow did, as counted.

    Attributes
    ----------
    added, removed, changed, kept
        Keys of the processors.
    in_flight
        Messages that were in the pipeline when the change began.
    pause
        Seconds for which a processor that was changed, or with a new shape of the flow all of it, worked on nothing.
    lost, doubled
        Messages that were accepted before the change and are neither in flight nor at Output, and positions at Output that
        were never accepted: both 0, or something is badly wrong.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    kept: tuple[str, ...]
    in_flight: int
    pause: float
    lost: int
    doubled: int

    def __repr__(self) -> str:
        parts = [
            f"{what} {', '.join(keys)}"
            for what, keys in (("added", self.added), ("removed", self.removed), ("swapped", self.changed))
            if keys
        ]
        messages = "1 message" if self.in_flight == 1 else f"{self.in_flight} messages"
        return (
            f"{'; '.join(parts) or 'rearranged'}: {messages} in flight, pause {self.pause * 1000:.0f} ms, "
            f"lost {self.lost}, doubled {self.doubled}"
        )


class Proof:
    """Counts, from positions, what a change lost and doubled.

    Parameters
    ----------
    accepted, stored
        Positions that were taken in, and positions at Output.
    paused
        Says whether a processor is paused: then what is in flight can't reach Output.
    """

    def __init__(
        self,
        status: Status,
        counted: InFlight,
        accepted: Positions,
        stored: Positions,
        paused: Callable[[], bool],
    ) -> None:
        self._status = status
        self._counted = counted
        self._accepted = accepted
        self._stored = stored
        self._paused = paused

    @property
    def in_flight(self) -> int:
        """Messages in flight."""
        return self._counted.count

    def difference(self) -> tuple[int, int]:
        """Return how many messages are accepted and not stored, and stored and not accepted, with none in flight."""
        return self._accepted.ahead_of(self._stored), self._stored.ahead_of(self._accepted)

    async def awaited(self) -> tuple[int, int]:
        """Return what is lost and doubled of all that is accepted by now, once that is stored or time is up.

        Messages that are still in flight then are not lost.
        """
        before = Positions(self._accepted.all())
        until = time.monotonic() + _PROOF_SECONDS
        while missing := before.ahead_of(self._stored):
            if self._status.state != "running" or self._paused() or time.monotonic() > until:
                break
            await self._status.appended(until - time.monotonic())
        return max(0, missing - self.in_flight), self._stored.ahead_of(self._accepted)


async def swap_in_place(
    running: Line, line: Line, difference: Difference, timers: Timers, proof: Proof
) -> SwapReceipt:
    """Let the instances of `line`, which has the shape of `running`, work in the places of those that changed."""
    in_flight = proof.in_flight
    timers.stop(difference.changed)
    try:
        pause = await running.exchange(line, difference.changed)
    finally:
        timers.restart(difference.changed)
    lost, doubled = await proof.awaited()
    return SwapReceipt(
        difference.added,
        difference.removed,
        difference.changed,
        difference.kept,
        in_flight,
        pause,
        lost=lost,
        doubled=doubled,
    )
