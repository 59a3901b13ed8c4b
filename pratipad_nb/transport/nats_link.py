"""The NATS client: signals, and requests with answers, over one TLS connection that comes back by itself.

Owns the connection and the table of requests that wait for an answer. Requests to JetStream are for
`nats_api`, translating the client library's errors is for `nats_errors`. The modules `nats`, `nats_api`,
`nats_clients`, `nats_closing`, `nats_errors` and this module alone import the client library.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import ssl
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn, Protocol, Self

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from pratipad_nb.bugs import Bugs
from pratipad_nb.errors import (
    ConnectionRefused,
    PayloadError,
    TransportClosed,
    TransportError,
    WaitTimeout,
)
from pratipad_nb.forks import watch
from pratipad_nb.settings import Credentials, Storage
from pratipad_nb.transport.nats_closing import close_client, give_up, leave_to_parent
from pratipad_nb.transport.nats_errors import (
    denied,
    denied_subject,
    is_unanswered,
    translated,
    unanswered,
)
from pratipad_nb.transport.nats_refusal import Refusal
from pratipad_nb.transport.own_certificate import OwnCertificate
from pratipad_nb.transport.protocol import Signal, Subscription
from pratipad_nb.transport.subjects import is_inbox
from pratipad_nb.transport.tls import probe

__all__ = ["NatsLink"]

log = logging.getLogger(__name__)


def _is_news(record: logging.LogRecord) -> bool:
    return "eof_received() has no effect when using ssl" not in record.getMessage()


# The client library's stream protocol makes asyncio log this text whenever a TLS connection ends. The text
# means nothing, and would stand under the cell of a notebook that happens to run.
logging.getLogger("asyncio").addFilter(_is_news)

#: The client library's pause between two tries to reconnect, in seconds; the library adds jitter.
_RECONNECT_PAUSE = 0.25
#: How long the server may take to answer a flush, in seconds.
_FLUSH_SECONDS = 5.0
#: Most further answers to one request that wait to be read; a cluster has no more nodes than that.
_MOST_FURTHER = 256
#: Bytes of signals that are buffered while the link is down. Appends aren't buffered: they wait for the link.
_PENDING_BYTES = 8 << 20


class Dependent(Protocol):
    """A part that depends on the link: a consumer."""

    def pause(self) -> None:
        """Note that the link is down."""

    async def close(self) -> None:
        """End, for the link is about to be closed."""


class _Client(Client):
    """The library's client, which shows the certificate that its files hold at each try to connect."""

    def __init__(self, certificate: OwnCertificate) -> None:
        super().__init__()
        self._certificate = certificate

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """Return the context for the next try to connect."""
        return self._certificate.context()


