"""Checks of the values that a processor returned, and the errors for values that can't be results.

Owns these checks and the errors' words. Failing the rows of such a value is for `forms`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping, Sequence, Set
from typing import Any, TypeGuard

from pratipad_nb.errors import ProcessorError

__all__ = [
    "WrongResultError",
    "batch_results",
    "is_results",
    "is_unawaited",
    "nothing",
    "nothing_in_batch",
    "run_out",
    "unawaited",
]

_NOTHING = (
    "{name} returned None, which is no payload. Return the payload to pass on; to filter messages, make it a "
    "generator (`yield` what goes on, or nothing); to use it for its effect alone, put it in braces {{…}}."
)
_NOTHING_IN_BATCH = (
    "process_batch of {name} gave None for a payload, which is no result. Give the new payload; a list "
    "stands for none ([]), one or many results."
)
_UNAWAITED = (
    "{name} returned a {kind}, which nobody awaits. If it wraps an `async def`, write `async def` for the "
    "wrapper too and `return await …` (around an asynchronous generator: `async for` and `yield`)."
)
_NO_LIST = (
    "process_batch of {name} returned {kind!r}; it returns a list with one result for each of the {expected} "
    "payloads it was given."
)
_FRAME = (
    "process_batch of {name} returned a {kind}, which gives the names of its columns, not its rows; it "
    "returns a list with one result for each of the {expected} payloads it was given. Write "
    '`return frame.to_dict("records")` (pandas) or `return frame.to_dicts()` (Polars).'
)
_WRONG_LENGTH = (
    "process_batch of {name} returned {found} results for {expected} payloads; it returns one for each, in "
    "order. To filter, give [] for a payload; to make several of one, give a list."
)


class WrongResultError(ProcessorError):
    """A batch returned a value that can't be its results: a mistake in the code, which no retry mends."""


def nothing(name: str) -> ProcessorError:
    """Return the error of a processor that returned ``None``."""
    return ProcessorError(_NOTHING.format(name=name))


def nothing_in_batch(name: str) -> ProcessorError:
    """Return the error of a batch that gave ``None`` for one payload."""
    return ProcessorError(_NOTHING_IN_BATCH.format(name=name))


def is_unawaited(kind: type) -> bool:
    """Return whether a result of type `kind` is work that isn't done: a coroutine, a task and the like."""
    return issubclass(kind, (Awaitable, AsyncGenerator))


def unawaited(name: str, result: object) -> ProcessorError:
    """Return the error of a processor that returned `result`, which nobody awaits; close `result`."""
    _close(result)
    return ProcessorError(_UNAWAITED.format(name=name, kind=type(result).__name__))


def _close(result: object) -> None:
    # Else Python warns that the coroutine was never awaited. Closing a coroutine that has begun could run the
    # user's code here.
    if inspect.iscoroutine(result) and inspect.getcoroutinestate(result) == inspect.CORO_CREATED:
        result.close()


def batch_results(name: str, returned: object, expected: int) -> list[Any]:
    """Return the value that a batch returned as a list, with one result for each of its `expected` payloads.

    Raises
    ------
    WrongResultError
        If `returned` doesn't give one result after the other, gives another number of results, or holds a
        result that nobody awaits.
    """
    _check_awaited(name, [returned])
    if not is_results(returned):
        wrong = _FRAME if _is_frame(returned) else _NO_LIST
        raise WrongResultError(wrong.format(name=name, kind=type(returned).__name__, expected=expected))
    results = list(returned)
    _check_awaited(name, results)
    if len(results) != expected:
        raise WrongResultError(_WRONG_LENGTH.format(name=name, found=len(results), expected=expected))
    return results


def is_results(returned: object) -> TypeGuard[Iterable[Any]]:
    """Return whether iterating over `returned` gives the result of one payload after the other."""
    if isinstance(returned, (str, bytes, Mapping, Set)) or _is_frame(returned):
        return False
    return isinstance(returned, Iterable)


def _is_frame(returned: object) -> bool:
    # By name, for this package doesn't import pandas or Polars on its own.
    return any(base.__name__ == "DataFrame" for base in type(returned).__mro__)


def run_out(name: str, returned: object) -> None:
    """Let a batch whose results are dropped do its work: a generator works only while it is iterated.

    Raises
    ------
    WrongResultError
        If the batch returned a value, or a result, that nobody awaits.
    """
    _check_awaited(name, [returned])
    if isinstance(returned, Iterable):
        _check_awaited(name, list(returned))


def _check_awaited(name: str, results: Sequence[Any]) -> None:
    for kind in set(map(type, results)):
        if is_unawaited(kind):
            for result in results:
                _close(result)
            raise WrongResultError(_UNAWAITED.format(name=f"process_batch of {name}", kind=kind.__name__))
