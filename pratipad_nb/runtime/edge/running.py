"""The contract of a run, which a flow's handle uses: `Edge` runs one partition, `PartitionedEdge` several.

Owns the contract alone. A handle knows nothing else of a run, and does not ask which of the two classes it
has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from pratipad_nb.dataflow import Dataflow
from pratipad_nb.runtime.devices.pull import PullRequest
from pratipad_nb.runtime.edge.replaying import Entry
from pratipad_nb.runtime.edge.swap import SwapReceipt
from pratipad_nb.runtime.positions.dead_letters import DeadLetter
from pratipad_nb.runtime.positions.gatekeeper import Tap
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.stats import FlowState, FlowStats

__all__ = ["Running"]


class Running(Protocol):
    """A run of a flow, opened."""

    @property
    def state(self) -> FlowState:
        """Where the run is in its life."""

    @property
    def lines(self) -> list[Line]:
        """The processors of each partition that runs here, with their samples and logs."""

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that run here."""

    def snapshot(self) -> FlowStats:
        """Return the counters as they stand."""

    async def all_edges(self) -> FlowStats:
        """Return the counters of all edges of the flow, this process's and those of others."""

    async def run(self) -> None:
        """Run until drained, and make the last checkpoint."""

    def fail(self, error: str) -> None:
        """Note why the run has ended before it was drained."""

    def drain(self) -> None:
        """Refuse new messages; `run` returns once all messages in flight are safe."""

    async def close(self) -> None:
        """Close subscriptions and logs, and tear processors down; nothing of the run is left."""

    @property
    def revocable(self) -> bool:
        """Whether a change that is being made can be given up, so that the old processors go on."""

    async def swap(self, dataflow: Dataflow) -> SwapReceipt | None:
        """Change the run to `dataflow` and return the receipt; None if nothing differs."""

    def pause(self, processor: str | None = None) -> None:
        """Let the run, or one processor, begin no further call."""

    def resume(self, processor: str | None = None) -> None:
        """Let the run, or one processor, go on."""

    def set_rate(self, allowed: float | None) -> None:
        """Change how many messages a second devices are asked for; None lifts the limit."""

    def demand(self, max_demand: int, min_demand: int) -> None:
        """Demand: change both bounds, at once."""

    def pull(self, n: int, device: str | None = None) -> PullRequest:
        """Ask for `n` readings."""

    async def order(self, payload: Any, to: str | Sequence[str] | None = None) -> str:
        """Append an order; return its id."""

    async def settled(self, seconds: float) -> None:
        """Wait until all accepted messages are at Output."""

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the messages that processors failed on."""

    async def retry_dead_letters(self) -> int:
        """Put dead letters through the flow again; return how many there were."""

    async def clear_dead_letters(self) -> int:
        """Delete dead letters; return how many there were."""

    async def forget_reader(self, name: str) -> None:
        """Delete a reader's consumer and position."""

    def owns(self, device: str) -> bool:
        """Return whether `device` belongs to a partition that runs here."""

    def tapped(self, tap: Tap) -> contextlib.AbstractContextManager[None]:
        """Call `tap` with every admitted frame while the context lasts."""

    async def replay(self, entries: Callable[[], Iterator[Entry]], speed: float | None) -> int:
        """Put recorded inputs through the flow; return their number once all are taken in."""
