"""`AsyncFlow`: a dataflow's handle for asynchronous code; `Flow` calls its methods.

Owns the life of a flow as its user sees it: resolve, start, change, stop, forget. Running the dataflow is for
`pratipad_nb.runtime`, connecting is for `access`. The other methods of `AsyncFlow` are in `messages` and
`cockpit`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import functools
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

from pratipad_nb import wording
from pratipad_nb.bugs import explained
from pratipad_nb.cloud.reader import Reader
from pratipad_nb.dataflow import Dataflow, resolve
from pratipad_nb.errors import FlowError, TransportError, WaitTimeout
from pratipad_nb.forks import closing_in_parent, watch
from pratipad_nb.runtime.edge.agreement import refuse_a_second
from pratipad_nb.runtime.edge.edge import Edge
from pratipad_nb.runtime.edge.forgetting import forget_states
from pratipad_nb.runtime.edge.running import Running
from pratipad_nb.runtime.edge.swap import SwapReceipt
from pratipad_nb.runtime.positions.forwarding import Forwarder
from pratipad_nb.runtime.positions.opening import told_of_storage
from pratipad_nb.runtime.sharing.partitioned import PartitionedEdge
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.plan import EdgeSettings, account_bytes, log_specs
from pratipad_nb.runtime.values.stats import FlowState, FlowStats, ReaderStats
from pratipad_nb.server.register import Rules
from pratipad_nb.session.access import Access
from pratipad_nb.session.account import check_account, check_security
from pratipad_nb.session.callers import names_for
from pratipad_nb.session.checks import checked_demand, checked_rate, checked_server
from pratipad_nb.session.cockpit import AsyncCockpit
from pratipad_nb.session.defaults import defaults, home_folder
from pratipad_nb.session.ends import check_outside, inside
from pratipad_nb.session.entrance import Entrance
from pratipad_nb.session.messages import AsyncMessages
from pratipad_nb.session.renewing import Renewer
from pratipad_nb.session.turn import Turn
from pratipad_nb.settings import (
    HANDLE,
    Endpoint,
    FlowOptions,
    Keep,
    checked_delivery,
    checked_keep,
    checked_options,
    valid_name,
    valid_tenant,
)
from pratipad_nb.transport.connecting import connect
from pratipad_nb.transport.parties import Role, flow_key
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.transport.readers import forget_readers, prepare_reader
from pratipad_nb.transport.rights import Arrows, Verb
from pratipad_nb.transport.subjects import Subjects

__all__ = ["AsyncFlow"]

log = logging.getLogger(__name__)

#: So long closing may take once a drain was given up, in seconds. Each instance with a call in progress takes
#: 5 s, and 5 s more if it has a `teardown`. If there are too many such instances, closing the rest goes
#: before the instances.
_CLOSE_SECONDS = 30.0
#: So long closing the rest may take once closing the instances was given up, too, in seconds.
_CUT_OFF_SECONDS = 5.0
#: So long an edge is opened again while the link comes and goes, in seconds, and the pause before.
_OPEN_SECONDS, _OPEN_PAUSE = 15.0, 0.1
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
        tenant: str = "",
    ) -> None:
        super().__init__()
        self.tenant = valid_tenant(tenant)
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
        server, certs = checked_server(server, certs)
        check_security(self.settings.options, server, self.tenant)
        self._entrance = Entrance(
            self.name,
            self.tenant,
            server,
            certs,
            home_folder(home),
            self.settings.options,
        )
        self._connection: Connection | None = None
        self._edge: Running | None = None
        self._reader: Reader | None = None
        self._forwarder: Forwarder | None = None
        self._renewer: Renewer | None = None
        self._running: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._last: FlowStats | None = None
        self._changing = Turn()
        #: The change that is being made, and whether a caller still waits for it.
        self._change: asyncio.Task[SwapReceipt | None] | None = None
        self._change_awaited = False
        self._given_up = ""
        self.endpoint: Endpoint | None = None
        watch(self)

    def _find_forked(self) -> bool:
        return self._entrance.in_use or self._running is not None

    def __repr__(self) -> str:
        key = flow_key(self.name, self.tenant)
        return f"<{type(self).__name__} {key!r}: {self.notation} ({self.state})>"

    # -- the flow --------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The flow's name; devices, readers and all that is stored belong to the name."""
        return self.settings.name

    @property
    def notation(self) -> str:
        """The canonical notation of the dataflow that runs."""
        return self.dataflow.notation

    @property
    def state(self) -> FlowState:
        """The flow's state; see `Flow.state`."""
        if self._edge is not None:
            return self._edge.state
        return self._last.state if self._last else "stopped"

    @overload
    def stats(self, all_edges: Literal[False] = False) -> FlowStats: ...

    @overload
    def stats(self, all_edges: Literal[True]) -> Coroutine[Any, Any, FlowStats]: ...

    def stats(self, all_edges: bool = False) -> FlowStats | Coroutine[Any, Any, FlowStats]:
        """Return a snapshot of all counters; of a stopped flow, the last snapshot, with its rates at 0.

        With `all_edges` the snapshot is to be awaited, for other edges are asked for their counters.
        """
        if all_edges:
            return self._stats_of_all()
        if self._edge is not None:
            return self._with_own_reader(self._edge.snapshot())
        return self._last or FlowStats(self.name, self.notation, self.settings.delivery, "stopped")

    async def _stats_of_all(self) -> FlowStats:
        if self._edge is not None:
            return self._with_own_reader(await self._edge.all_edges())
        return self.stats()

    def _with_own_reader(self, stats: FlowStats) -> FlowStats:
        """Add the frames that this handle's reader missed, for that reader never holds the flow back."""
        skipped = self._reader.skipped_frames if self._reader is not None else 0
        if not skipped:
            return stats
        return dataclasses.replace(stats, readers={**stats.readers, HANDLE: ReaderStats(skipped=skipped)})

    @property
    def mqtt_url(self) -> str:
        """URL for devices that speak MQTT, as ``mqtts://127.0.0.1:8883``; empty if the server takes none."""
        return self._entrance.mqtt_url

    # -- life ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> AsyncFlow:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with closing_in_parent():
            await self.stop()

    async def start(self) -> AsyncFlow:
        """Start the flow; do nothing if it runs."""
        check_outside(self, self.name, "start")
        async with self._changing.here():
            if self._edge is None:
                # A failed run first gives back its connection and access. A finished run can't be waited for:
                # its event loop may be closed.
                if self._running is not None and not self._running.done():
                    await asyncio.wait({self._running})
                async with contextlib.AsyncExitStack() as undo:
                    with inside(self):
                        await self._start(undo)
                    undo.pop_all()
        return self

    async def _start(self, undo: contextlib.AsyncExitStack) -> None:
        """Start the run; should a step fail, the callbacks in `undo` take the earlier steps back."""
        undo.push_async_callback(self._release)
        self._loop = asyncio.get_running_loop()
        access = await self._entrance.opened()
        await access.declare(self._rules(self.dataflow))
        self.endpoint = await access.endpoint_for("edge", "")
        self._connection = await connect(self.endpoint, role="edge", name=self.name)
        await check_account(self._connection, self.endpoint, self.settings.options)
        # Edges compare whether results go on, whichever setting says so.
        options = dataclasses.replace(self.settings.options, uplink=self._goes_on_from(access))
        settings = dataclasses.replace(self.settings, options=options)
        async with told_of_storage(self._connection, settings):
            edge = await self._opened_edge(self._connection, settings)
        undo.push_async_callback(edge.close)
        self._reader = Reader(
            self._connection,
            self.name,
            HANDLE,
            delivery=self.settings.delivery,
            prepare=functools.partial(prepare_reader, self._connection, self.name, HANDLE),
        )
        await self._reader.open()
        self._edge = edge
        self._renewer = (
            Renewer(self._connection, self.name, access.renew, lambda: 0 in self.partitions)
            if access.issues
            else None
        )
        self._forwarder = self._new_forwarder(self._connection) if self._goes_on_from(access) else None
        self._running = asyncio.create_task(self._run(edge), name=f"flow {self.name}")
        await asyncio.sleep(0)  # lets the run begin

    async def _opened_edge(self, connection: Connection, settings: EdgeSettings) -> Running:
        """Open the edge, and open it again if the link was down meanwhile.

        The server of a folder may be handed over to another process at any time.
        """
        kind = PartitionedEdge if settings.partitioned else Edge
        end, relinked = time.monotonic() + _OPEN_SECONDS, asyncio.Event()
        forget_callback = connection.on_reconnect(relinked.set)
        try:
            while True:
                try:
                    return await kind.open(connection, self.dataflow, settings)
                except WaitTimeout as error:
                    if (connection.connected and not relinked.is_set()) or time.monotonic() > end:
                        raise
                    log.info("flow %r is opened again: %s", self.name, error)
                relinked.clear()
                await asyncio.sleep(_OPEN_PAUSE)
        finally:
            forget_callback()

    def _rules(self, dataflow: Dataflow) -> Rules:
        """Return what the server needs to know of the flow, if it ran `dataflow`."""
        return Rules(
            Arrows(orders=dataflow.cloud_reaches_devices, downlink=dataflow.reaches_devices),
            account_bytes(self.settings),
            each_device=self.settings.options.security == "account-per-device",
        )

    def _goes_on_from(self, access: Access) -> bool:
        """Return whether results are forwarded to the server that this server is a leaf of."""
        wanted = self.settings.options.uplink
        return self.settings.delivery == "durable" and (access.is_leaf if wanted is None else wanted)

    def _new_forwarder(self, connection: Connection) -> Forwarder:
        # Of several edges of a flow, the edge of the first partition forwards.
        return Forwarder(
            connection,
            self.name,
            self.settings.keep,
            self.settings.options,
            active=lambda: 0 in self.partitions,
        )

    async def _run(self, edge: Running) -> None:
        """Run the edge until it is drained or fails; then give edge, connection and access back."""
        try:
            await self._run_beside(edge)
        except Exception as error:  # noqa: BLE001 - the flow's state shows it; only `stop` awaits this task
            edge.fail(explained(log, f"flow {self.name!r} failed", error))
        finally:
            _heeded()
            await self._close(edge)

    async def _run_beside(self, edge: Running) -> None:
        """Run the edge and the tasks that last as long as the edge; the first that fails ends all."""
        assert self._connection is not None
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(self._keep_history(), name=f"history of {self.name}"),
                group.create_task(self._connection.failure(), name=f"connection of {self.name}"),
                group.create_task(self._entrance.failure(), name=f"server of {self.name}"),
            ]
            if self._renewer is not None:
                beside.append(group.create_task(self._renewer.run(), name=f"renewals of {self.name}"))
            if self._forwarder is not None:
                beside.append(group.create_task(self._forwarder.run(), name=f"uplink of {self.name}"))
            await edge.run()
            for task in beside:
                task.cancel()

    async def _close(self, edge: Running) -> None:
        """Close reader and edge, then release connection and access, also if closing the edge is cut off.

        No other code could release them any more. A run that was left behind closes its own edge alone,
        whenever that run ends: its connection and access are released by then, and the present ones belong to
        the next run.
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
        """Drain and stop; stored messages stay. Does nothing to a stopped flow but close its access."""
        check_outside(self, self.name, "stop")
        self._give_up_change("stopped")
        async with self._changing.here():
            edge, running = self._edge, self._running
            if running is None or running.done():
                self._running = None
                await self._entrance.close()  # a device may have opened it
                return
            if edge is not None:
                edge.drain()
            await self._ended(running)
            self._running = None

    async def _ended(self, running: asyncio.Task[None]) -> None:
        """Wait for a run's end, and cut the run off if draining takes too long.

        Messages that aren't finished then are not acknowledged, and so are left to the next start.
        """
        _, pending = await asyncio.wait({running}, timeout=self.settings.options.drain_seconds)
        if not pending:
            return
        self._tell_undrained()
        # The first cancellation cuts off the drain, the second cuts off closing, too.
        for seconds in (_CLOSE_SECONDS, _CUT_OFF_SECONDS):
            running.cancel()
            _, pending = await asyncio.wait({running}, timeout=seconds)
            if not pending:
                return
        # A coroutine that swallows every cancellation can only be left behind. Server and connection are
        # released.
        if self._edge is not None:
            await self._close(self._edge)

    def _tell_undrained(self) -> None:
        stats = self.stats()
        stuck = ", ".join(_at_work(self.lines)) or "none of them"
        log.warning(
            "flow %r was not drained within %g s (FlowOptions.drain_seconds): %s in flight, and %s at its "
            "input. Processors still at work: %s. What isn't done is %s.",
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
        """Let a task of its own stop the flow soon; return at once. Any thread may call this method."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        # In a context of its own: the caller may be a processor, inside the flow, but the stop runs outside.
        loop.call_soon_threadsafe(self._begin_stop, context=contextvars.Context())

    def _begin_stop(self) -> None:
        if self._stopping is None or self._stopping.done():
            self._stopping = asyncio.create_task(self._stop_unawaited(), name=f"stop of {self.name}")

    async def _stop_unawaited(self) -> None:
        try:
            await self.stop()
        except Exception as error:  # noqa: BLE001 - nobody awaits this task
            explanation = explained(log, f"the stop of flow {self.name!r}", error)
            log.warning("flow %r did not stop as it should: %s", self.name, explanation)

    async def forget(self) -> bool:
        """Stop, and delete all that is stored under the flow's name; return whether anything was stored."""
        check_outside(self, self.name, "forget")
        await self.stop()
        if not self._entrance.may_have_stored:
            return False
        async with self._changing.here():
            access = await self._entrance.opened()
            try:
                found = await self._forget_at(access)
                await access.declare(None)
            finally:
                await self._entrance.close()
            self._last = None
            return found

    async def _forget_at(self, access: Access) -> bool:
        deliveries = ("durable", "fast")
        specs = [log_specs(EdgeSettings(self.name, delivery=checked_delivery(each))) for each in deliveries]
        connection = await connect(await access.endpoint_for("edge", ""), role="edge", name=self.name)
        try:
            names = [*(name for logs in specs for name in logs), Subjects(self.name).former_input_stream]
            found = [name for name in names if await connection.find_log(name) is not None]
            for name in found:
                await connection.delete_log(name)
            found += await forget_readers(connection, self.name)
            if self._goes_on_from(access):
                await self._new_forwarder(connection).forget()
        finally:
            await connection.close()
        return bool(found)

    async def forget_state(self, processor: str | None = None) -> tuple[str, ...]:
        """Delete the stored state of a processor, or of all, of a stopped flow; see `Flow.forget_state`."""
        check_outside(self, self.name, "forget_state")
        async with self._changing.here():
            if self._edge is not None:
                raise FlowError(
                    f"flow {self.name!r} runs, and its processors hold their state and store it again. Stop "
                    "it first: flow.stop(), then flow.forget_state(), then flow.start()."
                )
            if not self._entrance.may_have_stored:
                return ()
            access = await self._entrance.opened()
            try:
                return await self._forget_state_at(access, processor)
            finally:
                await self._entrance.close()

    async def _forget_state_at(self, access: Access, processor: str | None) -> tuple[str, ...]:
        connection = await connect(await access.endpoint_for("edge", ""), role="edge", name=self.name)
        try:
            await refuse_a_second(connection, self.settings)
            return await forget_states(connection, self.name, processor)
        finally:
            await connection.close()

    async def update(self, notation: str, namespace: Mapping[str, Any] | None = None) -> SwapReceipt | None:
        """Change the dataflow to `notation`; swap only the processors that differ. None if none differs."""
        dataflow = resolve(notation, names_for(namespace))
        check_outside(self, self.name, "update")
        await self._make_way()
        change = self._change = asyncio.create_task(self._update(dataflow), name=f"change of {self.name}")
        self._change_awaited = True
        change.add_done_callback(self._tell_unawaited)
        try:
            # The change goes on if its caller is interrupted: half a change would be worse.
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
        """Log the failure of a change whose caller was interrupted."""
        awaited = self._change is change and self._change_awaited
        if not awaited and not change.cancelled() and (error := change.exception()) is not None:
            explanation = explained(log, f"the change of flow {self.name!r}", error)
            log.warning("the change of flow %r, for which nobody waits, failed: %s", self.name, explanation)

    async def _make_way(self) -> None:
        """Give up the previous change if its set-up hangs, or if no caller waits for it any more."""
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
            # Before the change, for an order may come as soon as its way is open. An arrow that is no longer
            # there is the edge's to keep until the server knows.
            await self._entrance.declare(self._rules(dataflow))
            try:
                with inside(self):
                    receipt = await self._edge.swap(dataflow)
                self.dataflow = dataflow
            finally:
                await self._entrance.declare(self._rules(self.dataflow))
            return receipt

    # -- letting parties in ----------------------------------------------------------------------------------

    async def endpoint_for(self, role: Role, name: str) -> Endpoint:
        """Let a party in by that name, and return its endpoint; see `Flow.endpoint_for`."""
        return await self._entrance.endpoint_for(role, name)

    async def invite(
        self, name: str, folder: str | Path, role: Role = "device", *, mqtt: bool = False
    ) -> Endpoint:
        """Write the certificate folder that lets a party of that name in, and return its endpoint."""
        return await self._entrance.invite(name, folder, role, mqtt)

    async def revoke(self, name: str, role: Role = "device") -> bool:
        """Let a party in no more, and end its connections; see `Flow.revoke`."""
        return await self._entrance.revoke(role, name)

    async def share(self, tenant: str, *, reader: str) -> None:
        """Share the output, to be read only, with the reader of another tenant; see `Flow.share`."""
        await self._entrance.share(tenant, reader)

    async def unshare(self, tenant: str) -> bool:
        """Cut the readers of a tenant off the output; see `Flow.unshare`."""
        return await self._entrance.unshare(tenant)

    async def who_can(self, verb: Verb, subject: str) -> tuple[str, ...]:
        """Return the identities of the flow's parties that have that right; see `Flow.who_can`."""
        return await self._entrance.who_can(verb, subject)


def _at_work(lines: Sequence[Line]) -> list[str]:
    """Return the processors with a call in progress, each with the call's begin."""
    return [
        runner.at_work for line in lines for stage in line.stages for runner in stage.runners if runner.busy
    ]


def _heeded() -> None:
    """Clear the task's cancellation, which Python before 3.11.4 mistakes for a time-out of the clean-up."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
