"""Changing a processor while the flow runs, without draining the pipeline; and the receipt of any change.

Owns the hot swap of processors that stay in their places: the instances of each processor are exchanged
between two calls, with their state, while all other processors go on. A change of the notation's shape drains
the pipeline instead; see `changes`.

Why not always drain: the messages in flight may take seconds at full speed, and minutes with a slow
processor.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from pratipad_nb.dataflow import Difference
from pratipad_nb.errors import FlowError, TransportError
from pratipad_nb.runtime.edge.status import Status
from pratipad_nb.runtime.edge.timers import Timers
from pratipad_nb.runtime.edge.upkeep import Upkeep
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.stages.moving import StateMove
from pratipad_nb.runtime.values.metrics import InFlight

__all__ = ["Proof", "SwapReceipt", "swap_in_place"]

#: How long a receipt waits until the messages that were in flight are at Output, in seconds, so that it can
#: compare positions there. Messages that take longer are still in flight then, and not lost.
_PROOF_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SwapReceipt:
    """The receipt of a change to a running flow, with counts.

    Attributes
    ----------
    added, removed, changed, kept
        Keys of the processors.
    in_flight
        Messages that were in the pipeline when the change began.
    pause
        Seconds for which a changed processor was not at work; with a new shape of the flow, for which none
        was.
    lost, doubled
        Messages that were accepted before the change and are neither in flight nor at Output, and positions
        at Output that were never accepted: both 0, or this package has a bug.
    states
        What became of the state of each changed processor.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    kept: tuple[str, ...]
    in_flight: int
    pause: float
    lost: int
    doubled: int
    states: tuple[StateMove, ...] = ()

    def __repr__(self) -> str:
        parts = [
            f"{done} {', '.join(keys)}"
            for done, keys in (("added", self.added), ("removed", self.removed), ("swapped", self.changed))
            if keys
        ]
        messages = "1 message" if self.in_flight == 1 else f"{self.in_flight} messages"
        return (
            f"{'; '.join(parts) or 'rearranged'}: {messages} in flight, pause {self.pause * 1000:.0f} ms, "
            f"lost {self.lost}, doubled {self.doubled}{self._of_states}"
        )

    @property
    def _of_states(self) -> str:
        return "".join(f"; {text}" for text in map(str, self.states) if text)


class Proof:
    """Counts, from positions, the messages that a change lost and doubled.

    Parameters
    ----------
    counted
        Counts the messages in flight.
    accepted, stored
        Positions of admitted messages, and positions at Output.
    paused
        Returns whether a processor is paused: then messages in flight can't reach Output.
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

    @property
    def flowing(self) -> bool:
        """Whether messages in flight can reach Output."""
        return self._status.state == "running" and not self._paused()

    def difference(self) -> tuple[int, int]:
        """Return how many messages are accepted and not stored, and stored and not accepted.

        With no message in flight, these are the messages lost and doubled.
        """
        return self._accepted.ahead_of(self._stored), self._stored.ahead_of(self._accepted)

    async def awaited(self) -> tuple[int, int]:
        """Return how many of the messages accepted by now are lost, and doubled, once they are stored.

        After `_PROOF_SECONDS`, messages that are still in flight are not counted as lost.
        """
        before = Positions(self._accepted.all())
        until = time.monotonic() + _PROOF_SECONDS
        while missing := before.ahead_of(self._stored):
            if not self.flowing or time.monotonic() > until:
                break
            await self._status.appended(until - time.monotonic())
        return max(0, missing - self.in_flight), self._stored.ahead_of(self._accepted)


async def swap_in_place(
    running: Line, line: Line, difference: Difference, timers: Timers, proof: Proof, upkeep: Upkeep
) -> SwapReceipt:
    """Exchange the changed processors of `running` for those of `line`, which has the same shape.

    Where a state is kept, the receipt waits for a checkpoint, so that after a crash the state is rebuilt of
    messages behind the exchange alone.
    """
    in_flight = proof.in_flight
    timers.stop(difference.changed)
    try:
        pause, states = await running.exchange(line, difference.changed)
    finally:
        timers.restart(difference.changed)
    lost, doubled = await proof.awaited()
    if proof.flowing:
        with contextlib.suppress(TimeoutError, FlowError, TransportError):
            async with asyncio.timeout(_PROOF_SECONDS):
                await upkeep.covered(lambda: None)
    return SwapReceipt(
        difference.added,
        difference.removed,
        difference.changed,
        difference.kept,
        in_flight,
        pause,
        lost=lost,
        doubled=doubled,
        states=states,
    )
