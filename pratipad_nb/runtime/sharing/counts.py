"""Counts: those of the partitions in this process, and those of all edges of the flow.

Owns the sums, and asking other edges. The rule by which counts are added up is for `merging`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import msgspec

from pratipad_nb.errors import PratipadError
from pratipad_nb.runtime.edge.edge import Edge
from pratipad_nb.runtime.sharing.membership import Membership
from pratipad_nb.runtime.sharing.merging import merged
from pratipad_nb.runtime.values.stats import EdgeStats, FlowStats
from pratipad_nb.tasks import gathered
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ControlFrame
from pratipad_nb.transport.origin import Origin
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Counts"]

#: How long another edge may take to tell its counts, in seconds.
_ANSWER = 1.0


class Counts:
    """The counts of a flow in partitions.

    Parameters
    ----------
    connection, subjects
        Where other edges are asked.
    membership
        Which other edges there are.
    edges
        The partitions that run here at present.
    """

    def __init__(
        self, connection: Connection, subjects: Subjects, membership: Membership, edges: Mapping[int, Edge]
    ) -> None:
        self._connection = connection
        self._subjects = subjects
        self._membership = membership
        self._edges = edges
        #: The counts of partitions that ran here and have ended.
        self._past: FlowStats | None = None

    def here(self, flow: FlowStats) -> FlowStats:
        """Return the counts of all partitions here, also of those that have ended, as those of `flow`."""
        past = [self._past] if self._past is not None else []
        running = [edge.snapshot() for edge in self._edges.values()]
        return merged([*past, *running], flow, state=flow.state, error=flow.error)

    def keep(self, edge: Edge, *, handed_on: bool) -> None:
        """Keep the counts of a partition that ends here; `handed_on`: another edge may go on with it."""
        ended = edge.snapshot().at_rest()
        if handed_on:
            ended = ended.handed_on()
        past = [self._past] if self._past is not None else []
        self._past = merged([*past, ended], ended, state="stopped", error="")

    async def of_all_edges(self, mine: FlowStats) -> FlowStats:
        """Return the counts of all edges, `mine` among them; the others are asked."""
        found = await gathered([self._of(each) for each in self._membership.origins()])
        edges = [EdgeStats.of(self._membership.edge, self._edges, mine), *(edge for edge, _ in found)]
        gone = [
            EdgeStats(each.edge.host, each.edge.pid, each.edge.since, "failed", error=each.error)
            for each in self._membership.gone()
        ]
        told = [stats for _, stats in found if stats is not None]
        stats = merged([mine, *told], mine, state=mine.state, error=mine.error)
        return dataclasses.replace(stats, edges=(*sorted(edges, key=lambda each: each.since), *gone))

    async def _of(self, edge: Origin) -> tuple[EdgeStats, FlowStats | None]:
        """Ask another edge for its counts; None, and the reason as the edge's error, if no answer comes."""
        question = encode(ControlFrame("stats"))
        try:
            data = await self._connection.request(self._subjects.edge(edge.id), question, _ANSWER)
            answer = decode(data, ControlFrame).arguments
            stats = msgspec.convert(answer["stats"], FlowStats)
            partitions = msgspec.convert(answer["partitions"], list[int])
        except (PratipadError, KeyError, msgspec.ValidationError) as error:
            reason = f"doesn't tell its counts, which are missing here: {error}"
            return EdgeStats(edge.host, edge.pid, edge.since, error=reason), None
        return EdgeStats.of(edge, partitions, stats), stats
