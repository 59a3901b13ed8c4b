"""The cloud client: reads a flow's results and sends orders, from any process or machine.

A flow has a client at either end: this module is the cloud's, which takes results;
`pratipad_nb.device.client` is the device's, which sends readings.

Owns `AsyncCloud` and its synchronous twin `Cloud`: connecting, finding out the flow's delivery, sending
orders. Reading is for `reader`, following a pull for `request`. The edge decides whether orders may pass.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pratipad_nb.cloud.blocking_take import BlockingReader
from pratipad_nb.cloud.control import Control, Description
from pratipad_nb.cloud.orders import encoded, made_order, store
from pratipad_nb.cloud.reader import Reader, check_take
from pratipad_nb.cloud.request import AskedThere
from pratipad_nb.cloud.target import Target
from pratipad_nb.errors import FlowError, OneWayError, SettingsError, TransportClosed, WaitTimeout
from pratipad_nb.forks import closing_in_parent, watch
from pratipad_nb.message import Message
from pratipad_nb.portal import shared_portal
from pratipad_nb.request import AsyncRequest, Request, checked_pull
from pratipad_nb.settings import GUEST, Endpoint, party_name
from pratipad_nb.transport.connecting import connect
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.transport.subjects import Subjects

__all__ = ["ASK_SECONDS", "AsyncCloud", "Cloud"]

#: The edge's description of its flow is used for this long, in seconds. To a person a changed notation is
#: then noticed at once, and many orders in a row don't each ask the edge.
_FRESH = 1.0
#: How long the edge may take to answer, in seconds.
ASK_SECONDS = 5.0
#: Opening the reader gets at least this long, in seconds, however short a `take`'s time-out is: a `take`
#: without time to wait still finds stored messages.
_LEAST = 1.0
#: Pause between two looks for a flow that isn't there yet, in seconds.
_POLL = 0.1


class AsyncCloud:
    """A flow's results and orders, as one named reader; for services, on an event loop.

    Connects at its first use, or by ``async with``.

    Parameters
    ----------
    flow
        Name of the flow, of another tenant's flow with that tenant: ``acme/house`` (and ``/house`` for the
        flow of no tenant); or a flow of this process, which lets the reader in.
    reader
        Name of the reader. The reader's position is stored under this name, and the certificate names it,
        too. The flow keeps the messages that a named reader hasn't taken. The name of a durable flow's reader
        is for one client at a time: a newer client that reads takes the name over, and the older client
        raises `TakenOver`.
    server, certs
        ``tls://host:port`` and the folder with this reader's certificate, as ``pratipad certs issue reader``
        or `Flow.invite` with ``role="reader"`` writes it.
    endpoint
        Server and certificates as one value, in place of `server` and `certs`.
    tenant
        The reader's tenant. If the flow is another tenant's, the reader is a guest: it reads what
        `Flow.share` lets it read. Default: none, or the flow's.

    Raises
    ------
    SettingsError
        If `flow` or `reader` is no valid name, or no argument says where to connect to.
    """

    def __init__(
        self,
        flow: Any,
        *,
        reader: str = "cloud",
        server: str | None = None,
        certs: str | Path | None = None,
        endpoint: Endpoint | None = None,
        tenant: str = "",
    ) -> None:
        # A flow's own handle never holds the flow back, and this reader has to.
        party_name(reader, "reader")
        self._target = Target(flow, reader, server, certs, endpoint, tenant)
        self._connection: Connection | None = None
        self._reader: Reader | None = None
        self._opening = asyncio.Lock()
        self._description: tuple[float, Description] | None = None
        self._closed = False
        watch(self)

    def _find_forked(self) -> bool:
        return not self._closed and (self._connection is not None or self._opening.locked())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.reader!r} of {self.flow!r} at {self._target}: {self._state}>"

    @property
    def _state(self) -> str:
        if self._closed:
            return "closed"
        if self._connection is None:
            return "not connected"
        return "connected" if self._connection.connected else "link down"

    @property
    def flow(self) -> str:
        """Name of the flow."""
        return self._target.flow

    @property
    def reader(self) -> str:
        """Name of the reader; of a guest, with its tenant: ``archive@globex``."""
        return self._target.reader

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings that the certificate of this reader ends, from 14 days before; empty as a rule."""
        return self._connection.warnings if self._connection is not None else ()

    async def __aenter__(self) -> AsyncCloud:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with closing_in_parent():
            await self.close()

    async def connect(self) -> Connection:
        """Connect unless connected, and return the connection, which reconnects by itself from then on.

        Raises
        ------
        ConnectionRefused, NotInvited, CertificateError
            If connecting fails, with its cause.
        TransportClosed
            If this client is closed.
        """
        async with self._opening:
            if self._closed:
                raise TransportClosed(f"this cloud client of {self.flow!r} is closed. Make a new one.")
            if self._connection is None:
                self._connection = await connect(
                    await self._target.endpoint(), role="reader", name=self.reader
                )
            return self._connection

    # -- reading ---------------------------------------------------------------------------------------------

    async def take(self, n: int = 1, timeout: float | None = 10.0) -> list[Message]:
        """Return the next `n` messages, once all have arrived; each is returned once, across kill -9 as well.

        Parameters
        ----------
        n
            Number of messages, at least 1.
        timeout
            Seconds to wait for all `n` messages; None: for ever.

        Raises
        ------
        WaitTimeout
            If fewer have arrived in time. The next `take` returns the messages that have.
        TakenOver
            If a newer client reads under this reader's name, in this process or another.
        """
        check_take(n, timeout)
        end = None if timeout is None else time.monotonic() + timeout
        reader = await self.opened_reader(timeout)
        return await reader.take(n, None if end is None else max(0.0, end - time.monotonic()))

    def __aiter__(self) -> AsyncCloud:
        return self

    async def __anext__(self) -> Message:
        reader = self._reader or await self.opened_reader(None)
        return await reader.__anext__()

    async def opened_reader(self, timeout: float | None = 10.0) -> Reader:
        """Return the reader that `take` takes from; wait for a flow that was never started.

        Raises
        ------
        WaitTimeout
            If the flow hasn't been started within `timeout` seconds, or the server doesn't answer.
        """
        if self._reader is not None:
            return self._reader
        try:
            async with asyncio.timeout(None if timeout is None else max(timeout, _LEAST)):
                return await self._open_reader(
                    ASK_SECONDS if timeout is None else min(timeout / 2, ASK_SECONDS)
                )
        except WaitTimeout:
            raise
        except TimeoutError:
            raise WaitTimeout(self._late(timeout or 0.0)) from None

    async def _open_reader(self, seconds: float) -> Reader:
        while (delivery := await self._delivery(seconds)) is None:  # noqa: ASYNC110 - nobody tells when a flow starts
            await asyncio.sleep(_POLL)
        connection = await self.connect()
        if self._reader is None:
            self._reader = Reader(connection, self.flow, self.reader, delivery=delivery)
        await self._reader.open()
        return self._reader

    def _late(self, timeout: float) -> str:
        if self._connection is None or not self._connection.connected:
            return (
                f"the server doesn't answer at {self._target} within {timeout:g} s. See whether it runs; the "
                "link comes back by itself."
            )
        return (
            f"the flow {self.flow!r} was not started within {timeout:g} s at {self._target}. Start it, or "
            "check the name."
        )

    async def _delivery(self, seconds: float) -> Literal["durable", "fast"] | None:
        """Return the flow's delivery, or None if it can't be told now.

        A flow that isn't running doesn't answer; a stored output then says that its delivery is durable.
        """
        try:
            return (await self.describe(seconds)).delivery
        except WaitTimeout:
            connection = await self.connect()
            try:
                stored = await connection.find_log(Subjects(self.flow).output_stream)
            except WaitTimeout:  # the link is down
                return None
            return "durable" if stored is not None else None

    @property
    def skipped_frames(self) -> int:
        """Frames that were gone before this client could read them; see `Reader.skipped_frames`."""
        return 0 if self._reader is None else self._reader.skipped_frames

    async def seek(self, where: Literal["oldest", "newest"]) -> None:
        """Move the position: ``"oldest"`` to the first message that is kept, ``"newest"`` behind the last."""
        await (await self.opened_reader()).seek(where)

    # -- the other direction ---------------------------------------------------------------------------------

    async def describe(self, timeout: float = ASK_SECONDS) -> Description:
        """Return the edge's description of its flow, at most a second old.

        Raises
        ------
        WaitTimeout
            If the flow isn't running: no edge answers in `timeout` seconds.
        """
        now = time.monotonic()
        if self._description is None or now - self._description[0] > _FRESH:
            control = Control(await self.connect(), self.flow, self.reader)
            self._description = (now, await control.describe(timeout))
        return self._description[1]

    async def send(self, payload: Any, to: str | Iterable[str] | None = None) -> str:
        """Send an order and return its id, once the order is stored at the server.

        Parameters
        ----------
        payload
            Any JSON-like value.
        to
            A device's name, or several names; None: all known devices.

        Raises
        ------
        OneWayError
            If the notation lets no order reach devices; the error's text shows the hop.
        FlowError
            If this reader is a guest.
        PayloadError
            If the payload is not JSON-like.
        WaitTimeout
            If the flow isn't running, or the server doesn't answer.
        LogFull
            If too many orders wait for devices that are away.
        """
        if GUEST in self.reader:
            raise FlowError(
                f"the flow {self.flow!r} is shared with the reader {self.reader!r} to be read, and not to be "
                "sent orders. A reader of the flow's own tenant sends them."
            )
        order = made_order(self.reader, payload, to)
        data = encoded(order)
        description = await self._described()
        if not description.cloud_reaches_devices:
            raise OneWayError(description.text)
        await store(await self.connect(), self.flow, self.reader, data, order.id)
        return order.id

    async def _described(self) -> Description:
        """Return the edge's description of its flow; ask again for an edge that has answered before.

        Such an edge may have lost its link for a moment.
        """
        end = time.monotonic() + ASK_SECONDS
        while True:
            try:
                return await self.describe()
            except WaitTimeout:
                if self._description is None or time.monotonic() >= end:
                    raise
                await asyncio.sleep(_POLL)

    async def pull(self, n: int = 1, device: str | None = None) -> AsyncRequest:
        """Ask for `n` readings in total, from `device` or from all in turn; for flows that begin with Pull.

        Raises
        ------
        SettingsError
            If `n` is no whole number from 1 to 1,000,000, or `device` can't be a name.
        FlowError
            If the edge refuses the request: the flow's input isn't Pull, or 1,000 of its requests are open.
        DeviceError
            If no device named `device` has ever connected.
        WaitTimeout
            If the flow isn't running.
        """
        checked_pull(n, device)
        control = Control(await self.connect(), self.flow, self.reader)
        request = await control.pull(n, device)
        return AsyncRequest(self.flow, request, n, AskedThere(control, request, n))

    async def close(self) -> None:
        """Store the reader's position and close the connection. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._reader is not None:
                await self._reader.close()
        finally:
            async with self._opening:  # a connection that is being opened is closed, too
                if self._connection is not None:
                    await self._connection.close()


class Cloud:
    """A flow's results and orders, as one named reader; from any thread.

    Parameters and errors are those of `AsyncCloud`, its asynchronous twin. Connects at its first use.

    Examples
    --------
    >>> with Cloud(house) as cloud:  # a flow of this process  # doctest: +SKIP
    ...     cloud.take(3)

    >>> with Cloud("house", server="tls://edge.local:4222", certs="cloud-certs") as cloud:  # doctest: +SKIP
    ...     for message in cloud.take(3):
    ...         print(message.device, message.payload)
    ...     cloud.send({"led": "on"}, to="room1")
    """

    def __init__(
        self,
        flow: Any,
        *,
        reader: str = "cloud",
        server: str | None = None,
        certs: str | Path | None = None,
        endpoint: Endpoint | None = None,
        tenant: str = "",
    ) -> None:
        self._twin = AsyncCloud(
            flow, reader=reader, server=server, certs=certs, endpoint=endpoint, tenant=tenant
        )
        if inspect.iscoroutinefunction(getattr(flow, "endpoint_for", None)):
            raise SettingsError(
                f"{flow!r:.100} is asynchronous and belongs to an event loop of its own. Read it by an "
                "AsyncCloud."
            )
        self._lease = shared_portal()
        self._portal = self._lease.portal
        self._messages = BlockingReader(self._portal, self._twin.opened_reader)
        watch(self)

    def _find_forked(self) -> bool:
        return not self._lease.released

    def __repr__(self) -> str:
        return repr(self._twin).replace("AsyncCloud", "Cloud")

    def __enter__(self) -> Cloud:
        self._portal.run(self._twin.connect())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with closing_in_parent():
            self.close()

    @property
    def flow(self) -> str:
        """Name of the flow."""
        return self._twin.flow

    @property
    def reader(self) -> str:
        """Name of the reader."""
        return self._twin.reader

    @property
    def skipped_frames(self) -> int:
        """Frames that were gone before this client could read them."""
        return self._twin.skipped_frames

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings that the certificate of this reader ends, from 14 days before; empty as a rule."""
        return self._twin.warnings

    def take(self, n: int = 1, timeout: float | None = 10.0) -> list[Message]:
        """Return the next `n` messages; see `AsyncCloud.take`."""
        return self._messages.take(n, timeout)

    def __iter__(self) -> Iterator[Message]:
        return iter(self._messages)

    def seek(self, where: Literal["oldest", "newest"]) -> None:
        """Move the position; see `AsyncCloud.seek`."""
        self._portal.run(self._twin.seek(where))

    def describe(self, timeout: float = ASK_SECONDS) -> Description:
        """Return the edge's description of its flow; see `AsyncCloud.describe`."""
        return self._portal.run(self._twin.describe(timeout))

    def send(self, payload: Any, to: str | Iterable[str] | None = None) -> str:
        """Send an order and return its id; see `AsyncCloud.send`."""
        return self._portal.run(self._twin.send(payload, to))

    def pull(self, n: int = 1, device: str | None = None) -> Request:
        """Ask for `n` readings; see `AsyncCloud.pull`."""
        return Request(self._portal.run, self._portal.run(self._twin.pull(n, device)))

    def close(self) -> None:
        """Store the reader's position and close the connection; ends loops in other threads. Idempotent."""
        try:
            # First, so that no loop in another thread goes on with messages that are fetched already.
            self._messages.close()
            self._portal.run(self._twin.close())
        except FlowError:  # the portal is closed: this client was closed before
            return
        finally:
            self._lease.release()
