"""Settling: whether all that a running edge has accepted is at Output, and what it waits for if not.

Owns the waiting and its words. What is in hand is counted by the pipeline, what blocks is known to the logs' keepers.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from pratipad_nb.errors import WaitTimeout

if TYPE_CHECKING:
    from pratipad_nb.runtime.edge import Edge

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
    while (left := await _left(edge)) != (0, 0):
        if time.monotonic() > until:
            raise WaitTimeout(
                f"flow {edge.settings.name!r} is not settled after {seconds:g} s: {left[0]} frames wait at its "
                f"input, {left[1]} messages are in hand. {' '.join(blocked_by(edge))}".strip()
            )
        await asyncio.sleep(_LOOK)


async def _left(edge: Edge) -> tuple[int, int]:
    """Return frames at the input and messages in hand."""
    frames = 0
    if edge.chain is not None:
        input_log = await edge.connection.find_log(edge.subjects.input_stream)
        frames = (await input_log.state()).messages if input_log else 0
    else:
        await edge.connection.flush()
    return frames, edge.pipeline.in_hand


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
