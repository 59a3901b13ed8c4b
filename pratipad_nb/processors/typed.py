"""Typed processors: a payload parameter annotated with pydantic models is validated, results are dumped.

Owns finding models in an annotation, and wrapping the callable. Never imports pydantic: code that has made a
model has imported pydantic already.

The dump: `model_dump` keeps values that can travel as they are, such as dates and bytes, but may leave values
that can't, such as an enum. ``model_dump(mode="json")`` has a value that can travel in each of these places,
but turns dates and bytes into text. `_merged` walks through both, which have the same structure, and takes
the first where its value can travel, else the second.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from types import FunctionType, SimpleNamespace
from typing import Any
from uuid import UUID

from pratipad_nb.errors import ProcessorError
from pratipad_nb.processors.returned import is_results
from pratipad_nb.wording import in_words

__all__ = ["annotation_of", "typed"]

#: Classes of values that a frame carries as they are; all other values of a model are dumped as for JSON.
_CARRIED = frozenset(
    {bool, bytes, date, datetime, Decimal, float, int, str, time, timedelta, type(None), UUID}
)


def annotation_of(function: object, parameter: str, *, is_batch: bool) -> Any:
    """Return the annotation of `parameter` by which payloads are validated; None if it has no pydantic model.

    A model may stand anywhere in the annotation: ``A | B``, ``list[Model]`` and the like. Of the ``list[…]``
    that `process_batch` is given, the annotation inside is returned. None, too, if the annotation can't be
    resolved (a string that names a class inside another function).
    """
    pydantic = sys.modules.get("pydantic")
    while isinstance(function, partial):
        function = function.func
    plain = getattr(function, "__func__", function)
    annotation = getattr(plain, "__annotations__", {}).get(parameter)
    if pydantic is None or annotation is None:
        return None
    if isinstance(annotation, str):
        annotation = _resolved(annotation, plain)
    if is_batch and _is_collection(annotation):
        annotation = typing.get_args(annotation)[0]
    return annotation if _has_model(annotation, pydantic.BaseModel) else None


def _resolved(annotation: str, function: object) -> object:
    scope: dict[str, Any] = {}
    if isinstance(function, FunctionType):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                scope[name] = cell.cell_contents
            except ValueError:  # a variable of the enclosing function that has no value yet
                continue
    # This annotation alone: another of the function may name a class that only type checkers import.
    alone = SimpleNamespace(__annotations__={"payload": annotation})
    try:
        hints = typing.get_type_hints(alone, getattr(function, "__globals__", {}), scope, include_extras=True)
    except Exception:  # noqa: BLE001 - an annotation may hold any expression
        return None
    return hints["payload"]


def _is_collection(annotation: object) -> bool:
    origin = typing.get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, Mapping)


def _has_model(annotation: object, base: type) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, base):
        return True
    return any(_has_model(part, base) for part in typing.get_args(annotation))


def typed(
    call: Callable[..., Any], annotation: Any, kind: str, *, name: str, on_loop: bool
) -> Callable[..., Any]:
    """Return `call` wrapped so that it is given payloads validated by `annotation`, and returns dumps.

    Parameters
    ----------
    kind
        The form of `call`: ``"plain"``, ``"generator"`` or ``"batch"``.
    name
        Name of the processor, for errors.
    on_loop
        Whether `call` is an ``async def``.

    Raises
    ------
    ProcessorError
        If pydantic can't validate by `annotation`.
    """
    try:
        validate = sys.modules["pydantic"].TypeAdapter(annotation).validate_python
    except Exception as error:
        raise ProcessorError(
            f"{name} can't be given payloads of type {annotation}: {in_words(error)}. Annotate the payload "
            "with a pydantic model, or with a type that pydantic validates (A | B, list[A], A | None)."
        ) from error
    if kind == "batch":
        return _batch(call, validate, on_loop=on_loop)
    if kind == "generator":
        return _generator(call, validate, on_loop=on_loop)
    if on_loop:

        async def plain(payload: Any, *message: Any) -> Any:
            return _dumped(await call(validate(payload), *message))

        return plain
    return lambda payload, *message: _dumped(call(validate(payload), *message))


def _generator(call: Any, validate: Any, *, on_loop: bool) -> Callable[..., Any]:
    def each(payload: Any, *message: Any) -> Any:
        for result in call(validate(payload), *message):
            yield _dumped(result)

    async def each_awaited(payload: Any, *message: Any) -> Any:
        async for result in call(validate(payload), *message):
            yield _dumped(result)

    return each_awaited if on_loop else each


def _batch(call: Any, validate: Any, *, on_loop: bool) -> Callable[..., Any]:
    # A payload that doesn't fit raises before any payload of its batch is processed, and the form takes the
    # batch apart.
    def batch(payloads: list[Any], *messages: Any) -> Any:
        return _dumped_batch(call([validate(payload) for payload in payloads], *messages))

    async def batch_awaited(payloads: list[Any], *messages: Any) -> Any:
        called = call([validate(payload) for payload in payloads], *messages)
        if not isinstance(called, AsyncIterable):
            called = await called
        return _dumped_each(called) if isinstance(called, AsyncIterable) else _dumped_batch(called)

    return batch_awaited if on_loop else batch


def _dumped_batch(returned: Any) -> Any:
    # Not a list: each result is dumped, and kept, at the moment when it is yielded.
    return map(_dumped, returned) if is_results(returned) else returned


async def _dumped_each(returned: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for result in returned:
        yield _dumped(result)


def _dumped(result: Any) -> Any:
    """Return `result` with every model in it, in lists and dictionaries too, as values that can travel."""
    kind = type(result)
    if kind is dict:
        return {key: _dumped(value) for key, value in result.items()}
    if kind is list or kind is tuple:
        return kind(map(_dumped, result))
    if kind in _CARRIED or not isinstance(result, sys.modules["pydantic"].BaseModel):
        return result
    dump = result.model_dump()
    if _is_carried(dump):
        return dump
    try:
        return _merged(dump, result.model_dump(mode="json"))
    except ValueError:  # a value, such as bytes that are no text, has no JSON
        return _each_as_json(dump)


def _is_carried(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return _CARRIED.issuperset(map(type, value)) and all(map(_is_carried, value.values()))
    if kind in (list, tuple, set, frozenset):
        return all(map(_is_carried, value))
    return kind in _CARRIED or hasattr(value, "tolist")  # a NumPy array or scalar


def _merged(dump: Any, as_json: Any) -> Any:
    """Return `dump` with values that can't travel replaced by those of `as_json`; dates and bytes stay."""
    if _is_carried(dump):
        return dump
    if type(dump) is dict and type(as_json) is dict and len(dump) == len(as_json):
        pairs = zip(dump.items(), as_json.items(), strict=True)
        return {
            k if type(k) in _CARRIED else json_k: _merged(v, json_v) for (k, v), (json_k, json_v) in pairs
        }
    if type(dump) in (list, tuple) and type(as_json) is list and len(dump) == len(as_json):
        return list(map(_merged, dump, as_json))
    return as_json


def _each_as_json(dump: Any) -> Any:
    if _is_carried(dump):
        return dump
    if type(dump) is dict:
        return {_each_as_json(key): _each_as_json(value) for key, value in dump.items()}
    if type(dump) in (list, tuple):
        return list(map(_each_as_json, dump))
    try:
        return sys.modules["pydantic_core"].to_jsonable_python(dump)
    except ValueError:  # the next processor may want this value all the same; Output refuses it
        return dump
