"""`AsyncFlow`: a dataflow's handle for asynchronous code, and what `Flow` stands on.

Owns the life of a flow as its user sees it: resolve, start, change, stop, forget. What runs is `pratipad_nb.runtime`;
where it connects to is `access`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pratipad_nb.cloud.reader import Reader
from pratipad_nb.dataflow import Dataflow, graph, resolve
from pratipad_nb.errors import (
    FlowError,
    PratipadError,
    SettingsError,
    TransportClosed,
    TransportError,
    WaitTimeout,
)
from pratipad_nb.message import Message
from pratipad_nb.runtime.dead_letters import DeadLetter
from pratipad_nb.runtime.edge import Edge
from pratipad_nb.runtime.janitor import HANDLE
from pratipad_nb.runtime.plan import EdgeSettings, log_specs
from pratipad_nb.runtime.report import Reporter
from pratipad_nb.runtime.share import Share
from pratipad_nb.runtime.stats import DeviceStats, FlowState, FlowStats, ReaderStats
from pratipad_nb.runtime.swap import SwapReceipt
from pratipad_nb.runtime.uplink import Uplink
from pratipad_nb.session.access import Access
from pratipad_nb.session.callers import callers_namespace
from pratipad_nb.session.cockpit import AsyncCockpit, checked_demand, checked_rate
from pratipad_nb.session.defaults import defaults
from pratipad_nb.session.entrance import Entrance
from pratipad_nb.session.request import AsyncRequest
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

#: What waits is sent and acknowledged this long after a drain before the rest is left to the next start.
_CLOSE_SECONDS = 5.0
DEFAULT_MAX_DEMAND = 1000


class AsyncFlow(AsyncCockpit):
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
        self.dataflow: Dataflow = resolve(notation, callers_namespace(1) if namespace is None else namespace)
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
        home = home if home is not None else around.home
        home = Path(home).expanduser() if home is not None else Path.cwd() / ".pratipad"
        self._entrance = Entrance(self.name, server, certs, home, self.settings.options)
        self._connection: Connection | None = None
        self._edge: Edge | Share | None = None
        self._reporter: Reporter | Share | None = None
        self._reader: Reader | None = None
        self._uplink: Uplink | None = None
        self._running: asyncio.Task[None] | None = None
        self._last: FlowStats | None = None
        self._changing = asyncio.Lock()
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

    @property
    def graph(self) -> Any:
        """A `networkx.DiGraph` with the nodes of the picture."""
        return graph(self.dataflow, sorted(self.devices))

    @property
    def devices(self) -> dict[str, DeviceStats]:
        """The devices that are connected now."""
        return {name: device for name, device in self.stats().devices.items() if device.connected}

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that run here: all, unless several edges share the flow."""
        return self._edge.partitions if self._edge is not None else frozenset()

    def stats(self) -> FlowStats:
        """Return a snapshot of all counters; of a stopped flow, the last one, with its rates at 0."""
        if self._reporter is not None:
            return self._with_own_reader(self._reporter.snapshot())
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
        async with self._changing:
            if self._edge is None:
                async with contextlib.AsyncExitStack() as undo:
                    await self._start(undo)
                    undo.pop_all()
        return self

    async def _start(self, undo: contextlib.AsyncExitStack) -> None:
        """Start; what `undo` holds takes back what was done so far, should the next step fail."""
        undo.push_async_callback(self._release)
        access = await self._entrance.opened()
        self.endpoint = await access.endpoint_for("edge", "")
        self._connection = await connect(self.endpoint, role="edge", name=self.name)
        kind = Share if self.settings.shared else Edge
        edge: Edge | Share = kind(self._connection, self.dataflow, self.settings)
        undo.push_async_callback(edge.close)
        await edge.open()
        self._reader = Reader(self._connection, self.name, HANDLE, delivery=self.settings.delivery)
        await self._reader.open()
        self._edge, self._reporter = edge, edge if isinstance(edge, Share) else Reporter(edge)
        self._uplink = self._new_uplink(self._connection) if self._goes_on_from(access) else None
        self._running = asyncio.create_task(self._run(edge), name=f"flow {self.name}")
        await asyncio.sleep(0)  # it begins, and says so

    def _goes_on_from(self, access: Access) -> bool:
        """Return whether results go on to the server that this one is a leaf of."""
        wanted = self.settings.options.uplink
        return self.settings.delivery == "durable" and (access.is_leaf if wanted is None else wanted)

    def _new_uplink(self, connection: Connection) -> Uplink:
        # Of several edges of a flow the one that runs the first partition forwards.
        return Uplink(
            connection,
            self.name,
            self.settings.keep,
            self.settings.options,
            active=lambda: 0 in self.partitions,
        )

    async def _run(self, edge: Edge | Share) -> None:
        """Run the edge to its end, whatever that is, and give everything back."""
        beside = [asyncio.create_task(self._keep_history(), name=f"history of {self.name}")]
        if self._uplink is not None:
            beside.append(asyncio.create_task(self._uplink.run(), name=f"uplink of {self.name}"))
        try:
            await edge.run()
            await edge.last_checkpoint()
        except Exception as error:  # noqa: BLE001 - it is shown as the flow's state; nobody awaits it but `stop`
            edge.error = _in_words(error)
        finally:
            _heeded()
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
            await self._close(edge)

    async def _close(self, edge: Edge | Share) -> None:
        if self._reader is not None:
            with contextlib.suppress(TransportError, WaitTimeout):
                await self._reader.close()
        with contextlib.suppress(TransportError, WaitTimeout):
            await edge.close()
        self._last = self._reporter.snapshot().at_rest() if self._reporter else None
        self._last_lines = self.lines
        self._edge = self._reporter = self._reader = None
        await self._release()

    async def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
        await self._entrance.close()

    async def stop(self) -> None:
        """Drain and stop; what is stored stays. A stopped flow is left alone."""
        async with self._changing:
            edge, running = self._edge, self._running
            if running is None:
                await self._entrance.close()  # a device may have come already
                return
            if edge is not None:
                edge.drain()
            _, pending = await asyncio.wait({running}, timeout=self.settings.options.drain_seconds)
            if pending:
                # What isn't done is not acknowledged: the next start goes on with it.
                running.cancel()
                await asyncio.wait({running}, timeout=_CLOSE_SECONDS)
            self._running = None

    async def forget(self) -> None:
        """Stop, and delete all that is stored under its name: what waits, results, positions, dead letters."""
        await self.stop()
        async with self._changing:
            access = await self._entrance.opened()
            try:
                connection = await connect(await access.endpoint_for("edge", ""), role="edge", name=self.name)
                try:
                    for delivery in ("durable", "fast"):
                        for name in log_specs(EdgeSettings(self.name, delivery=checked_delivery(delivery))):
                            await connection.delete_log(name)
                    if self._goes_on_from(access):
                        await self._new_uplink(connection).forget()
                finally:
                    await connection.close()
            finally:
                await self._entrance.close()
            self._last = None

    async def update(self, notation: str, namespace: Mapping[str, Any] | None = None) -> SwapReceipt | None:
        """Change what runs to `notation`; only what differs is swapped. None if nothing does."""
        dataflow = resolve(notation, callers_namespace(1) if namespace is None else namespace)
        # Who is interrupted while waiting leaves the change to go on: half of one would be worse.
        return await asyncio.shield(asyncio.ensure_future(self._update(dataflow)))

    async def _update(self, dataflow: Dataflow) -> SwapReceipt | None:
        async with self._changing:
            if self._edge is None:
                self.dataflow = dataflow
                return None
            receipt = await self._edge.swap(dataflow)
            self.dataflow = dataflow
            return receipt

    # -- messages -----------------------------------------------------------------------------------------------

    @property
    def edge(self) -> Edge | Share:
        """The running edge."""
        if self._edge is None:
            last = f" It failed: {self._last.error}" if self._last and self._last.error else ""
            raise FlowError(f"flow {self.name!r} is not running.{last} Start it with start().")
        return self._edge

    async def take(self, n: int = 1, timeout: float | None = 10.0) -> list[Message]:
        """Return the next `n` messages that reached the cloud."""
        reader = await self.opened_reader()
        try:
            return await reader.take(n, timeout)
        except TransportClosed as error:
            raise self.stopped_meanwhile(n) from error

    async def __aiter__(self) -> AsyncIterator[Message]:
        async for message in await self.opened_reader():
            yield message

    async def seek(self, where: Literal["oldest", "newest"]) -> None:
        """Move this handle's position; see `Flow.seek`."""
        await (await self.opened_reader()).seek(where)

    async def opened_reader(self, timeout: float | None = None) -> Reader:  # noqa: ARG002 - as a Cloud's
        """Return what this handle reads messages with, while the flow runs."""
        _ = self.edge
        assert self._reader is not None
        return self._reader

    def stopped_meanwhile(self, n: int) -> FlowError:
        """Return the error of a `take` that the flow's end interrupts."""
        return FlowError(
            f"flow {self.name!r} ended while {n} messages were waited for. What has come is there for the next "
            "take: start it with start()."
        )

    async def send(self, payload: Any, to: str | Sequence[str] | None = None) -> str:
        """Send an order to a device, several, or all that are known; returns its id."""
        return await self.edge.order(payload, to)

    async def pull(self, n: int = 1, device: str | None = None) -> AsyncRequest:
        """Pull mode: ask for `n` readings."""
        return AsyncRequest(self.edge.pull(n, device))

    async def settled(self, timeout: float = 30.0) -> None:
        """Wait until all that was accepted is processed and stored at Output."""
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise SettingsError(f"settled: timeout is {timeout!r}; it must be seconds.")
        await self.edge.settled(timeout)

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the messages that processors failed on."""
        return await self.edge.dead_letters.list()

    async def retry_dead_letters(self) -> int:
        """Put them through again from where they failed; returns how many."""
        return await self.edge.retry_dead_letters()

    async def clear_dead_letters(self) -> int:
        """Delete them; returns how many there were."""
        return await self.edge.clear_dead_letters()

    async def forget_reader(self, name: str) -> None:
        """Delete a named reader and its position, so that the flow no longer waits for it."""
        await self.edge.forget_reader(valid_name(name, "reader"))
        if self._uplink is not None:
            await self._uplink.forget_reader(name)

    # -- controls -----------------------------------------------------------------------------------------------

    async def pause(self, processor: str | None = None) -> None:
        """Let the flow, or one processor, begin nothing further until `resume`."""
        self.edge.pause(processor)

    async def resume(self, processor: str | None = None) -> None:
        """Let the flow, or one processor, go on."""
        self.edge.resume(processor)

    # -- letting others in --------------------------------------------------------------------------------------

    async def endpoint_for(self, role: Role, name: str) -> Endpoint:
        """Let a party in by that name, and return what it connects to; see `Flow.endpoint_for`."""
        return await self._entrance.endpoint_for(role, name)

    async def invite(self, name: str, folder: str | Path, role: Role = "device") -> Endpoint:
        """Write the certificate folder that lets a party of that name in; returns its endpoint."""
        return await self._entrance.invite(name, folder, role)


def _heeded() -> None:
    """Take the task's cancellation as heeded; before Python 3.11.4 a time-out of the clean-up is mistaken for it."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def _in_words(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_in_words(each) for each in error.exceptions)
    return str(error) if isinstance(error, PratipadError) else f"{type(error).__name__}: {error}"
