"""The scene: all that a picture of a flow draws, as plain JSON-like values.

Owns the step from a flow's graph and `FlowStats` to the two dictionaries that the widget, the static picture
and the text picture share: the *structure* (nodes and edges, sent when the notation changes) and the
*numbers* (sent several times a second, therefore short: lists in a fixed order instead of maps, three
significant digits). Texts of others are printable here. Draws nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pratipad_nb import wording
from pratipad_nb.dataflow import DEVICES, OUTPUT, graph, layout
from pratipad_nb.runtime.values.stats import DeviceStats, FlowStats, ProcessorStats
from pratipad_nb.session import Flow

__all__ = ["DEVICES", "DEVICES_SHOWN", "OUTPUT", "grid", "numbers", "structure"]

#: Up to so many devices are listed by name; more devices are grouped, with the busiest listed by name.
DEVICES_SHOWN = 12
_BUSIEST = 5
_KINDS = {"device": "devices", "edge": "processor", "cloud": "output"}


def structure(flow: Flow) -> dict[str, Any]:
    """Return the part that stays until the notation changes: names, nodes with their place, edges, controls.

    A node's `layer` counts steps from the devices, and its `row` counts the nodes beside each other
    (concurrent processors). An edge's `back` says whether orders and replies can pass the edge the other way.
    `controls` names the actions that this flow offers, in the order of their buttons.
    """
    # Devices come and go many times a minute: as lines of one card, and not nodes, they move no other node.
    found = graph(flow.dataflow)
    nodes: list[dict[str, Any]] = []
    tall: dict[int, int] = {}
    for key, (layer, _) in layout(found).items():
        nodes.append(
            {"key": key, "kind": _KINDS[found.nodes[key]["layer"]], "layer": layer, "row": tall.get(layer, 0)}
        )
        tall[layer] = tall.get(layer, 0) + 1
    edges = [{"from": a, "to": b, "back": hop["direction"] == "<~>"} for a, b, hop in found.edges(data=True)]
    offered = (("pause", "pause"), ("resume", "resume"), ("stop", "request_stop"))
    return {
        "name": flow.name,
        "notation": flow.notation,
        "input": flow.dataflow.input,
        "nodes": nodes,
        "edges": edges,
        "controls": [action for action, method in offered if hasattr(flow, method)],
    }


def numbers(stats: FlowStats) -> dict[str, Any]:
    """Return the moving part: `stats` rounded to visible digits, processors and devices as short lists."""
    back = stats.backward
    return {
        "state": stats.state,
        "delivery": stats.delivery,
        "time": round(stats.time, 2),
        "uptime": int(stats.uptime),
        "received": stats.received,
        "delivered": stats.delivered,
        "rate": _short(stats.rate),
        "p50": _short(stats.p50),
        "p99": _short(stats.p99),
        "in_flight": stats.in_flight,
        "waiting": stats.waiting,
        "dropped": stats.dropped,
        "repeats": stats.repeats,
        "dead": stats.dead,
        "malformed": stats.malformed,
        "blocked": list(map(wording.printable, stats.blocked_by)),
        "warnings": list(map(wording.printable, stats.warnings)),
        "error": wording.printable(stats.error, lines=True),
        "back": [
            _short(back.rate), back.received, back.replies, back.sent, back.failed, back.expired, back.waiting
        ],
        "readers": {name: [r.pending, r.blocking, r.skipped] for name, r in stats.readers.items()},
        "processors": {key: _processor(p) for key, p in stats.processors.items()},
        "devices": _devices(stats.devices),
    }  # fmt: skip


def grid(scene: Mapping[str, Any], columns: int) -> dict[str, tuple[int, int, int, int]]:
    """Return each node's (line, column, row, rows): layers, wrapped into lines of `columns` as text is.

    `rows` counts the nodes of the same layer, so that they can be centred.
    """
    tall: dict[int, int] = {}
    for node in scene["nodes"]:
        tall[node["layer"]] = tall.get(node["layer"], 0) + 1
    return {
        node["key"]: (node["layer"] // columns, node["layer"] % columns, node["row"], tall[node["layer"]])
        for node in scene["nodes"]
    }


def _processor(p: ProcessorStats) -> list[Any]:
    return [
        p.state, _short(p.rate), p.received, p.emitted, p.failed, p.retried,
        _short(p.p50), _short(p.p99), round(p.busy, 2), p.waiting, p.version,
        wording.printable(p.last_error[:300], lines=True), p.newer,
    ]  # fmt: skip


def _devices(devices: Mapping[str, DeviceStats]) -> dict[str, Any]:
    """Return a summary of the devices: how many, how many connected, their rate, and the few shown by name.

    A gateway counts as the devices that speak through it, and is shown by its own name.
    """
    if len(devices) <= DEVICES_SHOWN:
        shown = list(devices.items())
    else:
        shown = sorted(devices.items(), key=lambda item: (-item[1].rate, item[0]))[:_BUSIEST]
    return {
        "count": sum(d.sources or 1 for d in devices.values()),
        "connected": sum(d.sources or 1 for d in devices.values() if d.connected),
        "rate": _short(sum(d.rate for d in devices.values())),
        "gaps": sum(d.gaps for d in devices.values()),
        "shown": [
            [name, d.connected, _short(d.rate), d.received, wording.printable(d.error[:200])]
            for name, d in shown
        ],
    }


def _short(value: float) -> float:
    """Return `value` rounded to three significant digits: more can't be seen, and would be sent in vain."""
    return float(f"{value:.3g}")
