"""The broker of the in-memory transport, in the place of a NATS server.

Owns the logs, the connections, the routes of signals, and the faults that a test may inject. One lock makes
the broker safe for connections of several event loops and threads at once; signals reach each connection on
that connection's own loop. A log's behaviour is for `pratipad_nb.transport.memory_store`, the contract's
asynchronous side for `pratipad_nb.transport.memory`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from copy import deepcopy
from typing import ClassVar, Protocol

from pratipad_nb.errors import TransportError
from pratipad_nb.forks import forget_in_child
from pratipad_nb.settings import Storage
from pratipad_nb.transport.memory_store import StoredLog, matches, overlap
from pratipad_nb.transport.protocol import LogSpec, Signal

__all__ = ["Broker", "Link", "Listener", "Pulse"]


class Pulse:
    """An event that any thread sets and one event loop waits for; made on that loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._armed = False

    def arm(self) -> None:
        """Forget earlier pulses; called under the broker's lock, after looking and before waiting."""
        self._event.clear()
        self._armed = True

    def set(self) -> None:
        """Wake the waiter; called under the broker's lock."""
        if self._armed:
            self._armed = False
            with contextlib.suppress(RuntimeError):  # the loop is closed, and no task waits any more
                self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float | None) -> bool:
        """Wait for a pulse, at most `seconds`; return whether there was a pulse."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


class Link(Protocol):
    """The part of a connection that the broker knows."""

    identity: str
    name: str
    pulse: Pulse

    def relinked(self) -> None:
        """Do the work that a reconnect asks for; called under the broker's lock."""


class Listener(Protocol):
    """The part of a subscription that the broker knows."""

    pattern: str

    @property
    def link(self) -> Link:
        """The connection of this subscription."""

    def offer(self, signal: Signal) -> None:
        """Take `signal`, from any thread; drop it if the queue is full."""

    def lose(self) -> None:
        """Drop the signals that are queued and not yet handed over."""


