"""The portal: an event loop in a thread of its own, for synchronous handles onto asynchronous code.

Owns the thread, its loop, and the tasks that still run on the loop when the portal closes. Knows nothing of
flows or devices. `Device` and `Cloud` use the *shared* portal: one thread for all of them, which ends with
the last lease.

A portal works beside a loop that already runs in the caller's thread, as in a notebook's main thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from types import TracebackType
from typing import Any, Generic, TypeVar

from pratipad_nb.errors import FlowError, Forked, PratipadError, WaitTimeout
from pratipad_nb.forks import forget_in_child, forked_error, watch

__all__ = ["Portal", "PortalClosed", "PortalLease", "shared_portal"]

log = logging.getLogger(__name__)

#: How long a closing portal waits for the end of cancelled tasks, in seconds.
_PATIENCE = 10.0
#: How long an interrupted caller waits for the end of its cancelled work, in seconds.
_GIVING_UP = 5.0

Result = TypeVar("Result")
Made = TypeVar("Made")


class PortalClosed(FlowError):
    """The portal is closed, or was closed while the work went on."""


class _Call(Generic[Result]):
    """Work on the loop, and the `future` that the caller waits for.

    The caller may give the work up at any moment, also before the work has begun; `future` ends in any case.
    """

    def __init__(self, work: Coroutine[Any, Any, Result]) -> None:
        self._work = work
        self.future: Future[Result] = Future()
        self._task: asyncio.Task[Result] | None = None

    def begin(self) -> None:
        """Start the work, on the loop."""
        self._task = asyncio.get_running_loop().create_task(self._work)
        self._task.add_done_callback(self._end)

    def give_up(self) -> None:
        """Cancel the work, on the loop. Scheduled work has begun by then, for the loop keeps the order."""
        if self._task is not None:
            self._task.cancel()
        else:
            self._work.close()
            self._cancelled()

    def _end(self, task: asyncio.Task[Result]) -> None:
        if task.cancelled():
            self._cancelled()
        elif (error := task.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())

    def _cancelled(self) -> None:
        self.future.cancel()
        self.future.set_running_or_notify_cancel()


class Portal:
    """An event loop that runs in a daemon thread of its own until `close`.

    Parameters
    ----------
    name
        The thread's name, as it shows in a debugger.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._closed = False
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=self._serve, args=(started,), name=name, daemon=True)
        self._thread.start()
        self._loop, self._stop = started.result()
        self._forked = ""
        watch(self)

    def _find_forked(self) -> bool:
        # Not the handle itself: a portal's holder, stranded as well, knows its own name.
        self._forked = str(forked_error(f"the portal {self.name!r}"))
        self._lock = threading.Lock()
        return False

    def _check_process(self) -> None:
        if self._forked:
            raise Forked(self._forked)

    def __repr__(self) -> str:
        return f"<Portal {self.name!r}: {'closed' if self._closed else 'open'}>"

    def __enter__(self) -> Portal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def forked(self) -> bool:
        """Whether this process was forked from the portal's process."""
        return bool(self._forked)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop, to be used from other threads by ``call_soon_threadsafe`` alone."""
        return self._loop

    @property
    def inside(self) -> bool:
        """Whether the caller runs in the portal's own thread, where to wait for the portal never ends.

        Raises
        ------
        Forked
            As every method, if this process was forked from the portal's.
        """
        self._check_process()
        return threading.current_thread() is self._thread

    @staticmethod
    def _serve(started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
        async def until_stopped() -> None:
            stop = asyncio.Event()
            started.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()

        # The runner cancels and awaits the tasks left, ends asynchronous generators and closes the loop.
        with asyncio.Runner() as runner:
            running = runner.get_loop().create_task(until_stopped())
            while not running.done():
                try:
                    runner.get_loop().run_until_complete(running)
                except (SystemExit, KeyboardInterrupt):
                    # asyncio lets these two out of `run_until_complete`. All callers' work runs on this loop,
                    # so no task may end it.
                    log.exception("a task on the event loop would end the program; the loop goes on")

    def submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Start `work` on the loop and return a future of its result, from any thread.

        Raises
        ------
        PortalClosed
            If the portal is closed.
        """
        return self._scheduled(work, lambda: asyncio.run_coroutine_threadsafe(work, self._loop))

    def _scheduled(self, work: Coroutine[Any, Any, Any], schedule: Callable[[], Made]) -> Made:
        if self._forked:
            work.close()
            self._check_process()
        with self._lock:  # work that is scheduled before the stop begins before it, so `close` cancels it
            if not self._closed:
                return schedule()
        work.close()
        raise PortalClosed(
            f"the portal {self.name!r} is closed, so it can't run {_name(work)}. Open a new one."
        )

    def run(
        self, work: Coroutine[Any, Any, Result], timeout: float | None = None, *, called: str = ""
    ) -> Result:
        """Run `work` on the loop, wait for it and return its result, from any thread but the portal's own.

        An exception in the waiting thread, `KeyboardInterrupt` above all, cancels `work`, waits for the end
        of `work`, at most five seconds, and goes on. A second exception goes on at once.

        Parameters
        ----------
        timeout
            Seconds to wait; then `work` is cancelled. Default: until the end of `work`.
        called
            The function that the user has called, as ``"flow.send"``, for the text of an error. Default: the
            name of `work`.

        Raises
        ------
        FlowError
            If `run` is called in the portal's own thread.
        PortalClosed
            If the portal is closed, or closes before `work` has ended.
        WaitTimeout
            If `work` has not ended in `timeout` seconds.
        """
        called = called or _name(work)
        try:
            self.check_outside(called)
        except PratipadError:
            work.close()
            raise
        call = _Call(work)
        try:
            self._scheduled(work, lambda: self._loop.call_soon_threadsafe(call.begin))
            return call.future.result(timeout)
        except PortalClosed:
            raise
        except TimeoutError as error:
            if call.future.done():  # raised by the work itself
                raise
            self._give_up(call)
            raise WaitTimeout(f"{called}() took longer than {timeout} s and was cancelled.") from error
        except CancelledError:  # not by this thread: an interrupted wait raises another exception
            raise PortalClosed(
                f"{called}() was cut off before its end: {self.name!r}, whose event loop it ran on, was "
                "closed meanwhile."
            ) from None
        except BaseException:
            if not call.future.done():
                self._give_up(call)
                wait([call.future], _GIVING_UP)  # so that the work has cleaned up
            raise

    def _give_up(self, call: _Call[Any]) -> None:
        with self._lock:
            if not self._closed:  # else `close` cancels all tasks
                self._loop.call_soon_threadsafe(call.give_up)

    def check_outside(self, called: str) -> None:
        """Refuse a wait for the portal in the portal's own thread; `called` is the function that was called.

        Raises
        ------
        FlowError
            If the caller runs in the portal's own thread.
        """
        if self.inside:
            raise FlowError(
                f"{called}() was called on the event loop that has to run it, and would wait there for ever. "
                f"Write `await asyncio.to_thread({called}, …)`, or use the asynchronous twin and await it."
            )

    def close(self) -> None:
        """Cancel the tasks left, wait for their end, end the thread and close the loop. Idempotent.

        In the portal's own thread `close` can't wait for the end of the thread: there it returns at once, and
        the thread ends soon. A task that goes on though it is cancelled is waited for ten seconds; then the
        task is named in a warning and left behind.
        """
        self._check_process()
        with self._lock:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._stop.set)
        if not self.inside:
            self._thread.join(_PATIENCE)
            if self._thread.is_alive():
                stuck = ", ".join(sorted(task.get_name() for task in asyncio.all_tasks(self._loop)))
                log.warning("%s is left behind: cancelling did not end %s", self.name, stuck or "it")


