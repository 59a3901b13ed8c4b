"""`Window`: the ready-made processor that gathers messages and passes on an aggregate of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from math import floor, fsum
from typing import Any

from pratipad_nb.errors import ProcessorError
from pratipad_nb.message import Message
from pratipad_nb.processors.base import Processor
from pratipad_nb.processors.ready_made import value_of

__all__ = ["Window"]

_AGGREGATES: dict[str, Callable[[Sequence[Any]], Any]] = {
    "count": len,
    "max": max,
    "mean": statistics.fmean,
    "median": statistics.median,
    "min": min,
    "sum": fsum,
}

#: Most values one window of one device holds: half a megabyte of numbers. A window by time that gets more is closed early.
MOST_VALUES = 65_536


class Window(Processor):
    """Gather each device's messages into windows one after the other and pass on one aggregate for each.

    What is passed on is ``{key: aggregate, "count": messages, "start": time of the first, "end": time of the last}``;
    without a key the first entry is ``"value"``. Times are the device's, in seconds since 1970-01-01 UTC.

    A window by `count` is passed on with its last message. One by `seconds` covers a multiple of `seconds` of the
    device's clock and is passed on by the device's first message after it, so that the last window of a device that
    falls silent stays open (over a stop and start, too). A window never holds more than 65,536 messages: one by time
    that gets more is passed on in parts.

    Parameters
    ----------
    count, seconds
        How many messages, or how much time, make a window: one of the two.
    key
        The key whose values are gathered (dots reach into what is nested); without it the payload itself is.
    aggregate
        ``"mean"``, ``"min"``, ``"max"``, ``"sum"``, ``"count"``, ``"median"``, or a function of the list of values. If
        that raises, the window is dropped and the message that closed it becomes a dead letter.

    Raises
    ------
    ProcessorError
        If not exactly one of `count` and `seconds` is given, or one is not what it may be.

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
                f"Window(count={count!r}, seconds={seconds!r}): give one of the two, for example Window(count=10) or "
                "Window(seconds=60)."
            )
        if count is not None and (type(count) is not int or not 1 <= count <= MOST_VALUES):
            raise ProcessorError(
                f"Window: count is {count!r}; it is a whole number from 1 to {MOST_VALUES:,}."
            )
        if seconds is not None and (type(seconds) not in (int, float) or not seconds > 0):
            raise ProcessorError(f"Window: seconds is {seconds!r}; it is a number greater than 0.")
        self._count, self._seconds, self._key = count or MOST_VALUES, seconds, key
        self._aggregate = _aggregate(aggregate)
        self._numbers = isinstance(aggregate, str) and aggregate != "count"
        # device -> [number of the interval, time of the first, time of the last, values]: a list, for `snapshot`
        # gives JSON-like values.
        self._open: dict[str, list[Any]] = {}

    def process(self, payload: Any, message: Message) -> Iterator[Any]:
        """Add the value to its device's window; yield the windows that are complete by that."""
        value = value_of(payload, self._key, "Window")
        if self._numbers and not isinstance(value, (int, float)):
            raise ProcessorError(
                f"Window: the value of {self._key or 'the payload'} is {value!r:.80}, no number; filter such messages "
                'out before, or use aggregate="count".'
            )
        device, time = message.device, message.time
        interval = None if self._seconds is None else floor(time / self._seconds)
        window = self._open.get(device)
        if window is not None and window[0] != interval:
            yield self._close(device)
            window = None
        if window is None:
            window = self._open[device] = [interval, time, time, []]
        window[2] = time
        window[3].append(value)
        if len(window[3]) >= self._count:
            yield self._close(device)

    def _close(self, device: str) -> dict[str, Any]:
        # Gone before it is aggregated: a function that raises for it would else do so for every message to come.
        _, start, end, values = self._open.pop(device)
        return {
            self._key or "value": self._aggregate(values),
            "count": len(values),
            "start": start,
            "end": end,
        }

    def snapshot(self) -> Any:
        """Return the open windows by device."""
        return {device: [*window[:3], list(window[3])] for device, window in self._open.items()}

    def restore(self, state: Any) -> None:
        """Go on with those windows."""
        self._open = {device: [*window[:3], list(window[3])] for device, window in (state or {}).items()}


def _aggregate(given: object) -> Callable[[Sequence[Any]], Any]:
    if callable(given):
        return given
    if isinstance(given, str) and given in _AGGREGATES:
        return _AGGREGATES[given]
    raise ProcessorError(
        f"Window: aggregate is {given!r}; it can be {', '.join(map(repr, _AGGREGATES))}, or a function of a list."
    )
