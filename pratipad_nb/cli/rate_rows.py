"""A flow's numbers as text: one line for `run`, rows for `top`.

Owns wording and order. Takes the counters as a plain dictionary, as they come over the wire. What others have
written into them is made printable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pratipad_nb.wording import printable

__all__ = ["COLUMNS", "device_line", "fitting", "row", "rows", "status_line", "troubles"]

COLUMNS = (
    "flow",
    "state",
    "rate/s",
    "delivered",
    "in flight",
    "waiting",
    "dead",
    "p50 ms",
    "p99 ms",
    "devices",
)
#: The columns that a narrow terminal leaves out, the first one first.
_LEFT_OUT = ("p50 ms", "in flight", "waiting", "p99 ms", "dead", "devices")
#: The column of names is at least so wide.
_NAME_WIDTH = 8


def status_line(stats: Mapping[str, Any]) -> str:
    """Return one line: state, rate, totals, and troubles."""
    parts = [
        f"{stats['name']}: {stats['state']}",
        f"{stats['rate']:,.1f}/s",
        f"{stats['delivered']:,} delivered",
        f"{_connected(stats)} devices",
    ]
    parts += [f"{stats['dead']:,} dead letters"] if stats["dead"] else []
    parts += [f"blocked: {reason}" for reason in stats["blocked_by"]]
    parts += [f"warning: {each}" for each in stats.get("warnings", ())]
    parts += [stats["error"]] if stats["error"] else []
    return printable(", ".join(parts))


def device_line(device: Any) -> str:
    """Return one line on a device."""
    error = f", last error: {device.error}" if device.error else ""
    error += "".join(f", warning: {each}" for each in device.warnings)
    kept = f" (kept in {device.kept_in})" if device.waiting and device.kept_in else ""
    return printable(
        f"{device.name}: {device.state}, {device.sent:,} sent, {device.waiting:,} waiting{kept}{error}"
    )


def row(stats: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells below `COLUMNS`."""
    return (
        printable(stats["name"]),
        printable(stats["state"]),
        f"{stats['rate']:,.1f}",
        f"{stats['delivered']:,}",
        f"{stats['in_flight']:,}",
        f"{stats['waiting']:,}",
        f"{stats['dead']:,}",
        f"{stats['p50'] * 1000:.1f}",
        f"{stats['p99'] * 1000:.1f}",
        str(_connected(stats)),
    )


def rows(stats: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of a flow, of its processors, and of its edges if there are several."""
    found = [row(stats)]
    for name, step in stats["processors"].items():
        found.append(
            (f"  {printable(name)}", printable(step["state"]), f"{step['rate']:,.1f}",
             f"{step['emitted']:,}", "", f"{step['waiting']:,}", f"{step['failed']:,}",
             f"{step['p50'] * 1000:.1f}", f"{step['p99'] * 1000:.1f}", "")
        )  # fmt: skip
    edges = stats.get("edges", ())
    for edge in edges if len(edges) > 1 else ():
        numbers = (f"{edge['rate']:,.1f}", f"{edge['delivered']:,}")
        found.append(
            (
                f"  {_place(edge)}",
                printable(edge["state"]),
                *numbers,
                "",
                "",
                "",
                "",
                "",
                f"{edge['devices']:,}",
            )
        )
    return found


def troubles(stats: Mapping[str, Any]) -> list[str]:
    """Return a line for all that holds a flow up: what blocks it, and errors, each with the edge's host."""
    name, edges = stats["name"], stats.get("edges", ())
    found = [f"{name}: {stats['error']}"] if stats["error"] else []
    for edge in edges:
        found += [f"{name} at {_place(edge)}: blocked: {reason}" for reason in edge["blocked_by"]]
        found += [f"{name} at {_place(edge)}: {edge['error']}"] if edge["error"] else []
    if not edges:
        found += [f"{name}: blocked: {reason}" for reason in stats["blocked_by"]]
    return list(map(printable, [*found, *(f"{name}: warning: {each}" for each in stats.get("warnings", ()))]))


def _place(edge: Mapping[str, Any]) -> str:
    return printable(f"{edge['host']}/{edge['pid']}")


def fitting(table: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the columns, by their places, that fit into `width` characters; names may be folded."""
    widths = [max(len(each[at]) for each in table) for at in range(len(COLUMNS))]
    widths[0] = min(widths[0], _NAME_WIDTH)
    kept = list(range(len(COLUMNS)))
    for column in _LEFT_OUT:
        if sum(widths[at] + 1 for at in kept) - 1 <= width:
            break
        kept.remove(COLUMNS.index(column))
    return kept


def _connected(stats: Mapping[str, Any]) -> int:
    return sum(bool(device["connected"]) for device in stats["devices"].values())