class NatsLink:
    """A connection to NATS with mutual TLS, without logs."""

    def __init__(
        self, client: Client, inbox: str, refusal: Refusal, certificate: OwnCertificate, bugs: Bugs
    ) -> None:
        self.bugs = bugs
        self._client = client
        self._inbox = inbox
        self._refusal = refusal
        self._certificate = certificate
        self._up = asyncio.Event()
        self._closing = False
        self._closed = False
        self._consumers: dict[Dependent, None] = {}
        self._numbers = itertools.count(1)
        self._waiting: dict[str, tuple[str, asyncio.Future[Msg]]] = {}
        #: By the key of a request in `_waiting`, the answers that come after the first.
        self._further: dict[str, asyncio.Queue[Msg]] = {}
        self._url = ""
        self._whereabouts: Callable[[], str] | None = None
        self._disk: Callable[[], Storage] | None = None
        self._reconnected: list[Callable[[], None]] = []
        self._first_error: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.last_error = ""
        watch(self)

    def _find_forked(self) -> bool:
        leave_to_parent(self._client)
        return True

    # -- life ------------------------------------------------------------------------------------------------

    @classmethod
    async def connect(
        cls,
        url: str,
        credentials: Credentials,
        *,
        name: str,
        inbox_prefix: str,
        timeout: float = 5.0,
        whereabouts: Callable[[], str] | None = None,
        disk: Callable[[], Storage] | None = None,
        renewed: Callable[[], tuple[str, ...]] | None = None,
    ) -> Self:
        """Connect to the server at `url`, and from then on reconnect for ever.

        Reconnects go to the URL that `whereabouts` returns, and to `url` without `whereabouts`. `disk` says
        how the server's disk stands. `renewed` returns the warnings of a program that renews `credentials`.

        Raises
        ------
        ConnectionRefused
            If no server answers at `url`.
        NotInvited, CertificateError
            If the handshake fails, with the cause of the failure.
        """
        await probe(url, credentials, timeout=timeout)
        certificate, bugs = OwnCertificate(credentials, name, renewed), Bugs()
        client = _Client(certificate)
        self = cls(client, inbox_prefix, Refusal(url, credentials, name, bugs), certificate, bugs)
        self._url, self._whereabouts, self._disk = url, whereabouts, disk
        connecting = asyncio.ensure_future(
            client.connect(
                servers=url.split(","),
                tls=certificate.context(),
                tls_handshake_first=True,
                name=name,
                inbox_prefix=inbox_prefix,
                error_cb=self._on_error,
                disconnected_cb=self._on_down,
                reconnected_cb=self._on_up,
                closed_cb=self._on_closed,
                reconnect_time_wait=_RECONNECT_PAUSE,  # type: ignore[arg-type]
                max_reconnect_attempts=-1,
                ping_interval=10,
                max_outstanding_pings=2,
                pending_size=_PENDING_BYTES,
                connect_timeout=3,
            )
        )
        await self._first_connect(connecting, url, timeout)
        self._up.set()
        await client.subscribe(f"{inbox_prefix}.ack.*", cb=self._on_answer)
        certificate.watch()
        return self

    async def _first_connect(self, connecting: asyncio.Future[None], url: str, seconds: float) -> None:
        """Wait for the first connect and raise its error, after which the library would retry for ever."""
        made = False
        try:
            done, _ = await asyncio.wait(
                {connecting, self._first_error}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            made = connecting in done and connecting.exception() is None
        finally:
            if not made:  # also if the caller was cancelled
                await give_up(self._client, connecting)
        if made:
            self._first_error.cancel()
            return
        if self._first_error.done() and (cause := self._first_error.exception()):
            raise translated(cause, f"connecting to {url}") from cause
        if connecting in done and not connecting.cancelled() and (cause := connecting.exception()):
            raise translated(cause, f"connecting to {url}") from cause
        raise ConnectionRefused(
            f"no NATS server answered at {url} within {seconds:g} s. Is the server running there?"
        )

    async def close(self) -> None:
        """Send the buffered signals, then close the connection."""
        if self._closing:
            return
        self._closing = True
        self._certificate.close()
        for consumer in tuple(self._consumers):
            await consumer.close()
        self._closed = True
        self._fail_waiting(TransportClosed("the connection was closed"))
        if self._client.is_connected:
            with contextlib.suppress(Exception):
                # A flush is no barrier, for its PING overtakes queued frames. The second
                # flush comes after them.
                await self._client.flush(timeout=2)
                await self._client.flush(timeout=2)
        await self._refusal.close()
        await close_client(self._client)
        self._up.clear()

    @property
    def connected(self) -> bool:
        """Whether the link stands now."""
        return self._up.is_set()

    @property
    def refusal(self) -> str:
        """Why the server doesn't let this party back in; empty while the server does, or is away."""
        return self._refusal.cause

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should look at before the server lets this party in no more."""
        return self._certificate.warnings

    def refresh(self) -> None:
        """Read the end of the certificate anew."""
        self._certificate.refresh()

    @property
    def valid_until(self) -> float:
        """When this party's certificate ends, in seconds since 1970-01-01 UTC."""
        return self._certificate.valid_until

    @property
    def domain(self) -> str:
        """The name of the server's JetStream, as the server told it; see `Connection.domain`."""
        # The client library has no name for it.
        return str(self._client._server_info.get("domain", ""))  # noqa: SLF001

    @property
    def max_frame_bytes(self) -> int:
        """Largest frame, in bytes: the server's limit less a little for headers."""
        return int(self._client.max_payload) - 4096

    @property
    def clustered(self) -> bool:
        """Whether the connected server is a node of a cluster."""
        return bool(self._client._server_info.get("cluster"))  # noqa: SLF001

    def own(self, consumer: Dependent) -> None:
        """Close `consumer` when this connection closes, and pause it when the link goes down."""
        self._consumers[consumer] = None

    def disown(self, consumer: Dependent) -> None:
        """Own `consumer` no longer."""
        self._consumers.pop(consumer, None)

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called after every reconnect; return a function that ends this."""
        self._reconnected.append(callback)
        return lambda: self._reconnected.remove(callback) if callback in self._reconnected else None

    async def _on_down(self) -> None:
        with self.bugs:
            self._up.clear()
            for consumer in self._consumers:
                consumer.pause()
            # Requests in flight may or may not have arrived. Their callers find out; waiting for the time-out
            # would gain nothing.
            self._fail_waiting(WaitTimeout("the link to the server went down before an answer came"))

    async def _on_up(self) -> None:
        self._up.set()
        self._refusal.over()
        for callback in tuple(self._reconnected):
            with self.bugs:
                callback()

    async def _on_closed(self) -> None:
        self._up.clear()

    async def _on_error(self, error: Exception) -> None:
        with self.bugs:
            self._note_error(error)

    def _note_error(self, error: Exception) -> None:
        self.last_error = str(error)
        if not self._up.is_set() and not self._first_error.done():
            if not _passes(error):
                self._first_error.set_exception(error)
            return
        if not self._up.is_set():
            self._refusal.note(error)
            self._follow()
        subject = denied_subject(str(error))
        if subject is None:
            log.debug("NATS client: %s", error)
            return
        for key, (asked, answer) in tuple(self._waiting.items()):
            # The server reports the subject in lower case.
            if asked.lower() == subject and not answer.done():
                self._waiting.pop(key, None)
                answer.set_exception(denied(asked))

    def _follow(self) -> None:
        """Reconnect to the server's new URL from now on, if the server has moved."""
        url = self._whereabouts() if self._whereabouts is not None else ""
        if url and url != self._url and not self._client.is_closed:
            log.info("the server has moved from %s to %s", self._url, url)
            self._url = url
            self._client.set_server_pool([url])

    def _fail_waiting(self, error: TransportError | WaitTimeout) -> None:
        waiting, self._waiting = self._waiting, {}
        for _, answer in waiting.values():
            if not answer.done():
                answer.set_exception(error)

    # -- signals ---------------------------------------------------------------------------------------------

    async def publish(self, subject: str, data: bytes, *, reply: str = "") -> None:
        """Send a signal; while the link is down, it waits in a bounded buffer.

        A signal that doesn't fit into the buffer is dropped.
        """
        try:
            await self._client.publish(subject, data, reply=reply)
        except nats_errors.OutboundBufferLimitError:
            log.debug("dropped a signal to %s: the link is down and the buffer is full", subject)
        except nats_errors.Error as error:
            raise translated(error, f"publishing to {subject}") from error

    async def flush(self) -> None:
        """Return once the server has answered a PING."""
        if self._client.is_closed:
            raise TransportClosed("flushing: the connection was closed")
        # Not by the client's own flush: nats-py 2.16 sets the answer on a future that a time-out or the
        # caller's cancellation has cancelled. The error ends nats-py's read loop, and the connection receives
        # nothing more.
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self._client._send_ping(answer)  # noqa: SLF001
                await asyncio.wait({answer})
        except nats_errors.Error as error:
            raise translated(error, "flushing") from error
        except AttributeError as error:
            # Python's TLS transport loses its protocol when it is closed a second time, and then can't write.
            raise WaitTimeout("flushing: the link went down") from error
        except TimeoutError as error:
            raise WaitTimeout(f"flushing: no answer came within {_FLUSH_SECONDS:g} s") from error

    async def subscribe(self, subject: str, callback: Callable[[Signal], None]) -> Subscription:
        """Have `callback` called for every signal under `subject`."""

        async def deliver(message: Msg) -> None:
            reply = message.reply if is_inbox(message.reply) else ""
            callback(Signal(message.subject, message.data, reply))

        subscription = await self.subscribe_raw(subject, deliver)
        try:
            if self.connected:
                # Twice: nats-py 2.16 writes the first PING before frames that are still queued, the second
                # after them.
                await self.flush()
                await self.flush()
        except BaseException:  # a caller that subscribes again would get every signal twice
            await subscription.close()
            raise
        return subscription

    async def subscribe_raw(
        self, subject: str, deliver: Callable[[Msg], Coroutine[Any, Any, None]]
    ) -> _Subscription:
        """Have `deliver` called with the client library's own messages, which have headers."""

        async def watched(message: Msg) -> None:
            with self.bugs:
                await deliver(message)

        try:
            subscription = await self._client.subscribe(subject, cb=watched, pending_bytes_limit=256 << 20)
        except nats_errors.Error as error:
            raise translated(error, f"subscribing to {subject}") from error
        return _Subscription(subscription)

    async def failure(self) -> NoReturn:
        """Wait until a callback or a task of this connection has raised an exception, and raise it."""
        await self.bugs.raised()

    async def request(self, subject: str, data: bytes, timeout: float = 5.0) -> bytes:
        """Send a signal and return the first answer."""
        return (await self.request_raw(subject, data, timeout)).data

    async def request_raw(self, subject: str, data: bytes, timeout: float) -> Msg:
        """Send a signal and return the first answer with its headers."""
        answer = await self.exchange(subject, data, None, timeout)
        if is_unanswered(answer.headers):
            raise unanswered(subject)
        return answer

    async def request_all(
        self,
        subject: str,
        data: bytes,
        headers: dict[str, str] | None = None,
        *,
        timeout: float,
        silence: float,
        complete: Callable[[Sequence[Msg]], bool],
    ) -> list[Msg]:
        """Send a signal and return all answers, of which each node of a cluster may send one.

        The answers end when `complete` says so of those that have come, or after `silence` seconds without a
        further answer. `timeout` is for the first answer.

        Raises
        ------
        WaitTimeout
            If no answer comes, or the link goes down meanwhile.
        """
        key, reconnects = str(next(self._numbers)), self._client.stats["reconnects"]
        further = self._further[key] = asyncio.Queue(_MOST_FURTHER)
        try:
            first = await self.exchange(subject, data, headers, timeout, key)
            if is_unanswered(first.headers):
                raise unanswered(subject)
            answers = [first]
            while not complete(answers):
                try:
                    async with asyncio.timeout(silence):
                        answers.append(await further.get())
                except TimeoutError:
                    break
        finally:
            del self._further[key]
        if not self.connected or reconnects != self._client.stats["reconnects"]:
            raise WaitTimeout(f"{subject}: the link to the server went down while answers were coming")
        return answers

    async def exchange(
        self,
        subject: str,
        data: bytes,
        headers: dict[str, str] | None,
        timeout: float,
        key: str = "",
    ) -> Msg:
        """Publish with a reply subject of this connection, which `key` is part of, and return the answer."""
        if self._closed:
            raise TransportClosed("the connection was closed")
        key = key or str(next(self._numbers))
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self._up.wait()
                self._waiting[key] = (subject, answer)
                await self._client.publish(subject, data, reply=f"{self._inbox}.ack.{key}", headers=headers)
                return await answer
        except WaitTimeout:
            raise  # it names the cause already
        except TimeoutError as error:
            state = "the link is down" if not self.connected else "no answer came"
            raise WaitTimeout(f"{subject}: {state} within {timeout:g} s") from error
        except nats_errors.MaxPayloadError as error:
            raise PayloadError(
                f"{len(data)} bytes; the server takes at most {self.max_frame_bytes}."
            ) from error
        except nats_errors.Error as error:
            raise translated(error, f"publishing to {subject}") from error
        finally:
            self._waiting.pop(key, None)

    async def _on_answer(self, message: Msg) -> None:
        with self.bugs:
            key = message.subject.rpartition(".")[2]
            _, answer = self._waiting.pop(key, ("", None))
            further = self._further.get(key)
            if answer is not None and not answer.done():
                answer.set_result(message)
            elif further is not None and not further.full():
                further.put_nowait(message)

    def unique_inbox(self, kind: str) -> str:
        """Return a subject of this connection that is used nowhere else."""
        return f"{self._inbox}.{kind}.{next(self._numbers)}"


class _Subscription:
    """A subscription of the client library, which ends without the round trip of a drain."""

    def __init__(self, subscription: Any) -> None:
        self._subscription = subscription

    async def close(self) -> None:
        with contextlib.suppress(nats_errors.Error):
            await self._subscription.unsubscribe()


def _passes(error: Exception) -> bool:
    """Return whether a first connect that failed with `error` may succeed when the library tries again."""
    if isinstance(error, (ConnectionError, asyncio.TimeoutError, nats_errors.NoServersError)):
        return True
    # A server that is ending, for example to hand its folder over, closes a connection before its first word.
    return "empty response from server" in str(error)
