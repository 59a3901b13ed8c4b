"""`Window`: the ready-made processor that gathers messages and passes on an aggregate of them.

Owns the windows and the aggregates. The other ready-made processors are in `ready_made`.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import floor, isfinite
from typing import Any, NamedTuple

from pratipad_nb.errors import ProcessorError
from pratipad_nb.message import Message
from pratipad_nb.processors.base import Processor
from pratipad_nb.processors.keyed import Keyed
from pratipad_nb.processors.ready_made import value_of

__all__ = ["Window"]

log = logging.getLogger(__name__)

#: Most values that one window of one device holds: half a megabyte of numbers. A window by time that gets
#: more values is closed early.
MOST_VALUES = 65_536
#: The items of a window in a state: its arguments, and the five of an open window.
_KEPT = 6


class _Aggregate(NamedTuple):
    """How the values of a window become one value.

    `add` enters a value into a window's list, and `result` makes the aggregate of the list and the number of
    messages. The list holds what `holds` says. It is a list, for a processor's state is a JSON-like value.
    """

    holds: str
    add: Callable[[list[Any], Any], None]
    result: Callable[[list[Any], int], Any]


def _add_nothing(held: list[Any], value: Any) -> None:
    """Hold no value: the messages of a window are counted in any case."""


def _add_up(held: list[Any], value: float) -> None:
    # Neumaier's summation: `lost` sums the rounding errors of `total`, so that `total + lost` is as exact for
    # a long window as for a short one. Of two numbers that are added, the smaller loses digits;
    # `(total - grown) + value`, or the other way round, is exactly the part that was lost.
    total, lost = held or (0.0, 0.0)
    value = float(value)
    grown = total + value
    lost += (total - grown) + value if abs(total) >= abs(value) else (value - grown) + total
    held[:] = grown, lost


def _sum(held: list[Any], _: int) -> float:
    total: float
    lost: float
    total, lost = held
    return total + lost if isfinite(lost) else total


def _keep_greatest(held: list[Any], value: float) -> None:
    if not held or value > held[0]:
        held[:] = (value,)


def _keep_least(held: list[Any], value: float) -> None:
    if not held or value < held[0]:
        held[:] = (value,)


def _of_all(function: Callable[[Sequence[Any]], Any]) -> _Aggregate:
    return _Aggregate("values", list.append, lambda held, _: function(held))


_AGGREGATES = {
    "count": _Aggregate("nothing", _add_nothing, lambda _, count: count),
    "max": _Aggregate("max", _keep_greatest, lambda held, _: held[0]),
    "mean": _Aggregate("sum", _add_up, lambda held, count: _sum(held, count) / count),
    "median": _of_all(statistics.median),
    "min": _Aggregate("min", _keep_least, lambda held, _: held[0]),
    "sum": _Aggregate("sum", _add_up, _sum),
}


class Window(Processor):
    """Gather each device's messages into windows, one after the other, and pass on an aggregate of each.

    The payload that is passed on is
    ``{key: aggregate, "count": messages, "start": time of the first, "end": time of the last}``; without a
    key the first entry is ``"value"``. Times are the device's, in seconds since 1970-01-01 UTC.

    A window by `count` is passed on with its last message. A window by `seconds` covers one interval between
    multiples of `seconds` of the device's clock. It is passed on by the device's first message after the
    interval, so the last window of a device that falls silent stays open (over a stop and start, too).

    ``"median"`` and a function need every value. Their windows never hold more than 65,536 values of a
    device: a window by time that gets more is passed on in parts. Of each instance, all values together are
    carried over a stop and start up to 1 MiB, some 100,000 numbers. The other aggregates keep one or two
    numbers for each device, however long the window.

    Parameters
    ----------
    count, seconds
        How many messages, or how many seconds, make a window: give one of the two.
    key
        The key whose values are gathered (dots reach into nested values); without a key, payloads are
        gathered.
    aggregate
        ``"mean"``, ``"min"``, ``"max"``, ``"sum"``, ``"count"``, ``"median"``, or a function of the list of
        values. If the function raises, the window is dropped and the message that closed the window becomes a
        dead letter.

    Raises
    ------
    ProcessorError
        If not exactly one of `count` and `seconds` is given, or an argument is not one of its allowed values.
        For a message whose value is missing or no number: the message becomes a dead letter.

    Examples
    --------
    ``Push ~> Window(seconds=60, key="co2", aggregate="max") ~> Output``
    """

    def __init__(
        self,
        *,
        count: int | None = None,
        seconds: float | None = None,
        key: str | None = None,
        aggregate: str | Callable[[Sequence[Any]], Any] = "mean",
    ) -> None:
        if (count is None) == (seconds is None):
            raise ProcessorError(
                f"Window(count={count!r}, seconds={seconds!r}): give one of the two, for example "
                "Window(count=10) or Window(seconds=60)."
            )
        self._aggregate = _aggregate(aggregate)
        most = MOST_VALUES if self._aggregate.holds == "values" else None
        if count is not None and (type(count) is not int or count < 1 or (most and count > most)):
            allowed = f"from 1 to {most:,} for this aggregate" if most else "of at least 1"
            raise ProcessorError(f"Window: count is {count!r}; it is a whole number {allowed}.")
        if seconds is not None and (type(seconds) not in (int, float) or not seconds > 0):
            raise ProcessorError(f"Window: seconds is {seconds!r}; it is a number greater than 0.")
        self._most, self._seconds, self._key = count or most, seconds, key
        self._numbers = isinstance(aggregate, str) and aggregate != "count"
        # device -> [number of the interval, time of the first message, time of the last, messages, the list
        # of the aggregate]. A list, for `snapshot` returns JSON-like values.
        self._open: dict[str, list[Any]] = {}

    def process(self, payload: Any, message: Message) -> Iterator[Any]:
        """Add the value to its device's window; yield the windows that this message completes."""
        value = value_of(payload, self._key, "Window")
        if self._numbers and not isinstance(value, (int, float)):
            raise ProcessorError(
                f"Window: the value of {self._key or 'the payload'} is {value!r:.80}, no number; filter such "
                'messages out before, or use aggregate="count".'
            )
        device, time = message.device, message.time
        interval = None if self._seconds is None else floor(time / self._seconds)
        window = self._open.get(device)
        if window is not None and window[0] != interval:
            yield self._close(device)
            window = None
        if window is None:
            window = [interval, time, time, 0, []]
        # Raises for an integer too large for a float: then a new window isn't among the open ones yet.
        self._aggregate.add(window[4], value)
        window[2] = time
        window[3] += 1
        self._open[device] = window
        if self._most is not None and window[3] >= self._most:
            yield self._close(device)

    def _close(self, device: str) -> dict[str, Any]:
        # The window is removed before it is aggregated: else a function that raises would raise for every
        # later message.
        _, start, end, count, held = self._open.pop(device)
        return {
            self._key or "value": self._aggregate.result(held, count),
            "count": count,
            "start": start,
            "end": end,
        }

    @property
    def _form(self) -> list[Any]:
        """The arguments in which a state has to agree with this window to be restored."""
        return [self._aggregate.holds, self._key, self._seconds]

    def snapshot(self) -> Keyed:
        """Return the open windows by device, each behind the arguments that it was gathered by."""
        form = self._form
        return Keyed({device: [form, *window[:4], list(window[4])] for device, window in self._open.items()})

    def restore(self, state: Any) -> None:
        """Go on with the windows of `state`.

        The state of another kind of window, or of another processor, is dropped, and a warning is logged.
        """
        if state is None:
            return
        form, kept = self._form, _windows(state)
        self._open = {
            device: [*window[:4], list(window[4])] for device, (its, *window) in kept.items() if its == form
        }
        if len(self._open) < len(kept) or not isinstance(state, Mapping):
            log.warning(
                "windows that were open are dropped: they were gathered by other arguments than %s", form
            )


def _windows(state: Any) -> dict[str, list[Any]]:
    """Return the windows of a state by device, each behind its arguments; None behind those of no window.

    In version 0.1 a state was `{"form": ["Window", *arguments], "open": windows}`.
    """
    if not isinstance(state, Mapping):
        return {}
    form = state.get("form")
    if isinstance(form, list) and form[:1] == ["Window"]:
        return {device: [form[1:], *window] for device, window in state["open"].items()}
    return {
        device: window if isinstance(window, list) and len(window) == _KEPT else [None]
        for device, window in state.items()
    }


def _aggregate(given: object) -> _Aggregate:
    if callable(given):
        return _of_all(given)
    if isinstance(given, str) and given in _AGGREGATES:
        return _AGGREGATES[given]
    raise ProcessorError(
        f"Window: aggregate is {given!r}; it can be {', '.join(map(repr, _AGGREGATES))}, or a function of a "
        "list."
    )
