"""The contract that every transport fulfils: signals, ordered logs, and consumers with a position in a log.

Owns the words and promises that `pratipad_nb.runtime`, `device` and `cloud` rely on; knows neither NATS nor
memory. `pratipad_nb.transport.nats` and `pratipad_nb.transport.memory` implement the contract, and the same
contract tests hold for both.

* A **signal** is not stored by the transport: it reaches the subscriptions of that moment, at most once.
* A **log** is ordered and bounded. An append is safe once it returns. `expect` chains appends: it fences off
  a second writer, so that a log has one owner at a time.
* A **consumer** is a named position in a log. A delivery that isn't acknowledged comes again.
* An exception that a **callback** raises is a bug, and never lost: `Connection.failure` raises it to the
  party that owns the connection. The connection and the subscription go on; whether the party goes on is for
  the party.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NoReturn, Protocol

from pratipad_nb.settings import Storage
from pratipad_nb.transport.partitions import partition_of

__all__ = [
    "Attendance",
    "Connection",
    "Consumer",
    "ConsumerSpec",
    "ConsumerState",
    "Delivery",
    "Log",
    "LogSpec",
    "LogState",
    "Logs",
    "News",
    "Partitioning",
    "Record",
    "Signal",
    "Subscription",
]


@dataclass(frozen=True, slots=True)
class Signal:
    """A message to the subscriptions of `subject`.

    `reply` is the subject for an answer; empty: no answer. A connection leaves out a reply subject that is no
    inbox: see `pratipad_nb.transport.subjects.is_inbox`.
    """

    subject: str
    data: bytes
    reply: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """An entry of a log. `time` is the server's clock at the append, in seconds since 1970-01-01 UTC."""

    subject: str
    data: bytes
    sequence: int
    time: float


@dataclass(frozen=True, slots=True)
class Delivery(Record):
    """A record as a consumer got it.

    `redelivered` says that the record was delivered before. `token` is for the transport's own use. `number`
    counts the deliveries that the consumer was sent, from 1 on, and begins anew with each rewind; 0: not
    known. `series` counts the rewinds before. A receiver that misses a number of a series has yet to get an
    entry that was sent earlier.
    """

    redelivered: bool = False
    token: str = ""
    number: int = 0
    series: int = 0


@dataclass(frozen=True, slots=True)
class Partitioning:
    """How a log splits its entries: by the last token of their subject, which ``*`` in `source` stands for.

    An entry that is appended under `source` is stored under ``<target>.<partition>.<token>``, so that a
    consumer can have one partition to itself.
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
    """A log's name, subjects, bounds and rules.

    Attributes
    ----------
    name
        Letters, digits, ``_``, ``-`` and ``:``.
    subjects
        The subjects whose appends go to this log (``*``: one token).
    max_bytes
        The log's bound; an append that would exceed the bound raises `LogFull`.
    retention
        ``"work"``: an entry is deleted once its (only) consumer has acknowledged it. ``"log"``: entries stay
        until purged. ``"latest"``: one entry a subject stays, the newest.
    max_age
        Seconds after which an entry is deleted; 0: never.
    partitioning
        How entries are split; None: entries are not split.
    stored_as
        The subject that all entries bear in the log; empty: each entry bears the subject of its append.
    first
        Sequence of the first entry of a *new* log; 0: entries count from 1.
    message_ids
        Whether a repeat of a recent append with the same message id is stored once. All writers of a log
        share one space of ids, so a log of many writers takes none, or ids that nobody can guess.
    """

    name: str
    subjects: tuple[str, ...]
    max_bytes: int
    retention: Literal["work", "log", "latest"]
    max_age: float = 0.0
    partitioning: Partitioning | None = None
    stored_as: str = ""
    first: int = 0
    message_ids: bool = False


@dataclass(frozen=True, slots=True)
class LogState:
    """The ends and the size of a log.

    `first` and `last` are sequences (an empty log has ``first == last + 1``); `bytes` is the size that counts
    to the `bound`, which another party may have changed since the log was opened.
    """

    first: int
    last: int
    messages: int
    bytes: int
    bound: int = field(default=sys.maxsize, compare=False)


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A consumer's name, filter, bounds and rules.

    Attributes
    ----------
    name
        The consumer's name; the position under the name outlives this process. Empty: an ephemeral consumer,
        which ends with the connection.
    acknowledge
        ``"each"``: every delivery is acknowledged on its own. ``"all"``: an acknowledgement is for all
        deliveries before, too.
    subject
        Pattern of the subjects whose entries are delivered; empty: all entries are.
    max_pending
        Most deliveries that are in flight and not acknowledged.
    ack_wait
        Seconds after which an unacknowledged delivery comes again; `Consumer.hold` starts this time anew.
    start
        Sequence of the first entry that a *new* consumer delivers; 0: the log's first entry.
    """

    name: str
    acknowledge: Literal["each", "all"]
    subject: str = ""
    max_pending: int = 64
    ack_wait: float = 30.0
    start: int = 0


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """The progress of a consumer.

    `floor` is the sequence up to which all entries are acknowledged, `pending` the number of entries that are
    not acknowledged. `active` are the seconds since the consumer last took or acknowledged deliveries; None
    if unknown.
    """

    name: str
    floor: int
    pending: int
    active: float | None = None


