"""A call of a user's function on the event loop: a task of its own, and whose a cancellation is.

Owns telling this package's cancellation of a call (a stop, a time-out) from a `CancelledError` that is the
user's. Each call has a task of its own, so that a coroutine that cancels its own task cancels the call alone.
Threads, and the order of calls, are for `worker`.

How the two are told apart: this package cancels a call's task by `Call.stop` alone, which sets `Call.stopped`
first; or by `asyncio.timeout` in `time_limit`, which takes its own cancellation back. So a cancellation of
the task while `stopped` is false is the user's. The user's cancellations are counted away (`uncancel`) before
the call ends, so that none of them reaches an `await` of this package.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

__all__ = ["Call", "absorb", "awaited", "is_async", "left_behind", "settle"]

Result = TypeVar("Result")

_current: ContextVar[Call | None] = ContextVar("pratipad_call", default=None)


class Call:
    """One call in progress of a worker.

    Attributes
    ----------
    stopped
        Whether this package has cancelled the call, or left it behind.
    task
        The task that the call runs in; None on a thread.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.task: asyncio.Task[Any] | None = None

    def enter(self) -> None:
        """Mark code that runs in this context, from now on, as part of the call."""
        _current.set(self)

    def stop(self) -> None:
        """Cancel the call."""
        self.stopped = True
        if self.task is not None:
            self.task.cancel()


def is_async(function: object) -> bool:
    """Return whether calling `function` gives a coroutine."""
    while isinstance(function, partial):
        function = function.func
    # `callable` would say whether the object can be called, and not whether its `__call__` is an
    # ``async def``.
    method = getattr(function, "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(method)


def left_behind() -> bool:
    """Return whether the running call was cancelled or left behind: then no user's function may be called."""
    call = _current.get()
    return call is not None and call.stopped


async def awaited(result: Awaitable[Result]) -> Result:
    """Await the `result` of a user's function, `settle`, and return the value."""
    value = await result
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        await settle()
    return value


async def settle() -> None:
    """Raise a cancellation that a user's function, which has returned, leaves pending in its own task.

    Else the next `await` of this package, or the next message, would get the cancellation.
    """
    task = asyncio.current_task()
    call = _call_of(task)
    if task is not None and call is not None:
        await _take_back(call, task)


async def absorb(error: BaseException) -> None:
    """Return if `error` is the user's; raise `error` again if it stops the call on behalf of this package.

    A `CancelledError` stops the call if the worker has stopped it; outside of a worker, if the task is being
    cancelled. A `GeneratorExit` stops the call if it comes outside of the call's own task: then the coroutine
    is being closed.
    """
    task = _running_task()
    call = _call_of(task)
    if call is None or task is None:
        cancelled = task is None or task.cancelling() > 0
        if isinstance(error, GeneratorExit) or (isinstance(error, asyncio.CancelledError) and cancelled):
            raise error
        return
    if call.stopped or task.cancelling():
        try:
            await _take_back(call, task)
        except asyncio.CancelledError:
            if call.stopped:
                raise


async def _take_back(call: Call, task: asyncio.Task[Any]) -> None:
    """Let a pending cancellation of the running task arrive now, and take it off the task's count.

    Raises
    ------
    CancelledError
        If a cancellation was pending; or if the call is stopped, even if the user's function has caught that.
    """
    try:
        await asyncio.sleep(0)
    finally:
        while not call.stopped and task.cancelling():
            task.uncancel()
    if call.stopped:
        raise asyncio.CancelledError


def _call_of(task: asyncio.Task[Any] | None) -> Call | None:
    """Return the call that `task` was made for; None outside of a worker, and in tasks of the user's code."""
    call = _current.get()
    return call if call is not None and call.task is task else None


def _running_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs: the coroutine is closed by the garbage collector
        return None
