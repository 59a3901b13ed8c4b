"""Membership: which edges run partitions of a flow, and which edge runs which partition.

Owns the heartbeats that edges hear of each other, and the rule that divides partitions among the edges. Owns
no safety: `chain` makes sure that one owner alone can write a partition's output. For a moment edges may
know different heartbeats, and so divide differently. Such a mistake costs a restart of that partition, and no
message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pratipad_nb.transport.frames import HeartbeatFrame
from pratipad_nb.transport.origin import Origin

__all__ = ["HEARTBEAT_SECONDS", "LOST_SECONDS", "Gone", "Membership", "assign"]

#: An edge sends a heartbeat twice a second. Its partitions go to other edges once it has been silent for five
#: heartbeats: with fewer, an edge would lose them to a long garbage collection.
HEARTBEAT_SECONDS = 0.5
LOST_SECONDS = 2.5
#: So many edges that failed or fell silent are remembered, each for so many seconds.
_MOST_GONE, _GONE_SECONDS = 16, 3600.0


@dataclass(slots=True)
class _Member:
    edge: Origin
    owned: frozenset[int]
    heard: float


@dataclass(frozen=True, slots=True)
class Gone:
    """An edge that failed, with its error, or fell silent; `at` is when, by the monotonic clock."""

    edge: Origin
    error: str
    at: float


def assign(members: Mapping[str, tuple[float, frozenset[int]]], partitions: int) -> dict[int, str]:
    """Return which edge is to run which partition.

    The numbers of partitions that any two edges get differ by one at most. An edge keeps the partitions that
    it runs as far as its number allows, so that the fewest partitions move when an edge comes or goes. All
    edges compute the same division from the same `members`.

    Parameters
    ----------
    members
        For each edge since when it has been there, in seconds since 1970, and the partitions that it runs.
    partitions
        How many partitions the flow has.
    """
    if not members:
        return {}
    senior = sorted(members, key=lambda edge: (members[edge][0], edge))
    least, more = divmod(partitions, len(members))
    plan: dict[int, str] = {}
    # The edges that run most partitions get one more than the others, for then fewer partitions move.
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
    """The other edges of a flow, as one edge knows them by their heartbeats.

    Parameters
    ----------
    edge
        This edge itself.
    partitions
        How many partitions the flow has.
    clock
        Returns seconds of a monotonic clock.
    """

    def __init__(self, edge: Origin, partitions: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.edge = edge
        self._partitions = partitions
        self._clock = clock
        self._others: dict[str, _Member] = {}
        self._gone: dict[str, Gone] = {}

    def hear(self, frame: HeartbeatFrame) -> bool:
        """Take note of another edge's heartbeat; return whether the heartbeat changes the division."""
        edge = frame.edge.id
        if edge == self.edge.id:
            return False
        before = self._others.get(edge)
        if frame.leaving:
            self._others.pop(edge, None)
            if frame.error:
                self._note_gone(frame.edge, frame.error)
            return before is not None
        owned = frozenset(number for number in frame.owned if 0 <= number < self._partitions)
        self._others[edge] = _Member(frame.edge, owned, self._clock())
        self._gone.pop(edge, None)
        return before is None or before.owned != owned

    def _note_gone(self, edge: Origin, error: str) -> None:
        self._gone[edge.id] = Gone(edge, error, self._clock())
        while len(self._gone) > _MOST_GONE:
            del self._gone[next(iter(self._gone))]

    def others(self) -> dict[str, frozenset[int]]:
        """Return the other edges that have sent a heartbeat lately, and the partitions that they run."""
        now = self._clock()
        for id_, member in list(self._others.items()):
            if now - member.heard > LOST_SECONDS:
                del self._others[id_]
                self._note_gone(
                    member.edge, f"has sent no heartbeat for {LOST_SECONDS:g} s: killed, or cut off"
                )
        return {edge: member.owned for edge, member in self._others.items()}

    def origins(self) -> list[Origin]:
        """Return the other edges that have sent a heartbeat lately."""
        return [self._others[edge].edge for edge in self.others()]

    def gone(self) -> list[Gone]:
        """Return the edges that failed or fell silent within the last hour."""
        self.others()
        return [each for each in self._gone.values() if self._clock() - each.at < _GONE_SECONDS]

    def plan(self, owned: frozenset[int]) -> tuple[frozenset[int], frozenset[int]]:
        """Return the partitions that this edge is to begin now, and those that it is to give up.

        A partition that another edge still runs is not begun before that edge has given it up or is lost.
        """
        others = self.others()
        members = {edge: (self._others[edge].edge.since, run) for edge, run in others.items()}
        members[self.edge.id] = (self.edge.since, owned)
        mine = frozenset(p for p, edge in assign(members, self._partitions).items() if edge == self.edge.id)
        taken = frozenset().union(*others.values())
        return mine - owned - taken, owned - mine
