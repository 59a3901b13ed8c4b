"""`Flow`: a dataflow's handle for notebooks and scripts, synchronous and safe to call from any thread.

Owns the thread that the flow runs in, and that thread's ends: a stop, a failure, the end of the program. All
else is for `AsyncFlow`, whose methods it calls. The other methods of `Flow` are in `messages_blocking` and
`cockpit_blocking`.
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
from pratipad_nb.forks import closing_in_parent, watch
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
from pratipad_nb.transport.parties import Role
from pratipad_nb.transport.rights import Verb

__all__ = ["Flow"]

Result = TypeVar("Result")


class Flow(Messages, Cockpit):
    """One dataflow by its name.

    Devices, readers and all that is stored belong to the *name*: a flow that is started again under the same
    name, in this process or another, goes on where the last run stopped.

    Parameters
    ----------
    notation
        The dataflow, as ``"Push <~> P1 <~> [P2, P3] <~> Output"``.
    name
        The flow's name; see `pratipad_nb.settings.NAME_PATTERN`.
    namespace
        The names in which processors are looked up. Default: the names visible to the caller.
    delivery
        ``"durable"``: messages at Output are neither lost nor doubled and keep their order per device.
        ``"fast"``: at most once, lower latency; gaps are counted.
    server, certs
        An existing server's URL and the edge's certificate folder. Default: an embedded server in the state
        folder.
    rate
        Demand and Pull: most messages a second that devices are asked for. Default: no limit.
    max_demand, min_demand
        Demand: ask for more when at most `min_demand` messages are in flight or asked for, up to
        `max_demand`. Defaults: 1,000, which keeps a fast processor busy over a round trip, and half of
        `max_demand`.
    keep
        How many of the messages at Output are kept; a number is seconds. Default: one hour, at most 1 GiB.
    options
        Options that are seldom changed.
    home
        The state folder. Default: the folder that ``PRATIPAD_HOME`` names when the flow is made, or else
        ``.pratipad`` in the current folder.
    tenant
        The flow's tenant. Flows of two tenants may have the same name, and their devices and readers, too:
        the tenants see nothing of each other. Default: none.

    Raises
    ------
    NotationError
        If the notation is wrong, or names an unknown processor.
    SettingsError
        If an argument has no valid value; the text says which values are valid.
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
        tenant: str = "",
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
            tenant=tenant,
        )
        self._lock = threading.RLock()
        self._portal: Portal | None = None
        self._messages: BlockingReader | None = None
        self._stop_requested = threading.Event()
        watch(self)

    def _find_forked(self) -> bool:
        self._lock = threading.RLock()
        return self._portal is not None

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
        """Refuse a method that waits for the flow's event loop to a caller on that loop."""
        portal = self._portal
        if portal is not None:
            portal.check_outside(f"flow.{verb}")

    def _check_outside(self, verb: str) -> None:
        """Refuse a method that waits for the flow's end or begin to a caller inside the flow."""
        check_outside(self._flow, self.name, verb)
        self._check_outside_loop(verb)

    def _opened(self) -> Portal:
        """Return the flow's thread, made at its first use; `stop` ends it."""
        # Without the lock: a processor that lets a party in mustn't wait for a stop, which drains that
        # processor.
        portal = self._portal
        if portal is not None:
            return portal
        with self._lock:
            if self._portal is None:
                registry.enter(self)
                self._portal = Portal(f"pratipad {self.name}")
            return self._portal

    # -- the flow --------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The flow's name."""
        return self._flow.name

    @property
    def tenant(self) -> str:
        """The flow's tenant; empty: none."""
        return self._flow.tenant

    @property
    def notation(self) -> str:
        """The canonical notation of the dataflow that runs."""
        return self._flow.notation

    @property
    def dataflow(self) -> Dataflow:
        """The model of the dataflow that runs."""
        return self._flow.dataflow

    @property
    def settings(self) -> EdgeSettings:
        """The settings as they hold now: delivery, rate, bounds of demand, `keep`, options."""
        return self._flow.settings

    @property
    def state(self) -> FlowState:
        """The flow's state: starting, running, paused, draining, stopped or failed."""
        return self._flow.state

    @property
    def endpoint(self) -> Endpoint | None:
        """The endpoint of the flow's own connection; None before the first start."""
        return self._flow.endpoint

    @property
    def mqtt_url(self) -> str:
        """URL for devices that speak MQTT, as ``mqtts://127.0.0.1:8883``; empty without `FlowOptions.mqtt`.

        MQTT devices show the certificate that `invite` writes, publish JSON to ``pratipad/FLOW/up/DEVICE``
        and get orders, as JSON, on ``pratipad/FLOW/plain/DEVICE``.
        """
        return self._flow.mqtt_url

    def stats(self, all_edges: bool = False) -> FlowStats:
        """Return a frozen snapshot of all counters; of a stopped flow, the last one, with rates at 0.

        Parameters
        ----------
        all_edges
            Whether the counters are those of all edges that run the flow, and `edges` names these edges. Else
            the counters are those of this process. An edge that gives no answer within a second is named, and
            its counters are missing.
        """
        portal = self._portal
        if all_edges:
            self._check_outside_loop("stats(all_edges=True)")
        if portal is None or portal.inside:
            return self._flow.stats()
        if all_edges:
            with contextlib.suppress(PortalClosed):  # the flow has just stopped
                return portal.run(self._flow.stats(all_edges=True))

        async def snapshot() -> FlowStats:
            return self._flow.stats()

        with contextlib.suppress(FlowError):  # the portal closed in between: the flow has just stopped
            return portal.run(snapshot())
        return self._flow.stats()

    # -- life ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Flow:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with closing_in_parent():
            self.stop()

    def start(self) -> Flow:
        """Start the flow, with the embedded server unless `server` is given; do nothing if the flow runs.

        Raises
        ------
        FlowError
            If a flow of that name runs already, in this process or another, or if a processor of this flow is
            the caller.
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
        """Refuse new messages, finish and store the messages in flight, and stop; stored messages stay.

        Frees the thread, the connection and, with the last flow, the embedded server. Does nothing to a
        stopped flow. A warning names the messages that aren't finished after `FlowOptions.drain_seconds`;
        they are left to the next start.

        Raises
        ------
        FlowError
            If a processor of this flow is the caller: the stop would wait for it. Use `request_stop` there.
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
        """Let a thread of its own stop the flow soon; return at once. Any thread may call this method."""
        if not self._stop_requested.is_set():
            self._stop_requested.set()
            # In a context of its own, also where threads inherit their context: the caller may be a
            # processor, inside the flow.
            stop = functools.partial(contextvars.Context().run, self.stop)
            threading.Thread(target=stop, name=f"pratipad stops {self.name}", daemon=True).start()

    def forget(self) -> bool:
        """Stop, and delete all that is stored under the flow's name; return whether anything was stored.

        Stored are inputs that wait, results, positions and dead letters.

        Raises
        ------
        FlowError
            If a processor of this flow is the caller: the stop would wait for it.
        """
        self._check_outside("forget")
        with self._lock:
            self.stop()
            with Portal(f"pratipad {self.name}") as portal:
                return portal.run(self._flow.forget())

    def forget_state(self, processor: str | None = None) -> tuple[str, ...]:
        """Delete the stored state of a processor, or of all processors; messages and positions stay.

        For a stopped flow whose state can't follow, for example to another `concurrency` (see `Keyed`): the
        processor begins without state at the next start. Returns the keys of the processors whose state was
        deleted.

        Raises
        ------
        FlowError
            If the flow runs, here or in another process: its processors hold their state.
        """
        self._check_outside("forget_state")
        with self._lock:
            if self._portal is not None:
                return self._run(self._flow.forget_state(processor))
            with Portal(f"pratipad {self.name}") as portal:
                return portal.run(self._flow.forget_state(processor))

    def update(self, notation: str, namespace: Mapping[str, Any] | None = None) -> SwapReceipt | None:
        """Change the dataflow; swap the processors that differ, between two batches. None if none differs.

        No message is lost, doubled or reordered. The instance of a kept processor goes on; `snapshot` and
        `restore` carry the state of a changed processor over. If a new processor can't be set up, the
        dataflow stays as it was.

        Raises
        ------
        NotationError, ProcessorError
            If the new notation is wrong, or a new processor can't be set up.
        FlowError
            If a processor of this flow is the caller: the change would wait for it.
        """
        names = names_for(namespace)
        self._check_outside("update")
        with self._lock:
            if self._portal is None:
                with Portal(f"pratipad {self.name}") as portal:
                    return portal.run(self._flow.update(notation, names))
        return self._run(self._flow.update(notation, names))

    # -- letting parties in ----------------------------------------------------------------------------------

    def endpoint_for(self, role: Role, name: str) -> Endpoint:
        """Let a party in by that name, and return its endpoint; called by `Device.connect` and `Cloud`.

        Devices, readers and the flow may start in any order: before the flow is started, this method starts
        its server, which `stop` gives back.
        """
        return self._let_in(lambda: self._flow.endpoint_for(role, name))

    def invite(self, name: str, folder: str | Path, role: Role = "device", *, mqtt: bool = False) -> Endpoint:
        """Write the certificate folder that lets a party in by that name, to be carried to its machine.

        Parameters
        ----------
        role
            ``"device"``, ``"reader"`` (a `Cloud`), or ``"edge"``: another process that runs this flow,
            against the same server; its certificate is the flow's, whatever the name.
        mqtt
            Whether the device speaks MQTT. An identity is of one kind: inviting a device of the same name
            without `mqtt` ends its MQTT connections.

        Raises
        ------
        SettingsError
            If the name, the folder or the role isn't valid, or if nobody needs a certificate, as at
            ``memory://``.
        FlowError
            If somebody else runs the server, and so decides who is let in.

        Returns
        -------
        Endpoint
            The URL and the flow's name, which `Device.connect` needs besides the folder.
        """
        return self._let_in(lambda: self._flow.invite(name, folder, role, mqtt=mqtt))

    def who_can(self, verb: Verb, subject: str) -> tuple[str, ...]:
        """Return the identities of the flow's parties that may do so, sorted: ``urn:pratipad:house:edge``.

        Counted are those that the flow's server lets in: the edge, devices and readers that have connected or
        were invited, and leaves. As `endpoint_for`, this method starts the server of a flow that is stopped.

        Parameters
        ----------
        verb
            ``"publish"`` or ``"subscribe"``.
        subject
            Below the flow (``"up.room1"``) or whole (``"pratipad.house.up.room1"``,
            ``"$JS.API.STREAM.DELETE.OUT_house"``). A pattern (``"down.*"``) asks for those that may do so
            with every subject that the pattern means. `docs/security.md` lists the subjects.

        Raises
        ------
        SettingsError
            If the arguments aren't valid, or at ``memory://``, where nobody's rights are checked.
        FlowError
            If somebody else runs the server.
        """
        return self._let_in(lambda: self._flow.who_can(verb, subject))

    def revoke(self, name: str, role: Role = "device") -> bool:
        """Let a party in no more, and end its connections at once; return whether it was let in.

        All certificates of that name are out, also where they were copied. A party of the same name may be
        invited again: its next certificate has another serial number. ``pratipad certs revoke`` does the same
        where no flow runs, and for one certificate alone.

        Raises
        ------
        SettingsError
            If the name or the role isn't valid, or at ``memory://``, where nobody is kept out.
        FlowError
            If somebody else runs the server.
        """
        return self._let_in(lambda: self._flow.revoke(name, role))

    def share(self, tenant: str, *, reader: str) -> None:
        """Share the flow's output, to be read only, with the reader of another tenant: a guest.

        The guest reads the output and the counters, and may do nothing else: it sends no orders and asks for
        no readings. The share outlives the flow's stop; `unshare` ends it. A certificate lets the guest in,
        as it does any reader; the certificate can be made while the share exists: ``pratipad certs issue
        reader archive --flow acme/house --tenant globex``, or ``invite("archive@globex", folder,
        role="reader")``.

        Parameters
        ----------
        tenant
            The guest's tenant; empty: none.
        reader
            The guest's name, without its tenant. Another call shares the flow with a further reader.

        Raises
        ------
        SettingsError
            If `tenant` is the flow's own, or a name isn't valid.
        FlowError
            If somebody else runs the server.
        """
        self._let_in(lambda: self._flow.share(tenant, reader=reader))

    def unshare(self, tenant: str) -> bool:
        """Cut all readers of a tenant off the flow's output at once, and forget their positions.

        Returns whether the flow was shared with the tenant. The errors are those of `share`.
        """
        return self._let_in(lambda: self._flow.unshare(tenant))

    def _let_in(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        first = self._portal is None
        try:
            return self._opened().run(work())
        except BaseException:
            if first:
                self.stop()
            raise
