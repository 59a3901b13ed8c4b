"""What a flow says of itself: frozen snapshots with numbers and states.

Owns the values that `Flow.stats` returns and that the picture, the terminal and dashboards draw. How they are counted
is for `pratipad_nb.runtime.values.metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pratipad_nb import wording
from pratipad_nb.runtime.values.stats_tables import DeviceTable, ProcessorTable, Snapshot, frozen

__all__ = ["BackwardStats", "DeviceStats", "FlowState", "FlowStats", "ProcessorStats", "ReaderStats"]

#: Where a flow, or a processor, is in its life.
FlowState = Literal["starting", "running", "paused", "draining", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class ProcessorStats:
    """One processor.

    Attributes
    ----------
    received, emitted, failed, retried
        Messages that came in, results that went out, messages that were dead-lettered, tries after the first; in all.
    rate
        Messages in a second, over the last second or so.
    p50, p99
        Median and 99th percentile of the time that `process` takes for a message, in seconds, over the last 10 s or
        so; 0.0 before the first.
    busy
        Share of the last second or so that it was at work, 0 to 1.
    waiting
        Messages that stand before it.
    state
        Its own state: a paused processor in a running flow says "paused".
    last_error
        The newest failure's error line, empty if there was none.
    version
        How many times its code has been swapped since the start.
    newer
        Whether its code, or its arguments, have been defined anew since and not been swapped in.
    left_behind
        Instances that are left behind in calls that hang, and have not come back since.
    failed_timers
        Calls of its `@every` methods that raised, or took longer than its `timeout`; in all.
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
    """One device: `received` messages of it in all, `rate` a second, numbers missing (`gaps`, fast delivery only),
    `repeats` that were dropped, orders `sent` to it and confirmed as `run`, and what its reading last failed with.
    `sources` is how many devices speak through it, if it is a gateway.
    """

    connected: bool = False
    received: int = 0
    rate: float = 0.0
    gaps: int = 0
    repeats: int = 0
    orders_sent: int = 0
    orders_run: int = 0
    error: str = ""
    sources: int = 0


@dataclass(frozen=True, slots=True)
class ReaderStats:
    """One reader: `pending` frames that it hasn't read; `blocking` says that the flow waits for it at a full log."""

    pending: int = 0
    blocking: bool = False
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class BackwardStats:
    """The way back: `received` orders from the cloud, `replies` of processors, `sent` to devices, `failed`, `expired`,
    and `waiting` for devices that are away; `rate` of what is sent, a second.
    """

    received: int = 0
    replies: int = 0
    sent: int = 0
    failed: int = 0
    expired: int = 0
    waiting: int = 0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class FlowStats:
    """A flow at one moment.

    Attributes
    ----------
    name, notation, delivery, state
        Which flow it is, what it runs, how it delivers, and where it is in its life.
    time, uptime
        When this was taken (seconds since 1970-01-01 UTC), and seconds since the start.
    processors, devices, readers
        By processor key, device name and reader name. Of more than 1,000 devices the numbers may be as many tenths of a
        millisecond old.
    received
        Messages that came in from devices, repeats not counted.
    delivered
        Messages stored at Output (durable) or published to it (fast).
    rate
        `delivered`, a second.
    p50, p99
        From the server's (fast: the edge's) receipt of a message to its being stored at Output, in seconds.
    in_flight
        Messages taken from the input and not yet at Output.
    waiting
        Frames at the input that the edge hasn't begun with, as it was found within the last second: the backlog of a
        flow that is slower than its devices, or paused.
    dropped
        Messages known to be lost (fast delivery only; durable never drops).
    repeats
        Messages recognised as repeats and skipped.
    dead
        Dead letters that are there, from an earlier run too: what is retried, or cleared, counts no more.
    malformed
        Frames from outside that were no good.
    backward
        Orders and replies on their way to devices.
    blocked_by
        Why nothing more can be stored, in words that name the reader or the log; empty if nothing blocks.
    error
        Why the flow has failed, empty unless `state` is "failed".
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
    backward: BackwardStats = field(default_factory=BackwardStats)
    blocked_by: tuple[str, ...] = ()
    error: str = ""

    def __post_init__(self) -> None:
        kinds: dict[str, type[Snapshot[Any]]] = {
            "processors": ProcessorTable,
            "devices": DeviceTable,
            "readers": Snapshot,
        }
        for name, kind in kinds.items():
            object.__setattr__(self, name, frozen(kind, getattr(self, name)))

    def at_rest(self) -> FlowStats:
        """Return the same as of a flow that has ended: its rates are all 0, and no device is connected to it."""
        return replace(
            self,
            state="failed" if self.error else "stopped",
            rate=0.0,
            processors={key: replace(p, rate=0.0, busy=0.0) for key, p in self.processors.items()},
            devices={name: replace(d, rate=0.0, connected=False) for name, d in self.devices.items()},
            backward=replace(self.backward, rate=0.0),
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
        """What it shows in one line."""
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
        facts += [f"failed: {self.error}"] if self.error else []
        return "; ".join(facts)
