"""Tasks: several coroutines at the same time, as one await.

Owns that an error comes out as its coroutine raised it, and not in a group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

__all__ = ["first_of", "gathered"]

Result = TypeVar("Result")


async def gathered(works: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Run all `works` at the same time, and return their results.

    The first error cancels the other coroutines, and is raised alone.
    """
    failed: BaseException | None = None
    tasks: list[asyncio.Task[Result]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(work) for work in works]
    except ExceptionGroup as errors:
        failed = errors
        while isinstance(failed, ExceptionGroup):
            failed = failed.exceptions[0]
    if failed is not None:  # outside of the block, where the group isn't the error's context
        raise failed
    return [task.result() for task in tasks]


async def first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Return, or raise its exception, once the first of `works` has ended; the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
