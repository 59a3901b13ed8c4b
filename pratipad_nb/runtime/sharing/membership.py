"""Membership: which edges share a flow, and which of them runs which partition.

Owns the heartbeats that edges hear of each other and the rule that divides partitions among them. It keeps nothing safe:
that one owner alone can write a partition's output is what `position` sees to, so that a mistake here, for the edges
may see different things for a moment, costs a restart of that partition and no message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pratipad_nb.transport.frames import HeartbeatFrame

__all__ = ["HEARTBEAT_SECONDS", "LOST_SECONDS", "Membership", "assign"]

#: An edge is heard twice a second, and its partitions are given to others once it has been silent for five heartbeats: sooner,
#: and a long garbage collection would cost it them.
HEARTBEAT_SECONDS = 0.5
LOST_SECONDS = 2.5


@dataclass(slots=True)
class _Member:
    since: float
    owned: frozenset[int]
    heard: float


def assign(members: Mapping[str, tuple[float, frozenset[int]]], partitions: int) -> dict[int, str]:
    """Return which edge is to run which partition.

    Every edge gets as many as the others or one more; what it runs it keeps as far as that allows, so that the least
    moves when an edge comes or goes. Whoever computes it from the same `members` gets the same.

    Parameters
    ----------
    members
        For each edge since when it has been there, and which partitions it runs.
    partitions
        How many there are.
    """
    if not members:
        return {}
    senior = sorted(members, key=lambda edge: (members[edge][0], edge))
    least, more = divmod(partitions, len(members))
    plan: dict[int, str] = {}
    # Those that run most get the odd ones, for then fewer move.
    quota = {
        edge: least + (place < more)
        for place, edge in enumerate(sorted(senior, key=lambda edge: -len(members[edge][1])))
    }
    for edge in senior:
        kept = sorted(p for p in members[edge][1] if p < partitions and p not in plan)
        plan.update(dict.fromkeys(kept[: quota[edge]], edge))
        quota[edge] -= len(kept[: quota[edge]])
    free = (partition for partition in range(partitions) if partition not in plan)
    for edge in senior:
        for _ in range(quota[edge]):
            plan[next(free)] = edge
    return plan


class Membership:
    """What one edge knows of the others.

    Parameters
    ----------
    edge
        This edge's own id.
    partitions
        How many the flow has.
    clock
        Seconds, monotonic.
    """

    def __init__(self, edge: str, partitions: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.edge = edge
        self.since = time.time()
        self._partitions = partitions
        self._clock = clock
        self._others: dict[str, _Member] = {}

    def heartbeat(self, owned: frozenset[int], *, leaving: bool = False) -> HeartbeatFrame:
        """Return what this edge has to say."""
        return HeartbeatFrame(self.edge, self.since, sorted(owned), leaving)

    def hear(self, frame: HeartbeatFrame) -> bool:
        """Take note of another edge's heartbeat; return whether it tells something new."""
        if frame.edge == self.edge:
            return False
        before = self._others.get(frame.edge)
        if frame.leaving:
            self._others.pop(frame.edge, None)
            return before is not None
        owned = frozenset(frame.owned)
        self._others[frame.edge] = _Member(frame.since, owned, self._clock())
        return before is None or before.owned != owned

    def others(self) -> dict[str, frozenset[int]]:
        """Return the edges that were heard of lately, and what they run."""
        now = self._clock()
        for edge in [e for e, member in self._others.items() if now - member.heard > LOST_SECONDS]:
            del self._others[edge]
        return {edge: member.owned for edge, member in self._others.items()}

    def plan(self, owned: frozenset[int]) -> tuple[frozenset[int], frozenset[int]]:
        """Return which partitions this edge should begin to run now, and which it should give up.

        What another still runs is not begun before that one has given it up or is lost.
        """
        others = self.others()
        members = {edge: (self._others[edge].since, run) for edge, run in others.items()}
        members[self.edge] = (self.since, owned)
        mine = frozenset(p for p, edge in assign(members, self._partitions).items() if edge == self.edge)
        taken = frozenset().union(*others.values())
        return mine - owned - taken, owned - mine
