"""The cockpit: what can be seen of a flow while it runs, and changed. The asynchronous methods.

Owns these methods of `AsyncFlow`, which are a part of it and stand here because there are many; the synchronous ones are
in `cockpit_blocking`, where they are described. What they stand on is in `step`, `tape`, `shadow` and `views`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from pratipad_nb.dataflow import Dataflow, resolve
from pratipad_nb.dataflow import Step as StepModel
from pratipad_nb.errors import FlowError, SettingsError
from pratipad_nb.message import Message
from pratipad_nb.notation import NotationError
from pratipad_nb.runtime.edge import Edge
from pratipad_nb.runtime.history import FlowHistory, History
from pratipad_nb.runtime.line import Line
from pratipad_nb.runtime.plan import EdgeSettings
from pratipad_nb.runtime.replaying import Entry, replay
from pratipad_nb.runtime.samples import KEPT
from pratipad_nb.runtime.stats import FlowStats
from pratipad_nb.session.callers import callers_namespace
from pratipad_nb.session.shadow import Shadow, compare
from pratipad_nb.session.step import AsyncStep, Trace, trace
from pratipad_nb.session.tape import MAX_BYTES, Recorder, Tape

__all__ = ["AsyncCockpit", "checked_demand", "checked_rate", "checked_speed"]

Result = TypeVar("Result")

#: A row of the history may take this share of the time: with thousands of devices a snapshot takes milliseconds.
_HISTORY_SHARE = 0.005


class AsyncCockpit:
    """The part of `AsyncFlow` that looks at what runs and changes it."""

    settings: EdgeSettings
    dataflow: Dataflow
    _edge: Any
    _reporter: Any
    _running: asyncio.Task[None] | None

    if TYPE_CHECKING:

        @property
        def name(self) -> str:
            """Its name."""

        def stats(self) -> FlowStats:
            """Return a snapshot of all counters."""

    def __init__(self) -> None:
        self._history = History()
        self._last_lines: list[Line] = []

    # -- what is behind it --------------------------------------------------------------------------------------

    @property
    def edges(self) -> list[Edge]:
        """The running edges: one, or one for each partition that runs in this process; none of a stopped flow."""
        if self._edge is None:
            return []
        return [self._edge] if isinstance(self._edge, Edge) else list(self._edge.edges.values())

    @property
    def lines(self) -> list[Line]:
        """The processors of each edge, with their samples and logs; of a stopped flow, the last ones."""
        return [edge.line for edge in self.edges] or self._last_lines

    async def _keep_history(self) -> None:
        """Add to the history, once a second, until cancelled."""
        while True:
            began = time.perf_counter()
            if self._reporter is not None:
                self._history.add(self._reporter.snapshot())
                self._last_lines = self.lines
            took = time.perf_counter() - began
            await asyncio.sleep(max(1.0 - took, took / _HISTORY_SHARE))

    def _running_edges(self) -> list[Edge]:
        if self._edge is None:
            raise FlowError(f"flow {self.settings.name!r} is not running. Start it with start().")
        return self.edges

    # -- looking ------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> AsyncStep:
        """Return the processor of that key."""
        return AsyncStep(self, key)

    def __contains__(self, key: object) -> bool:
        """Whether there is a processor of that key."""
        return any(step.key == key for step in self.dataflow.steps)

    @property
    def history(self) -> FlowHistory:
        """Its main numbers, once a second, over the last hour."""
        return self._history.read()

    def trace(self, message: Message | str) -> Trace:
        """Return what each processor made of a message."""
        return trace(self, message)

    def newer(self, namespace: Mapping[str, Any] | None = None) -> tuple[StepModel, ...]:
        """Return the processors that are defined anew and not swapped in; their statistics say so from now on."""
        names = callers_namespace(1) if namespace is None else namespace
        try:
            fresh = resolve(self.dataflow.notation, names)
        except NotationError:  # a name is gone: there is nothing newer than what runs
            return ()
        changed = self.dataflow.diff(fresh).changed
        for line in self.lines:
            for key, meter in line.meters.items():
                meter.newer = key in changed
        return tuple(step for step in fresh.steps if step.key in changed)

    # -- controls -----------------------------------------------------------------------------------------------

    @property
    def rate(self) -> float | None:
        """Most messages a second that devices are asked for; None: no limit. Acts at once."""
        return self.settings.rate

    @rate.setter
    def rate(self, value: float | None) -> None:
        self.settings = replace(self.settings, rate=checked_rate(value))
        if self._edge is not None:
            self._edge.limit.set(self.settings.rate)

    @property
    def max_demand(self) -> int:
        """Demand: most messages in hand or asked for. Acts at once."""
        return self.settings.max_demand

    @max_demand.setter
    def max_demand(self, value: int) -> None:
        self._demand(value, min(self.settings.min_demand, value // 2) if isinstance(value, int) else 0)

    @property
    def min_demand(self) -> int:
        """Demand: ask for more when no more than this are in hand or asked for. Acts at once."""
        return self.settings.min_demand

    @min_demand.setter
    def min_demand(self, value: int) -> None:
        self._demand(self.settings.max_demand, value)

    def _demand(self, most: int, least: int) -> None:
        checked_demand(most, least)
        self.settings = replace(self.settings, max_demand=most, min_demand=least)
        edges = self.edges
        for edge in edges:
            edge.ledger.max_demand = max(1, most // len(edges))
            edge.ledger.min_demand = min(edge.ledger.max_demand - 1, least // len(edges))
            edge.ledger.settle()

    # -- tapes --------------------------------------------------------------------------------------------------

    async def record(
        self, n: int | None = None, seconds: float | None = None, *, max_bytes: int = MAX_BYTES
    ) -> Tape:
        """Record the next inputs."""
        _check_record(n, seconds, max_bytes)
        edges = self._running_edges()
        recorder = Recorder(self.settings.name, n, max_bytes)
        for edge in edges:
            edge.gate.taps.append(recorder)
        try:
            full = await self._unless_stopped(recorder.full.wait(), seconds)
        finally:
            for edge in edges:
                edge.gate.taps.remove(recorder)
        if full is not None:
            return recorder.tape()
        if self._edge is None or self._edge.state not in ("running", "paused"):
            return recorder.tape("the flow stopped")
        return recorder.tape(
            f"only {len(recorder)} of {n} had come after {seconds:g} s" if n is not None else ""
        )

    async def replay(self, tape: Tape, speed: float | str | None = 1.0) -> int:
        """Put a tape through the flow; returns how many messages, once all are taken in."""
        pace = checked_speed(speed)
        edges = self._running_edges()
        elsewhere = [name for name in tape.devices if not any(_owns(edge, name) for edge in edges)]
        if elsewhere:
            raise FlowError(
                f"devices of this tape are worked on by another edge of flow {self.settings.name!r}: "
                f"{', '.join(elsewhere[:5])}. Replay it in a flow that runs in one place."
            )
        count = await self._unless_stopped(_replay(edges, tape, pace), None)
        if count is None:
            raise FlowError(f"flow {self.settings.name!r} stopped before the whole tape was in.")
        return count

    async def _unless_stopped(
        self, work: Coroutine[Any, Any, Result], seconds: float | None
    ) -> Result | None:
        """Return the result of `work`, or None if the flow stops, or `seconds` pass, before there is one."""
        task = asyncio.ensure_future(work)
        awaited = {task} if self._running is None else {task, self._running}
        try:
            await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def shadow(
        self,
        tape: Tape | None = None,
        namespace: Mapping[str, Any] | None = None,
        *,
        notation: str | None = None,
    ) -> Shadow:
        """Return the outputs that would differ if what is defined now ran."""
        names = callers_namespace(1) if namespace is None else namespace
        new = resolve(notation or self.dataflow.notation, names)
        return await asyncio.to_thread(compare, self.dataflow, new, self.entries(tape), self.settings.options)

    def entries(self, tape: Tape | None) -> list[Entry]:
        """Return the inputs on `tape`, or the last ones that were followed."""
        if tape is not None:
            return list(tape.entries())
        first = self.dataflow.stages[0].steps[0].key
        return [
            (s.message.device, s.message.time, s.message.received, s.inputs[0])
            for s in self[first].samples(KEPT)
        ]


def _owns(edge: Edge, device: str) -> bool:
    # Who speaks through a gateway belongs where that does.
    return edge.settings.owns(device.partition(".")[0])


def _part(tape: Tape, edge: Edge) -> Iterator[Entry]:
    return (entry for entry in tape.entries() if _owns(edge, entry[0]))


async def _replay(edges: list[Edge], tape: Tape, pace: float | None) -> int:
    """Put a tape through, each device's messages where its partition runs."""
    if len(edges) == 1:
        return await replay(edges[0], tape.entries(), pace)
    first = next((received for _, _, received, _ in tape.entries()), None)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(replay(edge, _part(tape, edge), pace, first=first)) for edge in edges]
    except ExceptionGroup as errors:  # not `except*`: see `Uplink`
        failed = errors.subgroup(FlowError)
        if failed is None:
            raise
        raise failed.exceptions[0] from None
    return sum(task.result() for task in tasks)


