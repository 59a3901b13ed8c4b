"""Where the methods of one instance run, one at a time: on a thread of its own, or on the event loop.

Owns that the methods of one instance never overlap, that a caller sees an ordinary exception or none, and
that no caller waits for a call that hangs: the instance is left behind on its thread, or in its task, and is
never called again. Which function is called, and when, is for the stages of a flow and for the device.

Why methods never overlap: `Worker.call` holds `_turn` while its call is in progress. A caller that is
cancelled gives `_turn` up while a ``def`` may still run on the thread. The next ``def`` then waits in the
thread's queue of jobs, and the next ``async def`` waits for the thread first (`_rest`). A coroutine whose
caller is cancelled keeps `_turn` until it has ended, or is left behind; from then on `_check_open` refuses
every call.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import logging
import queue
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from pratipad_nb.calls.call import Call, absorb, awaited, is_async
from pratipad_nb.calls.call_errors import LeftBehind, ordinary, since
from pratipad_nb.calls.time_limit import TimeLimit
from pratipad_nb.errors import PratipadError, ProcessorError

__all__ = ["Worker"]

log = logging.getLogger(__name__)

#: So many seconds a coroutine may go on after it took too long and was cancelled; then it is left behind.
_GRACE = 1.0
#: Frames of files in these folders are left out of the traceback of a user's function that hangs.
_OURS = (str(Path(__file__).parents[1]), str(Path(threading.__file__)))
#: Tasks that were left behind: the event loop keeps weak references alone.
_left_tasks: set[asyncio.Task[Any]] = set()

_Reply = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]"]
_Job = tuple[Callable[[], Any], contextvars.Context, _Reply]


class _Seat:
    """The state that a worker and its thread share.

    The thread has no reference to the worker, so that a worker that nothing else refers to can be collected.
    """

    def __init__(self, owner: str, kind: type[PratipadError]) -> None:
        self.owner = owner
        self.kind = kind
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.began: float | None = None
        self.left = False
        self.gone: concurrent.futures.Future[None] = concurrent.futures.Future()


class Worker:
    """Runs the methods of one instance, one at a time: on a thread of its own, or on the event loop.

    The thread begins with the first call. The thread is a daemon, so that a function that never returns can't
    keep the program from ending. An ``async def`` runs on the event loop in any case, while the thread rests.

    Parameters
    ----------
    name
        The thread's name, after "pratipad-".
    on_loop
        Whether a ``def`` runs on the event loop, too.
    owner
        The instance's name in words, for errors and logs. Default: the processor `name`.
    kind
        The class of errors that replace exceptions no call may end with (`SystemExit` and the like).
    patience
        How many seconds a coroutine may take to end once its call was cancelled; then it is left behind.
    """

    def __init__(
        self,
        name: str,
        *,
        on_loop: bool = False,
        owner: str = "",
        kind: type[PratipadError] = ProcessorError,
        patience: float = 5.0,
    ) -> None:
        self.name = name
        self._patience = patience
        self.on_loop = on_loop
        self._owner = owner or f"processor {name}"
        self._seat = _Seat(self._owner, kind)
        self._thread: threading.Thread | None = None
        self._turn = asyncio.Lock()
        self._call: Call | None = None
        self._began = 0.0
        self._reply: asyncio.Future[Any] | None = None
        self._closed = False

    # -- the call in progress --------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a call is in progress."""
        return self._turn.locked() or self._since is not None

    @property
    def seconds(self) -> float:
        """How long the call in progress has lasted, in seconds; 0.0 without a call."""
        began = self._since
        return 0.0 if began is None else time.monotonic() - began

    @property
    def left(self) -> bool:
        """Whether the instance was left behind."""
        return self._seat.left

    @property
    def hangs(self) -> bool:
        """Whether the instance was left behind and its call goes on."""
        return self._seat.left and self._since is not None

    @property
    def at_work(self) -> str:
        """The owner of the call in progress, and since when the call has lasted, in words."""
        began = self._since
        return self._owner if began is None else f"{self._owner} has been in its call since {since(began)}"

    @property
    def _since(self) -> float | None:
        call = self._call
        if call is not None and call.task is not None and not call.task.done():
            return self._began
        return self._seat.began

    # -- calling ---------------------------------------------------------------------------------------------

    async def call(
        self, function: Callable[..., Any], *arguments: Any, clock: TimeLimit | None = None
    ) -> Any:
        """Run `function` after the call before it, with the caller's context variables; return its result.

        Cancelling `call` cancels a running coroutine. A ``def`` that runs on the thread can't be stopped: it
        finishes there, its result is dropped, and the next call waits until then. A call that is cancelled
        while it waits for its turn is not run.

        Parameters
        ----------
        clock
            Times the calls of the user's function; if a call is late, the instance is left behind.

        Raises
        ------
        LeftBehind
            If the instance was left behind, before the call or in the midst of it.
        PratipadError
            If the worker is closed, or `function` raised an exception that would end more than the call
            (`SystemExit` and the like).
        Exception
            Any other exception that `function` raises.
        """
        async with self._turn:
            self._check_open()
            job = partial(function, *arguments) if arguments else function
            if self.on_loop or is_async(function):
                if self._thread is not None and self._seat.began is not None:
                    # After a cancelled call the thread may still be at work.
                    await self._on_thread(_rest, None)
                return await self._on_loop(job, clock)
            result = await self._on_thread(job, clock)
            # A plain function around an ``async def`` has only begun its work.
            return await self._on_loop(lambda: result, clock) if inspect.isawaitable(result) else result

    def _check_open(self) -> None:
        if self._seat.left:
            raise LeftBehind(f"{self._owner} was left behind in a call that hangs, and is called no more.")
        if self._closed:
            raise self._seat.kind(f"{self._owner} is closed and takes no more calls; start its flow again.")

    async def _on_thread(self, job: Callable[[], Any], clock: TimeLimit | None) -> Any:
        seat = self._seat
        if self._thread is None:
            weakref.finalize(self, seat.jobs.put, None).atexit = False
            self._thread = threading.Thread(
                target=_work, args=(seat,), name=f"pratipad-{self.name}", daemon=True
            )
            self._thread.start()
        call = self._call = Call()
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()
        context.run(call.enter)
        seat.jobs.put((job, context, (loop, reply)))
        return await self._replied(call, reply, clock, 0.0)

    async def _on_loop(self, job: Callable[[], Any], clock: TimeLimit | None) -> Any:
        call = self._call = Call()
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._began = time.monotonic()
        call.task = asyncio.create_task(_run(self._seat, call, job, reply), name=f"call of {self._owner}")
        try:
            return await self._replied(call, reply, clock, _GRACE)
        except asyncio.CancelledError:
            if not call.task.done():
                await self._ended(call.task)
            raise

    async def _replied(
        self, call: Call, reply: asyncio.Future[Any], clock: TimeLimit | None, grace: float
    ) -> Any:
        self._reply = reply
        alarm = None if clock is None else _Alarm(self, reply, clock, grace)
        try:
            return await reply
        except asyncio.CancelledError:
            call.stop()
            raise
        finally:
            self._reply = None
            if alarm is not None:
                alarm.off()

    async def _ended(self, task: asyncio.Task[Any]) -> None:
        """Wait for the end of a cancelled coroutine; leave a coroutine behind that goes on."""
        try:
            await asyncio.wait({task}, timeout=self._patience)
        finally:
            if not task.done():
                log.warning(
                    "%s: its coroutine goes on though it is cancelled, and is left behind", self._owner
                )
                self.leave()

    # -- ends ------------------------------------------------------------------------------------------------

    def leave(self, error: LeftBehind | None = None) -> None:
        """Leave the instance behind in the call in progress, and raise `error` in the call's caller.

        The instance is never called again, and the call's result is dropped.
        """
        if self._seat.left:
            return
        error = error or self.annotated(LeftBehind(f"{self.at_work}, and is left behind."))
        self._seat.left = self._closed = True
        self._seat.jobs.put(None)
        call, reply = self._call, self._reply
        if call is not None:
            call.stop()
            if call.task is not None and not call.task.done():
                _left_tasks.add(call.task)
                call.task.add_done_callback(_left_tasks.discard)
        if reply is not None and not reply.done():
            reply.set_exception(error)

    def annotated(self, error: LeftBehind) -> LeftBehind:
        """Return `error` with a note of where the call hangs, for its traceback."""
        if where := self._where():
            error.add_note(f"The call hangs here:\n{where}")
        return error

    def _where(self) -> str:
        """Return the user's frames of the call in progress, the outermost first."""
        call, thread = self._call, self._thread
        frames: list[tuple[FrameType, int]] = []
        if call is not None and call.task is not None and not call.task.done():
            frames = list(_awaiting(call.task.get_coro()))
        elif thread is not None and self._seat.began is not None:
            # Python has no public way to the frames of another thread.
            frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001
            frames = list(traceback.walk_stack(frame))[::-1] if frame is not None else []
        found = traceback.StackSummary.extract(iter(frames))
        return "".join(traceback.format_list([each for each in found if not each.filename.startswith(_OURS)]))

    async def close(self, timeout: float = 5.0) -> bool:
        """End after the call in progress; return whether that call ended within `timeout` seconds.

        Later calls are refused. A call that doesn't end is named in a warning and left behind: Python can't
        stop a thread. The thread ends when the call returns. Closing twice is harmless.
        """
        self._closed = True
        if self._seat.left:
            return not self.hangs
        thread = self._thread
        # A caller that got past the check of `_closed` has put its job already: this None comes after it.
        self._seat.jobs.put(None)
        try:
            async with asyncio.timeout(timeout), self._turn:
                if thread is not None:
                    await asyncio.shield(asyncio.wrap_future(self._seat.gone))
        except TimeoutError:
            log.warning("%s, and is left behind after %g s of being closed", self.at_work, timeout)
            return False
        if thread is not None:
            thread.join()  # returns at once: the thread has nothing left to do
        return True


