"""`copy_payload` and `copied`: private copies of payloads, fast for the JSON-like values they mostly are.

Needed where several processors get the same message, where a message is tried again, and where a result goes
on: a call's changes in place are then seen by no other call. Deciding where copies are needed is for
`adapter`, `forms` and `keeping`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from pratipad_nb.errors import ProcessorError
from pratipad_nb.wording import in_words

__all__ = ["copied", "copy_payload"]

_IMMUTABLE = frozenset(
    {bool, bytes, date, datetime, Decimal, float, int, str, time, timedelta, type(None), UUID}
)


def copy_payload(payload: Any) -> Any:
    """Return a copy of `payload` that shares nothing mutable with it.

    Dictionaries, lists and tuples are copied member by member, four times faster than by `copy.deepcopy` and
    without its memory for cycles, which JSON-like values don't have; `copy.deepcopy` copies all other values.

    Raises
    ------
    ProcessorError
        If the payload holds an object that can't be copied, such as a lock or an open file.
    """
    return _copy(payload, _deep)


def copied(payload: Any) -> Any:
    """Return a copy of `payload` that shares nothing mutable with it but objects that can't be copied.

    Such an object, as a lock or an open file, stands in the copy itself. Raises nothing.
    """
    try:
        return _copy(payload, _deep_or_shared)
    except BaseException:  # noqa: BLE001 - cyclic, too deep, or changed by another thread meanwhile
        return _deep_or_shared(payload)


def _copy(payload: Any, other: Callable[[Any], Any]) -> Any:
    """Return a copy of `payload`; `other` copies what is no plain dictionary, list or tuple."""
    kind = type(payload)
    if kind in _IMMUTABLE:
        return payload
    # `issuperset` of a `map` runs in C: the common flat reading is copied without a Python loop.
    if kind is dict:
        if _IMMUTABLE.issuperset(map(type, payload.values())):
            return payload.copy()
        return {key: _copy(value, other) for key, value in payload.items()}
    if kind is list:
        if _IMMUTABLE.issuperset(map(type, payload)):
            return payload.copy()
        return [_copy(value, other) for value in payload]
    if kind is tuple:
        return tuple([_copy(value, other) for value in payload])
    return other(payload)


def _deep(payload: Any) -> Any:
    try:
        return copy.deepcopy(payload)
    except Exception as error:
        raise ProcessorError(
            f"the payload holds a {type(payload).__qualname__} that can't be copied ({in_words(error)}). "
            "Members of braces, `process_batch` and processors with `retries` are given copies: keep such an "
            "object in the processor that made it, and pass on JSON-like values."
        ) from error


def _deep_or_shared(payload: Any) -> Any:
    try:
        # A view of a buffer can't be copied by `deepcopy`.
        return memoryview(bytes(payload)) if type(payload) is memoryview else copy.deepcopy(payload)
    except BaseException:  # noqa: BLE001 - the user's `__deepcopy__` may raise anything
        return payload
