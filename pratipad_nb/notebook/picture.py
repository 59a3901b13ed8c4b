"""The static picture of a flow, drawn with matplotlib: for papers, and for pages that can't show a widget.

Owns the look of a scene that stands still. Draws on a figure of its own, never through pyplot, so that
drawing touches neither the user's current figure nor the backend and may run on any thread. The colours suit
light and dark pages: cards bring their own paper, and everything beside them is a middle grey.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from math import ceil, log10
from typing import TYPE_CHECKING, Any, Literal

from pratipad_nb import wording
from pratipad_nb.errors import SettingsError
from pratipad_nb.notebook import scene
from pratipad_nb.session import Flow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PictureFormat", "draw", "picture", "rendered"]

PictureFormat = Literal["png", "svg"]

# Sizes in CSS pixels (96 an inch), the same as the widget's.
_CARD = (208.0, 120.0)
_GAP = (60.0, 18.0)
_BAND, _HEAD, _LINE_GAP = (14.0, 26.0), 34.0, 56.0
_ROW = 19.0
#: Most cards beside each other: more would not be legible on a page of paper or in a cell.
_COLUMNS = 6
#: Room beside the cards for edges that go around to the next line.
_RAIL = 44.0
_PNG_SCALE = 2

_PAPER, _INK, _DIM, _RULE = "#ffffff", "#1b1f24", "#57606a", "#c6ccd3"
_GREY = "#7d858f"
_THERE, _BACK = "#3f7fdd", "#c8703a"
_TONES = {"devices": "#16967b", "processor": "#7d858f", "output": "#8b66dc"}
_WARM, _HOT = "#a76100", "#c22f2f"
_LAYERS = {"devices": "Device layer", "processor": "Edge layer", "output": "Cloud layer"}


def picture(flow: Flow, format: PictureFormat = "png") -> bytes:  # noqa: A002
    """Return a picture of `flow` in its present state.

    Parameters
    ----------
    flow
        The flow to draw, running or not.
    format
        ``"png"`` (192 dots an inch, transparent) or ``"svg"`` (text as outlines, so that the text looks the
        same anywhere).

    Raises
    ------
    SettingsError
        If `format` is neither.
    """
    if format not in ("png", "svg"):
        raise SettingsError(f"A picture can't be made as {format!r}; format can be 'png' or 'svg'.")
    return rendered(draw(scene.structure(flow), scene.numbers(flow.stats()), {}), format)


def rendered(figure: Figure, format: PictureFormat) -> bytes:  # noqa: A002
    """Return `figure` as the bytes of a PNG or SVG file."""
    file = io.BytesIO()
    figure.savefig(file, format=format, transparent=True, dpi=96 * _PNG_SCALE)
    return file.getvalue()


def draw(
    structure: Mapping[str, Any], numbers: Mapping[str, Any], rates: Mapping[str, Sequence[float]]
) -> Figure:
    """Return the figure of a scene; `rates` holds the last minute's samples by node, for the sparklines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places, bands, (width, height) = _arrange(structure, numbers)
    figure = Figure(figsize=(width / 96, height / 96))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    _headline(axes, structure, numbers, width)
    for kind, left, top, right, bottom, first in bands:
        _box(axes, (left, top, right - left, bottom - top), _TONES[kind], 0.07, 0.35, 10)
        if first:
            _write(axes, left + 12, top + 14, _LAYERS[kind], 8, _TONES[kind], bold=True)
    for edge in structure["edges"]:
        _edge(axes, places[edge["from"]], places[edge["to"]], edge, numbers)
    for node in structure["nodes"]:
        _card(axes, node, places[node["key"]], numbers, rates.get(node["key"], ()))
    return figure


class _Place:
    """A card's place: its upper left corner, its height, and its line."""

    def __init__(self, x: float, y: float, h: float, line: int, top: float) -> None:
        self.x, self.y, self.h, self.line, self.top = x, y, h, line, top
        self.right, self.middle = x + _CARD[0], y + h / 2


