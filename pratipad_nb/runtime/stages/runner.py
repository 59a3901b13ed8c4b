"""One processor at work: its instance, where it runs, its gate, its timers and its counters.

Owns set-up and tear-down of an instance and what it is called for. That its methods never overlap is seen to by its
worker; what is done with the outcome is for `stage`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pratipad_nb.dataflow import Step
from pratipad_nb.errors import PayloadError, ProcessorError
from pratipad_nb.message import Message
from pratipad_nb.processors import Outcome, adapt
from pratipad_nb.processors.adapter import Adapted, Timer, works_on_loop
from pratipad_nb.processors.async_forms import stops_us
from pratipad_nb.processors.outcome import in_words
from pratipad_nb.runtime.stages.worker import worker_for
from pratipad_nb.runtime.values.logs import ProcessorLog, logging_to
from pratipad_nb.runtime.values.metrics import Meter
from pratipad_nb.transport.codec import encode_payload

__all__ = ["Runner"]

log = logging.getLogger(__name__)

#: A stuck `teardown` or `process` is left behind after so many seconds, and named in the log.
_CLOSE_SECONDS = 5.0
#: The largest state of one instance that is kept.
_STATE_BYTES = 1 << 20


class Runner:
    """One instance of a processor.

    Parameters
    ----------
    step
        Which processor of the flow it is.
    meter, output
        The step's counters and its log; instances of one step share them.
    slice_seconds
        After this long a call hands back what it has done.
    """

    def __init__(
        self, step: Step, meter: Meter, output: ProcessorLog, *, discard: bool, slice_seconds: float
    ) -> None:
        self.step = step
        self.meter = meter
        self.output = output
        self._discard = discard
        self._slice = slice_seconds
        self._worker = worker_for(step.key, on_loop=works_on_loop(step.target))
        self._open_gate = asyncio.Event()
        self._open_gate.set()
        #: Not set while another instance is put in the place of this one.
        self._steady = asyncio.Event()
        self._steady.set()
        self._adapted: Adapted | None = None

    @property
    def adapted(self) -> Adapted:
        """The instance, once `open` has made it."""
        if self._adapted is None:
            raise ProcessorError(f"{self.step.key} is not set up yet.")
        return self._adapted

    @property
    def busy(self) -> bool:
        """Whether the instance is in the midst of a call."""
        return self._worker.busy

    # -- life ---------------------------------------------------------------------------------------------------

    async def open(self, state: bytes | None = None) -> None:
        """Make the instance, set it up, and give it the `state` that an earlier one left.

        Raises
        ------
        ProcessorError
            If making it or `setup` raised; nothing of it is left then.
        """
        try:
            with logging_to(self.output):
                # The instance is made on the thread that it will work on: some things (`sqlite3`) ask for that.
                adapted = await self._worker.call(self._adapt)
                if adapted.on_loop != works_on_loop(self.step.target):  # `__init__` has set another `process`
                    await self._worker.close(_CLOSE_SECONDS)
                    self._worker = worker_for(self.step.key, on_loop=adapted.on_loop)
                await self._hook("setup", adapted.setup)
            self._adapted = adapted
            if state is not None:
                await self.restore(state)
        except BaseException:
            self._adapted = None
            await self._worker.close(_CLOSE_SECONDS)
            raise

    def _adapt(self) -> Adapted:
        return adapt(self.step.target, self.step.arguments, discard=self._discard)

    async def _hook(self, name: str, hook: Callable[..., Any] | None, *arguments: Any) -> Any:
        """Call a hook where the instance lives; a failure of it is the processor's."""
        if hook is None:
            return None
        try:
            return await self._worker.call(hook, *arguments)
        except (Exception, asyncio.CancelledError) as error:
            if stops_us(error):
                raise
            raise ProcessorError(
                f"{self.step.key}: {name} failed with {in_words(error)}. Mend it and run its cell again."
            ) from error

    async def snapshot(self) -> bytes | None:
        """Return the instance's state, to be given to the next one; None if it keeps none.

        Raises
        ------
        ProcessorError
            If `snapshot` raised, or returned what can't be kept: no JSON-like value, or too large a one.
        """
        if self._adapted is None or self._adapted.snapshot is None:
            return None
        with logging_to(self.output):
            state = await self._hook("snapshot", self._adapted.snapshot)
        if state is None:
            return None
        try:
            data = encode_payload(state)
        except PayloadError as error:
            raise ProcessorError(f"{self.step.key}: what snapshot returns can't be kept: {error}") from error
        if len(data) > _STATE_BYTES:
            raise ProcessorError(
                f"{self.step.key}: what snapshot returns has {len(data)} bytes; at most {_STATE_BYTES} are kept, for "
                "it is stored about once a second. Return less, or keep it in a file of your own."
            )
        return data

    async def restore(self, state: bytes) -> None:
        """Give the instance the state that an earlier one left, if it takes any."""
        if self.adapted.restore is not None:
            with logging_to(self.output):
                await self._hook("restore", self.adapted.restore, msgspec.msgpack.decode(state))

    async def inherit(self, before: Runner) -> None:
        """Give the instance the state that another keeps. One that can't tell its state is to be got rid of: it is logged.

        Raises
        ------
        ProcessorError
            If `restore` raises.
        """
        try:
            state = await before.snapshot()
        except ProcessorError as error:
            log.warning("state of %s is not carried over: %s", self.step.key, error)
            return
        if state is not None:
            await self.restore(state)

    async def hand_over_to(self, other: Runner) -> None:
        """Stop between two calls, until `go_on`, and give `other` the state.

        Waits for the call in hand, which `slice_seconds` bounds.

        Raises
        ------
        ProcessorError
            If `other` can't take the state over.
        """
        self._steady.clear()
        # Taking the state waits for the call in hand; where there is none, this does.
        await (other.inherit(self) if self.adapted.has_snapshot else self._worker.call(_nothing))

    def become(self, other: Runner) -> None:
        """Work as `other` does from now on; it is left with the old instance, to be closed."""
        self._adapted, other._adapted = other._adapted, self._adapted
        self._worker, other._worker = other._worker, self._worker
        self.step, other.step = other.step, self.step

    def go_on(self) -> None:
        """Work again, after `hand_over_to`."""
        self._steady.set()

    async def close(self) -> None:
        """Tear the instance down and end its thread; what fails here is logged, for nobody can mend it any more."""
        adapted, self._adapted = self._adapted, None
        try:
            if adapted is not None and adapted.teardown is not None:
                with logging_to(self.output):
                    async with asyncio.timeout(_CLOSE_SECONDS):
                        await self._hook("teardown", adapted.teardown)
        except (ProcessorError, TimeoutError) as error:
            log.warning("%s", error or f"{self.step.key}: teardown took more than {_CLOSE_SECONDS:g} s")
        finally:
            await self._worker.close(_CLOSE_SECONDS)

    def pause(self) -> None:
        """Begin no further message until `resume`; what is at work is finished."""
        self._open_gate.clear()

    def resume(self) -> None:
        """Go on."""
        self._open_gate.set()

    # -- work ---------------------------------------------------------------------------------------------------

    async def run(self, payloads: Sequence[Any], message_of: Callable[[int], Message]) -> Outcome:
        """Process `payloads` until they are done or the time slice is over; waits while paused."""
        await self._open_gate.wait()
        await self._steady.wait()
        adapted = self.adapted
        with logging_to(self.output):
            deadline = time.perf_counter() + self._slice
            outcome: Outcome = await self._worker.call(adapted.run, payloads, message_of, deadline)
        self.meter.record(outcome, adapted.concurrency)
        return outcome

    async def run_backward(self, payload: Any, message: Message) -> Outcome | None:
        """Let `backward` work on one order; None if orders pass this processor unchanged."""
        await self._steady.wait()
        adapted = self.adapted
        if adapted.run_backward is None:
            return None
        deadline = time.perf_counter() + self._slice
        with logging_to(self.output):
            outcome: Outcome = await self._worker.call(
                adapted.run_backward, [payload], lambda _: message, deadline
            )
        self.meter.retried += outcome.retried
        return outcome

    async def tick(self) -> None:
        """Call the methods marked by `every`, each at its period, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for timer in self.adapted.timers:
                group.create_task(self._tick(timer), name=f"{self.step.key}.{timer.name}")

    async def _tick(self, timer: Timer) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + timer.seconds, loop.time())  # a late one isn't made up for
            await asyncio.sleep(due - loop.time())
            try:
                with logging_to(self.output):
                    await self._worker.call(timer.method)
            except (Exception, asyncio.CancelledError) as error:
                if stops_us(error):
                    raise
                self.meter.last_error = f"{timer.name}: {in_words(error)}"
                with logging_to(self.output):
                    log.exception("%s.%s failed", self.step.key, timer.name)


def _nothing() -> None:
    """Do nothing: to know that what was called before is over."""
