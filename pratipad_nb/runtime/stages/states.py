"""States: the state of one instance, encoded, and the division of keyed states among instances.

Owns what `snapshot` may return, what `restore` is given, which keys expire, and which instance gets which
key. When states are taken and given is for `runner` and `moving`; storing them is for
`pratipad_nb.runtime.positions`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from pratipad_nb.errors import PayloadError, ProcessorError
from pratipad_nb.processors import Keyed
from pratipad_nb.runtime.stages.shards import instance_of
from pratipad_nb.runtime.values.state_keys import StateKey
from pratipad_nb.transport.codec import encode_payload

__all__ = ["STATE_BYTES", "NotKept", "State", "Undividable", "divided", "stored_states", "taking"]

#: The largest state of one instance that is kept, in bytes.
STATE_BYTES = 1 << 20

Key = str | int | None
_KEY_TYPES = {str, int, type(None)}

_keyed = msgspec.msgpack.Decoder(dict[Key, Raw])


class NotKept(PayloadError):
    """Why what `snapshot` returned can't be kept, in words."""


class Undividable(ProcessorError):
    """Why the states of instances can't be divided among another number of instances, in words."""


class State(msgspec.Struct, frozen=True, array_like=True):
    """The state of one instance as `snapshot` returned it, encoded at that moment.

    Attributes
    ----------
    data
        The MessagePack of the state; of a keyed state, the map from each key to its state.
    by
        The instance's `partition_by`; empty in a state of version 0.1.
    keyed
        Whether `snapshot` returned a `Keyed`.
    ages
        Of a keyed state with `expire`: for how many seconds each key's state has not changed.
    """

    data: bytes
    by: str = ""
    keyed: bool = False
    ages: dict[Key, float] = {}

    @property
    def value(self) -> Any:
        """What `restore` is given: a copy of what `snapshot` returned, a `dict` in place of a `Keyed`."""
        return msgspec.msgpack.decode(self.data)

    @property
    def by_key(self) -> dict[Key, Raw]:
        """The encoded state of each key of a keyed state."""
        return _keyed.decode(self.data)

    @property
    def keys(self) -> int | None:
        """How many keys a keyed state has; None if the state isn't keyed."""
        return len(self.by_key) if self.keyed else None

    def check_size(self, processor: str) -> None:
        """Check that the state is small enough to be stored.

        Raises
        ------
        ProcessorError
            If the state of this instance of `processor` is too large.
        """
        if len(self.data) > STATE_BYTES:
            raise ProcessorError(
                f"{processor}: what snapshot returns has {len(self.data):,} bytes; at most {STATE_BYTES:,} "
                "of each instance are stored, for they are stored about once a second. Return less; or Keyed "
                "with expire=, or with a larger concurrency, which divides the keys; or keep the state in a "
                "file of your own."
            )

    def packed(self) -> bytes:
        """Return the state as it is stored."""
        return msgspec.msgpack.encode(self)


_state = msgspec.msgpack.Decoder(State)


def taking(
    snapshot: Callable[[], Any], by: str, before: State | None, seconds: float
) -> Callable[[], State | Awaitable[State | None] | None]:
    """Return a function that calls `snapshot`, and encodes the result where the instance lives.

    No other method of the instance can change the result meanwhile, nor the mapping that keys are deleted
    from.

    Parameters
    ----------
    by
        The instance's `partition_by`.
    before
        The instance's state as of `seconds` ago: keys whose state is the same now have aged so much.
    """

    async def finished(result: Awaitable[Any]) -> State | None:
        return _taken(await result, by, before, seconds)

    def take() -> State | Awaitable[State | None] | None:
        result = snapshot()
        return finished(result) if inspect.isawaitable(result) else _taken(result, by, before, seconds)

    async def take_async() -> State | None:
        return await finished(snapshot())

    return take_async if inspect.iscoroutinefunction(snapshot) else take


def _taken(result: Any, by: str, before: State | None, seconds: float) -> State | None:
    try:
        if result is None:
            return None
        if isinstance(result, Keyed):
            return _of_keys(result, by, before, seconds)
        return State(encode_payload(result), by)
    except PayloadError as error:
        raise NotKept(str(error)) from error