class Broker:
    """The shared state of all connections to ``memory://NAME`` in a process.

    Parameters
    ----------
    name
        The name in the broker's URL.
    clock
        Seconds since 1970; stamps entries and decides when an unacknowledged delivery comes again.
        Default: the computer's clock, with timers. With another clock there are no timers: move the
        clock, then call `tick`.
    """

    _named: ClassVar[dict[str, Broker]] = {}
    _naming: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, name: str = "", *, clock: Callable[[], float] | None = None) -> None:
        self.name = name
        self.lock = threading.RLock()
        self._clock = clock or time.time
        self._timed = clock is None
        self._logs: dict[str, StoredLog] = {}
        self._pulses: dict[Pulse, StoredLog | None] = {}
        self._links: dict[Link, None] = {}
        self._listeners: dict[str, list[Listener]] = {}
        self._running = True
        self._cut: set[str] = set()
        self._lost_answers: Counter[str] = Counter()
        self.storage = Storage()

    def __repr__(self) -> str:
        return f"<Broker memory://{self.name}: {len(self._links)} connections, {len(self._logs)} logs>"

    @classmethod
    def named(cls, name: str) -> Broker:
        """Return the broker that ``memory://NAME`` means in this process, made on first use."""
        with cls._naming:
            if name not in cls._named:
                cls._named[name] = cls(name)
            return cls._named[name]

    @classmethod
    def install(cls, broker: Broker) -> Broker:
        """Let ``memory://NAME`` mean `broker`, which may have a clock of its own, and return it."""
        with cls._naming:
            cls._named[broker.name] = broker
        return broker

    @classmethod
    def forget(cls, name: str) -> None:
        """Let ``memory://NAME`` mean a new, empty broker from now on."""
        with cls._naming:
            cls._named.pop(name, None)

    # Faults

    def cut(self, identity: str) -> None:
        """Take down the links of `identity`: its signals are lost, and its appends wait."""
        with self.lock:
            self._cut.add(identity)
            self.tick()

    def heal(self, identity: str) -> None:
        """Put the links of `identity` up again."""
        with self.lock:
            if identity in self._cut:
                self._cut.discard(identity)
                for link in self._links:
                    if link.identity == identity:
                        link.relinked()
            self.tick()

    def lose_answers(self, identity: str, count: int = 1) -> None:
        """Let the next `count` appends of `identity` be stored, but end in `WaitTimeout`."""
        with self.lock:
            self._lost_answers[identity] += count

    def store_as(self, storage: Storage) -> None:
        """Let the storage stand so: while it has a `trouble`, no append is stored or answered."""
        with self.lock:
            self.storage = storage
            self.tick()

    def stop(self) -> None:
        """Take down every link, as a server does that ends; the entries of logs stay."""
        with self.lock:
            self._running = False
            for listeners in self._listeners.values():
                for listener in listeners:
                    listener.lose()
            self.tick()

    def start(self) -> None:
        """Come back after `stop`: unacknowledged deliveries come again, message ids are forgotten."""
        with self.lock:
            self._running = True
            for log in self._logs.values():
                log.forget_ids()
                for consumer in log.consumers.values():
                    consumer.rewind()
            for link in self._links:
                if self.reaches(link):
                    link.relinked()
            self.tick()

    def restart(self, store: dict[str, StoredLog] | None = None) -> None:
        """Stop and start at once; signals in flight are lost. `store`: start with this earlier copy."""
        with self.lock:
            self.stop()
            if store is not None:
                self._go_back(store)
            self.start()

    def copied_store(self) -> dict[str, StoredLog]:
        """Return a copy of all logs, as a backup holds them."""
        with self.lock:
            return deepcopy(self._logs)

    def _go_back(self, store: dict[str, StoredLog]) -> None:
        for name in self._logs.keys() - store.keys():
            self.delete_log(name)
        for name, earlier in store.items():
            self._logs.setdefault(name, StoredLog(earlier.spec)).go_back(earlier)

    def tick(self) -> None:
        """Let every waiter look again: to be called after a clock of the test's own has moved."""
        with self.lock:
            for pulse in [*self._pulses, *(link.pulse for link in self._links)]:
                pulse.set()

    # Time

    def now(self) -> float:
        """Return the broker's time."""
        return self._clock()

    def seconds_until(self, due: float | None) -> float | None:
        """Return how many seconds to wait for `due`; None: wait for a `tick`."""
        return max(0.0, due - self._clock()) if self._timed and due is not None else None

    # Connections

    def attach(self, link: Link) -> None:
        """Let a connection in."""
        with self.lock:
            self._links[link] = None
            self.wake(None)

    def detach(self, link: Link) -> None:
        """Let a connection go."""
        with self.lock:
            self._links.pop(link, None)
            link.pulse.set()
            self.wake(None)

    def reaches(self, link: Link) -> bool:
        """Return whether the connection's link stands."""
        return self._running and link in self._links and link.identity not in self._cut

    def connections(self) -> Counter[str]:
        """Return how many connections whose link stands each identity has."""
        with self.lock:
            return Counter(link.identity for link in self._links if self.reaches(link))

    def answer_lost(self, link: Link) -> bool:
        """Return whether the answer to this append of `link` gets lost (see `lose_answers`)."""
        with self.lock:
            lost = self._lost_answers[link.identity] > 0
            if lost:
                self._lost_answers[link.identity] -= 1
            return lost

    # Signals

    def listen(self, listener: Listener) -> None:
        """Add a subscription."""
        with self.lock:
            self._listeners.setdefault(listener.pattern, []).append(listener)

    def unlisten(self, listener: Listener) -> None:
        """Remove a subscription; a missing subscription is no error."""
        with self.lock:
            listeners = self._listeners.get(listener.pattern, [])
            if listener in listeners:
                listeners.remove(listener)
            if not listeners:
                self._listeners.pop(listener.pattern, None)

    def listening(self, subjects: Collection[str]) -> frozenset[str]:
        """Return those of `subjects` that have a subscription of their own, by a connection that stands."""
        with self.lock:
            return frozenset(
                subject
                for subject in subjects
                if any(self.reaches(each.link) for each in self._listeners.get(subject, ()))
            )

    def publish(self, signal: Signal) -> int:
        """Hand `signal` to its listeners, and to the log that takes its subject; return their number."""
        with self.lock:
            log = self._log_of(signal.subject)
            if log is not None:
                with contextlib.suppress(TransportError):  # a signal that doesn't fit is lost, unanswered
                    self._append(log, signal.subject, signal.data, None, None)
            return self._spread(signal) + (log is not None)

    def _spread(self, signal: Signal) -> int:
        heard = [
            listener
            for pattern, listeners in self._listeners.items()
            if matches(pattern, signal.subject)
            for listener in listeners
            if self.reaches(listener.link)
        ]
        for listener in heard:
            listener.offer(signal)
        return len(heard)

    # Logs

    def append(self, subject: str, data: bytes, expect: int | None, message_id: str | None) -> int:
        """Append to the log that takes `subject`; raises the errors of `Connection.append`."""
        with self.lock:
            log = self._log_of(subject)
            if log is None:
                raise TransportError(f"no log takes {subject!r}. Open one whose subjects cover it first.")
            sequence = self._append(log, subject, data, expect, message_id)
            self._spread(Signal(subject, data))
            return sequence

    def _append(
        self, log: StoredLog, subject: str, data: bytes, expect: int | None, message_id: str | None
    ) -> int:
        log.expire(self.now())
        sequence = log.append(subject, data, self.now(), expect, message_id)
        self.wake(log)
        return sequence

    def _log_of(self, subject: str) -> StoredLog | None:
        return next((log for log in self._logs.values() if log.takes(subject)), None)

    def open_log(self, spec: LogSpec) -> StoredLog:
        """Make the log, or change its bounds, and return the log.

        Raises
        ------
        TransportError
            Where a server would refuse: another log takes a subject of `spec`, or the log
            has another retention.
        """
        with self.lock:
            for other in self._logs.values():
                clash = [(a, b) for a in spec.subjects for b in other.spec.subjects if overlap(a, b)]
                if clash and other.spec.name != spec.name:
                    raise TransportError(
                        f"log {spec.name!r} can't take {clash[0][0]!r}: log {other.spec.name!r} takes "
                        f"{clash[0][1]!r}."
                    )
            log = self._logs.setdefault(spec.name, StoredLog(spec))
            if log.spec.retention != spec.retention:
                raise TransportError(
                    f"log {spec.name!r} has retention {log.spec.retention!r}; it can't become "
                    f"{spec.retention!r}. Delete it first."
                )
            log.spec = spec
            return log

    def find_log(self, name: str) -> StoredLog | None:
        """Return the log called `name`; None if there is no such log."""
        with self.lock:
            return self._logs.get(name)

    def log_names(self, pattern: str) -> list[str]:
        """Return the names of the logs that take subjects under `pattern`."""
        with self.lock:
            return [
                name
                for name, log in self._logs.items()
                if any(overlap(pattern, subject) for subject in log.spec.subjects)
            ]

    def take_over(self, spec: LogSpec, former: str) -> None:
        """Make the log of `spec`, with the newest entry that the log `former` has under its subject."""
        with self.lock:
            if spec.name in self._logs:
                return
            log, source = self.open_log(spec), self._logs.get(former)
            record = source.entries.get(source.newest(spec.subjects[0])) if source is not None else None
            if record is not None:
                self._append(log, record.subject, record.data, None, None)

    def delete_log(self, name: str) -> None:
        """Delete a log; a missing log is no error."""
        with self.lock:
            log = self._logs.pop(name, None)
            if log is not None:
                log.gone = True
                self.wake(log)

    def watch(self, log: StoredLog | None, pulse: Pulse) -> None:
        """Set `pulse` whenever a delivery may have become due in `log`; None: when links have changed."""
        with self.lock:
            self._pulses[pulse] = log

    def unwatch(self, pulse: Pulse) -> None:
        """Set `pulse` a last time, and no more."""
        with self.lock:
            self._pulses.pop(pulse, None)
            pulse.set()

    def wake(self, log: StoredLog | None) -> None:
        """Wake the waiters for `log`; None: those for a change of links."""
        for pulse, watched in self._pulses.items():
            if watched is log:
                pulse.set()


def _forget_brokers() -> None:
    """Forget the brokers, whose parties are in the process from which this process was forked."""
    Broker._naming = threading.Lock()  # noqa: SLF001 - of this module
    Broker._named.clear()  # noqa: SLF001


forget_in_child(_forget_brokers)
