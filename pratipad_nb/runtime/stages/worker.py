"""Where a processor's methods run: a thread of its own (`Worker`) or the event loop (`LoopWorker`).

Owns that all methods of one instance run there and never overlap, and that nothing hangs or is left when it is closed.
Both have the same `call`, which takes either kind of ``def``, so that its user needn't know which it has. What is
called, and when, belongs to the stages.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import logging
import queue
import threading
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from pratipad_nb.errors import ProcessorError
from pratipad_nb.processors.outcome import in_words

__all__ = ["LoopWorker", "Worker", "worker_for"]

log = logging.getLogger(__name__)

_Reply = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]"]
_Job = tuple[Callable[[], Any], contextvars.Context, _Reply]


def worker_for(name: str, *, on_loop: bool) -> Worker | LoopWorker:
    """Return the worker for a processor: on the loop for ``async def``, else a thread of its own."""
    return LoopWorker(name) if on_loop else Worker(name)


class LoopWorker:
    """Runs the methods of an ``async def`` processor on the running event loop, one at a time, the ``def`` ones too.

    Parameters
    ----------
    name
        Name of the processor, for errors and logs.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._turn = asyncio.Lock()
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a call is in hand."""
        return self._turn.locked()

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run `function` when the call before it is over, and return its result.

        Cancelling it cancels the coroutine that is running.

        Raises
        ------
        ProcessorError
            If the worker is closed, or `function` raised what would end the program (`SystemExit` and the like).
        Exception
            Whatever `function` raises.
        """
        async with self._turn:
            if self._closed:
                raise _closed(self.name)
            return await _run_here(self.name, function, arguments)

    async def close(self, timeout: float = 5.0) -> bool:
        """Wait for the running call to end; return whether it did within `timeout` seconds. Later calls are refused."""
        self._closed = True
        try:
            async with asyncio.timeout(timeout), self._turn:
                return True
        except TimeoutError:
            log.warning("processor %s did not finish within %g s of being closed", self.name, timeout)
            return False


class Worker:
    """Runs the methods of a ``def`` processor on a thread of its own, one at a time, in the order of the calls.

    The thread begins with the first call. It is a daemon, so that a processor that never returns can't keep the
    program from ending. ``async def`` methods (of a processor whose `process` is a ``def``) run on the event loop,
    while the thread rests.

    Parameters
    ----------
    name
        Name of the processor; the thread is called so, with "pratipad-" before it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._gone: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._turn = asyncio.Lock()
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a call is in hand."""
        return self._turn.locked()

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run `function` on the thread, with the caller's context variables, and return its result.

        A call that is cancelled while it runs can't be stopped: it finishes on the thread, its result is dropped,
        and the next call waits until then. One that is cancelled while it waits for its turn is not run.

        Raises
        ------
        ProcessorError
            If the worker is closed, or `function` raised what would end the program (`SystemExit` and the like).
        Exception
            Whatever `function` raises.
        """
        async with self._turn:
            if self._closed:
                raise _closed(self.name)
            if _is_async(function):
                await self._hop(_rest)  # after a cancelled call the thread may still be at work
                return await _run_here(self.name, function, arguments)
            result = await self._hop(partial(function, *arguments) if arguments else function)
            # A plain function around an ``async def`` has only begun its work.
            return await _awaited(self.name, result) if inspect.isawaitable(result) else result

    async def _hop(self, job: Callable[[], Any]) -> Any:
        if self._thread is None:
            # The thread gets no reference to the worker, so that one which is forgotten, not closed, ends it as well.
            weakref.finalize(self, self._jobs.put, None).atexit = False
            self._thread = threading.Thread(
                target=_work,
                args=(self._jobs, self.name, self._gone),
                name=f"pratipad-{self.name}",
                daemon=True,
            )
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._jobs.put((job, contextvars.copy_context(), (loop, future)))
        return await future

    async def close(self, timeout: float = 5.0) -> bool:
        """End the thread after the call in hand; return whether it ended within `timeout` seconds.

        Later calls are refused. A thread that is stuck in a processor is named in a warning and left: Python can't
        stop it. It ends when the processor returns. Closing twice is harmless.
        """
        self._closed = True
        thread = self._thread
        if thread is None:
            return True
        # Whoever got past the check of `_closed` has put his job already, so that this comes after it.
        self._jobs.put(None)
        try:
            async with asyncio.timeout(timeout), self._turn:
                await asyncio.shield(asyncio.wrap_future(self._gone))
        except TimeoutError:
            log.warning(
                "thread %s is still in its processor after %g s; it is left behind", thread.name, timeout
            )
            return False
        thread.join()  # all that is left for it to do is to end
        return True


def _closed(name: str) -> ProcessorError:
    return ProcessorError(f"processor {name} is closed and takes no more calls; start its flow again.")


def _rest() -> None:
    """Do nothing: to know that the thread has come so far."""


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function)


async def _run_here(name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        result = function(*arguments)
    except (KeyboardInterrupt, SystemExit) as error:
        raise _not_ours_to_end(name, error) from error
    return await _awaited(name, result) if inspect.isawaitable(result) else result


async def _awaited(name: str, result: Awaitable[Any]) -> Any:
    try:
        return await result
    except (KeyboardInterrupt, SystemExit) as error:
        raise _not_ours_to_end(name, error) from error


def _not_ours_to_end(name: str, error: BaseException) -> ProcessorError:
    return ProcessorError(
        f"processor {name} raised {in_words(error)}, which would end the whole program. Raise an ordinary exception; "
        "to stop its flow, call `request_stop()`."
    )


def _work(jobs: queue.SimpleQueue[_Job | None], name: str, gone: concurrent.futures.Future[None]) -> None:
    """Do the jobs, until there comes ``None``: the life of a worker's thread."""
    while (job := jobs.get()) is not None:
        _do(name, *job)
        del job  # while it waits for the next one, the thread should hold nothing of this one
    gone.set_result(None)


def _do(name: str, function: Callable[[], Any], context: contextvars.Context, reply: _Reply) -> None:
    loop, future = reply
    error: Exception | None = None
    result = None
    try:
        result = context.run(function)
    except StopIteration as raised:  # which no future takes
        error = RuntimeError(f"processor {name} raised StopIteration")
        error.__cause__ = raised
    except Exception as raised:  # noqa: BLE001 - it is the caller's
        error = raised
    except BaseException as raised:  # noqa: BLE001 - on the loop it would end the loop
        error = _not_ours_to_end(name, raised)
        error.__cause__ = raised
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
        loop.call_soon_threadsafe(_resolve, future, result, error)
    del error  # it holds this frame, which would hold it


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