def _of_keys(result: Keyed, by: str, before: State | None, seconds: float) -> State:
    odd = set(map(type, result.mapping)) - _KEY_TYPES
    if odd:
        key = next(key for key in result.mapping if type(key) in odd)
        raise PayloadError(
            f"Keyed has the key {key!r:.80} of type {type(key).__name__}; a key is a str, an int or None, so "
            "that it comes back as it was. Use str(key): a value of partition_by is spread by its text."
        )
    if result.expire is None:
        return State(encode_payload(dict(result.mapping)), by, keyed=True)
    return _aged(result, by, before, seconds)


def _aged(result: Keyed, by: str, before: State | None, seconds: float) -> State:
    """Return the state of all keys that have changed within `result.expire`; delete the other keys."""
    assert result.expire is not None
    old, ages = (before.by_key, before.ages) if before is not None and before.keyed else ({}, {})
    state = State(encode_payload(dict(result.mapping)), by, keyed=True)
    packed = state.by_key
    now = {key: ages.get(key, 0.0) + seconds if old.get(key) == data else 0.0 for key, data in packed.items()}
    expired = [key for key, age in now.items() if age >= result.expire]
    for key in expired:
        del result.mapping[key]  # type: ignore[attr-defined]  # `Keyed` has checked that keys can be deleted
        del packed[key], now[key]
    return State(msgspec.msgpack.encode(packed) if expired else state.data, by, keyed=True, ages=now)


def stored_states(states: Mapping[str, bytes], processor: str) -> list[State | None]:
    """Return the states of all instances that `processor` had when `states` was stored, by their numbers.

    Raises
    ------
    ProcessorError
        If a state can't be read.
    """
    found = [(StateKey.parse(name), data) for name, data in states.items()]
    mine = [(key, data) for key, data in found if key.processor == processor]
    if not mine:
        return []
    instances = max(max(key.instances, key.number + 1) for key, _ in mine)
    ordered: list[State | None] = [None] * instances
    for key, data in mine:
        try:
            ordered[key.number] = _state.decode(data) if key.instances else State(data)
        except msgspec.MsgspecError as error:
            raise ProcessorError(f"{processor}: its stored state can't be read: {error}.") from error
    return ordered


def divided(states: Sequence[State | None], by: str, instances: int) -> list[State | None]:
    """Return the keyed `states` of all instances, divided anew among `instances` by the rule of messages.

    Parameters
    ----------
    by
        The new instances' `partition_by`.

    Raises
    ------
    Undividable
        If the keys can't be those that messages are spread by, or an instance's part is too large.
    """
    known = [state for state in states if state is not None]
    if not known:
        return [None] * instances
    if len(states) > 1 and instances > 1:
        _check_rule(states, by)
    parts: list[dict[Key, Raw]] = [{} for _ in range(instances)]
    ages: list[dict[Key, float]] = [{} for _ in range(instances)]
    for state in known:
        for key, data in state.by_key.items():
            number = instance_of(key, by, instances)
            if key in parts[number]:
                raise Undividable(f"several instances have a state of the key {key!r:.80}")
            parts[number][key] = data
            if key in state.ages:
                ages[number][key] = state.ages[key]
    return [_part(*part, by) for part in zip(parts, ages, strict=True)]


def _part(part: dict[Key, Raw], ages: dict[Key, float], by: str) -> State:
    data = msgspec.msgpack.encode(part)
    if len(data) > STATE_BYTES:
        raise Undividable(
            f"an instance's part would have {len(data):,} bytes, and at most {STATE_BYTES:,} of each "
            "instance are kept"
        )
    return State(data, by, keyed=True, ages=ages)


def _check_rule(states: Sequence[State | None], by: str) -> None:
    """Check that every key is with the instance that sees the key's messages."""
    for number, state in enumerate(states):
        if state is None:
            continue
        if state.by != by:
            raise Undividable(f"its keys are of partition_by = {state.by!r}, and partition_by is {by!r} now")
        for key in state.by_key:
            if instance_of(key, by, len(states)) != number:
                raise Undividable(
                    f"the key {key!r:.80} is in the state of an instance that doesn't see that key's "
                    f"messages, so it is no value of partition_by = {by!r}"
                )
