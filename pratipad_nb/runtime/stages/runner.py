"""The runner: one instance of a processor at work, with its gate, its timers and its counters.

Owns set-up and tear-down of an instance, the calls of its methods, and putting a new instance in the place of
an instance that was left behind in a call that hangs. The instance's `Worker` makes sure that its methods
never overlap. What becomes of an outcome is for `stage` and `tracks`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pratipad_nb.calls import LeftBehind, TookTooLong, Worker, raised
from pratipad_nb.dataflow import Step
from pratipad_nb.errors import ProcessorError
from pratipad_nb.message import Message
from pratipad_nb.processors import Outcome, adapt, copied
from pratipad_nb.processors.adapter import Adapted, Timer, makes_instances, works_on_loop
from pratipad_nb.processors.outcome import Failure
from pratipad_nb.runtime.stages.states import NotKept, State, taking
from pratipad_nb.runtime.values.logs import ProcessorLog, logging_to
from pratipad_nb.runtime.values.metrics import Meter
from pratipad_nb.wording import in_words

__all__ = ["Bequest", "Runner"]

log = logging.getLogger(__name__)

#: The shortest wait for the call in progress, in seconds, also if the call has lasted too long already.
_GRACE = 0.2
#: Most instances of one processor that are left behind in calls in progress; each instance has a thread.
_MOST_LEFT = 16


class Bequest(NamedTuple):
    """The state that an instance leaves to the next one; or why it leaves none although it may have one."""

    state: State | None
    lost: str = ""


class Runner:
    """One instance of a processor.

    Parameters
    ----------
    step
        The processor's step in the flow.
    meter, output
        The step's counters and its log; instances of one step share them.
    slice_seconds
        After this long a call returns the rows it has finished.
    setup_seconds
        How long each of making an instance, `setup` and `restore` may take.
    hang_seconds
        How long a change, a checkpoint or the end waits for a call, beyond the time slice; a longer call
        hangs.
    """

    def __init__(
        self,
        step: Step,
        meter: Meter,
        output: ProcessorLog,
        *,
        discard: bool,
        slice_seconds: float,
        setup_seconds: float = 60.0,
        hang_seconds: float = 5.0,
    ) -> None:
        self.step = step
        self.meter = meter
        self.output = output
        self._discard = discard
        self._slice = slice_seconds
        self._setup_seconds = setup_seconds
        self._hang_seconds = hang_seconds
        self._worker = Worker(step.key, on_loop=works_on_loop(step.target), patience=hang_seconds)
        self._open_gate = asyncio.Event()
        self._open_gate.set()
        #: Not set while the instance is being replaced.
        self._steady = asyncio.Event()
        self._steady.set()
        self._adapted: Adapted | None = None
        #: The state that `snapshot` last returned, or that `restore` was given, and when that was.
        self._state: State | None = None
        self._state_since = time.monotonic()
        self._renewing = asyncio.Lock()
        #: Why the runner was paused for want of an instance to go on with; empty if there is an instance.
        self._stalled = ""
        #: Whether the next instance is the first of new code: then any number may be left behind.
        self._of_new_code = False
        #: Why every message fails while a change waits for messages in flight; empty if messages don't fail.
        self._refused = ""

    @property
    def adapted(self) -> Adapted:
        """The instance's methods, once `open` has made the instance; before, `ProcessorError` is raised."""
        if self._adapted is None:
            raise ProcessorError(f"{self.step.key} is not set up yet.")
        return self._adapted

    @property
    def busy(self) -> bool:
        """Whether a call of the instance is in progress."""
        return self._worker.busy

    @property
    def hangs(self) -> bool:
        """Whether the call in progress has lasted so long that nothing should wait for it."""
        return self._worker.seconds > self._slice + self._hang_seconds

    @property
    def refuses(self) -> bool:
        """Whether all messages fail until `accept`."""
        return bool(self._refused)

    @property
    def stalled(self) -> bool:
        """Whether the instance was left behind, and there is none to go on with."""
        return bool(self._stalled) and self._worker.left

    @property
    def at_work(self) -> str:
        """The processor's key and for how long its call has been in progress, in words."""
        return self._worker.at_work

    @property
    def last_state(self) -> State | None:
        """The last known state of the instance."""
        return self._state

    @property
    def _patience(self) -> float:
        """How long to wait for the call in progress, which the slice bounds unless the call hangs."""
        return max(_GRACE, self._slice + self._hang_seconds - self._worker.seconds)

    # -- life -----------------------------------------------------------------------------------------------

    async def open(self, state: State | None = None) -> None:
        """Make the instance, set it up, and give it the `state` that an earlier instance left.

        Raises
        ------
        ProcessorError
            If making the instance, `setup` or `restore` raised; nothing of the instance is left then.
        """
        try:
            with logging_to(self.output):
                # The instance is made on the thread that it will work on, as some libraries (`sqlite3`)
                # require.
                adapted = await self._making("__init__", self._adapt)
                if adapted.on_loop != works_on_loop(self.step.target):  # `__init__` has set another `process`
                    await self._worker.close(self._patience)
                    self._worker = Worker(self.step.key, on_loop=adapted.on_loop, patience=self._hang_seconds)
                await self._hook(self._making, "setup", adapted.setup)
            self._adapted = adapted
            if state is not None:
                await self.restore(state)
        except BaseException as error:
            self._adapted = None
            # A stop, which cancels the making of an instance, doesn't wait for the call that the instance
            # hangs in.
            await self._end(_GRACE if isinstance(error, asyncio.CancelledError) else self._patience)
            raise

    def _adapt(self) -> Adapted:
        return adapt(
            self.step.target,
            self.step.arguments,
            discard=self._discard,
            owner=f"processor {self.step.key}",
        )

    async def _hook(
        self, call: Callable[..., Any], name: str, hook: Callable[..., Any] | None, *arguments: Any
    ) -> Any:
        """Call a hook where the instance lives; an exception of the hook becomes a `ProcessorError`."""
        if hook is None:
            return None
        try:
            return await call(name, hook, *arguments)
        except (LeftBehind, NotKept):
            raise
        except Exception as error:
            what = in_words(raised(error))
            raise ProcessorError(
                f"{self.step.key}: {name} failed with {what}. Mend it and run its cell again."
            ) from error

    async def _making(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function`, which makes or sets up the instance; after too long, leave the instance behind."""
        try:
            return await self._bounded(name, self._setup_seconds, function, *arguments)
        except TookTooLong:
            self.leave()
            raise

    async def _patiently(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function` unless the call in progress hangs."""
        return await self._bounded(name, self._patience, function, *arguments)

    async def _bounded(self, name: str, seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function` where the instance lives, waiting `seconds` for its end and that of a call before.

        Raises
        ------
        TookTooLong
            If the call isn't over by then. The call goes on; the caller decides whether to leave the instance
            behind.
        """
        try:
            async with asyncio.timeout(seconds) as scope:
                return await self._worker.call(function, *arguments)
        except TimeoutError as error:
            if not scope.expired():
                raise
            still = f" ({self.at_work})" if self._worker.seconds else ""
            raise TookTooLong(
                f"{self.step.key}: {name} is not over after {seconds:.1f} s{still}. Mend it and run its cell "
                "again."
            ) from error

    async def snapshot(self) -> State | None:
        """Return the instance's state, to be given to the next instance; None if it keeps no state.

        Raises
        ------
        LeftBehind
            If a call of the instance hangs.
        ProcessorError
            If `snapshot` raised, or returned a value that can't be kept.
        """
        adapted, now = self._adapted, time.monotonic()
        if adapted is None or adapted.snapshot is None:
            return None
        take = taking(adapted.snapshot, adapted.partition_by, self._state, now - self._state_since)
        try:
            with logging_to(self.output):
                state: State | None = await self._hook(self._patiently, "snapshot", take)
        except NotKept as error:
            raise ProcessorError(f"{self.step.key}: what snapshot returns can't be kept: {error}") from error
        self._state, self._state_since = state, now
        return state

    async def restore(self, state: State) -> None:
        """Give the instance the state that an earlier instance left, if it has a `restore`."""
        if self.adapted.restore is not None:
            with logging_to(self.output):
                await self._hook(self._making, "restore", self.adapted.restore, state.value)
        self._state, self._state_since = state, time.monotonic()

    async def inherit(self, before: Runner) -> Bequest:
        """Give the instance the state of the runner `before`, and return that state.

        Raises
        ------
        ProcessorError
            If `restore` raises.
        """
        bequest = await before.bequest()
        if bequest.state is not None:
            await self.restore(bequest.state)
        return bequest

    async def bequest(self) -> Bequest:
        """Return the state for the next instance, once the call in progress is over.

        A call that hangs is not waited for: the instance is left behind, and its last known state holds.
        """
        try:
            if self._adapted is not None and not self._adapted.has_snapshot and not self._worker.left:
                await self._patiently("the call in progress", _nothing)
            return Bequest(await self.snapshot())
        except LeftBehind as error:
            if not self._worker.left:
                log.warning("%s The instance is left behind, and its last known state carried over.", error)
                self.leave()
            return Bequest(self._state)
        except ProcessorError as error:
            return Bequest(None, str(error))

    async def known(self) -> Bequest:
        """Return the state as it is now; of an instance that hangs, the last known state."""
        if self.hangs:
            return Bequest(self._state)
        try:
            return Bequest(await self.snapshot())
        except LeftBehind:
            return Bequest(self._state)
        except ProcessorError as error:
            return Bequest(None, str(error))

    async def hand_over_to(self, other: Runner) -> Bequest:
        """Stop between two calls, until `go_on`, and give `other` the state; return the state.

        Waits for the call in progress, which `slice_seconds` bounds. An instance whose call hangs is left
        behind; the messages of the call are for the next instance.

        Raises
        ------
        ProcessorError
            If `other` can't restore the state.
        """
        self._steady.clear()
        return await other.inherit(self)

    def leave(self, *, step: Step | None = None, refused: str = "") -> None:
        """Leave the instance behind in its call; the messages of the call are for the next instance.

        Parameters
        ----------
        step
            The step that the next instance is made of. Default: the same step.
        refused
            If not empty, why all messages fail until `accept`, in place of going to a new instance.
        """
        self._refused = refused
        if step is not None:
            self.step, self._of_new_code = step, True
        if step is not None or refused:
            self._unstall()
        self._worker.leave()
        self.meter.leave(self._worker)

    def accept(self) -> None:
        """Take messages again after `leave` with `refused`."""
        self._refused = ""

    def become(self, other: Runner) -> None:
        """Take the instance of `other` from now on; `other` gets the old instance, and is to be closed."""
        self._adapted, other._adapted = other._adapted, self._adapted
        self._worker, other._worker = other._worker, self._worker
        self.step, other.step = other.step, self.step
        self._state, other._state = other._state, self._state
        self._state_since, other._state_since = other._state_since, self._state_since

    def go_on(self) -> None:
        """Work again after `hand_over_to`."""
        self._steady.set()
        if not self._worker.left:
            self._unstall()

    def _unstall(self) -> None:
        if self._stalled:
            self._stalled = ""
            self._open_gate.set()
            self.meter.state = "running"

    async def close(self) -> None:
        """Tear the instance down and end its thread; a failure is logged, for no call can be made again."""
        adapted, self._adapted = self._adapted, None
        try:
            if adapted is not None and adapted.teardown is not None and not self._worker.left:
                with logging_to(self.output):
                    await self._hook(self._patiently, "teardown", adapted.teardown)
        except ProcessorError as error:
            log.warning("%s", error)
        finally:
            await self._end(self._patience)

    async def _end(self, seconds: float) -> None:
        if not await self._worker.close(seconds):
            self.leave()

    def pause(self) -> None:
        """Begin no further message until `resume`; the call in progress is finished."""
        self._open_gate.clear()

    def resume(self) -> None:
        """Begin messages again after `pause`."""
        self._open_gate.set()

    # -- work -----------------------------------------------------------------------------------------------

    async def run(
        self, payloads: Sequence[Any], message_of: Callable[[int], Message], *, counted: bool = True
    ) -> Outcome:
        """Process `payloads` until they are done or the time slice is over; wait while paused.

        If the instance is left behind in the midst of the call, the next instance begins with the same
        payloads.

        Parameters
        ----------
        counted
            Whether the messages count in the statistics; messages that rebuild a state were counted before.
        """
        while True:
            await self._open_gate.wait()
            await self._steady.wait()
            if self._refused:
                outcome = self._all_refused(payloads)
                self._count(outcome, 1, counted)
                return outcome
            if self._worker.left and not await self._renewed():
                continue
            adapted = self.adapted
            try:
                with logging_to(self.output):
                    deadline = time.perf_counter() + self._slice
                    outcome = await self._outcome(adapted, adapted.run, payloads, message_of, deadline)
            except LeftBehind:
                # The call that was left behind may yet change its payloads.
                payloads = [copied(payload) for payload in payloads]
                continue
            self._count(outcome, adapted.concurrency, counted)
            return outcome

    def _count(self, outcome: Outcome, instances: int, counted: bool) -> None:
        if counted:
            self.meter.record(outcome, instances)

    async def run_backward(self, payload: Any, message: Message) -> Outcome | None:
        """Let `backward` work on one order; return None if orders pass this processor unchanged."""
        while True:
            await self._steady.wait()
            if self._worker.left and not await self._renewed():
                await self._open_gate.wait()
                continue
            adapted = self.adapted
            if adapted.run_backward is None:
                return None
            try:
                with logging_to(self.output):
                    deadline = time.perf_counter() + self._slice
                    outcome = await self._outcome(
                        adapted, adapted.run_backward, [payload], lambda _: message, deadline
                    )
            except LeftBehind:
                payload = copied(payload)  # the call that was left behind may yet change its payload
                continue
            self.meter.retried += outcome.retried
            return outcome

    async def _outcome(self, adapted: Adapted, run: Callable[..., Any], *arguments: Any) -> Outcome:
        """Return the outcome of a call of many rows, or of its finished rows if the call took too long."""
        limit = adapted.limit
        if limit is None:
            outcome: Outcome = await self._worker.call(run, *arguments)
            return outcome
        worker = self._worker
        try:
            outcome = await worker.call(run, *arguments, limit=limit)
        except TookTooLong:
            self.meter.leave(worker)
            if limit.rescued is None:  # an earlier call was late, and this call did not begin
                raise
            outcome, limit.rescued = limit.rescued, None
        finally:
            limit.rescue = None
        return outcome

    def _all_refused(self, payloads: Sequence[Any]) -> Outcome:
        failures = [Failure(row, payload, self._refused, "") for row, payload in enumerate(payloads)]
        return Outcome(len(payloads), [], [], failures)

    async def _renewed(self) -> bool:
        """Put a new instance in the place of the instance that was left behind; return whether there is one.

        Without a new instance the processor is paused, and its `last_error` says why: a new class, or
        `resume`, lets the processor go on.
        """
        async with self._renewing:
            left = self._worker
            if not left.left:
                return True
            if not makes_instances(self.step.target):
                self._stall(
                    f"{self.step.key}: the instance that the notation names is left behind in a call that "
                    "hangs, and there is no other one, so the processor is paused. Name its class, of which "
                    "a new instance can be made, and run its cell again."
                )
                return False
            if self.meter.left_behind >= _MOST_LEFT and not self._of_new_code:
                self._stall(
                    f"{self.step.key}: {self.meter.left_behind} instances are left behind in calls that "
                    "hang, each with its thread, so no further one is made and the processor is paused. Mend "
                    f"it and run its cell again, or call flow[{self.step.key!r}].resume() once they end."
                )
                return False
            fresh = self._sibling()
            try:
                await fresh.open(self._state)
            except ProcessorError as error:
                self._stall(f"{error} The processor is paused until then.")
                return False
            if self._worker is left:
                self.become(fresh)
                self._of_new_code = False
            else:  # a change of the flow was quicker
                await fresh.close()
            return True

    def _sibling(self) -> Runner:
        return Runner(
            self.step,
            self.meter,
            self.output,
            discard=self._discard,
            slice_seconds=self._slice,
            setup_seconds=self._setup_seconds,
            hang_seconds=self._hang_seconds,
        )

    def _stall(self, reason: str) -> None:
        self._stalled = self.meter.last_error = reason
        self._open_gate.clear()
        self.meter.state = "paused"
        log.error("%s", reason)

    async def tick(self) -> None:
        """Call the methods marked by `every`, each at its period, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for place, timer in enumerate(self.adapted.timers):
                group.create_task(self._tick(timer, place), name=f"{self.step.key}.{timer.name}")

    async def _tick(self, timer: Timer, place: int) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + timer.seconds, loop.time())  # a call that was missed isn't made up for
            await asyncio.sleep(due - loop.time())
            if self._adapted is None:  # torn down, and the cancellation of this task is on its way
                return
            if self._worker.left and not await self._renewed():
                continue
            adapted, worker = self.adapted, self._worker
            try:
                with logging_to(self.output):
                    await worker.call(adapted.timers[place].method, limit=adapted.limit)
            except Exception as error:
                if isinstance(error, LeftBehind) and not isinstance(error, TookTooLong):
                    continue  # the next instance has its own timers
                self.meter.leave(worker)
                self.meter.failed_timers += 1
                self.meter.last_error = f"{timer.name}: {in_words(raised(error))}"
                with logging_to(self.output):
                    log.exception("%s.%s failed", self.step.key, timer.name)


def _nothing() -> None:
    """Do nothing: the end of this call shows that the call before is over."""
