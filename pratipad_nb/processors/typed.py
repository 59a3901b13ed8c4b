"""Typed processors: a payload parameter annotated with a pydantic model is validated, results are dumped.

Owns finding the model and wrapping the callable. Never imports pydantic: whoever has made a model has imported it.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import AsyncIterable, Callable, Iterable
from types import FunctionType, SimpleNamespace
from typing import Any

__all__ = ["model_of", "typed"]


def model_of(function: object, parameter: str) -> Any:
    """Return the pydantic model that `parameter` of `function` is annotated with, or ``None``.

    ``list[Model]`` and the like, as `process_batch` has it, count as the model. An annotation that can't be resolved
    (a string that names a class inside another function) is passed over.
    """
    pydantic = sys.modules.get("pydantic")
    plain = getattr(function, "__func__", function)
    annotation = getattr(plain, "__annotations__", {}).get(parameter)
    if pydantic is None or annotation is None:
        return None
    if isinstance(annotation, str):
        annotation = _resolved(annotation, plain)
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, pydantic.BaseModel):
            return candidate
    return None


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
        return typing.get_type_hints(alone, getattr(function, "__globals__", {}), scope)["it"]
    except Exception:  # noqa: BLE001 - an annotation may hold any expression
        return None


def typed(call: Callable[..., Any], model: Any, kind: str, *, on_loop: bool) -> Callable[..., Any]:
    """Return `call`, given models of class `model` and giving dumps.

    Parameters
    ----------
    kind
        The form of `call`: ``"plain"``, ``"generator"`` or ``"batch"``.
    on_loop
        It is an ``async def``.
    """
    base = sys.modules["pydantic"].BaseModel
    validate = model.model_validate

    def dump(result: Any) -> Any:
        return result.model_dump(mode="python") if isinstance(result, base) else result

    def dump_batch(results: Any) -> Any:
        if not isinstance(results, Iterable) or isinstance(results, (str, bytes, dict, set, frozenset)):
            return results  # for the form to complain about
        return [[dump(one) for one in r] if isinstance(r, list) else dump(r) for r in results]

    if kind == "batch":
        return _batch(call, validate, dump_batch, on_loop=on_loop)
    if kind == "generator":
        return _generator(call, validate, dump, on_loop=on_loop)
    if on_loop:

        async def plain(payload: Any, *message: Any) -> Any:
            return dump(await call(validate(payload), *message))

        return plain
    return lambda payload, *message: dump(call(validate(payload), *message))


def _generator(call: Any, validate: Any, dump: Any, *, on_loop: bool) -> Callable[..., Any]:
    def each(payload: Any, *message: Any) -> Any:
        for result in call(validate(payload), *message):
            yield dump(result)

    async def each_awaited(payload: Any, *message: Any) -> Any:
        async for result in call(validate(payload), *message):
            yield dump(result)

    return each_awaited if on_loop else each


def _batch(call: Any, validate: Any, dump: Any, *, on_loop: bool) -> Callable[..., Any]:
    # A payload that doesn't fit raises for the batch, before any of it is run, and the form takes it apart.
    def batch(payloads: list[Any], *messages: Any) -> Any:
        return dump(call([validate(payload) for payload in payloads], *messages))

    async def batch_awaited(payloads: list[Any], *messages: Any) -> Any:
        called = call([validate(payload) for payload in payloads], *messages)
        if isinstance(called, AsyncIterable):
            return dump([result async for result in called])
        return dump(await called)

    return batch_awaited if on_loop else batch
