"""The mappings of a statistics snapshot: read-only, and shown as tables.

Owns these forms of a dictionary. The meaning of the values is in `stats`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pratipad_nb import wording
from pratipad_nb.tables import Cell, html_table, text_table

if TYPE_CHECKING:
    from pratipad_nb.runtime.values.stats import DeviceStats, ProcessorStats

__all__ = ["DeviceTable", "ProcessorTable", "Snapshot", "frozen"]

Value = TypeVar("Value")
Kind = TypeVar("Kind", bound="Snapshot[Any]")

#: Most rows of devices in a table; the mapping has all devices.
_DEVICES = 12
#: So many hellos of an honest device may be dropped, where several come at once after a delay on their way.
_HELLOS_AT_TIMES = 100


class Snapshot(dict[str, Value]):
    """A dictionary that can't be changed.

    A `Snapshot` is a `dict` and no `MappingProxyType`, for a proxy can be neither copied nor encoded, and a
    `dict` can be both.
    """

    def _refuse(self, *_arguments: Any, **_named: Any) -> NoReturn:
        raise TypeError("this is a snapshot, which can't be changed; dict(…) makes a copy that can.")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


def frozen(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Return `values` as a snapshot of the given `kind`; such a snapshot is returned itself."""
    return values if isinstance(values, kind) else kind(values)


class ProcessorTable(Snapshot["ProcessorStats"]):
    """Processors by key."""

    _HEADS = ("processor", "/s", "in", "out", "failed", "p50", "p99", "busy", "waiting", "state")

    def __repr__(self) -> str:
        return self.text(wording.counted(len(self), "processor"))

    def _repr_html_(self) -> str:
        return self.html(wording.counted(len(self), "processor"))

    def text(self, caption: str) -> str:
        """Return a table with a row for each processor, as text."""
        return text_table(caption, self._HEADS, self._rows)

    def html(self, caption: str) -> str:
        """Return a table with a row for each processor, as HTML."""
        return html_table(caption, self._HEADS, self._rows)

    @property
    def _rows(self) -> list[tuple[str, ...]]:
        return [_of_processor(key, p) for key, p in self.items()]


class DeviceTable(Snapshot["DeviceStats"]):
    """Devices by name."""

    _HEADS = ("device", "/s", "received", "orders run", "state")

    def __repr__(self) -> str:
        return text_table(self._caption, self._HEADS, self._rows) if self else "{}"

    def _repr_html_(self) -> str | None:
        return html_table(self._caption, self._HEADS, self._rows) if self else None

    @property
    def _caption(self) -> str:
        more = f"; the first {_DEVICES}" if len(self) > _DEVICES else ""
        return f"{wording.counted(len(self), 'device')}{more}"

    @property
    def _rows(self) -> list[tuple[str, ...]]:
        return [_of_device(name, d) for name, d in list(self.items())[:_DEVICES]]


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
    if d.crowded and not d.error:
        state = Cell(f"{d.connections} connections at once", fault=True)
    elif d.hellos_dropped > _HELLOS_AT_TIMES and not d.error:
        state = Cell(f"{wording.count(d.hellos_dropped)} hellos dropped", fault=True)
    return (name, wording.rate(d.rate), wording.count(d.received), orders, state)
