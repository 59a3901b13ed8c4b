"""`AsyncFlow`: a dataflow's handle for asynchronous code, and what `Flow` stands on.

Owns the life of a flow as its user sees it: resolve, start, change, stop, forget. What runs is `pratipad_nb.runtime`;
where it connects to is `access`. Its other methods are in `messages` and `cockpit`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from pratipad_nb import wording
from pratipad_nb.bugs import explained
from pratipad_nb.cloud.reader import Reader
from pratipad_nb.dataflow import Dataflow, resolve
from pratipad_nb.errors import FlowError, TransportError, WaitTimeout
from pratipad_nb.runtime.edge.edge import Edge
from pratipad_nb.runtime.edge.running import Running
from pratipad_nb.runtime.edge.swap import SwapReceipt
from pratipad_nb.runtime.positions.forwarding import Forwarder
from pratipad_nb.runtime.positions.janitor import HANDLE
from pratipad_nb.runtime.sharing.partitioned import PartitionedEdge
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.plan import EdgeSettings, log_specs
from pratipad_nb.runtime.values.stats import FlowState, FlowStats, ReaderStats
from pratipad_nb.session.access import Access
from pratipad_nb.session.callers import names_for
from pratipad_nb.session.checks import checked_demand, checked_rate, checked_server
from pratipad_nb.session.cockpit import AsyncCockpit
from pratipad_nb.session.defaults import defaults, home_folder
from pratipad_nb.session.ends import check_outside, inside
from pratipad_nb.session.entrance import Entrance
from pratipad_nb.session.messages import AsyncMessages
from pratipad_nb.session.turn import Turn
from pratipad_nb.settings import (
    Endpoint,
    FlowOptions,
    Keep,
    checked_delivery,
    checked_keep,
    checked_options,
    valid_name,
)
from pratipad_nb.transport.connecting import connect
from pratipad_nb.transport.permissions import Role
from pratipad_nb.transport.protocol import Connection

__all__ = ["AsyncFlow"]

log = logging.getLogger(__name__)

#: So long closing may take once a drain was given up, in seconds. Each instance that is stuck in a processor takes 5, and 5
#: more if it has a `teardown`; beyond that, the rest of what is to be closed goes before the instances.
_CLOSE_SECONDS = 30.0
#: So long the rest may take once that was given up, too, in seconds.
_CUT_OFF_SECONDS = 5.0
DEFAULT_MAX_DEMAND = 1000


class AsyncFlow(AsyncMessages, AsyncCockpit):
    """One dataflow by its name. The synchronous `Flow` has the same methods and describes them; see there."""

    def __init__(
        self,
        notation: str,
        *,
        name: str = "flow",
        namespace: Mapping[str, Any] | None = None,
        delivery: str = "durable",
        server: str | None = None,
        certs: str | Path | None = None,
        rate: float | None = None,
        max_demand: int = DEFAULT_MAX_DEMAND,
        min_demand: int | None = None,
        keep: Keep | float | None = None,
        options: FlowOptions | None = None,
        home: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.dataflow: Dataflow = resolve(notation, names_for(namespace))
        self.settings = EdgeSettings(
            name=valid_name(name, "flow"),
            delivery=checked_delivery(delivery),
            rate=checked_rate(rate),
            **checked_demand(max_demand, min_demand),
            keep=checked_keep(keep),
            options=checked_options(options),
        )
        around = defaults()
        if server is None and certs is None:
            server, certs = around.server, around.certs
        self._entrance = Entrance(
            self.name, *checked_server(server, certs), home_folder(home), self.settings.options
        )
        self._connection: Connection | None = None
        self._edge: Running | None = None
        self._reader: Reader | None = None
        self._forwarder: Forwarder | None = None
        self._running: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._last: FlowStats | None = None
        self._changing = Turn()
        #: The change that is being made, and whether somebody still waits for it.
        self._change: asyncio.Task[SwapReceipt | None] | None = None
        self._change_awaited = False
        self._given_up = ""
        self.endpoint: Endpoint | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.notation} ({self.state})>"

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its name; devices, readers and all that is stored belong to it."""
        return self.settings.name

    @property
    def notation(self) -> str:
        """The canonical notation of what runs."""
        return self.dataflow.notation

    @property
    def state(self) -> FlowState:
        """Where it is in its life."""
        if self._edge is not None:
            return self._edge.state
        return self._last.state if self._last else "stopped"

    def stats(self) -> FlowStats:
        """Return a snapshot of all counters; of a stopped flow, the last one, with its rates at 0."""
        if self._edge is not None:
            return self._with_own_reader(self._edge.snapshot())
        return self._last or FlowStats(self.name, self.notation, self.settings.delivery, "stopped")

    def _with_own_reader(self, stats: FlowStats) -> FlowStats:
        """Add what this handle didn't take in time: it holds nothing back, so that has to be seen."""
        skipped = self._reader.skipped_frames if self._reader is not None else 0
        if not skipped:
            return stats
        return dataclasses.replace(stats, readers={**stats.readers, HANDLE: ReaderStats(skipped=skipped)})

    @property
    def mqtt_url(self) -> str:
        """Where devices that speak MQTT connect, as ``mqtts://127.0.0.1:8883``; empty if they can't."""
        return self._entrance.mqtt_url

    # -- life ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> AsyncFlow:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> AsyncFlow:
        """Start it; a flow that runs is left alone."""
        check_outside(self, self.name, "start")
        async with self._changing.here():
            if self._edge is None:
                # A run that has failed gives back what it holds first. One that is over can't be waited for: the event
                # loop that it had may be closed.
                if self._running is not None and not self._running.done():
                    await asyncio.wait({self._running})
                async with contextlib.AsyncExitStack() as undo:
                    with inside(self):
                        await self._start(undo)
                    undo.pop_all()
        return self

    async def _start(self, undo: contextlib.AsyncExitStack) -> None:
        """Start; what `undo` holds takes back what was done so far, should the next step fail."""
        undo.push_async_callback(self._release)
        self._loop = asyncio.get_running_loop()
        access = await self._entrance.opened()
        self.endpoint = await access.endpoint_for("edge", "")
        self._connection = await connect(self.endpoint, role="edge", name=self.name)
        kind = PartitionedEdge if self.settings.partitioned else Edge
        edge: Running = await kind.open(self._connection, self.dataflow, self.settings)
        undo.push_async_callback(edge.close)
        self._reader = Reader(self._connection, self.name, HANDLE, delivery=self.settings.delivery)
        await self._reader.open()
        self._edge = edge
        self._forwarder = self._new_forwarder(self._connection) if self._goes_on_from(access) else None
        self._running = asyncio.create_task(self._run(edge), name=f"flow {self.name}")
        await asyncio.sleep(0)  # it begins, and says so

    def _goes_on_from(self, access: Access) -> bool:
        """Return whether results go on to the server that this one is a leaf of."""
        wanted = self.settings.options.uplink
        return self.settings.delivery == "durable" and (access.is_leaf if wanted is None else wanted)

    def _new_forwarder(self, connection: Connection) -> Forwarder:
        # Of several edges of a flow the one that runs the first partition forwards.
        return Forwarder(
            connection,
            self.name,
            self.settings.keep,
            self.settings.options,
            active=lambda: 0 in self.partitions,
        )

    async def _run(self, edge: Running) -> None:
        """Run the edge to its end, whatever that is, and give everything back."""
        try:
            await self._run_beside(edge)
        except Exception as error:  # noqa: BLE001 - it is shown as the flow's state; nobody awaits it but `stop`
            edge.fail(explained(log, f"flow {self.name!r} failed", error))
        finally:
            _heeded()
            await self._close(edge)

    async def _run_beside(self, edge: Running) -> None:
        """Run the edge, and beside it what lasts as long; the first of them that fails ends all."""
        assert self._connection is not None
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(self._keep_history(), name=f"history of {self.name}"),
                group.create_task(self._connection.failure(), name=f"connection of {self.name}"),
                group.create_task(self._entrance.failure(), name=f"server of {self.name}"),
            ]
            if self._forwarder is not None:
                beside.append(group.create_task(self._forwarder.run(), name=f"uplink of {self.name}"))
            await edge.run()
            for task in beside:
                task.cancel()

    async def _close(self, edge: Running) -> None:
        """Give everything back, the server also if what comes before it is cut off: nobody else could any more.

        A run that was left behind closes its own edge alone, whenever it ends: all else has been given back, and what
        there is now is the next run's.
        """
        try:
            if self._edge is edge and self._reader is not None:
                with contextlib.suppress(TransportError, WaitTimeout):
                    await self._reader.close()
            with contextlib.suppress(TransportError, WaitTimeout):
                await edge.close()
        except Exception as error:  # noqa: BLE001 - as in `_run`
            edge.fail(explained(log, f"the end of flow {self.name!r}", error))
        finally:
            if self._edge is edge:
                self._last = edge.snapshot().at_rest()
                self._last_lines = self.lines
                self._edge = self._reader = None
                await self._release()

    async def _release(self) -> None:
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                await connection.close()
        finally:
            await self._entrance.close()

    async def stop(self) -> None:
        """Drain and stop; what is stored stays. A stopped flow is left alone."""
        check_outside(self, self.name, "stop")
        self._give_up_change("stopped")
        async with self._changing.here():
            edge, running = self._edge, self._running
            if running is None or running.done():
                self._running = None
                await self._entrance.close()  # a device may have come already
                return
            if edge is not None:
                edge.drain()
            await self._ended(running)
            self._running = None

    async def _ended(self, running: asyncio.Task[None]) -> None:
        """Wait for a run's end; what takes longer than the drain may is not acknowledged, and so left to the next start."""
        _, pending = await asyncio.wait({running}, timeout=self.settings.options.drain_seconds)
        if not pending:
            return
        self._tell_undrained()
        for seconds in (
            _CLOSE_SECONDS,
            _CUT_OFF_SECONDS,
        ):  # first its drain is cut off, then its closing, too
            running.cancel()
            _, pending = await asyncio.wait({running}, timeout=seconds)
            if not pending:
                return
        # A coroutine swallows every cancellation. It can only be left behind; server and connection needn't be.
        if self._edge is not None:
            await self._close(self._edge)

    def _tell_undrained(self) -> None:
        stats = self.stats()
        stuck = ", ".join(_at_work(self.lines)) or "none of them"
        log.warning(
            "flow %r was not drained within %g s (FlowOptions.drain_seconds): %s in flight, and %s at its input. "
            "Processors still at work: %s. What isn't done is %s.",
            self.name,
            self.settings.options.drain_seconds,
            wording.counted(stats.in_flight, "message"),
            wording.counted(stats.waiting, "frame"),
            stuck,
            "left to the next start"
            if self.settings.delivery == "durable"
            else "lost, as the delivery is fast",
        )

    def request_stop(self) -> None:
        """Have the flow stopped, soon, by a task of its own; returns at once, whatever the caller's thread is."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        # In a context of its own: the caller may be a processor, inside the flow, and what stops it is outside.
        loop.call_soon_threadsafe(self._begin_stop, context=contextvars.Context())

    def _begin_stop(self) -> None:
        if self._stopping is None or self._stopping.done():
            self._stopping = asyncio.create_task(self._stop_unawaited(), name=f"stop of {self.name}")

    async def _stop_unawaited(self) -> None:
        try:
            await self.stop()
        except Exception as error:  # noqa: BLE001 - nobody waits for it
            explanation = explained(log, f"the stop of flow {self.name!r}", error)
            log.warning("flow %r did not stop as it should: %s", self.name, explanation)

    async def forget(self) -> bool:
        """Stop, and delete all that is stored under its name; returns whether anything was."""
        check_outside(self, self.name, "forget")
        await self.stop()
        if not self._entrance.may_have_stored:
            return False
        async with self._changing.here():
            access = await self._entrance.opened()
            try:
                found = await self._forget_at(access)
            finally:
                await self._entrance.close()
            self._last = None
            return found

    async def _forget_at(self, access: Access) -> bool:
        deliveries = ("durable", "fast")
        specs = [log_specs(EdgeSettings(self.name, delivery=checked_delivery(each))) for each in deliveries]
        there = await connect(await access.endpoint_for("edge", ""), role="edge", name=self.name)
        try:
            found = [name for logs in specs for name in logs if await there.find_log(name) is not None]
            for name in found:
                await there.delete_log(name)
            if self._goes_on_from(access):
                await self._new_forwarder(there).forget()
        finally:
            await there.close()
        return bool(found)

    async def update(self, notation: str, namespace: Mapping[str, Any] | None = None) -> SwapReceipt | None:
        """Change what runs to `notation`; only what differs is swapped. None if nothing does."""
        dataflow = resolve(notation, names_for(namespace))
        check_outside(self, self.name, "update")
        await self._make_way()
        change = self._change = asyncio.create_task(self._update(dataflow), name=f"change of {self.name}")
        self._change_awaited = True
        change.add_done_callback(self._tell_unawaited)
        try:
            # Who is interrupted while waiting leaves the change to go on: half of one would be worse.
            return await asyncio.shield(change)
        except asyncio.CancelledError:
            if change.cancelled():
                raise FlowError(
                    f"the change of flow {self.name!r} was given up, for the flow was {self._given_up} "
                    "meanwhile. All is as it was before."
                ) from None
            raise
        finally:
            if self._change is change:
                self._change_awaited = False

    def _tell_unawaited(self, change: asyncio.Task[SwapReceipt | None]) -> None:
        """Log what a change failed with whose caller was interrupted."""
        awaited = self._change is change and self._change_awaited
        if not awaited and not change.cancelled() and (error := change.exception()) is not None:
            explanation = explained(log, f"the change of flow {self.name!r}", error)
            log.warning("the change of flow %r, for which nobody waits, failed: %s", self.name, explanation)

    async def _make_way(self) -> None:
        """Give up the change before this one if its setting up hangs, or if nobody waits for it any more."""
        before = self._change
        if before is None or before.done() or before.get_loop() is not asyncio.get_running_loop():
            return
        if self._change_awaited:
            await asyncio.wait({before}, timeout=self.settings.options.hang_seconds)
        if self._edge is None or self._edge.revocable:
            self._give_up_change("changed again")

    def _give_up_change(self, why: str) -> None:
        change = self._change
        if change is not None and not change.done() and change.get_loop() is asyncio.get_running_loop():
            self._given_up = why
            change.cancel()

    async def _update(self, dataflow: Dataflow) -> SwapReceipt | None:
        async with self._changing.here():
            if self._edge is None:
                self.dataflow = dataflow
                return None
            with inside(self):
                receipt = await self._edge.swap(dataflow)
            self.dataflow = dataflow
            return receipt

    # -- letting others in --------------------------------------------------------------------------------------

    async def endpoint_for(self, role: Role, name: str) -> Endpoint:
        """Let a party in by that name, and return what it connects to; see `Flow.endpoint_for`."""
        return await self._entrance.endpoint_for(role, name)

    async def invite(self, name: str, folder: str | Path, role: Role = "device") -> Endpoint:
        """Write the certificate folder that lets a party of that name in; returns its endpoint."""
        return await self._entrance.invite(name, folder, role)


def _at_work(lines: Sequence[Line]) -> list[str]:
    """Return the processors that are in the midst of a call, and since when."""
    return [
        runner.at_work for line in lines for stage in line.stages for runner in stage.runners if runner.busy
    ]


def _heeded() -> None:
    """Take the task's cancellation as heeded; before Python 3.11.4 a time-out of the clean-up is mistaken for it."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
