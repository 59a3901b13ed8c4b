"""The cockpit: the methods of `AsyncFlow` that look at a running flow and change it.

Owns these methods, a part of `AsyncFlow` in a module of its own because they are many. The synchronous
methods are in `cockpit_blocking`, with the descriptions. Their results are made in `step`, `tape`, `shadow`
and `views`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pratipad_nb.dataflow import Dataflow, graph, resolve
from pratipad_nb.dataflow import Step as StepModel
from pratipad_nb.errors import FlowError
from pratipad_nb.message import Message
from pratipad_nb.notation import NotationError
from pratipad_nb.runtime.edge.running import Running
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.history import FlowHistory, History
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.runtime.values.stats import FlowStats
from pratipad_nb.runtime.values.stats_tables import DeviceTable
from pratipad_nb.session.callers import names_for
from pratipad_nb.session.checks import checked_demand, checked_rate, checked_record, checked_speed
from pratipad_nb.session.ends import unless_ended
from pratipad_nb.session.inspection.shadow import Shadow, shadow_of
from pratipad_nb.session.inspection.step import AsyncStep, Trace, trace
from pratipad_nb.session.inspection.tape import MAX_BYTES, Recorder, Tape, checked_tape
from pratipad_nb.session.letters import LetterList
from pratipad_nb.session.views import view

__all__ = ["AsyncCockpit"]

#: Rows of the history may take this fraction of the time: with thousands of devices a snapshot takes
#: milliseconds.
_HISTORY_SHARE = 0.005


class AsyncCockpit:
    """The part of `AsyncFlow` that looks at the running flow and changes it."""

    settings: EdgeSettings
    dataflow: Dataflow
    _edge: Running | None
    _running: asyncio.Task[None] | None

    if TYPE_CHECKING:

        @property
        def name(self) -> str:
            """The flow's name."""

        @property
        def edge(self) -> Running:
            """The running edge."""

        def stats(self) -> FlowStats:
            """Return a snapshot of all counters."""

    def __init__(self) -> None:
        self._history = History()
        self._last_lines: list[Line] = []

    # -- lines and history -----------------------------------------------------------------------------------

    @property
    def lines(self) -> list[Line]:
        """The lines of processors, with their samples and logs; of a stopped flow, those of the last run."""
        return (self._edge.lines if self._edge is not None else []) or self._last_lines

    async def _keep_history(self) -> None:
        """Add a row to the history, once a second, until cancelled."""
        while True:
            began = time.perf_counter()
            if self._edge is not None:
                self._history.add(self._edge.snapshot())
                self._last_lines = self.lines
            took = time.perf_counter() - began
            await asyncio.sleep(max(1.0 - took, took / _HISTORY_SHARE))

    # -- looking ---------------------------------------------------------------------------------------------

    @property
    def graph(self) -> Any:
        """A `networkx.DiGraph` with the nodes of the picture."""
        return graph(self.dataflow, sorted(self.devices))

    @property
    def devices(self) -> DeviceTable:
        """The devices that are connected now."""
        return DeviceTable(
            {name: device for name, device in self.stats().devices.items() if device.connected}
        )

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that run in this process: all, unless several edges share the flow."""
        return self._edge.partitions if self._edge is not None else frozenset()

    def __getitem__(self, key: str) -> AsyncStep:
        """Return the processor by its key."""
        return AsyncStep(self, key)

    def __contains__(self, key: object) -> bool:
        """Return whether there is a processor of that key."""
        return any(step.key == key for step in self.dataflow.steps)

    @property
    def history(self) -> FlowHistory:
        """The flow's main numbers, once a second, over the last hour."""
        return self._history.read()

    def trace(self, message: Message | str) -> Trace:
        """Return the results of each processor for a message."""
        return trace(self, message)

    def newer(self, namespace: Mapping[str, Any] | None = None) -> tuple[StepModel, ...]:
        """Return the processors that are defined anew and not swapped in; mark them in the statistics."""
        names = names_for(namespace)
        try:
            fresh = resolve(self.dataflow.notation, names)
        except NotationError:  # a name is gone: no newer processor can be made
            return ()
        changed = self.dataflow.diff(fresh).changed
        for line in self.lines:
            for key, meter in line.meters.items():
                meter.newer = key in changed
        return tuple(step for step in fresh.steps if step.key in changed)

    # -- controls --------------------------------------------------------------------------------------------

    async def pause(self, processor: str | None = None) -> None:
        """Let the flow, or one processor, begin no further message until `resume`."""
        self.edge.pause(processor)

    async def resume(self, processor: str | None = None) -> None:
        """Let the flow, or one processor, go on."""
        self.edge.resume(processor)

    async def dead_letters(self) -> LetterList:
        """Return the messages that processors failed on."""
        return LetterList(await self.edge.dead_letters())

    async def retry_dead_letters(self) -> int:
        """Put all dead letters through again from the processors where they failed; return their number."""
        return await self.edge.retry_dead_letters()

    async def clear_dead_letters(self) -> int:
        """Delete all dead letters; return their number."""
        return await self.edge.clear_dead_letters()

    @property
    def rate(self) -> float | None:
        """Most messages a second that devices are asked for; None: no limit. A change acts at once."""
        return self.settings.rate

    @rate.setter
    def rate(self, value: float | None) -> None:
        self.settings = replace(self.settings, rate=checked_rate(value))
        if self._edge is not None:
            self._edge.set_rate(self.settings.rate)

    @property
    def max_demand(self) -> int:
        """Demand: most messages in flight or asked for. A change acts at once."""
        return self.settings.max_demand

    @max_demand.setter
    def max_demand(self, value: int) -> None:
        half = checked_demand(value)
        self.demand(value, min(self.settings.min_demand, half["min_demand"]))

    @property
    def min_demand(self) -> int:
        """Demand: ask for more when no more than this are in flight or asked for. A change acts at once."""
        return self.settings.min_demand

    @min_demand.setter
    def min_demand(self, value: int | None) -> None:
        self.demand(self.settings.max_demand, value)

    def demand(self, max_demand: int, min_demand: int | None = None) -> None:
        """Demand: change both bounds together. The change acts at once."""
        bounds = checked_demand(max_demand, min_demand)
        self.settings = replace(self.settings, **bounds)
        if self._edge is not None:
            self._edge.demand(**bounds)

    # -- tapes -----------------------------------------------------------------------------------------------

    async def record(
        self, n: int | None = None, seconds: float | None = None, *, max_bytes: int = MAX_BYTES
    ) -> Tape:
        """Return the next inputs as a tape."""
        checked_record(n, seconds, max_bytes)
        recorder = Recorder(self.settings.name, n, max_bytes)
        with self.edge.tapped(recorder):
            full = await unless_ended(recorder.full.wait(), self._running, seconds)
        if full is not None:
            return recorder.tape()
        if self._edge is None or self._edge.state not in ("running", "paused"):
            return recorder.tape("the flow stopped")
        return recorder.tape(
            f"only {len(recorder)} of {n} had come after {seconds:g} s" if n is not None else ""
        )

    async def replay(self, tape: Tape, speed: float | str | None = 1.0) -> int:
        """Put a tape through the flow; return the number of messages once all are taken in."""
        pace, tape = checked_speed(speed), checked_tape(tape, "replay")
        edge = self.edge
        elsewhere = [name for name in tape.devices if not edge.owns(name)]
        if elsewhere:
            raise FlowError(
                f"devices of this tape are worked on by another edge of flow {self.settings.name!r}: "
                f"{', '.join(elsewhere[:5])}. Replay it in a flow that runs in one place."
            )
        count = await unless_ended(edge.replay(tape.entries, pace), self._running, None)
        if count is None:
            raise FlowError(f"flow {self.settings.name!r} stopped before the whole tape was in.")
        return count

    async def shadow(
        self,
        tape: Tape | None = None,
        namespace: Mapping[str, Any] | None = None,
        *,
        notation: str | None = None,
    ) -> Shadow:
        """Return the outputs that would differ if the processors as defined now ran."""
        return await asyncio.to_thread(shadow_of, self, tape, names_for(namespace), notation)

    # -- pictures --------------------------------------------------------------------------------------------

    def plot(self) -> Any:
        """Return a figure of throughput, latency and queue lengths over the last hour."""
        return view("plot")(self)

    def picture(self, path: str | Path | None = None) -> Any:
        """Return a picture of the graph as it is now; with `path`, write it there, too."""
        return view("picture")(self, path)

    def panel(self) -> Any:
        """Return the processors' throughput as plain ipywidgets; call it on the flow's event loop."""
        return view("panel")(_FromThreads(self, asyncio.get_running_loop()))


class _FromThreads:
    """A flow's counters for widgets, which run on other threads than the flow's event loop."""

    def __init__(self, flow: AsyncCockpit, loop: asyncio.AbstractEventLoop) -> None:
        self.name = flow.name
        self._flow = flow
        self._loop = loop
        self._thread = threading.get_ident()

    def stats(self) -> FlowStats:
        if threading.get_ident() == self._thread or self._loop.is_closed():
            return self._flow.stats()
        return asyncio.run_coroutine_threadsafe(self._stats(), self._loop).result()

    async def _stats(self) -> FlowStats:
        return self._flow.stats()
