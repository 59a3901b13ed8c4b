"""A worker: one daemon thread that runs a user's blocking functions, one at a time and in order.

Owns the thread. Not `concurrent.futures`, whose threads the interpreter waits for at its end: a `read` that blocks on
a silent sensor must not keep a program from ending.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["Worker"]

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Worker:
    """Runs functions on a thread of its own, which starts with the first one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended: Future[None] = Future()

    async def call(self, function: Callable[[], Result]) -> Result:
        """Run `function` on the thread and return its result.

        Cancelling doesn't stop a function that runs already; its result is dropped.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
            self._thread.start()
        future: Future[Result] = Future()
        self._jobs.put((future, function))
        return await asyncio.wrap_future(future)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - whatever it is goes to who called
                future.set_exception(error)
            else:
                future.set_result(result)
            del job, future, function
        self._ended.set_result(None)

    async def close(self, patience: float) -> None:
        """End the thread, waiting at most `patience` seconds for the function that runs."""
        if self._thread is None:
            return
        self._jobs.put(None)
        done, _ = await asyncio.wait([asyncio.wrap_future(self._ended)], timeout=patience)
        if done:
            self._thread.join()
        else:
            log.warning(
                "%s: its function has not returned in %s s and is left to itself", self.name, patience
            )
