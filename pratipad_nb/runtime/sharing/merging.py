"""Merging: the counters of several partitions as the counters of one flow.

Owns which counts add up and which don't. What each count means is in `stats`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pratipad_nb.runtime.values.stats import (
    BackwardStats,
    DeviceStats,
    FlowState,
    FlowStats,
    ProcessorStats,
    ReaderStats,
)

__all__ = ["merged"]

Value = TypeVar("Value", ProcessorStats, DeviceStats, ReaderStats)

#: Of these counts the highest of any partition is taken: a fraction of time, or a count that all partitions
#: see alike.
_HIGHEST = frozenset({"busy", "connections", "p50", "p99", "version", "pending", "skipped"})


def merged(parts: Sequence[FlowStats], empty: FlowStats, *, state: FlowState, error: str) -> FlowStats:
    """Return the counters of all `parts` together; without parts, `empty` with `state` and `error`.

    The parts are partitions of one process, or edges.
    """
    if not parts:
        return dataclasses.replace(empty, state=state, error=error)
    counts = {
        name: sum(getattr(part, name) for part in parts)
        for name in (
            "received",
            "delivered",
            "rate",
            "in_flight",
            "waiting",
            "dropped",
            "repeats",
            "malformed",
            "dropped_letters",
            "unreadable",
        )
    }
    return FlowStats(
        name=parts[0].name,
        notation=parts[0].notation,
        delivery=parts[0].delivery,
        state=state,
        error=error,
        time=max(part.time for part in parts),
        uptime=max(part.uptime for part in parts),
        p50=max(part.p50 for part in parts),
        p99=max(part.p99 for part in parts),
        processors=_by_name(part.processors for part in parts),
        devices=_by_name(part.devices for part in parts),
        readers=_by_name(part.readers for part in parts),
        dead=sum(part.dead for part in parts),
        backward=_backward([part.backward for part in parts]),
        blocked_by=tuple(dict.fromkeys(reason for part in parts for reason in part.blocked_by)),
        warnings=tuple(dict.fromkeys(warning for part in parts for warning in part.warnings)),
        **counts,
    )


def _by_name(parts: Iterable[Mapping[str, Value]]) -> dict[str, Value]:
    found: dict[str, list[Value]] = {}
    for part in parts:
        for name, value in part.items():
            found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else _added(values) for name, values in found.items()}


def _added(values: Sequence[Value]) -> Value:
    """Add up numbers, take the worst state and the newest text."""
    changes: dict[str, Any] = {}
    for each in dataclasses.fields(values[0]):
        column = [getattr(value, each.name) for value in values]
        if isinstance(column[0], bool):
            changes[each.name] = any(column)
        elif isinstance(column[0], (int, float)):
            changes[each.name] = max(column) if each.name in _HIGHEST else sum(column)
        elif isinstance(column[0], str):
            changes[each.name] = next((text for text in reversed(column) if text), column[0])
    return dataclasses.replace(values[0], **changes)


def _backward(parts: Sequence[BackwardStats]) -> BackwardStats:
    # Every partition reads the whole order log; an order is counted once, and so is a refusal.
    total = dataclasses.replace(
        parts[0],
        received=max(part.received for part in parts),
        refused=max(part.refused for part in parts),
    )
    for part in parts[1:]:
        total = dataclasses.replace(
            total,
            replies=total.replies + part.replies,
            sent=total.sent + part.sent,
            failed=total.failed + part.failed,
            expired=total.expired + part.expired,
            waiting=total.waiting + part.waiting,
            rate=total.rate + part.rate,
        )
    return total
