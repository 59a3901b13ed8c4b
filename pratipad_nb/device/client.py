"""`AsyncDevice`: a device's side of a flow, on the caller's event loop.

A flow has a client at both ends: this module is the device's, which sends readings and runs orders.
`pratipad_nb.cloud.client` is the cloud's, which reads results and sends orders.

Owns a device's public methods and its life: connect once, take over from a predecessor of the same name,
close without losing anything silently. The tasks that run between `connect` and `close` are for
`pratipad_nb.device.engine`; the synchronous twin is `pratipad_nb.device.blocking`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from pratipad_nb.bugs import log_bug
from pratipad_nb.device.credit import Credit
from pratipad_nb.device.downlink import checked_receive
from pratipad_nb.device.engine import Engine
from pratipad_nb.device.memory_outbox import MemoryOutbox
from pratipad_nb.device.outbox import KEEP_BYTES, Outbox
from pratipad_nb.device.reading import Source, checked_every
from pratipad_nb.device.receipt import Receipt
from pratipad_nb.device.renewing import renewed
from pratipad_nb.device.takeover import Key, Registry
from pratipad_nb.device.target import find_endpoint
from pratipad_nb.errors import (
    CertificateError,
    DeviceError,
    NotInvited,
    PayloadError,
    TransportError,
    WaitTimeout,
)
from pratipad_nb.forks import closing_in_parent, watch
from pratipad_nb.settings import valid_name, valid_tenant
from pratipad_nb.transport.codec import encode_payload
from pratipad_nb.transport.frames import new_epoch
from pratipad_nb.transport.parties import flow_key

__all__ = ["CLOSE_SECONDS", "AsyncDevice"]

log = logging.getLogger(__name__)

#: How long `close` waits until all pushed messages are safe, in seconds: a server's restart, and a margin.
CLOSE_SECONDS = 10.0
#: How long the closing waits when a newer device of the same name takes over, in seconds: the newer device's
#: user waits as well.
_TAKEOVER_SECONDS = 2.0
#: How long `connect` waits for the flow to know the device, in seconds: an edge that runs answers in
#: some milliseconds.
_GREETING_SECONDS = 0.25


def _outbox(name: str, keep: str | Path | None, keep_bytes: int) -> Outbox:
    if keep is None:
        return MemoryOutbox(name)
    # Here, so that a device without `keep` doesn't load SQLite.
    from pratipad_nb.device.kept_outbox import KeptOutbox

    return KeptOutbox(name, keep, keep_bytes)


class AsyncDevice:
    """A device: sends readings to a flow, and runs the orders that come back.

    Parameters
    ----------
    name
        The device's name, by which the flow invites the device. A name is for one process at a time: of two
        processes that connect under one name, the readings of both arrive, each once and in order, but an
        order is run by each of the two.
    read
        The source of readings: a callable without arguments, or any iterable; blocking or asynchronous. A
        blocking `read` runs on a thread of its own. If `read` raises, that reading is skipped, and the next
        is tried after `every`, or a second.
    receive
        Called with the payload of each order; ``def`` (on a thread of its own) or ``async def``.
    keep
        A folder in which pushed messages are kept until they are safe, so that they outlive this device, and
        a link that is down for long. `push` returns once its message is written, and never waits. The next
        device of this name and folder goes on with the messages that are left, each exactly once. Keeping
        costs a write a message, and survives a power cut but for the last second. While the disk is full or
        fails, the device works as without `keep`: `error` and the log say so, `unkept` counts, and a
        receipt's `kept` is False; once there is room, all goes to the file again. A damaged file is renamed,
        and a message in the file that can't be read is dropped and counted in `dropped`.
        Default: messages are kept in memory, and `push` waits while the send buffer is full.
    keep_bytes
        How many bytes are kept in the folder. Beyond that the oldest messages are dropped: `dropped`, the log
        and the flow's ``stats().devices[name].gaps`` say so, and the receipts of dropped messages raise.
        Default 64 MiB.
    every
        Seconds between readings, on a schedule that doesn't drift; ticks that were missed are not made up.
        Default: an iterable is drawn from as fast as the flow takes its readings, a callable is called once a
        second. In Pull and Demand mode, readings are taken when they are asked for, at the ticks of `every`
        if it is given.
    tenant
        The tenant of the flow that the device connects to. Default: none, or that of the `Flow` that is
        connected to.

    Raises
    ------
    SettingsError
        If `name` can't name a device, or `tenant` a tenant.
    DeviceError
        If `read`, `receive` or `every` isn't of an allowed kind.
    """

    _holders: ClassVar[Registry[AsyncDevice]] = Registry()
    _gateway: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        *,
        read: Any = None,
        receive: Callable[..., Any] | None = None,
        every: float | None = None,
        keep: str | Path | None = None,
        keep_bytes: int = KEEP_BYTES,
        tenant: str = "",
    ) -> None:
        self._name = valid_name(name, "device")
        self._tenant = valid_tenant(tenant)
        self._source = None if read is None else Source(read)
        self._receive = checked_receive(receive)
        self._every = checked_every(every)
        if every is not None and read is None:
            raise DeviceError(
                f"every={every!r} is a schedule for `read`, which is missing. Pass `read`, or omit `every`."
            )
        self._credit = Credit()
        #: The messages that are pushed and not safe yet. `Device` puts messages into it from any thread.
        self.outbox = _outbox(name, keep, keep_bytes)
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._state = "not connected"
        watch(self)

    def _find_forked(self) -> bool:
        return self._state == "open"

    def __repr__(self) -> str:
        return self.described(type(self).__name__)

    def described(self, kind: str) -> str:
        """Return the `repr` of a handle of that `kind`."""
        where = f" of {flow_key(self.flow, self.tenant)!r}" if self.flow else ""
        kept = f" (kept in {self.kept_in})" if self.waiting and self.kept_in else ""
        return f"<{kind} {self.name!r}{where}: {self.state}, {self.sent} sent, {self.waiting} waiting{kept}>"

    # -- how it stands ---------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the device."""
        return self._name

    @property
    def flow(self) -> str:
        """Name of the flow that the device is connected to, empty before `connect`."""
        return self._engine.endpoint.flow if self._engine else ""

    @property
    def tenant(self) -> str:
        """The tenant of the device and its flow; empty: none."""
        return self._engine.endpoint.tenant if self._engine else self._tenant

    @property
    def connected(self) -> bool:
        """Whether the link to the server stands now."""
        return self._state == "open" and self._engine is not None and self._engine.link_stands

    @property
    def state(self) -> str:
        """The device's state in a phrase.

        One of "not connected", "connecting", "connected", "link down" and "not let in: …"; or a phrase that
        begins with "closed" or "failed" and ends with the reason.
        """
        if self._state != "open" or self._engine is None:
            return self._state
        if self.outbox.error is not None:
            return f"failed: {self.outbox.error}"
        if self._engine.link is None:
            return "connecting"
        if self._engine.link_stands:
            return "connected"
        return f"not let in: {self._engine.refusal}" if self._engine.refusal else "link down"

    @property
    def sent(self) -> int:
        """How many messages are safe (durable delivery) or handed over (fast)."""
        return self.outbox.acked

    @property
    def waiting(self) -> int:
        """How many messages are held or in flight."""
        return self.outbox.unsafe

    @property
    def kept_in(self) -> str:
        """Path at which the waiting messages outlive this device; empty for a device without `keep`.

        While the file can't be written, the newest `unkept` messages are not there.
        """
        return self.outbox.kept_in

    @property
    def unkept(self) -> int:
        """How many waiting messages are lost if the program ends now.

        All of them for a device without `keep`. For a device with `keep`, the messages that were pushed while
        the file couldn't be written: `error` says why.
        """
        return self.outbox.unkept

    @property
    def dropped(self) -> int:
        """How many messages were dropped for want of room; only a device with `keep` drops messages."""
        return self.outbox.dropped

    @property
    def mode(self) -> str:
        """The flow's mode, ``"push"``, ``"pull"`` or ``"demand"``; empty until the flow has answered."""
        return self._credit.mode

    @property
    def error(self) -> str:
        """The error of the last reading, or of the last order, or why messages can't be kept; else empty."""
        return self._engine.error if self._engine else ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings that the certificate of this device ends, from 14 days before; empty as a rule."""
        return self._engine.warnings if self._engine else ()

    @property
    def failed(self) -> int:
        """How many readings and orders have failed since the device connected."""
        return self._engine.failed if self._engine else 0

    # -- connecting ------------------------------------------------------------------------------------------

    async def connect(self, target: Any, *, flow: str | None = None, certs: str | Path | None = None) -> Self:
        """Connect to a flow and start; returns the device itself.

        A flow that runs knows the device when `connect` returns. If no flow or server answers yet, the device
        goes on trying in the background, for ever: the parts of a flow may start in any order. A device of
        the same name that this process has connected to that flow is closed first.

        Parameters
        ----------
        target
            A flow (which invites the device), an `Endpoint`, or a URL like ``tls://host:4222``.
        flow, certs
            With a URL: the flow's name, and a certificate folder as `Flow.invite` writes it.

        Raises
        ------
        NotInvited, CertificateError
            If the server doesn't let this device in, or isn't the server that the certificates name.
        SettingsError
            If `target` is none of the above or of another tenant, or `flow` and `certs` don't go with it.
        DeviceError
            If the device is connected elsewhere, or closed.
        """
        endpoint = await find_endpoint(target, self.name, flow, certs, self._tenant)
        if self._engine is not None and self._state == "open" and self._engine.endpoint == endpoint:
            return self  # a notebook's cell was run again
        if self._state != "not connected":
            raise DeviceError(
                f"device {self.name!r} is {self.state} and connects once only. "
                f"Make a new Device({self.name!r})."
            )
        self._state = "open"
        self._loop = asyncio.get_running_loop()
        self._engine = Engine(
            self.name,
            endpoint,
            self.outbox,
            self._credit,
            source=self._source,
            every=self._every,
            receive=self._receive,
            gateway=self._gateway,
        )
        key = self._key
        before = self._holders.swap(key, self)
        try:
            if before is not None:
                await before._yield_to(self)  # noqa: SLF001 - of the same class
            # The epoch is drawn here and not by __init__: devices made before a fork would share an epoch.
            self.outbox.claim(flow_key(endpoint.flow, endpoint.tenant), new_epoch())
            self._credit.begin(self.outbox.epoch)
            await self._first_dial(self._engine)
            if self._state != "open":  # a newer device has taken over meanwhile
                await self._engine.hang_up()
                raise DeviceError(f"device {self.name!r} is {self._state}.")
        except BaseException as error:
            self._holders.drop(key, self)
            self.outbox.release()
            self._state = f"closed, for it couldn't connect ({error or type(error).__name__})"
            raise
        # The engine's tasks outlive the task that called connect.
        self._running = self._loop.create_task(self._engine.run(), name=f"device {self.name}")
        self._running.add_done_callback(lambda _: self._holders.drop(key, self))
        try:
            await self._engine.greeted(_GREETING_SECONDS)
        except BaseException:
            self._running.cancel()
            raise
        return self

    @staticmethod
    async def _first_dial(engine: Engine) -> None:
        try:
            await engine.dial()
        except (NotInvited, CertificateError):
            raise
        except (TransportError, WaitTimeout) as error:
            log.info("device %s can't connect yet: %s", engine.name, error)

    @property
    def _key(self) -> Key:
        assert self._engine is not None
        endpoint = self._engine.endpoint
        return endpoint.url, flow_key(endpoint.flow, endpoint.tenant), self.name

    async def _yield_to(self, successor: AsyncDevice) -> None:
        """Close, for `successor` takes over; may be awaited on any event loop."""
        loop = self._loop
        if loop is None or not loop.is_running():
            return  # the loop has ended, and this device with it
        work = self._close(_TAKEOVER_SECONDS, "closed: a newer device of that name took over")
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            await asyncio.wait_for(asyncio.wrap_future(future), 2 * _TAKEOVER_SECONDS + 4)
        except (DeviceError, TimeoutError) as error:
            log.warning("device %s was taken over by %r: %s", self.name, successor, error)

    # -- sending ---------------------------------------------------------------------------------------------

    async def push(self, payload: Any) -> Receipt:
        """Take `payload` for sending and return its receipt; waits while the send buffer is full.

        The buffer holds 16,384 messages or 16 MiB. The payload is encoded here: changing it afterwards
        changes nothing. In Pull and Demand mode a pushed message is held until the flow asks for it.

        Raises
        ------
        PayloadError
            If the payload is not JSON-like, or too large.
        DeviceError, NotInvited
            If the device isn't connected, is closed or has failed.
        """
        return Receipt(self.outbox, await self.outbox.put_soon(encode_payload(payload)))

    async def flush(self, timeout: float | None = 30.0) -> None:
        """Return once all messages that were pushed so far are safe (durable) or handed over (fast).

        Raises
        ------
        WaitTimeout
            If messages are left after `timeout` seconds; the error says how many.
        """
        last = self.outbox.last
        try:
            async with asyncio.timeout(timeout):
                await self.outbox.safe(last)
        except TimeoutError as error:
            raise WaitTimeout(self._left_over(f"after {timeout} s")) from error

    async def renew(self) -> None:
        """Get a new certificate with a new key over the device's own connection.

        The files in the certificate folder are replaced, and shown at the next reconnect. The former
        certificate is let in until its own end. A device asks by itself once its certificate ends within 14
        days.

        Raises
        ------
        CertificateError
            If the certificate is renewed by the flow in this program, or was renewed within the hour; if
            `cryptography` isn't installed here, or the answer can't be used. Nothing is changed then.
        WaitTimeout
            If nobody answers: the flow doesn't run, or its computer doesn't hold the authority.
        DeviceError
            If the device isn't connected.
        """
        if self._engine is None or self._engine.link is None:
            raise DeviceError(
                f"device {self.name!r} is {self.state}, and asks over its connection. Connect it."
            )
        await renewed(self._engine.link, self._engine.endpoint, self.name)

    def _left_over(self, when: str) -> str:
        why = "the server can't be reached" if not self.connected else "the flow hasn't taken them"
        if self.connected and self._credit.asked and self.outbox.waiting:
            why = "the flow hasn't asked for them"
        if not self._credit.known:
            why = "no running flow has answered yet"
        return f"{self.waiting} messages of device {self.name!r} are not safe {when}: {why}."

    # -- closing ---------------------------------------------------------------------------------------------

    async def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Flush, say farewell and close; nothing of the device remains. Idempotent.

        Parameters
        ----------
        timeout
            Seconds to wait until all pushed messages are safe.

        Raises
        ------
        DeviceError
            If messages are left that couldn't be sent, and no `keep` folder has them. The device is closed
            all the same.
        """
        await self._close(timeout, "closed")

    async def _close(self, timeout: float, state: str) -> None:
        if self._running is None:
            if self._state in ("not connected", "open"):
                self._state = state
                self.outbox.fail(DeviceError(f"device {self.name!r} is {state}. Connect a new one."))
            return
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(
                self._shut_down(self._running, timeout, state)
            )
            self._closing.add_done_callback(partial(log_bug, log, f"the closing of device {self.name!r}"))
        # A caller that stops waiting doesn't stop the closing.
        await asyncio.shield(self._closing)

    async def _shut_down(self, running: asyncio.Task[None], timeout: float, state: str) -> None:
        closed = DeviceError(f"device {self.name!r} is {state}. Connect a new one.")
        self.outbox.shut(closed)
        with contextlib.suppress(WaitTimeout, DeviceError, TransportError, PayloadError):
            await self.flush(timeout)
        self.outbox.tend()
        left, kept_in, unkept = "", self.outbox.kept_in, self.outbox.unkept
        if self.waiting:
            what = (
                f"and stay in {kept_in} for its next start" if kept_in else "and were given up when it closed"
            )
            if kept_in and unkept:
                what = f"and {unkept} of them were given up when it closed, for {self.outbox.trouble}"
            left = self._left_over(what)
        self.outbox.fail(DeviceError(left) if left else closed)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        self._state = state
        if left and unkept:
            raise DeviceError(left)
        if left:
            log.info("%s", left)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with closing_in_parent():
            await self.close()
