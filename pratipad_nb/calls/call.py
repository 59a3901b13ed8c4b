"""A call of a user's function on the event loop: a task of its own, and whose a cancellation is.

Owns telling our cancellation of a call (a stop, a time-out) from a `CancelledError` that is the user's. Each
call has a task of its own, so that a coroutine that cancels its own task cancels the call and nothing of
ours.
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
    """One call that a worker has in flight.

    Attributes
    ----------
    stopped
        Whether we have cancelled the call, or left it behind.
    task
        The task that the call runs in; None on a thread.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.task: asyncio.Task[Any] | None = None

    def enter(self) -> None:
        """Take what runs in this context, from now on, as part of the call."""
        _current.set(self)

    def stop(self) -> None:
        """Cancel the call."""
        self.stopped = True
        if self.task is not None:
            self.task.cancel()


def is_async(function: object) -> bool:
    """Whether calling `function` gives a coroutine."""
    while isinstance(function, partial):
        function = function.func
    # An object's own `__call__` is asked for, not whether the object can be called.
    method = getattr(function, "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(method)


def left_behind() -> bool:
    """Whether the running call was cancelled or left behind: then no function of the user is to be called."""
    call = _current.get()
    return call is not None and call.stopped


async def awaited(result: Awaitable[Result]) -> Result:
    """Await what a user's function returned, and `settle`."""
    value = await result
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        await settle()
    return value


async def settle() -> None:
    """Raise a cancellation that a user's function, which has returned, leaves pending in its own task.

    Else our own next `await`, or the next message, would get it.
    """
    task = asyncio.current_task()
    call = _call_of(task)
    if task is not None and call is not None:
        await _take_back(call, task)


async def absorb(error: BaseException) -> None:
    """Take `error` as the user's and return, or raise it again if it is ours: a stop of the call.

    A `CancelledError` is ours if our worker has stopped the call; outside of a worker, if the task is being
    cancelled. A `GeneratorExit` is ours where it doesn't come in the call's own task: then the coroutine is
    being closed.
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
    """Let a cancellation of the running task that is pending come now, and count it no more.

    Raises
    ------
    CancelledError
        If one was pending, or the call is stopped, whatever the user's function has made of that.
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
