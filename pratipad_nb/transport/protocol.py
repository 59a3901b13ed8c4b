"""The contract that every transport fulfils: signals, ordered logs, and consumers that hold a position in one.

Owns the words and promises that `pratipad_nb.runtime`, `device` and `cloud` rely on; knows neither NATS nor memory.
`pratipad_nb.transport.nats` and `pratipad_nb.transport.memory` implement it, and the same contract tests hold both.

* A **signal** is forgotten by the transport: it reaches who listens at that moment, at most once.
* A **log** is ordered and bounded. An append is safe once it returns. `expect` chains appends: it fences off a
  second writer, which is how one owner at a time is kept.
* A **consumer** is a named position in a log. What it has delivered and nobody acknowledged comes back.
* An exception that a **callback** raises is a bug, and never lost: `Connection.failure` raises it to the party that owns
  the connection. The connection goes on, and so does the subscription; whether the party does is for the party.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn, Protocol

from pratipad_nb.transport.partitions import partition_of

__all__ = [
    "ClientInfo",
    "Connection",
    "Consumer",
    "ConsumerSpec",
    "ConsumerState",
    "Delivery",
    "Log",
    "LogSpec",
    "LogState",
    "Logs",
    "Partitioning",
    "Record",
    "Signal",
    "Subscription",
]


@dataclass(frozen=True, slots=True)
class Signal:
    """What a subscription receives. `reply` is where an answer goes, empty if none is wanted."""

    subject: str
    data: bytes
    reply: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of a log. `time` is the server's clock at the append, in seconds since 1970-01-01 UTC."""

    subject: str
    data: bytes
    sequence: int
    time: float


@dataclass(frozen=True, slots=True)
class Delivery(Record):
    """A record as a consumer got it. `token` is the transport's own; `redelivered` says it came before."""

    redelivered: bool = False
    token: str = ""


@dataclass(frozen=True, slots=True)
class Partitioning:
    """How a log splits what is appended to it: by the last token of the subject, which ``*`` in `source` stands for.

    What comes under `source` is stored under ``<target>.<partition>.<token>``, so that a consumer can have one
    partition to itself.
    """

    source: str
    target: str
    partitions: int

    def stored_under(self, subject: str) -> str:
        """Return the subject that an entry bears in the log."""
        token = subject.rpartition(".")[2]
        return f"{self.target}.{partition_of(token, self.partitions)}.{token}"


@dataclass(frozen=True, slots=True)
class LogSpec:
    """What a log is.

    Attributes
    ----------
    name
        Letters, digits, ``_`` and ``-``.
    subjects
        What is appended under one of these lands in this log (``*``: one token).
    max_bytes
        Bound; an append that would exceed it raises `LogFull`.
    retention
        ``"work"``: an entry goes once its (only) consumer has acknowledged it. ``"log"``: entries stay until purged.
        ``"latest"``: one entry a subject, the newest.
    max_age
        Seconds after which an entry goes by itself; 0: never.
    partitioning
        How entries are split; None: they aren't.
    stored_as
        The one subject that entries bear in the log, whatever they were appended under; empty: that very subject.
    """

    name: str
    subjects: tuple[str, ...]
    max_bytes: int
    retention: Literal["work", "log", "latest"]
    max_age: float = 0.0
    partitioning: Partitioning | None = None
    stored_as: str = ""


@dataclass(frozen=True, slots=True)
class LogState:
    """`first` and `last` are sequences (an empty log has ``first == last + 1``); `bytes` is what counts to the bound."""

    first: int
    last: int
    messages: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """What a consumer is.

    Attributes
    ----------
    name
        Its name; the position under it outlives this process. Empty: an ephemeral one that goes with the connection.
    acknowledge
        ``"each"``: every delivery on its own. ``"all"``: one acknowledges all before it, too.
    subject
        Only entries whose subject matches; empty: all.
    max_pending
        Most deliveries that are out and not acknowledged.
    ack_wait
        Seconds after which an unacknowledged delivery comes again; `Consumer.hold` starts it anew.
    start
        First sequence of a *new* consumer; 0: the log's first.
    """

    name: str
    acknowledge: Literal["each", "all"]
    subject: str = ""
    max_pending: int = 64
    ack_wait: float = 30.0
    start: int = 0


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """`floor`: all up to this sequence is acknowledged; `pending`: entries that are not acknowledged;
    `active`: seconds since it last did something, None if that isn't known.
    """

    name: str
    floor: int
    pending: int
    active: float | None = None


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """Who is connected: `identity` as its certificate says, `name` as it calls itself."""

    identity: str
    name: str


class Subscription(Protocol):
    """A standing interest in a subject."""

    async def close(self) -> None:
        """End it; the callback isn't called any more once this returns."""


