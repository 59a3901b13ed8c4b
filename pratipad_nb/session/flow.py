"""`Flow`: a dataflow's handle for notebooks and scripts, synchronous and safe to call from any thread.

Owns the thread that the flow runs in, and its ends: a stop, a failure, the end of the program. All else is
`AsyncFlow`, which it stands on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from pratipad_nb.cloud.blocking import BlockingReader
from pratipad_nb.dataflow import Dataflow
from pratipad_nb.errors import FlowError, TransportClosed
from pratipad_nb.message import Message
from pratipad_nb.portal import Portal
from pratipad_nb.runtime.stats import DeviceStats, FlowState, FlowStats
from pratipad_nb.runtime.swap import SwapReceipt
from pratipad_nb.session import registry
from pratipad_nb.session.asynchronous import DEFAULT_MAX_DEMAND, AsyncFlow
from pratipad_nb.session.callers import callers_namespace
from pratipad_nb.session.cockpit_blocking import Cockpit
from pratipad_nb.session.request import Request
from pratipad_nb.settings import Endpoint, FlowOptions, Keep
from pratipad_nb.transport.permissions import Role

__all__ = ["Flow"]

Result = TypeVar("Result")


class Flow(Cockpit):
    """One dataflow by its name.

    Devices, readers and all that is stored belong to the *name*: a flow that is started again under it, here or in
    another process, goes on where the last one stopped.

    Parameters
    ----------
    notation
        The dataflow, as ``"Push <~> P1 <~> [P2, P3] <~> Output"``.
    name
        Its name; see `pratipad_nb.settings.NAME_PATTERN`.
    namespace
        Where the processors' names are looked up. Default: what is visible where this is called.
    delivery
        ``"durable"``: what reaches Output is neither lost nor doubled and keeps its order per device. ``"fast"``: at
        most once, lower latency; gaps are counted.
    server, certs
        An existing server's URL and the edge's certificate folder. Default: an embedded server in the state folder.
    rate
        Demand and Pull: most messages a second that devices are asked for. Default: no limit.
    max_demand, min_demand
        Demand: ask for more when at most `min_demand` messages are in hand or asked for, up to `max_demand`. Defaults:
        1,000, which keeps a fast processor busy over a round trip, and half of it.
    keep
        How much of what reached Output is kept; a number is seconds. Default: one hour, at most 1 GiB.
    options
        What is seldom changed.
    home
        The state folder. Default: ``.pratipad`` in the current folder.

    Raises
    ------
    NotationError
        If the notation is wrong, or names an unknown processor.
    SettingsError
        If an argument is not what it may be.
    """

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
        self._flow = AsyncFlow(
            notation,
            name=name,
            namespace=callers_namespace(1) if namespace is None else namespace,
            delivery=delivery,
            server=server,
            certs=certs,
            rate=rate,
            max_demand=max_demand,
            min_demand=min_demand,
            keep=keep,
            options=options,
            home=home,
        )
        self._lock = threading.RLock()
        self._portal: Portal | None = None
        self._messages: BlockingReader | None = None
        self._stop_requested = threading.Event()

    def __repr__(self) -> str:
        return repr(self._flow).replace("AsyncFlow", "Flow", 1)

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        portal = self._portal
        if portal is None:
            work.close()
            raise FlowError(f"flow {self.name!r} is not running. Start it with start().")
        return portal.run(work)

    def _opened(self) -> Portal:
        """Return the thread in which the flow lives, made for the first who needs it; `stop` ends it."""
        portal = (
            self._portal
        )  # without the lock: who is asked for by a processor mustn't wait for a stop that drains
        if portal is not None:
            return portal
        with self._lock:
            if self._portal is None:
                registry.enter(self)
                self._portal = Portal(f"pratipad {self.name}")
            return self._portal

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its name."""
        return self._flow.name

    @property
    def notation(self) -> str:
        """The canonical notation of what runs."""
        return self._flow.notation

    @property
    def dataflow(self) -> Dataflow:
        """The model of what runs."""
        return self._flow.dataflow

    @property
    def state(self) -> FlowState:
        """Where it is in its life: starting, running, paused, draining, stopped or failed."""
        return self._flow.state

    @property
    def endpoint(self) -> Endpoint | None:
        """What it is connected to itself; None before the first start."""
        return self._flow.endpoint

    @property
    def mqtt_url(self) -> str:
        """Where devices that speak MQTT connect, as ``mqtts://127.0.0.1:8883``; empty unless ``FlowOptions(mqtt=…)``.

        They show the certificate that `invite` writes, publish JSON to ``pratipad/FLOW/up/DEVICE`` and get orders, as
        JSON, on ``pratipad/FLOW/plain/DEVICE``.
        """
        return self._flow.mqtt_url

    @property
    def graph(self) -> Any:
        """A `networkx.DiGraph` with the same nodes as the picture."""
        return self._flow.graph

    @property
    def devices(self) -> dict[str, DeviceStats]:
        """The devices that are connected now, by name."""
        return self._flow.devices

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that run here, counted from 0: all of them, unless several edges share the flow.

        A flow is divided by ``options=FlowOptions(partitions=n)``. Then every process that starts it, against one
        server, is one more edge: partitions move to it from the others, and back when it ends or is lost.
        """
        return self._flow.partitions

    def stats(self) -> FlowStats:
        """Return a frozen snapshot of all counters; of a stopped flow, the last one, with its rates at 0."""
        portal = self._portal
        if portal is None or portal.inside:
            return self._flow.stats()

        async def snapshot() -> FlowStats:
            return self._flow.stats()

        with contextlib.suppress(FlowError):  # the portal closes under our feet: it has just stopped
            return portal.run(snapshot())
        return self._flow.stats()

    # -- life ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Flow:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Flow:
        """Start it, with the embedded server if it needs one; a flow that runs is left alone.

        Raises
        ------
        FlowError
            If a flow of that name runs already, here or elsewhere.
        ServerError
            If the embedded server can't be started.
        ProcessorError
            If a processor can't be set up.
        TransportError
            If the server can't be reached or doesn't let us in.
        """
        with self._lock:
            if self.state in ("running", "paused", "draining") and self._portal is not None:
                return self
            portal = self._opened()
            try:
                portal.run(self._flow.start())
            except BaseException:
                self._portal = None
                portal.close()
                registry.leave(self)
                raise
            self._messages = BlockingReader(portal, self._flow.opened_reader)
            self._stop_requested.clear()
        return self

    def stop(self) -> None:
        """Refuse new messages, finish what is in hand, store it, and stop; what is stored stays.

        Frees the thread, the connection and, with the last flow, the embedded server. A stopped flow is left alone.
        """
        with self._lock:
            portal = self._portal
            if portal is None:
                return
            try:
                if self._messages is not None:
                    self._messages.close()
                portal.run(self._flow.stop())
            finally:
                self._portal = self._messages = None
                portal.close()
                registry.leave(self)

    def request_stop(self) -> None:
        """Have the flow stopped, soon, by a thread of its own; returns at once, whatever the caller's thread is."""
        if not self._stop_requested.is_set():
            self._stop_requested.set()
            threading.Thread(target=self.stop, name=f"pratipad stops {self.name}", daemon=True).start()

    def forget(self) -> None:
        """Stop, and delete all that is stored under its name: what waits, results, positions, dead letters."""
        with self._lock:
            self.stop()
            with Portal(f"pratipad {self.name}") as portal:
                portal.run(self._flow.forget())

    def update(self, notation: str, namespace: Mapping[str, Any] | None = None) -> SwapReceipt | None:
        """Change what runs; only what differs is swapped, between two batches. None if nothing does.

        Nothing is lost, doubled or reordered. A kept processor's instance goes on; a changed one's state is carried
        over by `snapshot` and `restore`. If a new one can't be set up, all stays as it was.

        Raises
        ------
        NotationError, ProcessorError
            If the new notation or a new processor is no good.
        """
        names = callers_namespace(1) if namespace is None else namespace
        with self._lock:
            if self._portal is None:
                with Portal(f"pratipad {self.name}") as portal:
                    return portal.run(self._flow.update(notation, names))
        return self._run(self._flow.update(notation, names))

    # -- messages -----------------------------------------------------------------------------------------------

    def take(self, n: int = 1, timeout: float | None = 10.0) -> list[Message]:
        """Return the next `n` messages that reached the cloud, in order; each is returned once.

        Parameters
        ----------
        timeout
            Seconds to wait for them; None waits for ever.

        Raises
        ------
        WaitTimeout
            If fewer have come; those wait for the next `take`.
        FlowError
            If the flow isn't running, or stops meanwhile.
        """
        messages = self._messages
        if messages is None:
            raise FlowError(f"flow {self.name!r} is not running. Start it with start().")
        try:
            return messages.take(n, timeout)
        except TransportClosed as error:
            raise self._flow.stopped_meanwhile(n) from error

    def __iter__(self) -> Iterator[Message]:
        """Iterate over messages as they reach the cloud, until the flow stops."""
        messages = self._messages
        return iter(messages) if messages is not None else iter(())

    def seek(self, where: Literal["oldest", "newest"]) -> None:
        """Let the next `take` go on elsewhere: ``"newest"`` skips what has arrived, ``"oldest"`` begins with what is kept.

        Raises
        ------
        FlowError
            If the flow isn't running.
        SettingsError
            If `where` is neither.
        """
        messages = self._messages
        if messages is not None:
            messages.settle()
        self._run(self._flow.seek(where))

    def send(self, payload: Any, to: str | Sequence[str] | None = None) -> str:
        """Send an order to one device, to several, or to all that are known; returns the order's id.

        It is safe when this returns, and kept for a device that is away.

        Raises
        ------
        OneWayError
            If an arrow is ``~>``.
        """
        return self._run(self._flow.send(payload, to))

    def pull(self, n: int = 1, device: str | None = None) -> Request:
        """Pull mode: ask for `n` readings in total, of `device` or of all in turn.

        Raises
        ------
        FlowError
            If the flow's input isn't Pull.
        """
        return Request(self, self._run(self._flow.pull(n, device)))

    def settled(self, timeout: float = 30.0) -> None:
        """Wait until all that was accepted is processed and stored at Output. Readers don't count.

        Raises
        ------
        WaitTimeout
            If that isn't so within `timeout` seconds; it says what is left.
        """
        self._run(self._flow.settled(timeout))

    def forget_reader(self, name: str) -> None:
        """Delete a named reader with its position, so that the flow no longer keeps messages for it."""
        self._run(self._flow.forget_reader(name))

    # -- letting others in --------------------------------------------------------------------------------------

    def endpoint_for(self, role: Role, name: str) -> Endpoint:
        """Let a party in by that name, and return what it connects to; `Device.connect` and `Cloud` call it.

        Parts may come in any order: before the flow is started, this starts its server, which `stop` gives back.
        """
        return self._let_in(lambda: self._flow.endpoint_for(role, name))

    def invite(self, name: str, folder: str | Path, role: Role = "device") -> Endpoint:
        """Write the certificate folder that lets a device, or a ``"reader"``, of that name in, to be carried to it.

        Returns
        -------
        Endpoint
            With the URL and the flow's name that `Device.connect` needs besides the folder.
        """
        return self._let_in(lambda: self._flow.invite(name, folder, role))

    def _let_in(self, work: Callable[[], Coroutine[Any, Any, Endpoint]]) -> Endpoint:
        first = self._portal is None
        try:
            return self._opened().run(work())
        except BaseException:
            if first:
                self.stop()
            raise