@dataclass(frozen=True, slots=True)
class News:
    """News of an `Attendance`.

    Attributes
    ----------
    identities
        The identities whose number of connections has changed, or may have.
    asked
        When the server was asked for the list that the news is, by the monotonic clock: an identity that
        `Attendance.connections` doesn't name was not connected then. None: the news is of `identities` alone.
    """

    identities: frozenset[str]
    asked: float | None = None


class Attendance(Protocol):
    """Which devices are connected to the server, by the server's own word.

    The server needs no word from a device: a device whose power was cut is missed all the same. The server
    tells of every connection that begins or ends, if it has accounts of ours; such news may get lost. So the
    server is asked for a list, too: at first, after each reconnect of this party, and now and then.
    """

    @property
    def connections(self) -> Mapping[str, int]:
        """How many connections each identity has now.

        Identities without a connection are left out. Where all parties share an account, the other parties
        are named, too.
        """

    @property
    def live(self) -> bool:
        """Whether the server tells of each connection at once, and not by lists alone."""

    def news(self) -> AsyncGenerator[News, None]:
        """Iterate over the news of `connections`, without end; to be called once.

        The first news is a list. There is no news while the server doesn't answer, or doesn't allow the
        question.
        """

    def refresh(self) -> None:
        """Let the server be asked for a list soon."""

    async def listening(self, subjects: Collection[str]) -> frozenset[str]:
        """Return those of `subjects` that a client listens to now.

        The `subjects` differ in their last token alone, a device's name. Subscriptions to patterns don't
        count.

        Raises
        ------
        WaitTimeout
            If the server doesn't answer.
        TransportError
            If the server doesn't allow the question.
        """


class Subscription(Protocol):
    """A standing interest in the signals of a subject."""

    async def close(self) -> None:
        """End the subscription; once `close` returns, the callback isn't called any more."""


class Consumer(Protocol):
    """A position in a log, and the deliveries from there on."""

    async def get(self) -> list[Delivery]:
        """Wait for at least one delivery, and return all that have arrived, in order.

        There are never more than `max_pending`.
        """

    def acknowledge(self, delivery: Delivery) -> None:
        """Say that `delivery` is dealt with.

        The server doesn't confirm this. If the acknowledgement gets lost, the delivery comes again.
        """

    def hold(self, deliveries: Sequence[Delivery]) -> None:
        """Start the `ack_wait` of `deliveries` anew, for they are still being worked on."""

    async def reset(self, sequence: int) -> None:
        """Deliver the entries from `sequence` on, in order; the entries before count as acknowledged.

        It doesn't matter what was delivered or acknowledged before. Deliveries that `get` hasn't returned yet
        are dropped by the consumer.
        """

    async def rewind(self) -> None:
        """Let all unacknowledged deliveries come again, in order, before newer entries.

        Deliveries that `get` hasn't returned yet are dropped by the consumer, for they come again, too. Where
        acknowledged entries stay in the log, those behind an unacknowledged entry come again as well.
        """

    async def state(self) -> ConsumerState:
        """Return the consumer's progress; acknowledgements that were just sent may not be in it yet."""

    async def close(self) -> None:
        """Stop delivering; the position stays, unless the consumer is ephemeral."""


class Log(Protocol):
    """An ordered, bounded log. `Connection.append` appends to it, for an append needs a subject only."""

    @property
    def spec(self) -> LogSpec:
        """The spec that the log was opened with."""

    async def latest(self, subject: str) -> Record | None:
        """Return the newest entry under `subject` (no wildcards); None if there is no entry."""

    def read(self, first: int, subject: str = "") -> AsyncIterator[Record]:
        """Iterate over the entries from sequence `first` to the newest at the time of the call.

        If `subject` is given, entries under other subjects are left out.
        """

    async def state(self) -> LogState:
        """Return the sequences of the first and last entry, and the log's size."""

    async def purge(self, below: int, subject: str = "") -> None:
        """Delete all entries with a sequence lower than `below`.

        If `subject` is given, a pattern, entries under other subjects stay.
        """

    async def delete(self, sequence: int) -> None:
        """Delete one entry; a missing entry is no error."""

    async def consumer(self, spec: ConsumerSpec) -> Consumer:
        """Make the named consumer, or go on from its position, and start delivering."""

    async def prepare_consumer(self, spec: ConsumerSpec) -> None:
        """Make the named consumer, or change it to what `spec` says; it keeps its position.

        `spec.start` is 0: a consumer that starts later can't be reset to an entry before its start.
        """

    async def find_consumer(self, spec: ConsumerSpec) -> Consumer | None:
        """Go on from the position of the named consumer, and start delivering; None if there is none.

        For parties that may not make the consumer. Of `spec`, `name` and `max_pending` alone count here:
        `max_pending` is the most deliveries that wait for `get`.
        """

    async def consumers(self) -> list[ConsumerState]:
        """Return the state of every named consumer."""

    async def forget_consumer(self, name: str) -> None:
        """Delete a named consumer and its position; a missing consumer is no error."""


