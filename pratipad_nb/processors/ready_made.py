"""The ready-made processors `Filter`, `Throttle` and `Deadband`; `window` has `Window`.

All arguments of these processors can be written as literals in the notation, but for functions. `Throttle`
and `Deadband` keep a state by device, which follows its device (`Keyed`). Time is the device's own
clock (`Message.time`), so that a replay gives the same results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import floor
from typing import Any

from pratipad_nb.errors import ProcessorError
from pratipad_nb.message import Message
from pratipad_nb.processors.base import Processor
from pratipad_nb.processors.keyed import Keyed

__all__ = ["Deadband", "Filter", "Throttle", "value_of"]

_UNSET: Any = object()


def value_of(payload: Any, key: str | None, who: str) -> Any:
    """Return the payload's value of `key`; without a key, the payload.

    Dots in `key` reach into nested values. `who` names the processor in errors.

    Raises
    ------
    ProcessorError
        If the payload has no such key.
    """
    if key is None:
        return payload
    if isinstance(payload, Mapping) and key in payload:
        return payload[key]
    value = payload
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            has = (
                f"its keys are {', '.join(map(repr, payload))}"
                if isinstance(payload, Mapping)
                else "it has no keys"
            )
            raise ProcessorError(f"{who}: the payload {payload!r:.80} has no {key!r}: {has:.200}.")
        value = value[part]
    return value


class Filter(Processor):
    """Pass the messages that meet all conditions given, drop the others.

    Parameters
    ----------
    where
        Called with the payload; a message passes if the result is true.
    key
        The key whose value is compared (dots reach into nested values); without a key, the payload is
        compared.
    above, below
        The value must be greater, or less, than this bound; the bound itself doesn't pass.
    equals
        The value must be equal to this value.

    Raises
    ------
    ProcessorError
        If no condition is given. For a message without the key: the message becomes a dead letter, not a
        silent loss.

    Examples
    --------
    ``Push ~> Filter(key="co2", above=800) ~> Output``
    """

    def __init__(
        self,
        where: Callable[[Any], Any] | None = None,
        *,
        key: str | None = None,
        above: float | None = None,
        below: float | None = None,
        equals: Any = _UNSET,
    ) -> None:
        if where is not None and not callable(where):
            raise ProcessorError(
                f"Filter(where={where!r}): `where` is called with each payload, so it is a function; to "
                'compare a value write Filter(key="co2", above=800).'
            )
        if where is None and above is None and below is None and equals is _UNSET:
            raise ProcessorError("Filter() has no condition: give it where=, above=, below= or equals=.")
        self._where, self._key = where, key
        self._above, self._below, self._equals = above, below, equals

    def process(self, payload: Any) -> Iterator[Any]:
        """Yield the payload if it meets every condition."""
        if self._where is not None and not self._where(payload):
            return
        value = value_of(payload, self._key, "Filter")
        if (
            (self._above is None or value > self._above)
            and (self._below is None or value < self._below)
            and (self._equals is _UNSET or value == self._equals)
        ):
            yield payload


class Throttle(Processor):
    """Pass the first message of each device in each interval, drop the others.

    Intervals are multiples of `seconds` of the device's clock, not distances from the last message that
    passed. So of a device that sends every half second, a little early or late, every second message passes
    and never every third.

    Parameters
    ----------
    seconds
        Length of an interval.

    Examples
    --------
    ``Push ~> Throttle(seconds=60) ~> Output`` passes one message a minute from each device.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = _positive("Throttle", "seconds", seconds)
        self._passed: dict[str, int] = {}

    def process(self, payload: Any, message: Message) -> Iterator[Any]:
        """Yield the payload if its message is its device's first in this interval."""
        interval = floor(message.time / self._seconds)
        if self._passed.get(message.device) != interval:
            self._passed[message.device] = interval
            yield payload

    def snapshot(self) -> Keyed:
        """Return each device's last interval."""
        return Keyed(self._passed)

    def restore(self, state: Any) -> None:
        """Go on after the intervals of `state`."""
        self._passed = dict(state or {})


class Deadband(Processor):
    """Pass a message when its value has moved by at least `delta` since its device's last that passed.

    A device's first message passes, and so does a message whose value, or whose device's last value, is NaN.

    Parameters
    ----------
    key
        The key whose value is watched (dots reach into nested values); without a key, the payload is watched.
    delta
        The least change that passes, in the unit of the value.

    Examples
    --------
    ``Push ~> Deadband(key="temperature_c", delta=0.5) ~> Output``
    """

    def __init__(self, key: str | None = None, delta: float = _UNSET) -> None:
        if delta is _UNSET:
            raise ProcessorError(
                'Deadband needs delta, the least change that passes: Deadband(key="co2", delta=10).'
            )
        self._key, self._delta = key, _positive("Deadband", "delta", delta)
        self._passed: dict[str, float] = {}

    def process(self, payload: Any, message: Message) -> Iterator[Any]:
        """Yield the payload if its value has moved."""
        value = value_of(payload, self._key, "Deadband")
        last = self._passed.get(message.device)
        # "not less" rather than "at least": a NaN would else hold back its device's messages for ever.
        if last is None or not abs(value - last) < self._delta:
            self._passed[message.device] = value
            yield payload

    def snapshot(self) -> Keyed:
        """Return each device's last value that passed."""
        return Keyed(self._passed)

    def restore(self, state: Any) -> None:
        """Go on from the values of `state`."""
        self._passed = dict(state or {})


def _positive(who: str, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ProcessorError(f"{who}: {name} is {value!r}; it must be a number greater than 0.")
    return value