class Consumer(Protocol):
    """A position in a log, and the deliveries from there on."""

    async def get(self) -> list[Delivery]:
        """Wait for at least one delivery and return all that are here, in order; never more than `max_pending`."""

    def acknowledge(self, delivery: Delivery) -> None:
        """Say that `delivery` is dealt with. Not awaited: if it gets lost, the delivery comes again."""

    def hold(self, deliveries: Sequence[Delivery]) -> None:
        """Say that `deliveries` are still being worked on: their `ack_wait` starts anew."""

    async def rewind(self) -> None:
        """Let all that is not acknowledged come again, in order, before anything newer.

        Deliveries that `get` hasn't returned yet are dropped here, for they come again too.
        """

    async def unacknowledged(self) -> int:
        """Return how many entries, delivered or not, are not acknowledged."""

    async def close(self) -> None:
        """Stop delivering; the position stays (that of an ephemeral consumer goes)."""


class Log(Protocol):
    """An ordered, bounded log. Appending to it is `Connection.append`, for that needs a subject only."""

    @property
    def spec(self) -> LogSpec:
        """What it was opened with."""

    async def latest(self, subject: str) -> Record | None:
        """Return the newest entry under `subject` (no wildcards), None if there is none."""

    def read(self, first: int, subject: str = "") -> AsyncIterator[Record]:
        """Iterate over the entries from sequence `first` to what is the last one now, `subject`'s only if given."""

    async def state(self) -> LogState:
        """Return its bounds and size."""

    async def purge(self, below: int) -> None:
        """Delete all entries with a sequence lower than `below`."""

    async def delete(self, sequence: int) -> None:
        """Delete one entry; one that isn't there is no error."""

    async def consumer(self, spec: ConsumerSpec) -> Consumer:
        """Make the named consumer or go on with it where it stands, and start delivering."""

    async def consumers(self) -> list[ConsumerState]:
        """Return where every named consumer stands."""

    async def forget_consumer(self, name: str) -> None:
        """Delete a named consumer and its position; one that isn't there is no error."""


class Logs(Protocol):
    """The logs of one server."""

    async def open_log(self, spec: LogSpec) -> Log:
        """Make the log if it isn't there, change its bounds if they differ, and return it."""

    async def find_log(self, name: str) -> Log | None:
        """Return the log of that name, None if there is none."""

    async def delete_log(self, name: str) -> None:
        """Delete a log with all that is in it; one that isn't there is no error."""


class Connection(Logs, Protocol):
    """A party's connection to the transport. It reconnects by itself, for ever, until it is closed."""

    @property
    def connected(self) -> bool:
        """Whether the link stands now."""

    @property
    def refusal(self) -> str:
        """Why the server doesn't let this party back in; empty while the server does, or isn't there."""

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called, on the event loop, each time the link stands again; returns what ends that."""

    @property
    def max_frame_bytes(self) -> int:
        """Largest `data` that an append or publish takes."""

    async def publish(self, subject: str, data: bytes) -> None:
        """Send a signal. Returns once it is handed over; while the link is down it may be dropped."""

    async def flush(self) -> None:
        """Return once the server has answered: a pace for who publishes signals, no proof that they arrived.

        Raises
        ------
        WaitTimeout
            If it doesn't answer.
        """

    async def subscribe(self, subject: str, callback: Callable[[Signal], None]) -> Subscription:
        """Have `callback` called, on the event loop, for every signal under `subject` (``*``: one token).

        The subscription stands at the server when this returns. An exception of `callback` comes out at `failure`.
        """

    async def failure(self) -> NoReturn:
        """Wait until a callback, or a task of the connection's own, has raised an exception, and raise that.

        The first exception stays: every later call raises it at once. The party that owns the connection awaits this
        beside its own work, and so ends.
        """

    async def request(self, subject: str, data: bytes, timeout: float) -> bytes:
        """Send a signal and return the first answer.

        Raises
        ------
        WaitTimeout
            If nobody answers in `timeout` seconds, or nobody listens.
        """

    async def append(
        self,
        subject: str,
        data: bytes,
        *,
        expect: int | None = None,
        message_id: str | None = None,
        timeout: float = 5.0,
    ) -> int:
        """Append to the log that takes `subject`, and return the sequence: it is safe then.

        Parameters
        ----------
        expect
            The sequence that must be the newest under `subject` (0: none yet).
        message_id
            A repeat of a recent append with the same id is stored once. A courtesy with a short memory only.

        Raises
        ------
        Fenced
            If `expect` is not the newest.
        LogFull
            If the log is at its bound.
        WaitTimeout
            If no answer came: it may or may not be stored.
        Unavailable
            If the server can't store it now, and hasn't.
        NotInvited
            If this party may not append there.
        TransportError
            If no log takes `subject`, or the transport refused it otherwise.
        """

    def beyond(self) -> Logs:
        """Return the logs of the server that this one is a leaf of. Appends go there by their subjects."""

    async def clients(self) -> list[ClientInfo]:
        """Return who is connected now."""

    async def listeners(self, pattern: str) -> dict[str, frozenset[str]]:
        """Return who listens now to subjects that match `pattern`: by subject, the identities.

        Only subscriptions to one subject count, not those to patterns.
        """

    async def close(self) -> None:
        """Hand over what is buffered and close, subscriptions and consumers with it. Idempotent."""