class _Alarm:
    """Leaves a worker's instance behind when its clock says that its call is late."""

    def __init__(self, worker: Worker, reply: asyncio.Future[Any], clock: TimeLimit, grace: float) -> None:
        self._worker = worker
        self._reply = reply
        self._clock = clock
        self._grace = grace
        self._timer = reply.get_loop().call_later(clock.seconds + grace, self._ring)

    def off(self) -> None:
        self._timer.cancel()

    def _ring(self) -> None:
        if self._reply.done():
            return
        error = self._worker.annotated(self._clock.late())
        if self._clock.expire(error, self._grace):
            self._worker.leave(error)
            return
        again = max(0.001, self._clock.left(self._grace))
        self._timer = self._reply.get_loop().call_later(again, self._ring)


def _awaiting(coroutine: Any) -> Iterator[tuple[FrameType, int]]:
    """Yield the frames of a coroutine that waits, and of the coroutines that it awaits."""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None:
            yield frame, frame.f_lineno
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)


def _rest() -> None:
    """Do nothing; when this job returns, the thread has finished all jobs before it."""


async def _run(seat: _Seat, call: Call, job: Callable[[], Any], reply: asyncio.Future[Any]) -> None:
    """Run `job` on the event loop, in a task of its own, and give its result or error to `reply`."""
    call.enter()
    result, error = None, None
    try:
        result = job()
        if inspect.isawaitable(result):
            result = await awaited(result)
    except BaseException as raised:  # noqa: BLE001 - `absorb` raises a stop of the call
        await absorb(raised)
        error = ordinary(seat.owner, seat.kind, raised)
    _resolve(reply, result, error)


def _work(seat: _Seat) -> None:
    """Do jobs until a job is None: the target of a worker's thread."""
    while (job := seat.jobs.get()) is not None and not seat.left:
        seat.began = time.monotonic()
        _do(seat, *job)
        del job  # a waiting thread should hold no reference to the last job
    seat.gone.set_result(None)


def _do(seat: _Seat, function: Callable[[], Any], context: contextvars.Context, reply: _Reply) -> None:
    loop, future = reply
    error: Exception | None = None
    result = None
    try:
        result = context.run(function)
    except BaseException as raised:  # noqa: BLE001 - the caller gets an exception that a future can carry
        error = ordinary(seat.owner, seat.kind, raised)
    seat.began = None
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: no caller waits any more
        loop.call_soon_threadsafe(_resolve, future, result, error)
    del error  # else the error, whose traceback holds this frame, would be held by the frame in a cycle


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled, or left behind
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
