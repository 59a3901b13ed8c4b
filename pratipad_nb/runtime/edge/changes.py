"""Changes to a run: one at a time, in place or by draining, and each in whole or not at all.

Owns the choice between the two, and the change that drains. Exchanging processors in their places is in
`swap`.

A change that drains keeps this order, so that no message is lost or passes twice: the pump stops; every
message in flight passes the old processors and is stored; the old pipeline ends; the old processors' state
goes to the new ones, and a checkpoint is stored where a state is kept; the new pipeline begins. Deliveries
that were not admitted stay in the gate, and the new pipeline begins with these. So at the moment of the
exchange no message is in flight, and a message passes either the old line or the new one as a whole. After a
crash, too: a state is rebuilt of no message from before the checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pratipad_nb.dataflow import Dataflow, Difference
from pratipad_nb.errors import FlowError, ProcessorError
from pratipad_nb.runtime.edge.controls import Controls
from pratipad_nb.runtime.edge.shape import Shape
from pratipad_nb.runtime.edge.status import Status
from pratipad_nb.runtime.edge.swap import Proof, SwapReceipt, swap_in_place
from pratipad_nb.runtime.edge.timers import Timers
from pratipad_nb.runtime.edge.upkeep import Upkeep
from pratipad_nb.runtime.stages.line import Line

__all__ = ["Change", "Changes"]

#: Seconds between two looks whether an instance hangs that has messages in flight to finish.
_LOOK = 0.5


@dataclass(slots=True)
class Change:
    """A change that is prepared: the new line, set up, and the difference from the line that runs.

    `begun`: the change is being carried out.
    """

    line: Line
    difference: Difference
    begun: bool = False


@dataclass(slots=True)
class _Pending:
    """A change that waits until the messages in flight are stored; `in_flight` counts them at its start."""

    line: Line
    difference: Difference
    in_flight: int
    began: float = field(default_factory=time.monotonic)
    receipt: asyncio.Future[SwapReceipt] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Changes:
    """Changes the line of processors of one run, and the pipeline through the line.

    Parameters
    ----------
    proof
        Counts messages in flight, lost and doubled, for the receipt.
    upkeep
        Makes the checkpoint that the states of a new line begin with.
    on_mode
        Called with the new input where a change brings another.
    on_way_back
        Called where a change brings the first way back to devices.
    """

    def __init__(
        self,
        status: Status,
        shape: Shape,
        controls: Controls,
        timers: Timers,
        proof: Proof,
        upkeep: Upkeep,
        on_mode: Callable[[Literal["Push", "Pull", "Demand"]], None],
        on_way_back: Callable[[], None],
    ) -> None:
        self._status = status
        self._shape = shape
        self._controls = controls
        self._timers = timers
        self._proof = proof
        self._upkeep = upkeep
        self._on_mode = on_mode
        self._on_way_back = on_way_back
        self._turn = asyncio.Lock()
        self._pending: _Pending | None = None

    async def swap(self, dataflow: Dataflow) -> SwapReceipt | None:
        """Change the run to `dataflow` and return the receipt; None if nothing differs; see `prepared`."""
        async with self.prepared(dataflow) as change:
            return await self.carry_out(change) if change is not None else None

    @contextlib.asynccontextmanager
    async def prepared(self, dataflow: Dataflow) -> AsyncIterator[Change | None]:
        """Set up the processors of a change to `dataflow`; None if nothing differs.

        No other change is made while the context lasts. The line that runs is not touched before `carry_out`.
        A change that isn't carried out is torn down when the context ends.

        Raises
        ------
        ProcessorError
            If a new processor can't be set up, or the state of a processor can't follow to another number of
            instances.
        FlowError
            If the flow isn't running.
        """
        async with self._turn:
            self._status.check_takes("can't be changed")
            running = self._shape.line
            difference = running.dataflow.diff(dataflow)
            if str(running.dataflow.tree) == str(dataflow.tree) and not difference.changed:
                yield None
                return
            change = Change(await running.prepare(dataflow, difference.kept), difference)
            try:
                yield change
            finally:
                if not change.begun:
                    await change.line.close_all_but(running)

    async def carry_out(self, change: Change) -> SwapReceipt:
        """Put a prepared change into effect and return its receipt.

        Where the shape of the flow stays, each changed processor is exchanged between two of its calls (see
        `swap`). Else the pump pauses, messages in flight pass the old processors and are stored, state is
        carried over, and the new processors go on.

        Raises
        ------
        ProcessorError
            If a new processor can't take the state over; the old processors go on then.
        FlowError
            If the flow ends before the change is made.
        """
        change.begun = True
        running, line = self._shape.line, change.line
        old, new = running.dataflow, line.dataflow
        if line.shape == running.shape and new.hops == old.hops and new.input == old.input:
            return await swap_in_place(
                running, line, change.difference, self._timers, self._proof, self._upkeep
            )
        return await self._drained(line, change.difference)

    async def _drained(self, line: Line, difference: Difference) -> SwapReceipt:
        running = self._shape.line
        resting = (
            None
            if self._status.state == "paused"
            # New code takes a processor up that was paused for want of an instance.
            else [k for k in running.paused if not (k in difference.changed and running.stalled(k))]
        )
        pending = self._pending = _Pending(line, difference, self._proof.in_flight)
        running.resume()
        self._shape.pipeline.drain(leaving=True)
        try:
            receipt = await self._receipt(pending)
        except ProcessorError:
            self._rest_again(resting)
            raise
        self._rest_again(resting)
        return receipt

    @property
    def revocable(self) -> bool:
        """Whether the change that is being made can be given up, so that the old line goes on."""
        return self._pending is None

    async def _receipt(self, pending: _Pending) -> SwapReceipt:
        """Wait until the change is carried out; leave instances behind that hang with messages in flight."""
        try:
            while not pending.receipt.done():
                await asyncio.wait({pending.receipt}, timeout=_LOOK)
                if not pending.receipt.done() and self._pending is pending:
                    self._shape.line.leave_hanging(pending.line, pending.difference.changed)
        except asyncio.CancelledError:  # the caller wants no receipt any more
            pending.receipt.cancel()
            raise
        return pending.receipt.result()

    def _rest_again(self, keys: Sequence[str] | None) -> None:
        """Pause the processors `keys`, or the run (None), which a change had to resume, again."""
        if keys is None:
            self._controls.pause()
        for key in keys or ():
            if key in self._shape.line.meters:
                self._shape.line.pause(key)

    async def carried_out(self) -> bool:
        """Carry out the change that waited for the pipeline to end; return whether a change waited.

        If a new processor can't take the state over, the old line goes on, and the change fails.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return False
        try:
            receipt = await self._carry_out(pending)
        except ProcessorError as error:
            await self._go_back(pending, error)
            return True
        except BaseException:
            self._give_up(pending)
            raise
        if not pending.receipt.done():  # the caller may have been cancelled
            pending.receipt.set_result(receipt)
        return True

    async def _carry_out(self, pending: _Pending) -> SwapReceipt:
        old, line, difference = self._shape.line, pending.line, pending.difference
        kept = old.shared_with(line)
        line.accept()
        self._timers.stop(key for key in old.meters if key not in kept)
        states = await old.carry_over(line)
        self._go_on_with(line)  # before the old processors are torn down: orders may pass at any moment
        try:
            await self._upkeep.checkpoint(line)
        finally:
            await old.close_all_but(line)
        lost, doubled = self._proof.difference()
        return SwapReceipt(
            difference.added,
            difference.removed,
            difference.changed,
            difference.kept,
            pending.in_flight,
            time.monotonic() - pending.began,
            lost=lost,
            doubled=doubled,
            states=states,
        )

    async def _go_back(self, pending: _Pending, error: ProcessorError) -> None:
        """Go on with the line that runs, since the new line can't; its caller gets the `error`."""
        old = self._shape.line
        old.accept()
        await pending.line.close_all_but(old)
        self._go_on_with(old)
        if not pending.receipt.done():
            pending.receipt.set_exception(error)

    def _go_on_with(self, line: Line) -> None:
        """Put `line` in the place of a line that has ended; no message is in flight at this moment."""
        before = self._shape.line.dataflow
        self._shape.replace(line)
        if line.dataflow.input != before.input:
            self._on_mode(line.dataflow.input)
        if line.dataflow.reaches_devices and not before.reaches_devices:
            self._on_way_back()
        if self._status.state == "draining":  # `drain` was called while the change was under way
            self._shape.pipeline.drain()
        else:
            self._status.state = "running"
        line.set_state(self._status.state)
        self._timers.restart(key for key in line.meters if key not in self._timers)

    async def close(self) -> None:
        """Give up a change that can't be made any more, since the run has ended."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        old = self._shape.line
        self._shape.replace(pending.line)
        with contextlib.suppress(ProcessorError):  # the line never runs, and so needs no state
            await old.carry_over(pending.line)
        await old.close_all_but(pending.line)
        self._give_up(pending)

    def _give_up(self, pending: _Pending) -> None:
        if not pending.receipt.done():
            pending.receipt.set_exception(
                FlowError(f"flow {self._status.name!r} has ended before it could be changed. Start it anew.")
            )
