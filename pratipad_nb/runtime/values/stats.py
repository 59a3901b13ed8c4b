"""Statistics of a flow: frozen snapshots with numbers and states.

Owns the values that `Flow.stats` returns, and that the picture, the terminal and dashboards draw. Counting is
for `pratipad_nb.runtime.values.metrics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pratipad_nb import wording
from pratipad_nb.runtime.values.stats_tables import DeviceTable, ProcessorTable, Snapshot, frozen
from pratipad_nb.transport.origin import Origin

__all__ = [
    "MOST_CONNECTIONS",
    "BackwardStats",
    "DeviceStats",
    "EdgeStats",
    "FlowState",
    "FlowStats",
    "ProcessorStats",
    "ReaderStats",
]

#: A device has one connection, and while it reconnects a second one. More than so many are no accident.
MOST_CONNECTIONS = 8
#: The state of a flow, or of a processor.
FlowState = Literal["starting", "running", "paused", "draining", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class ProcessorStats:
    """One processor.

    Attributes
    ----------
    received, emitted, failed, retried
        Messages that came in, results that went out, messages that became dead letters, and tries after the
        first; since the start.
    rate
        Messages in a second, over the last second or so.
    p50, p99
        Median and 99th percentile of the time that `process` takes for a message, in seconds, over the last
        10 s or so; 0.0 before the first message.
    busy
        Fraction of the last second or so that the processor was at work, 0 to 1.
    waiting
        Messages that wait for the processor.
    state
        The processor's own state: "paused" for a paused processor in a running flow.
    last_error
        The newest failure's error line; empty if there was no failure.
    version
        How many times the processor's code has been swapped since the start.
    newer
        Whether the processor's code, or its arguments, have been defined anew and not been swapped in.
    left_behind
        Instances that are left behind in calls that hang, and whose calls have not ended since.
    failed_timers
        Calls of `@every` methods that raised, or took longer than `timeout`; in all.
    """

    received: int = 0
    emitted: int = 0
    failed: int = 0
    retried: int = 0
    rate: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    busy: float = 0.0
    waiting: int = 0
    state: FlowState = "running"
    last_error: str = ""
    version: int = 0
    newer: bool = False
    left_behind: int = 0
    failed_timers: int = 0


@dataclass(frozen=True, slots=True)
class DeviceStats:
    """One device.

    Attributes
    ----------
    connected
        Whether the device is connected.
    received, rate
        Messages of the device since the start, and messages a second.
    gaps
        Messages that are missing, found by a gap in the device's numbers.
    repeats
        Messages that were dropped as repeats.
    malformed
        Deliveries of the device that were no valid frames.
    dropped_letters
        Messages and malformed deliveries of the device that became no dead letter, for the device had used up
        its share of the room for dead letters; since the start.
    orders_sent, orders_run
        Orders sent to the device, and orders that the device has confirmed as run.
    error
        The last failure of the device's reading; empty if there was none.
    sources
        How many devices speak through this one, if it is a gateway.
    connections
        How many connections the device has, by the server's word.
    hellos_dropped
        Hellos of the device that were malformed, or more than the edge works on: one every 5 ms, the newest.
    """

    connected: bool = False
    received: int = 0
    rate: float = 0.0
    gaps: int = 0
    repeats: int = 0
    malformed: int = 0
    dropped_letters: int = 0
    orders_sent: int = 0
    orders_run: int = 0
    error: str = ""
    sources: int = 0
    connections: int = 0
    hellos_dropped: int = 0

    @property
    def crowded(self) -> bool:
        """Whether the device has more connections than `MOST_CONNECTIONS`."""
        return self.connections > MOST_CONNECTIONS


@dataclass(frozen=True, slots=True)
class ReaderStats:
    """One reader.

    Attributes
    ----------
    pending
        Frames that the reader hasn't read.
    blocking
        Whether the output log is full and the flow waits for the reader.
    skipped
        Frames that were deleted before the reader had read them.
    """

    pending: int = 0
    blocking: bool = False
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class BackwardStats:
    """The way back to devices.

    Attributes
    ----------
    received, replies
        Orders from the cloud, and replies of processors.
    sent, failed, expired
        Orders and replies that were sent to devices, that failed, and that expired.
    waiting
        Orders and replies that wait for devices that are away.
    rate
        `sent`, a second.
    refused
        Entries of the order log that were refused: the notation lets none pass, a reader pretended that its
        order is a processor's reply, or the orders are too many or too large. `received` doesn't count their
        orders. Entries that can't be read at all are counted in `FlowStats.unreadable`.
    """

    received: int = 0
    replies: int = 0
    sent: int = 0
    failed: int = 0
    expired: int = 0
    waiting: int = 0
    rate: float = 0.0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class EdgeStats:
    """One edge of a flow: a process that runs all or some of its partitions.

    Attributes
    ----------
    host, pid, since
        The edge's computer and process, and when the edge was started (seconds since 1970-01-01 UTC).
    state
        The edge's state; "failed" also for an edge that is gone without a word.
    partitions
        The partitions that run there.
    devices
        How many devices of these partitions are connected.
    received, delivered, rate
        As a flow's, of the partitions there.
    blocked_by
        Why the edge can store no more results.
    error
        Why the edge has failed, or gives no answer; empty if all is well.
    """

    host: str
    pid: int
    since: float = 0.0
    state: FlowState = "running"
    partitions: tuple[int, ...] = ()
    devices: int = 0
    received: int = 0
    delivered: int = 0
    rate: float = 0.0
    blocked_by: tuple[str, ...] = ()
    error: str = ""

    @classmethod
    def of(cls, origin: Origin, partitions: Iterable[int], stats: FlowStats) -> EdgeStats:
        """Return the edge `origin`, which runs `partitions` and counts `stats`."""
        return cls(
            origin.host,
            origin.pid,
            origin.since,
            stats.state,
            tuple(sorted(partitions)),
            sum(device.connected for device in stats.devices.values()),
            stats.received,
            stats.delivered,
            stats.rate,
            stats.blocked_by,
            stats.error,
        )


@dataclass(frozen=True, slots=True)
class FlowStats:
    """A flow at one moment.

    Attributes
    ----------
    name, notation, delivery, state
        The flow's name, its notation, its delivery, and its state.
    time, uptime
        When the snapshot was taken (seconds since 1970-01-01 UTC), and seconds since the flow's start.
    processors, devices, readers
        The parts' statistics, by processor key, device name and reader name. With more than 1,000 devices,
        the devices' numbers may be old: by a tenth of a millisecond for each device.
    received
        Messages that came in from devices, without repeats.
    delivered
        Messages stored at Output (durable) or published to it (fast).
    rate
        `delivered`, a second.
    p50, p99
        Median and 99th percentile of the time from the server's (fast: the edge's) receipt of a message until
        the message is stored at Output, in seconds.
    in_flight
        Messages taken from the input and not yet at Output.
    waiting
        Frames at the input that the edge hasn't begun with, counted within the last second: the backlog of a
        flow that is slower than its devices, or paused.
    dropped
        Messages known to be lost (fast delivery only; durable never drops).
    repeats
        Messages recognised as repeats and skipped.
    dead
        Dead letters that are stored, also by an earlier run; retried and cleared dead letters don't count.
    malformed
        Deliveries that were no valid frames.
    dropped_letters
        Messages and malformed deliveries that became no dead letter, for their devices had used up their
        shares of the room; see `DeviceStats.dropped_letters`.
    unreadable
        Entries of the flow's own logs (results, orders, positions, dead letters) that were no valid frames,
        and were skipped; since the start.
    backward
        The way back to devices: orders and replies.
    blocked_by
        Why no more results can be stored, in words that name the reader or the log; also of which devices the
        newest dead letters are dropped, while the others go on. Empty if nothing blocks.
    warnings
        What a person should see to before it stops the flow or a party: certificates that end within 14 days,
        or can't be renewed. Empty as a rule.
    error
        Why the flow has failed, empty unless `state` is "failed".
    edges
        The edges that run the flow, the oldest first, and those that have failed lately; only if the counts
        of all edges were asked for (``stats(all_edges=True)``).
    """

    name: str
    notation: str = ""
    delivery: str = "durable"
    state: FlowState = "starting"
    time: float = 0.0
    uptime: float = 0.0
    processors: Mapping[str, ProcessorStats] = field(default_factory=dict)
    devices: Mapping[str, DeviceStats] = field(default_factory=dict)
    readers: Mapping[str, ReaderStats] = field(default_factory=dict)
    received: int = 0
    delivered: int = 0
    rate: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    in_flight: int = 0
    waiting: int = 0
    dropped: int = 0
    repeats: int = 0
    dead: int = 0
    malformed: int = 0
    dropped_letters: int = 0
    unreadable: int = 0
    backward: BackwardStats = field(default_factory=BackwardStats)
    blocked_by: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""
    edges: tuple[EdgeStats, ...] = ()

    def __post_init__(self) -> None:
        kinds: dict[str, type[Snapshot[Any]]] = {
            "processors": ProcessorTable,
            "devices": DeviceTable,
            "readers": Snapshot,
        }
        for name, kind in kinds.items():
            object.__setattr__(self, name, frozen(kind, getattr(self, name)))

    def at_rest(self) -> FlowStats:
        """Return the statistics of the ended flow: all rates are 0, and no device is connected."""
        return replace(
            self,
            state="failed" if self.error else "stopped",
            rate=0.0,
            processors={key: replace(p, rate=0.0, busy=0.0) for key, p in self.processors.items()},
            devices={name: replace(d, rate=0.0, connected=False) for name, d in self.devices.items()},
            backward=replace(self.backward, rate=0.0),
            warnings=(),
        )

    def handed_on(self) -> FlowStats:
        """Return the counts alone of what passed: what still waits is another edge's to count."""
        return replace(
            self,
            p50=0.0,
            p99=0.0,
            in_flight=0,
            waiting=0,
            dead=0,
            processors={key: replace(p, p50=0.0, p99=0.0, waiting=0) for key, p in self.processors.items()},
            readers={},
            backward=replace(self.backward, waiting=0),
            blocked_by=(),
            warnings=(),
            error="",
        )

    def __repr__(self) -> str:
        table = self._processor_table.text(self._facts)
        return f"{table}\n\n{self.devices!r}" if self.devices else table

    def _repr_html_(self) -> str:
        devices = frozen(DeviceTable, self.devices)._repr_html_() or ""
        return self._processor_table.html(self._facts) + devices

    @property
    def _processor_table(self) -> ProcessorTable:
        return frozen(ProcessorTable, self.processors)

    @property
    def _facts(self) -> str:
        """The main facts in one line."""
        facts = [
            f"{self.name}: {self.notation}" if self.notation else self.name,
            f"{self.state}, {self.delivery}",
            f"{wording.count(self.delivered)} delivered",
            f"{wording.rate(self.rate)}/s",
            f"{wording.count(self.in_flight)} in flight",
        ]
        facts += [f"{wording.counted(self.waiting, 'frame')} waiting"] if self.waiting else []
        facts += [f"{wording.count(self.dropped)} lost"] if self.dropped else []
        facts += [wording.counted(self.dead, "dead letter")] if self.dead else []
        dropped = self.dropped_letters
        facts += [f"{wording.counted(dropped, 'letter')} dropped"] if dropped else []
        facts += [f"{wording.count(self.unreadable)} unreadable in its logs"] if self.unreadable else []
        facts += [
            f"{key} has left {wording.counted(p.left_behind, 'instance')} behind in a call that hangs"
            for key, p in self.processors.items()
            if p.left_behind
        ]
        facts += [
            f"{name} missed {wording.counted(r.skipped, 'frame')}"
            for name, r in self.readers.items()
            if r.skipped
        ]
        facts += [f"waits: {reason}" for reason in self.blocked_by]
        facts += [f"warning: {warning}" for warning in self.warnings]
        facts += [f"failed: {self.error}"] if self.error else []
        return "; ".join(facts)