def _arrange(
    structure: Mapping[str, Any], numbers: Mapping[str, Any]
) -> tuple[dict[str, _Place], list[Any], Any]:
    shown = len(numbers["devices"]["shown"])
    layers = 1 + max(node["layer"] for node in structure["nodes"])
    lines = ceil(layers / _COLUMNS)
    cells = scene.grid(structure, ceil(layers / lines))
    side = _RAIL if lines > 1 else _BAND[0] + 2
    kinds = {node["key"]: node["kind"] for node in structure["nodes"]}
    heights = {"devices": max(_CARD[1], 58 + _ROW * max(1, shown)), "processor": _CARD[1], "output": _CARD[1]}
    places: dict[str, _Place] = {}
    bands: dict[tuple[int, str], list[float]] = {}
    top = _HEAD
    for line in range(1 + max(cell[0] for cell in cells.values())):
        here = {key: cell for key, cell in cells.items() if cell[0] == line}
        tall = {k: heights[kinds[k]] * c[3] + _GAP[1] * (c[3] - 1) for k, c in here.items()}
        inner = max(tall.values())
        for key, (_, column, row, _rows) in here.items():
            h = heights[kinds[key]]
            x = side + column * (_CARD[0] + _GAP[0])
            y = top + _BAND[1] + (inner - tall[key]) / 2 + row * (h + _GAP[1])
            places[key] = _Place(x, y, h, line, top)
            band = bands.setdefault((line, kinds[key]), [x, x])
            band[0], band[1] = min(band[0], x), max(band[1], x)
            band[2:] = [top, top + inner + _BAND[1] + _BAND[0]]
        top += inner + _BAND[1] + _BAND[0] + _LINE_GAP
    seen: set[str] = set()
    drawn = []
    for (_, kind), (left, last, upper, lower) in bands.items():
        drawn.append((kind, left - _BAND[0], upper, last + _CARD[0] + _BAND[0], lower, kind not in seen))
        seen.add(kind)
    width = max(place.right for place in places.values()) + side
    return places, drawn, (width, top - _LINE_GAP + 2)


def _headline(axes: Axes, structure: Mapping[str, Any], n: Mapping[str, Any], width: float) -> None:
    _write(axes, 4, 15, structure["name"], 11, _GREY, bold=True)
    words = f"{n['state']}  ·  {n['delivery']}  ·  {wording.span(n['uptime'])}"
    lines = [f"waiting: {reason}" for reason in n["blocked"]] + [f"warning: {each}" for each in n["warnings"]]
    alert = n["error"] or (lines[0] if lines else "")
    _write(axes, width - 4, 15, _cut(alert, 90) or words, 8.5, _HOT if alert else _GREY, align="right")


def _edge(axes: Axes, a: _Place, b: _Place, edge: Mapping[str, Any], n: Mapping[str, Any]) -> None:
    forward = n["rate"] if edge["to"] == scene.OUTPUT else (n["processors"].get(edge["to"]) or [0, 0])[1]
    shift = 8 if edge["back"] else 0
    _way(axes, a, b, -shift, (_THERE, _width(forward), "-"))
    _head(axes, b.x, b.middle - shift, 1, _THERE)
    if edge["back"]:
        _way(axes, a, b, shift, (_BACK, _width(n["back"][0]), (0, (4, 3))))
        _head(axes, a.right, a.middle + shift, -1, _BACK)


def _way(axes: Axes, a: _Place, b: _Place, shift: float, look: tuple[str, float, Any]) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    start, end = (a.right, a.middle + shift), (b.x, b.middle + shift)
    if a.line == b.line:
        bend = max(18.0, (end[0] - start[0]) / 2)
        path = Path([start, (start[0] + bend, start[1]), (end[0] - bend, end[1]), end], [1, 4, 4, 4])
    else:
        out, into, floor = start[0] + 26 - shift, end[0] - 26 - shift, b.top - _LINE_GAP / 2 - shift
        path = Path([start, (out, start[1]), (out, floor), (into, floor), (into, end[1]), end])
    colour, width, style = look
    axes.add_patch(
        PathPatch(path, fill=False, edgecolor=colour, alpha=0.65, linewidth=width * 0.75, linestyle=style)
    )


def _head(axes: Axes, x: float, y: float, to: int, colour: str) -> None:
    axes.fill([x, x - 8 * to, x - 8 * to], [y, y - 4.5, y + 4.5], color=colour, linewidth=0)


def _width(rate: float) -> float:
    return 1.25 + min(4.75, 1.1 * log10(1 + max(0.0, rate)))


def _card(
    axes: Axes, node: Mapping[str, Any], at: _Place, n: Mapping[str, Any], rates: Sequence[float]
) -> None:
    tone = _THERE if node["kind"] == "processor" else _TONES[node["kind"]]
    if node["kind"] == "processor" and (p := n["processors"].get(node["key"])):
        tone = _HOT if p[8] >= 0.9 else _WARM if p[8] >= 0.7 else tone
    _box(
        axes,
        (at.x, at.y, _CARD[0], at.h),
        _PAPER,
        1.0,
        1.0,
        7,
        edge=tone if n["state"] != "stopped" else _RULE,
    )
    if node["kind"] == "devices":
        _device_rows(axes, at, n["devices"])
        return
    _write(axes, at.x + 14, at.y + 17, _cut(node["key"], 22), 9.5, _INK, bold=True)
    lines = _output_lines(n) if node["kind"] == "output" else _processor_lines(p or [], n)
    _figure(axes, at, lines[0], rates, tone)
    for y, left, right, alarm in ((73, *lines[1]), (89, *lines[2])):
        _write(axes, at.x + 14, at.y + y, left, 8, _DIM)
        _write(axes, at.x + _CARD[0] - 12, at.y + y, right, 8, _HOT if alarm else _DIM, align="right")
    if node["kind"] == "processor" and p:
        for length, colour in ((1.0, _RULE), (min(1.0, p[8]), tone)):
            axes.plot(
                [at.x + 14, at.x + 14 + (_CARD[0] - 100) * length], [at.y + 107] * 2, color=colour, lw=2.5
            )
        _write(axes, at.x + _CARD[0] - 12, at.y + 107, f"{wording.share(p[8])} busy", 8, _DIM, align="right")


