"""The in-memory transport: the contract of `pratipad_nb.transport.protocol` without a server.

Owns the asynchronous side: connections and subscriptions, of one event loop each. Their shared state is a
`Broker`; devices, flow and cloud of one process meet at ``memory://NAME``. Logs and consumers are for
`pratipad_nb.transport.memory_log`. The transport is made for tests of processors and flows: deterministic, no
sockets, nothing on disk. It knows no permissions, and can't outlive its process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from dataclasses import replace
from typing import NoReturn

from pratipad_nb.bugs import Bugs
from pratipad_nb.errors import PayloadError, SettingsError, TransportClosed, TransportError, WaitTimeout
from pratipad_nb.forks import watch
from pratipad_nb.settings import Storage
from pratipad_nb.transport.memory_broker import Broker, Pulse
from pratipad_nb.transport.memory_log import MemoryConsumer, MemoryLog
from pratipad_nb.transport.protocol import Logs, LogSpec, News, Signal
from pratipad_nb.transport.subjects import OTHER_ACCOUNT, is_inbox

__all__ = ["MAX_FRAME_BYTES", "SIGNALS_HELD", "URL_SCHEME", "MemoryConnection", "connect_memory"]

URL_SCHEME = "memory://"
#: Largest frame, in bytes: the embedded NATS server is configured with the same limit.
MAX_FRAME_BYTES = 8 << 20
#: Most signals that wait for a subscription's callback; further signals are dropped and counted.
SIGNALS_HELD = 8192
#: How long an operation that has no time-out of its own waits for a link that is down, in seconds.
_PATIENCE = 5.0
#: For so many seconds connections that come and go are gathered to one piece of news.
_GATHER_SECONDS = 0.01

_inboxes = itertools.count(1)


async def connect_memory(url: str, *, name: str = "", identity: str = "") -> MemoryConnection:
    """Connect to the broker that `url` (``memory://NAME``) means in this process.

    Parameters
    ----------
    name
        The client's own name for itself.
    identity
        The identity that a certificate would name; default: `name`.

    Raises
    ------
    SettingsError
        If `url` is no such URL.
    """
    if not url.startswith(URL_SCHEME) or not url.removeprefix(URL_SCHEME):
        raise SettingsError(f"{url!r} is no URL of the in-memory transport; that looks like 'memory://NAME'.")
    return MemoryConnection(Broker.named(url.removeprefix(URL_SCHEME)), identity=identity or name, name=name)


class MemoryConnection:
    """A party's connection to a `Broker`; fulfils `protocol.Connection`. Made on its event loop."""

    def __init__(self, broker: Broker, *, identity: str = "", name: str = "") -> None:
        self.identity = identity
        self.name = name
        self.pulse = Pulse()
        self.broker = broker
        self.bugs = Bugs()
        self._loop = asyncio.get_running_loop()
        self._reconnected: list[Callable[[], None]] = []
        self._closed = False
        self._parts: dict[MemoryConsumer | _Subscription, None] = {}
        broker.attach(self)
        watch(self)

    def _find_forked(self) -> bool:
        return not self._closed

    def __repr__(self) -> str:
        state = "closed" if self._closed else "connected" if self.connected else "cut"
        return f"<MemoryConnection {self.identity!r} to memory://{self.broker.name}: {state}>"

    @property
    def connected(self) -> bool:
        """Whether the link stands now."""
        return self.broker.reaches(self)

    @property
    def refusal(self) -> str:
        """Empty: the in-memory transport refuses no party."""
        return ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Empty: the in-memory transport has no certificates."""
        return ()

    @property
    def valid_until(self) -> float:
        """0.0: the in-memory transport has no certificates."""
        return 0.0

    def refresh(self) -> None:
        """Do nothing: the in-memory transport has no certificates."""

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called after every reconnect; return a function that ends this."""
        self._reconnected.append(callback)
        return lambda: self._reconnected.remove(callback) if callback in self._reconnected else None

    @property
    def max_frame_bytes(self) -> int:
        """Largest `data` that an append or publish takes."""
        return MAX_FRAME_BYTES

    async def publish(self, subject: str, data: bytes) -> None:
        """Send a signal, which is lost while the link is down."""
        self._check(data)
        if self.connected:
            self.broker.publish(Signal(subject, data))
        await asyncio.sleep(0)

    async def flush(self) -> None:
        """Return once the link stands; `WaitTimeout` if it doesn't."""
        await self.link_up()
        await asyncio.sleep(0)

    async def subscribe(self, subject: str, callback: Callable[[Signal], None]) -> _Subscription:
        """Have `callback` called on this loop for every signal under `subject`."""
        await self.link_up()
        subscription = _Subscription(self, subject, callback)
        self.own(subscription)
        return subscription

    async def failure(self) -> NoReturn:
        """Wait until a callback has raised an exception, and raise that exception."""
        await self.bugs.raised()

    async def request(self, subject: str, data: bytes, timeout: float) -> bytes:
        """Send a signal and return the first answer; `WaitTimeout` if no answer comes or no party listens."""
        self._check(data)
        await self.link_up(timeout)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def answered(signal: Signal) -> None:
            if not answer.done():
                answer.set_result(signal.data)

        # As of a request from another account: whose inbox it is can't be told by its name.
        inbox = f"{OTHER_ACCOUNT}{next(_inboxes)}"
        subscription = await self.subscribe(inbox, answered)
        try:
            if not self.broker.publish(Signal(subject, data, inbox)):
                raise WaitTimeout(f"nobody listens on {subject!r}. Is the other side running?")
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError as error:
            if isinstance(error, WaitTimeout):
                raise
            raise WaitTimeout(f"no answer on {subject!r} within {timeout} s.") from None
        finally:
            await subscription.close()

    async def append(
        self,
        subject: str,
        data: bytes,
        *,
        expect: int | None = None,
        message_id: str | None = None,
        timeout: float = 5.0,
    ) -> int:
        """Append to the log that takes `subject`, and return the sequence."""
        self._check(data)
        await self.link_up(timeout)
        if not await self._holds(lambda: not self.broker.storage.trouble, timeout):
            raise WaitTimeout(f"no answer to an append under {subject!r}: the broker's disk is full.")
        sequence = self.broker.append(subject, data, expect, message_id)
        lost = self.broker.answer_lost(self)
        # A real append takes a round trip: other tasks get their turn, so that a loop of
        # appends blocks no task.
        await asyncio.sleep(0)
        if lost:
            raise WaitTimeout(f"no answer to an append under {subject!r}, which may or may not be stored.")
        return sequence

    async def open_log(self, spec: LogSpec) -> MemoryLog:
        """Make the log if it isn't there, change its bounds if they differ, and return it."""
        await self.link_up()
        return MemoryLog(self, self.broker.open_log(spec), spec)

    async def find_log(self, name: str) -> MemoryLog | None:
        """Return the log called `name`; None if there is no such log."""
        await self.link_up()
        found = self.broker.find_log(name)
        return MemoryLog(self, found, found.spec) if found else None

    async def delete_log(self, name: str) -> None:
        """Delete a log with all its entries."""
        await self.link_up()
        self.broker.delete_log(name)

    async def log_names(self, pattern: str) -> list[str]:
        """Return the names of the logs that take subjects under `pattern`."""
        await self.link_up()
        return self.broker.log_names(pattern)

    async def take_over(self, spec: LogSpec, former: str) -> None:
        """Make the log of `spec` with the newest entry of `former`; see `Logs.take_over`."""
        await self.link_up()
        self.broker.take_over(spec, former)

    @property
    def domain(self) -> str:
        """Empty: a broker is linked with no other broker."""
        return ""

    def beyond(self) -> Logs:
        """Raise `TransportError`: there is one broker only."""
        raise TransportError("the in-memory transport is no leaf of another server. Use a NATS server.")

    def attendance(
        self,
        flow: str,  # noqa: ARG002 - a broker has one account
        devices: Callable[[], Iterable[str]] = tuple,  # noqa: ARG002
    ) -> MemoryAttendance:
        """Return which parties are connected; see `Connection.attendance`."""
        return MemoryAttendance(self)

    async def storage(self) -> Storage:
        """Return how the broker's storage stands; see `Connection.storage`."""
        return self.broker.storage

    async def close(self) -> None:
        """Close the connection, and its subscriptions and consumers."""
        if self._closed:
            return
        self._closed = True
        for part in list(self._parts):
            await part.close()
        self.broker.detach(self)

    async def link_up(self, timeout: float = _PATIENCE) -> None:
        """Wait for the link to stand.

        Raises
        ------
        WaitTimeout
            If the link doesn't stand within `timeout` seconds.
        TransportClosed
            If this side has closed the connection.
        """
        if not await self._holds(lambda: self.connected, timeout):
            raise WaitTimeout(f"the link of {self.identity!r} is down and did not come back in {timeout} s.")

    async def _holds(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until `condition`, of the broker's state, holds; return False after `timeout` seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            with self.broker.lock:
                self.check_open()
                if condition():
                    return True
                self.pulse.arm()
            if not await self.pulse.wait(max(0.0, end - loop.time())):
                return False

    def check_open(self) -> None:
        """Raise `TransportClosed` if this side has closed the connection."""
        if self._closed:
            raise TransportClosed(f"the connection {self.name!r} is closed. Connect anew.")

    def _check(self, data: bytes) -> None:
        self.check_open()
        if len(data) > MAX_FRAME_BYTES:
            raise PayloadError(
                f"{len(data)} bytes are more than a frame may have ({MAX_FRAME_BYTES}). Send smaller "
                "payloads."
            )

    def own(self, part: MemoryConsumer | _Subscription) -> None:
        """Close `part` when this connection closes."""
        self._parts[part] = None

    def disown(self, part: MemoryConsumer | _Subscription) -> None:
        """Own `part` no longer."""
        self._parts.pop(part, None)

    def relinked(self) -> None:
        """Rewind every consumer, as a NATS client does on reconnecting.

        So older deliveries that got lost don't come after newer deliveries.
        """
        for part in list(self._parts):
            if isinstance(part, MemoryConsumer):
                part.rewind_now()
        with contextlib.suppress(RuntimeError):  # the loop was closed without closing the connection
            self._loop.call_soon_threadsafe(self._tell_reconnected)

    def _tell_reconnected(self) -> None:
        for callback in tuple(self._reconnected):
            with self.bugs:
                callback()


class MemoryAttendance:
    """An `Attendance` of all parties of a broker."""

    def __init__(self, link: MemoryConnection) -> None:
        self._link = link
        self._wake = Pulse()
        self.connections: Counter[str] = Counter()
        self.live = True

    def refresh(self) -> None:
        """Let the broker be asked soon."""
        with self._link.broker.lock:
            self._wake.set()

    async def listening(self, subjects: Collection[str]) -> frozenset[str]:
        """Return those of `subjects` that a party listens to now."""
        await self._link.link_up()
        return self._link.broker.listening(subjects)

    async def news(self) -> AsyncGenerator[News, None]:
        """Iterate over the news, each of which is a list: asking the broker costs nothing."""
        broker = self._link.broker
        broker.watch(None, self._wake)
        try:
            while True:
                with broker.lock:
                    self._wake.arm()
                    before, asked = self.connections, time.monotonic()
                    if connected := self._link.connected:
                        self.connections = broker.connections()
                if connected:
                    changed = {each for each, _ in self.connections.items() ^ before.items()}
                    yield News(frozenset(changed), asked)
                await self._wake.wait(None)
                await asyncio.sleep(_GATHER_SECONDS)
        finally:
            broker.unwatch(self._wake)


class _Subscription:
    """A subscription, with a bounded queue between broker and callback."""

    def __init__(self, link: MemoryConnection, pattern: str, callback: Callable[[Signal], None]) -> None:
        self.pattern = pattern
        self.link = link
        self.dropped = 0
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._held = 0
        self._era = 0  # signals of earlier eras are lost
        link.broker.listen(self)

    def offer(self, signal: Signal) -> None:
        """Take `signal`, from any thread, under the broker's lock."""
        if self._held >= SIGNALS_HELD:
            self.dropped += 1
            return
        self._held += 1
        with contextlib.suppress(RuntimeError):  # the loop was closed without closing the connection
            self._loop.call_soon_threadsafe(self._hand_over, signal, self._era)

    def lose(self) -> None:
        """Drop the signals that are queued and not yet handed over; under the broker's lock."""
        self._era += 1

    def _hand_over(self, signal: Signal, era: int) -> None:
        with self.link.broker.lock:
            self._held -= 1
            lost = era != self._era
        if not lost:
            reply = signal.reply if is_inbox(signal.reply) else ""
            with self.link.bugs:
                self._callback(signal if reply == signal.reply else replace(signal, reply=""))

    async def close(self) -> None:
        """End the subscription; its callback isn't called any more."""
        self.link.broker.unlisten(self)
        with self.link.broker.lock:
            self.lose()
        self.link.disown(self)