class Logs(Protocol):
    """The logs of one server."""

    async def open_log(self, spec: LogSpec) -> Log:
        """Make the log if it isn't there, change its bounds if they differ, and return it."""

    async def find_log(self, name: str) -> Log | None:
        """Return the log called `name`; None if there is no such log."""

    async def delete_log(self, name: str) -> None:
        """Delete a log with all its entries; a missing log is no error."""

    async def log_names(self, pattern: str) -> list[str]:
        """Return the names of the logs that take subjects under `pattern`."""

    async def take_over(self, spec: LogSpec, former: str) -> None:
        """Make the log of `spec`, which takes one subject, with the newest entry that `former` has of it.

        A log that is there already, and takes its subject, stays as it is. The entry stays in the log
        `former` as well. If `take_over` is cut off, it goes on when it is called again. The log `former`
        takes the subject no more by then.
        """


class Connection(Logs, Protocol):
    """A party's connection to the transport, which reconnects by itself, for ever, until it is closed."""

    @property
    def connected(self) -> bool:
        """Whether the link stands now."""

    @property
    def refusal(self) -> str:
        """Why the server doesn't let this party back in; empty while the server does, or is away."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should look at before the server lets this party in no more: certificates that end.

        Empty while all certificates are valid for long, or are renewed by a program that runs.
        """

    @property
    def valid_until(self) -> float:
        """When this party's certificate ends, in seconds since 1970-01-01 UTC; 0.0 if it has none."""

    def refresh(self) -> None:
        """Take note that the party's certificate files have changed, for `warnings` and `valid_until`."""

    @property
    def domain(self) -> str:
        """The name of the connected server's JetStream among the servers that it is linked with as leaves.

        Empty if it has none.
        """

    async def storage(self) -> Storage:
        """Return how the server's storage stands.

        Known are the disk of a server of this computer, the limits that the server has told, and whether the
        server has answered this party's last append although the link stood.
        """

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called, on the event loop, each time the link stands again.

        Return a function that ends this.
        """

    @property
    def max_frame_bytes(self) -> int:
        """Size of the largest `data` that an append or publish takes, in bytes."""

    async def publish(self, subject: str, data: bytes) -> None:
        """Send a signal, and return once it is handed over. While the link is down, it may be dropped."""

    async def flush(self) -> None:
        """Return once the server has answered.

        The answer is a pace for a publisher of signals, no proof that signals arrived.

        Raises
        ------
        WaitTimeout
            If the server doesn't answer.
        """

    async def subscribe(self, subject: str, callback: Callable[[Signal], None]) -> Subscription:
        """Have `callback` called, on the event loop, for every signal under `subject` (``*``: one token).

        The subscription stands at the server when `subscribe` returns. `failure` raises an
        exception of `callback`.
        """

    async def failure(self) -> NoReturn:
        """Wait until a callback or a task of the connection has raised an exception, and raise it.

        The first exception stays: every later call raises it at once. The party that owns the connection
        awaits `failure` beside its own work, and so ends with the exception.
        """

    async def request(self, subject: str, data: bytes, timeout: float) -> bytes:
        """Send a signal and return the first answer.

        Raises
        ------
        WaitTimeout
            If no party answers in `timeout` seconds, or no party listens.
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
        """Append to the log that takes `subject`, and return the entry's sequence: the entry is safe then.

        Parameters
        ----------
        expect
            The sequence that must be the newest under `subject` (0: there is no entry yet).
        message_id
            Repeats of a recent append with the same id are stored once, if the log's spec says so. This is a
            courtesy with a short memory only.

        Raises
        ------
        Fenced
            If `expect` is not the newest.
        LogFull
            If the log is at its bound.
        ServerFull
            If the server, or its account, is at a limit; a `LogFull`.
        WaitTimeout
            If no answer came: the entry may or may not be stored.
        Unavailable
            If the server can't store the entry now, and hasn't.
        NotInvited
            If this party may not append under `subject`.
        TransportError
            If no log takes `subject`, or the transport refused the append otherwise.
        """

    def beyond(self) -> Logs:
        """Return the logs of the server that this server is a leaf of. Appends go there by their subjects."""

    def attendance(self, flow: str, devices: Callable[[], Iterable[str]] = tuple) -> Attendance:
        """Return which devices of `flow` are connected.

        `devices` returns the names of the devices that the caller knows: where each device has an account of
        its own, the server is asked for each by its name.
        """

    async def close(self) -> None:
        """Send buffered signals, then close, the subscriptions and consumers as well. Idempotent."""