def _processor_lines(p: Sequence[Any], n: Mapping[str, Any]) -> tuple[str, Any, Any]:
    if not p:
        return ("0", ("", "", False), ("", "", False))
    state, rate, received, emitted, failed, _, p50, p99, *_ = p
    note = f"{wording.count(failed)} failed" if failed else state if state != n["state"] else ""
    passed = f"in {wording.count(received)}  out {wording.count(emitted)}"
    took = f"p50 {wording.duration(p50)}  p99 {wording.duration(p99)}"
    return (wording.rate(rate), (passed, note, bool(failed)), (took, "", False))


def _output_lines(n: Mapping[str, Any]) -> tuple[str, Any, Any]:
    bad = [
        f"{wording.count(n[key])} {word}" for key, word in (("dropped", "lost"), ("dead", "dead")) if n[key]
    ]
    took = f"p50 {wording.duration(n['p50'])}  p99 {wording.duration(n['p99'])}"
    return (
        wording.rate(n["rate"]),
        (f"{wording.count(n['delivered'])} delivered", "  ".join(bad), bool(bad)),
        (took, f"{wording.count(n['back'][3])} orders" if n["back"][3] else "", False),
    )


def _device_rows(axes: Axes, at: _Place, d: Mapping[str, Any]) -> None:
    grouped = d["count"] > len(d["shown"])
    title = f"{wording.count(d['count'])} devices" if grouped else "Devices"
    away = f"  {wording.count(d['count'] - d['connected'])} away" if d["count"] > d["connected"] else ""
    note = f"{wording.count(d['connected'])} connected{away}" if d["count"] else "none has connected yet"
    _write(axes, at.x + 14, at.y + 17, title, 9.5, _INK, bold=True)
    _write(axes, at.x + _CARD[0] - 12, at.y + 17, f"{wording.rate(d['rate'])} /s", 8, _DIM, align="right")
    _write(axes, at.x + 14, at.y + 36, note, 8, _DIM)
    for i, (name, connected, rate, *_rest) in enumerate(d["shown"]):
        y = at.y + 58 + i * _ROW
        tone = _TONES["devices"]
        axes.plot(
            [at.x + 18], [y], "o", ms=4.5, mfc=tone if connected else "none", mec=tone if connected else _DIM
        )
        _write(axes, at.x + 29, y, _cut(name, 20), 8.5, _INK if connected else _DIM)
        value = f"{wording.rate(rate)} /s" if connected else "away"
        _write(axes, at.x + _CARD[0] - 12, y, value, 8, _DIM, align="right")


def _figure(axes: Axes, at: _Place, rate: str, rates: Sequence[float], tone: str) -> None:
    label = _write(axes, at.x + 14, at.y + 46, rate, 15, _INK, bold=True)
    axes.annotate(" /s", (1, 0.2), xycoords=label, fontsize=8, color=_DIM, annotation_clip=False)
    if len(rates) < 2:
        return
    most = max(*rates, 1e-9)
    step = 88 / 59
    right, bottom = at.x + _CARD[0] - 12, at.y + 58
    xs = [right - (len(rates) - 1 - i) * step for i in range(len(rates))]
    ys = [bottom - 25 * value / most for value in rates]
    axes.fill_between(xs, ys, bottom, color=tone, alpha=0.14, linewidth=0)
    axes.plot(xs, ys, color=tone, linewidth=1.1)


def _box(axes: Axes, box: tuple[float, float, float, float], fill: str, alpha: float, rim: float,
         radius: float, edge: str | None = None) -> None:  # fmt: skip
    from matplotlib.colors import to_rgba
    from matplotlib.patches import FancyBboxPatch

    x, y, w, h = box
    style = f"round,pad=0,rounding_size={radius}"
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            w,
            h,
            boxstyle=style,
            facecolor=to_rgba(fill, alpha),
            edgecolor=to_rgba(edge or fill, rim),
            lw=0.8,
        )
    )


def _write(
    axes: Axes,
    x: float,
    y: float,
    words: str,
    size: float,
    colour: str,
    *,
    bold: bool = False,
    align: str = "left",
) -> Any:
    weight = "bold" if bold else "normal"
    # User's text: a dollar sign in a name is no mathematics.
    return axes.text(
        x, y, words, fontsize=size, color=colour, weight=weight, ha=align, va="center", parse_math=False
    )


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
