"""Messages as pandas data frames, and plots of them over time by device.

Owns the way from payloads to columns and the look of the plot. The only importer of `pandas`, which is
imported at its first use. Plots are made without pyplot, so that a figure belongs to the caller and goes when
the caller drops it. Tables of messages in a file are for `sqlite`.
"""

from __future__ import annotations

import difflib
import functools
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pratipad_nb.errors import SettingsError
from pratipad_nb.message import Message

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["frame", "plot"]

#: Column of a payload that is no map.
_VALUE = "value"
_METADATA = ("device", "id", "received", "flow")
#: Okabe and Ito's colours, which people with any colour vision can tell apart
#: (https://jfly.uni-koeln.de/color/), ordered by contrast on white, and without the yellow, which has no
#: contrast on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
#: Beyond so many points a line shows its readings by itself, and markers would smear the line.
_MARKED = 60
#: Dots per inch of the picture that a notebook shows.
_DOTS = 110


def frame(messages: Iterable[Message], *, metadata: bool = False) -> pd.DataFrame:
    """Return `messages` as a data frame: a row for each message, in their order.

    Parameters
    ----------
    messages
        Messages, as `take` returns them.
    metadata
        Whether to add the columns ``id``, ``received`` (UTC) and ``flow``.

    Returns
    -------
    pandas.DataFrame
        The index is the time by the device's clock, in UTC. The first column is ``device``. The payload's
        keys follow: nested keys joined by a dot (``"bme280.temperature"``), lists as they are. A payload that
        is no map goes to ``value``. A key that equals the name of a metadata column gets the prefix
        ``payload.``.

    Raises
    ------
    SettingsError
        If pandas isn't installed.
    """
    pandas = _imported("pandas", "data frames")
    messages = list(messages)
    # A float of seconds since 1970 resolves less than a microsecond; further digits are noise.
    index = pandas.to_datetime([m.time for m in messages], unit="s", utc=True).round("us")
    index.name = "time"
    rows = [dict(_flattened(m.payload)) for m in messages]
    fields = pandas.DataFrame(
        rows, index=index, columns=list(dict.fromkeys(key for row in rows for key in row))
    )
    fields.insert(0, "device", [m.device for m in messages])
    if metadata:
        fields.insert(1, "id", [m.id for m in messages])
        fields.insert(2, "received", pandas.to_datetime([m.received for m in messages], unit="s", utc=True))
        fields.insert(3, "flow", [m.flow for m in messages])
    return fields


def _flattened(payload: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(payload, Mapping):
        yield prefix or _VALUE, payload
        return
    for key, value in payload.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from _flattened(value, name)
        else:
            yield (f"payload.{name}" if name in _METADATA else name), value


def plot(
    data: pd.DataFrame | Iterable[Message], fields: Sequence[str] | None = None, *, title: str = ""
) -> Figure:
    """Return a figure of `data` over time: an axis for each field, a line for each device.

    A notebook shows the figure if it is a cell's value.

    Parameters
    ----------
    data
        Messages, or a data frame that `frame` made.
    fields
        Columns to plot, from top to bottom. Default: all columns of numbers.
    title
        Text above the axes.

    Raises
    ------
    SettingsError
        If matplotlib or pandas isn't installed, if a field is missing or holds no numbers, or if there is
        nothing to plot.
    """
    pandas = _imported("pandas", "data frames")
    table = data if isinstance(data, pandas.DataFrame) else frame(data)
    names = _fields(pandas, table, fields)
    make = _figure_class()
    devices = sorted(set(table["device"]))  # a device keeps its colour, whichever device came first
    figure = make(figsize=(8.0, 0.9 + 1.6 * len(names)), layout="constrained", facecolor="white")
    axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, names, strict=True):
        for number, device in enumerate(devices):
            values = table.loc[table["device"] == device, name].dropna().sort_index()
            axis.plot(values.index, values.astype(float), label=device, **_line(number, len(values)))
        _dress(axis, name)
    _dress_time(axes[-1])
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    if len(devices) > 1:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=min(6, len(devices)), frameon=False)
    return figure


@functools.cache
def _figure_class() -> type[Figure]:
    """Return a class of figures that show themselves in a notebook without pyplot, which isn't imported."""

    class ResultPlot(_imported("matplotlib.figure", "plots").Figure):  # type: ignore[misc]
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png", dpi=_DOTS)
            return file.getvalue()

    return ResultPlot


def _fields(pandas: ModuleType, table: pd.DataFrame, fields: Sequence[str] | None) -> list[str]:
    numeric = [
        name for name in table.columns if name not in _METADATA and _is_numeric(pandas, table[name].dropna())
    ]
    if fields is None:
        if not numeric:
            raise SettingsError(
                f"there is nothing to plot: {len(table)} messages and no field of numbers in them. Take "
                "messages first, or choose what to plot by fields=[…]."
            )
        return numeric
    for name in fields:
        if name not in table.columns:
            near = difflib.get_close_matches(name, numeric, n=3) or numeric
            raise SettingsError(
                f"plot: no message has a field {name!r}; there is {', '.join(map(repr, near))}."
            )
        if name not in numeric:
            raise SettingsError(
                f"plot: the field {name!r} holds no numbers; {', '.join(map(repr, numeric))} do."
            )
    return list(fields)


def _is_numeric(pandas: ModuleType, values: pd.Series) -> bool:
    kind = pandas.api.types.infer_dtype(values)
    return kind in ("integer", "floating", "mixed-integer-float", "boolean")


def _line(number: int, points: int) -> dict[str, Any]:
    # Beyond the palette the dashes tell devices apart, so that colour is never the only difference.
    style: dict[str, Any] = {
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": ("-", "--", ":", "-.")[number // len(_COLOURS) % 4],
        "linewidth": 1.6,
    }
    if points <= _MARKED:
        style |= {"marker": "o", "markersize": 3}
    return style


def _dress(axis: Axes, name: str) -> None:
    axis.set_title(name, loc="left", fontsize=9, color="#444444", pad=4)
    axis.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color("#999999")
    axis.tick_params(colors="#444444", labelsize=8, length=3)
    axis.tick_params(axis="y", length=0)
    axis.margins(x=0.01, y=0.12)
    axis.locator_params(axis="y", nbins=4)


def _dress_time(axis: Axes) -> None:
    dates = _imported("matplotlib.dates", "plots")
    locator = dates.AutoDateLocator(minticks=3, maxticks=8)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axis.set_xlabel("time (UTC)", fontsize=8, color="#444444")


def _imported(name: str, needed_for: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise SettingsError(
            f"{needed_for} need {package}, which isn't installed here. Install it: pip install "
            f"'pratipad-nb[lab]', or {package} alone."
        ) from error
