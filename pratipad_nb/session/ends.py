"""Ends: a handle's methods without a run, inside a run, and at a run's end.

Owns the words of those errors, the wait that a run's end cuts short, and knowing whether the caller runs
inside a flow. Ending a run is for `asynchronous`.

A context variable holds the flows that the caller runs inside. Tasks inherit the variable, and a processor's
worker carries it to its thread. So a ``def`` processor is recognised as well as an ``async def`` processor,
and any function that either calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from pratipad_nb.errors import FlowError
from pratipad_nb.runtime.values.stats import FlowStats

__all__ = [
    "check_outside",
    "ended_meanwhile",
    "inside",
    "not_running",
    "take_cut_short",
    "unless_ended",
]

Result = TypeVar("Result")

_flows_around: ContextVar[tuple[object, ...]] = ContextVar("pratipad_flows_around", default=())


class _Handle(Protocol):
    """The part of a flow's handle that an error's text needs."""

    @property
    def name(self) -> str: ...
    def stats(self) -> FlowStats: ...


@contextmanager
def inside(flow: object) -> Iterator[None]:
    """Let tasks and threads that are started in the block count as running inside `flow`."""
    token = _flows_around.set((*_flows_around.get(), flow))
    try:
        yield
    finally:
        _flows_around.reset(token)


def check_outside(flow: object, name: str, verb: str) -> None:
    """Refuse `verb` to a caller that runs inside `flow`: it would wait for the caller's own end.

    Raises
    ------
    FlowError
        If the caller runs inside `flow`.
    """
    if any(each is flow for each in _flows_around.get()):
        raise FlowError(
            f"flow.{verb}() was called inside flow {name!r}, by a processor of it, and would wait for that "
            "processor to end. Nothing was done. flow.request_stop() has the flow stopped once the processor "
            "has returned; all else is for who is outside."
        )


def not_running(flow: _Handle) -> FlowError:
    """Return the error of a method that needs a running flow; its text names the failure, if any."""
    error = flow.stats().error
    because = f" It failed: {error.rstrip('.')}." if error else ""
    return FlowError(f"flow {flow.name!r} is not running.{because} Start it with start().")


def ended_meanwhile(name: str, waited_for: str, then: str) -> FlowError:
    """Return the error of a wait that the flow's end cuts short; `then` names the next step."""
    return FlowError(f"flow {name!r} ended while {waited_for} waited for. {then}")


def take_cut_short(name: str, n: int) -> FlowError:
    """Return the error of a `take` that the flow's end cuts short."""
    then = "What has come is there for the next take: start it with start()."
    return ended_meanwhile(name, f"{n} messages were", then)


async def unless_ended(
    work: Coroutine[Any, Any, Result], run: asyncio.Task[None] | None, seconds: float | None
) -> Result | None:
    """Return the result of `work`, or None if `run` ends first or `seconds` pass first."""
    task = asyncio.ensure_future(work)
    awaited = {task} if run is None else {task, run}
    try:
        await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
