"""A flow's last hour in curves (`flow.plot()`), and its graph as a file (`flow.picture()`).

Owns the look of the curves; the graph is drawn by `pratipad_nb.notebook.picture`, and the numbers are the
flow's history. `plot` and `picture` are found through the entry points of `pratipad_nb.session.views`.
Nothing goes through pyplot: a figure belongs to its caller, and disappears when the caller drops it.
"""

from __future__ import annotations

import io
import math
import statistics
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from pratipad_nb import wording
from pratipad_nb.errors import FlowError, SettingsError
from pratipad_nb.files import write_whole
from pratipad_nb.notebook.picture import PictureFormat
from pratipad_nb.notebook.picture import picture as drawn
from pratipad_nb.runtime.values.history import FlowHistory
from pratipad_nb.session import Flow
from pratipad_nb.settings import checked_path

__all__ = ["FlowPlot", "picture", "plot"]

#: Okabe and Ito's colours, which people with any colour vision can tell apart
#: (https://jfly.uni-koeln.de/color/). With more lines than colours the dashes differ, so that colour is never
#: the only difference.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DASHES = ("-", "--", ":", "-.")
_INK, _DIM, _RULE = "#1b1f24", "#57606a", "#d5dae0"
_FORMATS: dict[str, PictureFormat] = {".png": "png", ".svg": "svg"}
#: A pause between two rows that is so many times the usual pause is a gap: the flow was stopped.
_GAP = 4.0
#: Dots for one inch of a picture: on a page, and in the picture.
_PAGE_DOTS, _PICTURE_DOTS = 96, 192


class FlowPlot(Figure):
    """A figure that shows itself in a notebook, whether or not pyplot was imported there."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=110)
        return file.getvalue()


def plot(flow: Flow) -> FlowPlot:
    """Return a figure of `flow`'s throughput, latency and queue lengths over the last hour.

    Raises
    ------
    FlowError
        If the flow has not run yet.
    """
    history = flow.history
    if not history:
        raise FlowError(f"flow {flow.name!r} has not run yet, so there is nothing to plot. Start it first.")
    breaks = _breaks(history.times)
    times = _broken([datetime.fromtimestamp(t, UTC) for t in history.times], breaks, None)
    figure = FlowPlot(figsize=(8.0, 6.2), layout="constrained", facecolor="white")
    figure.suptitle(f"{flow.name}: {_shortened(flow.notation)}", x=0.01, ha="left", fontsize=11, color=_INK)
    rates, latency, queues = figure.subplots(3, 1, sharex=True)
    _curves(rates, times, breaks, history, "rate", {"Output": history.flow["rate"]})
    _dress(rates, "throughput, messages a second")
    for name, dashes in (("p99", "--"), ("p50", "-")):
        # 0 means that no latency was measured.
        seconds = [value or math.nan for value in history.flow[name]]
        latency.plot(times, _broken(seconds, breaks, math.nan), dashes, color=_INK, lw=1.4, label=name)
    _as_durations(latency, history.flow["p50"])
    _dress(latency, "latency from the server's receipt to Output")
    queues.plot(
        times,
        _broken(history.flow["waiting"], breaks, math.nan),
        ":",
        color=_DIM,
        lw=1.4,
        label="input (frames)",
    )
    _curves(queues, times, breaks, history, "waiting", {"in flight": history.flow["in_flight"]})
    _dress(queues, "queues, messages before each processor")
    locator = AutoDateLocator(minticks=3, maxticks=8)
    queues.xaxis.set_major_locator(locator)
    queues.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    queues.xaxis.get_offset_text().set(size=8, color=_DIM)
    queues.set_xlabel("time (UTC)", fontsize=8, color=_DIM)
    return figure


def _curves(
    axes: Axes,
    times: Sequence[Any],
    breaks: Sequence[int],
    history: FlowHistory,
    name: str,
    whole: Mapping[str, Sequence[float]],
) -> None:
    for number, (key, numbers) in enumerate(history.processors.items()):
        colour, dashes = _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS) % len(_DASHES)]
        axes.plot(
            times, _broken(numbers[name], breaks, math.nan), dashes, color=colour, lw=1.3, label=_literal(key)
        )
    for label, values in whole.items():
        axes.plot(times, _broken(values, breaks, math.nan), color=_INK, lw=1.8, label=label)
    axes.set_ylim(bottom=0)


def _as_durations(axes: Axes, values: Sequence[float]) -> None:
    if any(value > 0 for value in values):
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 1000 * low else (1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda seconds, _: wording.duration(seconds) if seconds else "0")
    )


def _breaks(times: Sequence[float]) -> list[int]:
    """Return the rows before which there is a gap."""
    steps = [after - before for before, after in pairwise(times)]
    usual = statistics.median(steps) if steps else 0.0
    return [at for at, step in enumerate(steps, 1) if step > _GAP * max(1.0, usual)]


def _broken(values: Sequence[Any], breaks: Sequence[int], hole: Any) -> list[Any]:
    """Return `values` with `hole` at each gap, where the line is interrupted."""
    found: list[Any] = []
    for begin, end in zip([0, *breaks], [*breaks, len(values)], strict=True):
        if found:
            found.append(found[-1] if hole is None else hole)
        found += values[begin:end]
    return found


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=9, color=_DIM, pad=4)
    axes.grid(axis="y", color=_RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_DIM)
    axes.tick_params(colors=_DIM, labelsize=8, length=3)
    axes.margins(x=0.01)
    handles, labels = axes.get_legend_handles_labels()
    columns = 1 + (len(labels) - 1) // 12
    axes.legend(
        handles,
        labels,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        fontsize=8,
        ncols=columns,
    )


def _shortened(notation: str) -> str:
    words = " ".join(notation.split())
    return _literal(words if len(words) <= 80 else words[:79] + "…")


def _literal(text: str) -> str:
    """Return `text` escaped: a dollar sign begins no mathematics, a leading underscore hides no label."""
    escaped = text.replace("$", r"\$")
    return f"\u200b{escaped}" if escaped.startswith("_") else escaped


def picture(flow: Flow, path: str | Path | None = None) -> Image | Path:
    """Return the present graph of `flow`; with `path`, write the graph to that file and return `path`.

    Raises
    ------
    SettingsError
        If `path` ends neither in .svg nor in .png, or can't be written.
    """
    if path is None:
        png = drawn(flow, "png")
        (width,) = struct.unpack(">I", png[16:20])
        return Image(png, format="png", width=width * _PAGE_DOTS // _PICTURE_DOTS, alt=_alternative(flow))
    path = checked_path(path, "picture: path")
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise SettingsError(f"a picture is written as .svg or .png, and {path.name!r} ends in neither.")
    try:
        write_whole(path, drawn(flow, kind), mode=0o644)
    except OSError as error:
        raise SettingsError(f"the picture can't be written to {path}: {error.strerror}.") from error
    return path


def _alternative(flow: Flow) -> str:
    """Return the text for a screen reader."""
    return f"Graph of the dataflow {flow.name}: {' '.join(flow.notation.split())}"
