"""The engine: a device's parts put together, and run from the first try to connect to the farewell.

Owns the connection, the tasks, all in one task group, and the choice of the error that ends the tasks. When
to start and close is for `pratipad_nb.device.client`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from pratipad_nb.backoff import Backoff
from pratipad_nb.bugs import explained, reasons
from pratipad_nb.device.credit import ANY_EPOCH, Credit
from pratipad_nb.device.downlink import Downlink
from pratipad_nb.device.greeter import Greeter
from pratipad_nb.device.outbox import Outbox
from pratipad_nb.device.reading import Reading, Source
from pratipad_nb.device.renewing import keep_renewed
from pratipad_nb.device.uplink import Uplink, largest_payload
from pratipad_nb.errors import (
    CertificateError,
    DeviceError,
    FrameError,
    NotInvited,
    PratipadError,
    TransportError,
    WaitTimeout,
)
from pratipad_nb.settings import Endpoint
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.connecting import connect
from pratipad_nb.transport.frames import CreditFrame, HelloFrame
from pratipad_nb.transport.protocol import Connection, Signal, Subscription
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Engine"]

log = logging.getLogger(__name__)

#: First and longest pause between two tries to connect, in seconds.
_DIAL_PAUSES = (0.1, 5.0)
#: Seconds between two looks at the messages that are kept: a power cut costs as many seconds of messages.
_TEND_SECONDS = 1.0
#: How long a user's blocking function gets to return at the end, in seconds.
_PATIENCE = 1.0
#: How long the farewell may take at the end, in seconds.
_FAREWELL_SECONDS = 2.0
#: How long closing the connection may take, in seconds. `Connection.close` has a bound of its own; this bound
#: holds even if that fails, so that a service always ends.
_HANG_UP_SECONDS = 10.0


class Engine:
    """Runs one device at one endpoint.

    Parameters
    ----------
    outbox, credit
        The device's outbox and credit, made before its endpoint was known.
    source, every, receive
        As in `AsyncDevice`; `source` is made of its `read`.
    gateway
        Whether orders name the device behind this gateway that they are for.

    Attributes
    ----------
    link
        The connection; None until a try to connect has succeeded.
    rejected
        How many signals arrived that were no valid frames.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        outbox: Outbox,
        credit: Credit,
        *,
        source: Source | None,
        every: float | None,
        receive: Callable[..., Any] | None,
        gateway: bool = False,
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.link: Connection | None = None
        self.rejected = 0
        self._outbox = outbox
        self._credit = credit
        flow = endpoint.flow
        self._greeter = Greeter(flow, name, lambda: outbox.sent_of_epoch, credit, self._hello)
        self._uplink = Uplink(flow, name, outbox, credit, self._starved, self._greeter.soon)
        self._downlink = Downlink(flow, name, receive, self._greeter.soon, addressed=gateway)
        self._reading: Reading | None = None
        if source is not None:
            self._reading = Reading(name, source, every, outbox, credit, self._greeter.soon)
        self._leaving = False
        self._answered = asyncio.Event()
        self._announced = asyncio.Event()
        self._orders: Subscription | None = None

    @property
    def error(self) -> str:
        """The error of the last reading, of the last order, or why messages can't be kept; else empty."""
        return (self._reading.error if self._reading else "") or self._downlink.error or self._outbox.trouble

    @property
    def failed(self) -> int:
        """How many readings and orders have failed."""
        return (self._reading.failed if self._reading else 0) + self._downlink.failed

    @property
    def link_stands(self) -> bool:
        """Whether there is a connection and its link is up."""
        return self.link is not None and self.link.connected

    @property
    def refusal(self) -> str:
        """Why the server doesn't let the device back in; empty while the server does, or is away."""
        return self.link.refusal if self.link is not None else ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should see to before the server lets the device in no more."""
        return self.link.warnings if self.link is not None else ()

    async def dial(self) -> None:
        """Connect and listen, trying once.

        Raises
        ------
        NotInvited, CertificateError, SettingsError
            If trying again won't help.
        TransportError, WaitTimeout
            If trying again may help.
        """
        link = await connect(self.endpoint, role="device", name=self.name)
        subjects = Subjects(self.endpoint.flow)
        try:
            await link.subscribe(subjects.credit(self.name), self._on_credit)
            await link.subscribe(subjects.credit_all, self._on_credit)
            self._orders = await link.subscribe(subjects.down(self.name), self._on_order)
        except BaseException:
            await link.close()
            raise
        self._outbox.max_payload = largest_payload(link.max_frame_bytes)
        self.link = link

    async def hang_up(self) -> None:
        """Close the connection that `dial` has opened."""
        if self.link is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HANG_UP_SECONDS):
                    await self.link.close()

    async def greeted(self, seconds: float) -> None:
        """Return once the edge has answered the first hello, or after `seconds`: the edge may not run yet."""
        await asyncio.sleep(0)  # `run` begins, and opens the outbox
        if self.link is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._answered.wait()

    async def run(self) -> None:
        """Run the device until cancelled, or until messages can't be sent any more.

        In the second case the outbox holds the reason.
        """
        self._outbox.open(self._uplink.wake)
        try:
            await self._work()
        except BaseExceptionGroup as group:
            self._fail(group)
        except Exception as error:  # noqa: BLE001 - after any error, receipts must not wait for ever
            self._fail(error)
        finally:
            self._leaving = True
            try:
                await self._farewell()
            except Exception as error:  # noqa: BLE001 - an error must not keep the connection open
                explained(log, f"device {self.name!r}, at its end", error)
            finally:
                await self.hang_up()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            # Before the connection stands, for a device with `keep` measures also while its server is away.
            tasks.create_task(self._downlink.run(), name=f"{self.name}: orders")
            if self._outbox.kept_in:
                tasks.create_task(self._tend(), name=f"{self.name}: keeping")
            if self._reading is not None:
                tasks.create_task(self._reading.run(), name=f"{self.name}: reading")
            link = await self._dialled()
            tasks.create_task(link.failure(), name=f"{self.name}: connection")
            tasks.create_task(self._greeter.run(link), name=f"{self.name}: hello")
            tasks.create_task(self._listen(link), name=f"{self.name}: listening")
            tasks.create_task(keep_renewed(link, self.endpoint, self.name), name=f"{self.name}: certificate")
            tasks.create_task(self._uplink.run(link), name=f"{self.name}: uplink")

    async def _listen(self, link: Connection) -> None:
        """Listen for orders anew at each announcement: a flow without a way back had the server deny it."""
        subject = Subjects(self.endpoint.flow).down(self.name)
        while True:
            await self._announced.wait()
            self._announced.clear()
            with contextlib.suppress(TransportError, WaitTimeout):  # a reconnect listens anew by itself
                # An order that both subscriptions get is run once, by its number.
                before, self._orders = self._orders, await link.subscribe(subject, self._on_order)
                if before is not None:
                    await before.close()

    async def _tend(self) -> None:
        """Look after the messages that are kept, for ever; tell the edge why they can't be."""
        told = ""
        while True:
            if self._outbox.trouble != told:
                told = self._outbox.trouble
                self._greeter.soon()
            await asyncio.sleep(_TEND_SECONDS)
            self._outbox.tend()

    async def _dialled(self) -> Connection:
        """Return the connection, trying for as long as it may help."""
        backoff = Backoff(*_DIAL_PAUSES)
        told = False
        while self.link is None:
            try:
                await self.dial()
            except (NotInvited, CertificateError):
                raise
            except (TransportError, WaitTimeout) as error:
                if not told:
                    log.warning("device %s goes on trying to connect: %s", self.name, error)
                    told = True
                await asyncio.sleep(backoff.next())
        return self.link

    def _fail(self, error: BaseException) -> None:
        error = reasons(error)[0]
        if isinstance(error, PratipadError):
            log.error("device %s stopped: %s", self.name, error, exc_info=error.__cause__)
            self._outbox.fail(error)
            return
        reason = DeviceError(
            f"device {self.name!r} stopped: {explained(log, f'device {self.name!r}', error)} "
            "Connect a new device."
        )
        reason.__cause__ = error
        self._outbox.fail(reason)

    async def _farewell(self) -> None:
        """Stop the threads and tell the edge; neither may hold up the end."""
        # Threads that wait for room or for a receipt would wait for ever.
        self._outbox.fail(
            DeviceError(f"device {self.name!r} was stopped before all of its messages were safe.")
        )
        await self._downlink.close(_PATIENCE)
        if self._reading is not None:
            await self._reading.close(_PATIENCE)
        self._outbox.release()
        if self.link_stands and self.link is not None:
            with contextlib.suppress(TimeoutError, TransportError):
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await self.link.publish(
                        Subjects(self.endpoint.flow).hello(self.name), encode(self._hello())
                    )
                    await self.link.flush()

    # -- signals to the edge, and from the edge ------------------------------------------------------------

    def _hello(self) -> HelloFrame:
        return HelloFrame(
            flow=self.endpoint.flow,
            device=self.name,
            epoch=self._credit.epoch,
            sent=self._outbox.sent_of_epoch,
            waiting=self._outbox.waiting_of_epoch,
            answers=self._reading is not None and self._reading.answers and self._outbox.present,
            ready=self._downlink.ready,
            numbering=self._downlink.numbering,
            ready_at=self._downlink.ready_at,
            error=self.error,
            leaving=self._leaving,
            floor=max(0, self._outbox.floor - self._outbox.base),
            owner=self._credit.owner,
            former=self._uplink.former[0],
            former_sent=self._uplink.former[1],
            until=self.link.valid_until if self.link is not None and self.endpoint.renewed is None else 0.0,
        )

    def _starved(self) -> None:
        if self._outbox.waiting:
            self._greeter.soon()
        else:
            self._greeter.look()

    def _on_credit(self, signal: Signal) -> None:
        try:
            frame = decode(signal.data, CreditFrame)
            before = self._credit.total
            changed = self._credit.apply(frame)
        except FrameError as error:
            self._reject(signal, error)
            return
        if self._credit.known:
            self._answered.set()
            self._outbox.note_mode(self._credit.mode)
        if frame.epoch == ANY_EPOCH:
            self._greeter.soon()
            self._announced.set()
        elif frame.epoch != self._credit.epoch and self._outbox.waiting:
            # The grant is for another process of this name: the edge knows the epoch whose hello came last.
            self._greeter.look()
        if changed:
            self._uplink.wake()
            self._greeter.look()
            if self._credit.asked and self._credit.total < before:
                # The edge waits for this device's word before it asks another device for the messages.
                self._greeter.soon()
            if self._reading is not None:
                self._reading.granted()

    def _on_order(self, signal: Signal) -> None:
        try:
            self._downlink.take(signal.data)
        except FrameError as error:
            self._reject(signal, error)

    def _reject(self, signal: Signal, error: FrameError) -> None:
        self.rejected += 1
        log.debug("device %s ignores a signal on %s: %s", self.name, signal.subject, error)
