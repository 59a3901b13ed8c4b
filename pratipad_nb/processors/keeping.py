"""Keeping results: what a processor returned is what arrives, whatever the processor changes afterwards.

Owns the moment at which a result becomes the flow's own: at the ``return`` or ``yield`` itself, before any
other line of the processor runs. A result may be, or hold, an object that the processor goes on with: a
buffer that is cleared for the next messages, a table of totals, the reading that came in. So every result is
made independent of such objects. It is copied, unless `keeping` gives another way: a result that no
processor gets any more may as well be encoded, which costs next to nothing, for it has to be encoded anyway.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pratipad_nb.processors.copying import copied
from pratipad_nb.processors.returned import is_results

__all__ = ["Keep", "keep_of", "keeping", "kept_async_batch", "kept_async_yields", "kept_batch", "kept_yields"]

#: Returns a value that is a result's equal, and that nobody else can change.
Keep = Callable[[Any], Any]

_keep: ContextVar[Keep] = ContextVar("pratipad_keep", default=copied)


@contextmanager
def keeping(keep: Keep) -> Iterator[None]:
    """Let processors that run inside the block keep their results by `keep`."""
    before = _keep.get()
    _keep.set(keep)
    try:
        yield
    finally:
        _keep.set(before)


def keep_of(*, discard: bool) -> Keep:
    """Return how the results of the call that runs now are kept; unchanged if they are dropped anyway."""
    return _unchanged if discard else _keep.get()


def _unchanged(result: Any) -> Any:
    return result


def kept_yields(generator: Callable[..., Any], *, discard: bool) -> Callable[..., list[Any]]:
    """Return a function that runs `generator` to its end, and returns what it yielded."""

    def results(*arguments: Any) -> list[Any]:
        keep = keep_of(discard=discard)
        return [keep(result) for result in generator(*arguments)]

    return results


def kept_async_yields(generator: Callable[..., Any], *, discard: bool) -> Callable[..., Any]:
    """Return a coroutine function that runs `generator` to its end, and returns what it yielded."""

    async def results(*arguments: Any) -> list[Any]:
        keep = keep_of(discard=discard)
        return [keep(result) async for result in generator(*arguments)]

    return results


def kept_batch(batch: Callable[..., Any], *, discard: bool) -> Callable[..., Any]:
    """Return `batch`, a ``process_batch``, with its results in a list if they are results at all."""

    def results(*arguments: Any) -> Any:
        keep = keep_of(discard=discard)
        returned = batch(*arguments)
        return [_kept_row(result, keep) for result in returned] if is_results(returned) else returned

    return results


def kept_async_batch(batch: Callable[..., Any], *, discard: bool) -> Callable[..., Any]:
    """Return `batch`, a ``process_batch`` of either kind of ``async def``, as `kept_batch` does."""

    async def results(*arguments: Any) -> Any:
        keep = keep_of(discard=discard)
        returned = batch(*arguments)
        if not isinstance(returned, AsyncIterable):
            returned = await returned
        if isinstance(returned, AsyncIterable):
            return [_kept_row(result, keep) async for result in returned]
        return [_kept_row(result, keep) for result in returned] if is_results(returned) else returned

    return results


def _kept_row(result: Any, keep: Keep) -> Any:
    """Keep what a batch gave for one payload: None stands for a mistake, and a list for several results."""
    if result is None:
        return None
    return [keep(each) for each in result] if isinstance(result, list) else keep(result)
