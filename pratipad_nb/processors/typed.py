"""Typed processors: a payload parameter annotated with pydantic models is validated, results are dumped.

Owns finding models in an annotation and wrapping the callable. Never imports pydantic: whoever has made a model has
imported it.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
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

#: Classes of values that a frame carries as they are; all else that a model holds is dumped as JSON would have it.
_CARRIED = frozenset(
    {bool, bytes, date, datetime, Decimal, float, int, str, time, timedelta, type(None), UUID}
)


def annotation_of(function: object, parameter: str, *, is_batch: bool) -> Any:
    """Return what payloads are validated by: the annotation of `parameter`, if it has a pydantic model anywhere in it.

    ``A | B``, ``list[Model]`` and the like count; of the ``list[…]`` that `process_batch` is given it is what is
    inside. ``None`` if there is no model, or the annotation can't be resolved (a string that names a class inside
    another function).
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
    # This annotation alone: another of the same function may name what only a type checker imports.
    alone = SimpleNamespace(__annotations__={"it": annotation})
    try:
        hints = typing.get_type_hints(alone, getattr(function, "__globals__", {}), scope, include_extras=True)
    except Exception:  # noqa: BLE001 - an annotation may hold any expression
        return None
    return hints["it"]


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
    """Return `call`, given what `annotation` says and giving dumps.

    Parameters
    ----------
    kind
        The form of `call`: ``"plain"``, ``"generator"`` or ``"batch"``.
    name
        Name of the processor, for errors.
    on_loop
        It is an ``async def``.

    Raises
    ------
    ProcessorError
        If pydantic can't validate by that annotation.
    """
    try:
        validate = sys.modules["pydantic"].TypeAdapter(annotation).validate_python
    except Exception as error:
        raise ProcessorError(
            f"{name} can't be given payloads of type {annotation}: {in_words(error)}. Annotate the payload with a "
            "pydantic model, or with what pydantic validates (A | B, list[A], A | None)."
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
    # A payload that doesn't fit raises for the batch, before any of it is run, and the form takes it apart.
    def batch(payloads: list[Any], *messages: Any) -> Any:
        return _dumped_batch(call([validate(payload) for payload in payloads], *messages))

    async def batch_awaited(payloads: list[Any], *messages: Any) -> Any:
        called = call([validate(payload) for payload in payloads], *messages)
        if isinstance(called, AsyncIterable):
            return _dumped_batch([result async for result in called])
        return _dumped_batch(await called)

    return batch_awaited if on_loop else batch


def _dumped_batch(returned: Any) -> Any:
    return [_dumped(result) for result in returned] if is_results(returned) else returned


def _dumped(result: Any) -> Any:
    """Return `result` with every model in it, also inside of lists and dictionaries, as what can travel."""
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
    except ValueError:  # one value, such as bytes that are no text, has no JSON: then each for itself
        return _each_as_json(dump)


def _is_carried(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return _CARRIED.issuperset(map(type, value)) and all(map(_is_carried, value.values()))
    if kind in (list, tuple, set, frozenset):
        return all(map(_is_carried, value))
    return kind in _CARRIED or hasattr(value, "tolist")  # as a NumPy array has it


def _merged(dump: Any, as_json: Any) -> Any:
    """Return `dump` with what can't travel replaced by what it is in JSON; dates and bytes stay what they are."""
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
    except ValueError:  # the next processor may want it all the same; Output refuses it
        return dump
