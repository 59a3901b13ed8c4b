"""Settling: whether all that a running edge has accepted is at Output, and what it waits for if not.

Owns the waiting and its words. What is in hand is counted by the pipeline, what blocks is known to the logs' keepers.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from pratipad_nb.errors import TransportClosed, TransportError, WaitTimeout

if TYPE_CHECKING:
    from pratipad_nb.runtime.edge.edge import Edge

__all__ = ["blocked_by", "settled"]

#: How long after a look that found something left the next one follows, in seconds: messages come in between.
_LOOK = 0.01


async def settled(edge: Edge, seconds: float) -> None:
    """Wait until all that was accepted is at Output.

    Raises
    ------
    WaitTimeout
        If that isn't so within `seconds`; it says what is left.
    """
    until = time.monotonic() + seconds
    while (left := await _left(edge)) != "":
        if time.monotonic() > until:
            raise WaitTimeout(
                f"flow {edge.settings.name!r} is not settled after {seconds:g} s: {left}. "
                f"{' '.join(blocked_by(edge))}".strip()
            )
        await asyncio.sleep(_LOOK)


async def _left(edge: Edge) -> str:
    """Return what is still to be done, in words; empty if nothing is."""
    try:
        frames = await _frames(edge)
    except TransportClosed:
        raise
    except (TransportError, WaitTimeout) as error:  # it went with a link that comes back
        return f"its input can't be looked at: {error}"
    in_hand = edge.pipeline.in_hand
    return f"{frames} frames wait at its input, {in_hand} messages are in hand" if frames or in_hand else ""


async def _frames(edge: Edge) -> int:
    """Return how many frames are at the input; in fast delivery none, once all that was sent is here."""
    if edge.chain is None:
        await edge.connection.flush()
        return 0
    input_log = await edge.connection.find_log(edge.subjects.input_stream)
    return (await input_log.state()).messages if input_log else 0


def blocked_by(edge: Edge) -> tuple[str, ...]:
    """Return why nothing more can be stored, in words."""
    reasons: list[str] = []
    if edge.chain is not None and edge.chain.full.is_set():
        named = edge.janitor.blocked_by if edge.janitor else ()
        reasons += named or ("the output log is full and is being cut",)
    if edge.dead_letters.full.is_set():
        reasons.append("the dead letters are full: retry_dead_letters() or clear_dead_letters()")
    if edge.backward.full:
        reasons.append("the orders are full: replies wait until devices have run theirs, or orders expire")
    if not edge.connection.connected:
        reasons.append("the link to the server is down")
    return tuple(reasons)
