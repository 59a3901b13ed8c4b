"""What a flow says of itself: frozen snapshots with numbers and states.

Owns the values that `Flow.stats` returns and that the picture, the terminal and dashboards draw. How they are counted
is for `pratipad_nb.runtime.metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NoReturn, TypeVar

from pratipad_nb import wording
from pratipad_nb.tables import Cell, html_table, text_table

__all__ = ["BackwardStats", "DeviceStats", "FlowState", "FlowStats", "ProcessorStats", "ReaderStats"]

Value = TypeVar("Value")
_Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]

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
    in_hand
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
    in_hand: int = 0
    waiting: int = 0
    dropped: int = 0
    repeats: int = 0
    dead: int = 0
    malformed: int = 0
    backward: BackwardStats = field(default_factory=BackwardStats)
    blocked_by: tuple[str, ...] = ()
    error: str = ""

    def __post_init__(self) -> None:
        for name in ("processors", "devices", "readers"):
            object.__setattr__(self, name, _frozen(getattr(self, name)))

    def at_rest(self) -> FlowStats:
        """Return the same as of a flow that has ended, whose rates are all 0: what they were before is none of it."""
        return replace(
            self,
            state="failed" if self.error else "stopped",
            rate=0.0,
            processors={key: replace(p, rate=0.0, busy=0.0) for key, p in self.processors.items()},
            devices={name: replace(d, rate=0.0) for name, d in self.devices.items()},
            backward=replace(self.backward, rate=0.0),
        )

    def __repr__(self) -> str:
        return "\n\n".join(text_table(*table) for table in self._tables())

    def _repr_html_(self) -> str:
        return "".join(html_table(*table) for table in self._tables())

    def _tables(self) -> list[_Table]:
        """Return what it shows itself as: its processors, and its devices if there are any."""
        head = f"{self.name}: {_facts(self)}"
        tables: list[_Table] = [
            (head, _PROCESSOR_HEADS, [_of_processor(key, p) for key, p in self.processors.items()])
        ]
        if self.devices:
            shown = list(self.devices.items())[:_DEVICES]
            more = f"; the first {_DEVICES}" if len(self.devices) > _DEVICES else ""
            caption = f"{wording.counted(len(self.devices), 'device')}{more}"
            tables.append((caption, _DEVICE_HEADS, [_of_device(name, d) for name, d in shown]))
        return tables


class _Frozen(dict[str, Value]):
    """A dictionary that can't be changed: a snapshot that anybody could write into would be none.

    A `dict` and no `MappingProxyType`, for that can be neither copied nor encoded, and `dataclasses.asdict` does both.
    """

    def _refuse(self, *_arguments: Any, **_named: Any) -> NoReturn:
        raise TypeError("this is a snapshot, which can't be changed; dict(…) makes a copy that can.")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


def _frozen(values: Mapping[str, Value]) -> Mapping[str, Value]:
    return values if isinstance(values, _Frozen) else _Frozen(values)


#: Rows of devices that a table shows; all are in `FlowStats.devices`.
_DEVICES = 12
_PROCESSOR_HEADS = ("processor", "/s", "in", "out", "failed", "p50", "p99", "busy", "waiting", "state")
_DEVICE_HEADS = ("device", "/s", "received", "orders run", "state")


def _facts(stats: FlowStats) -> str:
    """Return the line above the tables."""
    facts = [
        f"{stats.state}, {stats.delivery}",
        f"{wording.count(stats.delivered)} delivered",
        f"{wording.rate(stats.rate)}/s",
        f"{wording.count(stats.in_hand)} in hand",
    ]
    facts += [f"{wording.counted(stats.waiting, 'frame')} waiting"] if stats.waiting else []
    facts += [f"{wording.count(stats.dropped)} lost"] if stats.dropped else []
    facts += [wording.counted(stats.dead, "dead letter")] if stats.dead else []
    facts += [f"waits: {reason}" for reason in stats.blocked_by]
    facts += [f"failed: {stats.error}"] if stats.error else []
    return "; ".join([stats.notation, *facts] if stats.notation else facts)


def _of_processor(key: str, p: ProcessorStats) -> tuple[str, ...]:
    return (
        key,
        wording.rate(p.rate),
        wording.count(p.received),
        wording.count(p.emitted),
        Cell(wording.count(p.failed), fault=p.failed > 0),
        wording.duration(p.p50),
        wording.duration(p.p99),
        wording.share(p.busy),
        wording.count(p.waiting),
        f"{p.state}, newer code" if p.newer else p.state,
    )


def _of_device(name: str, d: DeviceStats) -> tuple[str, ...]:
    orders = f"{d.orders_run} of {d.orders_sent}" if d.orders_sent else "–"
    state = Cell(d.error, fault=True) if d.error else "connected" if d.connected else "away"
    return (name, wording.rate(d.rate), wording.count(d.received), orders, state)
