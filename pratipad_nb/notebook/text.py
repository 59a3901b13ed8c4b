"""A flow in plain text: for terminals, for logs and for front ends without pictures.

Owns the text picture. Colours and cards belong to `pratipad_nb.notebook.picture` and
`pratipad_nb.notebook.widget`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pratipad_nb import wording
from pratipad_nb.notebook import scene
from pratipad_nb.session import Flow

__all__ = ["headline", "listing", "text_picture"]


def headline(structure: Mapping[str, Any]) -> str:
    """Return one line without numbers: the flow's name and its notation."""
    return f"{structure['name']}: {' '.join(structure['notation'].split())}"


def listing(flows: Mapping[str, Any]) -> str:
    """Return one line for each of `flows`: name, state, rate, delivered, notation."""
    if not flows:
        return "No dataflow is running. A cell that starts with `%%dataflow NAME` starts one."
    rows: list[tuple[str, ...]] = []
    for name, flow in sorted(flows.items()):
        s = flow.stats()
        rate, total = f"{wording.rate(s.rate)}/s", f"{wording.count(s.delivered)} delivered"
        rows.append((name, s.state, rate, total, " ".join(flow.notation.split())))
    return "\n".join(_aligned(rows))


def text_picture(flow: Flow) -> str:
    """Return `flow` with its numbers, a line for each node from the devices down to Output.

    Arrows between the lines show the direction of messages; a bracket joins concurrent processors.
    """
    structure, numbers = scene.structure(flow), scene.numbers(flow.stats())
    layers: dict[int, list[dict[str, Any]]] = {}
    for node in sorted(structure["nodes"], key=lambda n: (n["layer"], n["row"])):
        layers.setdefault(node["layer"], []).append(node)
    both = {edge["to"] for edge in structure["edges"] if edge["back"]}
    rows: list[tuple[str, ...]] = []
    arrows: dict[int, str] = {}
    for depth in sorted(layers):
        if depth:
            arrows[len(rows)] = "↕" if any(node["key"] in both for node in layers[depth]) else "↓"
        rows += [_row(node, bracket, numbers) for node, bracket in _bracketed(layers[depth])]
    lines = [
        f"{headline(structure)}",
        f"{numbers['state']}, {numbers['delivery']}, up {wording.span(numbers['uptime'])}",
    ]
    lines += [f"waiting: {reason}" for reason in numbers["blocked"]]
    lines += [f"warning: {each}" for each in numbers["warnings"]]
    lines += [f"failed: {numbers['error']}"] if numbers["error"] else []
    lines.append("")
    for i, line in enumerate(_aligned(rows)):
        lines += [f"  {arrows[i]}"] if i in arrows else []
        lines.append(line)
    return "\n".join(lines)


def _bracketed(layer: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    if len(layer) == 1:
        return [(layer[0], "  ")]
    marks = ["┌ ", *["│ "] * (len(layer) - 2), "└ "]
    return list(zip(layer, marks, strict=True))


def _row(node: dict[str, Any], bracket: str, n: dict[str, Any]) -> tuple[str, ...]:
    if node["kind"] == "devices":
        d = n["devices"]
        away = f", {d['count'] - d['connected']} away" if d["count"] > d["connected"] else ""
        queued = f"  {wording.counted(n['waiting'], 'frame')} waiting" if n["waiting"] else ""
        return (
            f"{bracket}devices",
            f"{wording.rate(d['rate'])}/s",
            f"{d['connected']} connected{away}{queued}",
        )
    if node["kind"] == "output":
        bad = [
            f"{wording.count(n[key])} {word}"
            for key, word in (("dropped", "lost"), ("dead", "dead-lettered"))
            if n[key]
        ]
        words = [f"{wording.count(n['delivered'])} delivered", _latency(n["p50"], n["p99"]), *bad]
        return (f"{bracket}Output", f"{wording.rate(n['rate'])}/s", "  ".join(words))
    p = n["processors"].get(node["key"])
    if p is None:
        return (f"{bracket}{node['key']}", "", "")
    state, rate, received, emitted, failed, _, p50, p99, busy, waiting, *_ = p
    words = [
        f"in {wording.count(received)}",
        f"out {wording.count(emitted)}",
        f"failed {wording.count(failed)}",
    ]
    words += [f"busy {wording.share(busy)}", _latency(p50, p99)]
    words += [f"{wording.count(waiting)} waiting"] if waiting else []
    words += [state] if state != n["state"] else []
    return (f"{bracket}{node['key']}", f"{wording.rate(rate)}/s", "  ".join(words))


def _latency(p50: float, p99: float) -> str:
    return f"p50 {wording.duration(p50)}  p99 {wording.duration(p99)}"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Return `rows` as lines whose columns start below each other."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