def _name(work: Coroutine[Any, Any, Any]) -> str:
    return str(getattr(work, "__name__", work)).lstrip("_")


class PortalLease:
    """A lease of the process-wide portal; the last lease to be released closes the portal.

    Attributes
    ----------
    portal
        The portal, open until `release`.
    """

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        self._released = False

    def __enter__(self) -> Portal:
        return self.portal

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def released(self) -> bool:
        """Whether the lease was given back."""
        return self._released

    def release(self) -> None:
        """Give the lease back. Idempotent. In a forked child, there is nothing to give back."""
        if self.portal.forked:
            return
        last = False
        with _shared.lock:
            if not self._released:
                self._released = True
                _shared.leases -= 1
                last = _shared.leases == 0
                if last:
                    _shared.portal = None
        if last:
            self.portal.close()


class _Shared:
    """The process-wide portal, and the number of its leases."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.portal: Portal | None = None
        self.leases = 0


_shared = _Shared()
forget_in_child(_shared.__init__)  # type: ignore[misc] # made anew


def shared_portal() -> PortalLease:
    """Return a lease of the process-wide portal, which is opened for the first lease."""
    with _shared.lock:
        if _shared.portal is None:
            _shared.portal = Portal("pratipad-portal")
        _shared.leases += 1
        return PortalLease(_shared.portal)