def _check_record(n: int | None, seconds: float | None, max_bytes: int) -> None:
    if n is None and seconds is None:
        raise SettingsError("record() needs n=… (messages), seconds=…, or both: then it ends with the first.")
    for name, value in (("n", n), ("seconds", seconds), ("max_bytes", max_bytes)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0
        ):
            raise SettingsError(f"record({name}={value!r}): {name} is a number above 0.")


def checked_speed(value: float | str | None) -> float | None:
    """Return `value` if it is a pace: a number above 0, or None, also called "max"."""
    if value is None or value == "max":
        return None
    if isinstance(value, (str, bool)) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise SettingsError(
            f"speed is {value!r}; it is 1.0 for the tape's own pace, 2.0 for twice as fast, or 'max' (or None) for as "
            "fast as the processors take it."
        )
    return float(value)


def checked_rate(value: float | None) -> float | None:
    """Return `value` if it is a rate, else raise `SettingsError`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise SettingsError(
            f"rate is {value!r}; it is messages a second, a number above 0, or None for no limit."
        )
    return float(value)


def checked_demand(most: int, least: int | None) -> dict[str, int]:
    """Return both bounds if they are good, `least` being half of `most` unless it is given."""
    least = most // 2 if least is None and isinstance(most, int) else least
    if not isinstance(most, int) or not isinstance(least, int) or not 0 <= least < most:
        raise SettingsError(
            f"max_demand={most!r}, min_demand={least!r}: whole numbers with 0 <= min_demand < max_demand."
        )
    return {"max_demand": most, "min_demand": least}
