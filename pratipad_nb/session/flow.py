"""`Flow`: a dataflow's handle for notebooks and scripts, synchronous and safe to call from any thread.

Owns the thread that the flow runs in, and its ends: a stop, a failure, the end of the program. All else is
`AsyncFlow`, which it stands on; its other methods are in `messages_blocking` and `cockpit_blocking`.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pratipad_nb.cloud.blocking_take import BlockingReader
from pratipad_nb.dataflow import Dataflow
from pratipad_nb.errors import FlowError
from pratipad_nb.portal import Portal, PortalClosed
from pratipad_nb.runtime.edge.swap import SwapReceipt
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.runtime.values.stats import FlowState, FlowStats
from pratipad_nb.session import registry
from pratipad_nb.session.asynchronous import DEFAULT_MAX_DEMAND, AsyncFlow
from pratipad_nb.session.callers import names_for
from pratipad_nb.session.cockpit_blocking import Cockpit
from pratipad_nb.session.ends import check_outside, ended_meanwhile, not_running
from pratipad_nb.session.messages_blocking import Messages
from pratipad_nb.settings import Endpoint, FlowOptions, Keep
from pratipad_nb.transport.permissions import Role

__all__ = ["Flow"]

Result = TypeVar("Result")


class Flow(Messages, Cockpit):
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
        Demand: ask for more when at most `min_demand` messages are in flight or asked for, up to `max_demand`. Defaults:
        1,000, which keeps a fast processor busy over a round trip, and half of it.
    keep
        How much of what reached Output is kept; a number is seconds. Default: one hour, at most 1 GiB.
    options
        What is seldom changed.
    home
        The state folder. Default: what ``PRATIPAD_HOME`` says when the flow is made, or else ``.pratipad`` in the
        current folder.

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
            namespace=names_for(namespace),
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
            raise not_running(self._flow)
        verb = getattr(work, "__name__", "")
        try:
            return portal.run(work, called=f"flow.{verb}")
        except PortalClosed:
            raise ended_meanwhile(self.name, f"{verb}() was", "Start it with start().") from None

    def _check_outside_loop(self, verb: str) -> None:
        """Refuse what waits for the flow's event loop to who runs on it."""
        portal = self._portal
        if portal is not None:
            portal.check_outside(f"flow.{verb}")

    def _check_outside(self, verb: str) -> None:
        """Refuse what waits for the flow's end, or begin, to who runs inside it; nothing is touched before."""
        check_outside(self._flow, self.name, verb)
        self._check_outside_loop(verb)

    def _opened(self) -> Portal:
        """Return the thread in which the flow lives, made for the first who needs it; `stop` ends it."""
        # Without the lock: who is asked for by a processor mustn't wait for a stop that drains.
        portal = self._portal
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
    def settings(self) -> EdgeSettings:
        """How it runs: delivery, rate, bounds of demand, what is kept, options. As they hold now."""
        return self._flow.settings

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
            If a flow of that name runs already, here or elsewhere; or if a processor of this one calls it.
        ServerError
            If the embedded server can't be started.
        ProcessorError
            If a processor can't be set up.
        TransportError
            If the server can't be reached or doesn't let us in.
        """
        self._check_outside("start")
        with self._lock:
            if self.state in ("running", "paused", "draining") and self._portal is not None:
                return self
            portal = self._opened()
            try:
                portal.run(self._flow.start(), called="flow.start")
            except BaseException:
                self._portal = None
                portal.close()
                registry.leave(self)
                raise
            self._messages = BlockingReader(portal, self._flow._opened_reader)  # noqa: SLF001 - one handle
            self._stop_requested.clear()
        return self

    def stop(self) -> None:
        """Refuse new messages, finish what is in flight, store it, and stop; what is stored stays.

        Frees the thread, the connection and, with the last flow, the embedded server. A stopped flow is left alone. What
        isn't finished after `FlowOptions.drain_seconds` is named in a warning and left to the next start.

        Raises
        ------
        FlowError
            If a processor of this flow calls it, which it would wait for: there, use `request_stop`.
        """
        self._check_outside("stop")
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
            # In a context of its own, also where threads inherit one: the caller may be a processor, inside the flow.
            stop = functools.partial(contextvars.Context().run, self.stop)
            threading.Thread(target=stop, name=f"pratipad stops {self.name}", daemon=True).start()

    def forget(self) -> bool:
        """Stop, and delete all that is stored under its name: what waits, results, positions, dead letters.

        Returns whether anything was stored.

        Raises
        ------
        FlowError
            If a processor of this flow calls it, which it would wait for.
        """
        self._check_outside("forget")
        with self._lock:
            self.stop()
            with Portal(f"pratipad {self.name}") as portal:
                return portal.run(self._flow.forget())

    def update(self, notation: str, namespace: Mapping[str, Any] | None = None) -> SwapReceipt | None:
        """Change what runs; only what differs is swapped, between two batches. None if nothing does.

        Nothing is lost, doubled or reordered. A kept processor's instance goes on; a changed one's state is carried
        over by `snapshot` and `restore`. If a new one can't be set up, all stays as it was.

        Raises
        ------
        NotationError, ProcessorError
            If the new notation or a new processor is no good.
        FlowError
            If a processor of this flow calls it, which it would wait for.
        """
        names = names_for(namespace)
        self._check_outside("update")
        with self._lock:
            if self._portal is None:
                with Portal(f"pratipad {self.name}") as portal:
                    return portal.run(self._flow.update(notation, names))
        return self._run(self._flow.update(notation, names))

    # -- letting others in --------------------------------------------------------------------------------------

    def endpoint_for(self, role: Role, name: str) -> Endpoint:
        """Let a party in by that name, and return what it connects to; `Device.connect` and `Cloud` call it.

        Parts may come in any order: before the flow is started, this starts its server, which `stop` gives back.
        """
        return self._let_in(lambda: self._flow.endpoint_for(role, name))

    def invite(self, name: str, folder: str | Path, role: Role = "device") -> Endpoint:
        """Write the certificate folder that lets somebody in by that name, to be carried to his machine.

        Parameters
        ----------
        role
            ``"device"``, ``"reader"`` (a `Cloud`), or ``"edge"``: another process that runs this flow, against the same
            server; its certificate is the flow's, whatever the name.

        Raises
        ------
        SettingsError
            If the name, the folder or the role can't be; or if nobody needs a certificate, as at ``memory://``.
        FlowError
            If others run the server, and so decide who is let in.

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
