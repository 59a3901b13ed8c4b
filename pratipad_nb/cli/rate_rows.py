"""A flow's numbers as text: one line for `run`, rows for `top`.

Owns wording and order. Takes the counters as a plain dictionary, as they come over the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["COLUMNS", "device_line", "row", "status_line"]

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
    parts += [stats["error"]] if stats["error"] else []
    return ", ".join(parts)


def device_line(device: Any) -> str:
    """Return one line on a device."""
    error = f", last error: {device.error}" if device.error else ""
    kept = f" (kept in {device.kept_in})" if device.waiting and device.kept_in else ""
    return f"{device.name}: {device.state}, {device.sent:,} sent, {device.waiting:,} waiting{kept}{error}"


def row(stats: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells below `COLUMNS`."""
    return (
        stats["name"],
        stats["state"],
        f"{stats['rate']:,.1f}",
        f"{stats['delivered']:,}",
        f"{stats['in_flight']:,}",
        f"{stats['waiting']:,}",
        f"{stats['dead']:,}",
        f"{stats['p50'] * 1000:.1f}",
        f"{stats['p99'] * 1000:.1f}",
        str(_connected(stats)),
    )


def _connected(stats: Mapping[str, Any]) -> int:
    return sum(bool(device["connected"]) for device in stats["devices"].values())
