"""Logs and consumers of the in-memory transport, as one connection uses them.

Owns the asynchronous side of a log: waiting for deliveries, and for a link that is down. A log's rules
(bounds, fencing, redelivery) are for `pratipad_nb.transport.memory_store`.

A real consumer has buffers, a `MemoryConsumer` has none: `get` takes deliveries from the log itself. So the
deliveries that come again after a `rewind`, a restart of the broker or an `ack_wait` are chosen at that
moment and nowhere else.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol, TypeVar

from pratipad_nb.errors import TransportClosed, TransportError
from pratipad_nb.transport.memory_broker import Broker, Pulse
from pratipad_nb.transport.memory_store import StoredConsumer, StoredLog
from pratipad_nb.transport.protocol import ConsumerSpec, ConsumerState, Delivery, LogSpec, LogState, Record

__all__ = ["MemoryConsumer", "MemoryLog"]

_ephemeral = itertools.count(1)
Answer = TypeVar("Answer")


class Link(Protocol):
    """The part of their connection that a log and a consumer know."""

    broker: Broker

    @property
    def connected(self) -> bool:
        """Whether the link stands now."""

    async def link_up(self) -> None:
        """Wait for the link to stand."""

    def check_open(self) -> None:
        """Raise `TransportClosed` if this side has closed the connection."""

    def own(self, part: MemoryConsumer) -> None:
        """Close `part` when the connection closes."""

    def disown(self, part: MemoryConsumer) -> None:
        """Own `part` no longer."""


class MemoryLog:
    """A log as one connection sees it."""

    def __init__(self, link: Link, stored: StoredLog, spec: LogSpec) -> None:
        self._link = link
        self._stored = stored
        self._spec = spec

    @property
    def spec(self) -> LogSpec:
        """The spec that the log was opened with."""
        return self._spec

    async def _do(self, operation: Callable[[StoredLog], Answer]) -> Answer:
        await self._link.link_up()
        broker = self._link.broker
        with broker.lock:
            if self._stored.gone:
                raise TransportError(f"log {self._spec.name!r} has been deleted. Open it anew.")
            self._stored.expire(broker.now())
            return operation(self._stored)

    async def latest(self, subject: str) -> Record | None:
        """Return the newest entry under `subject`."""
        return await self._do(lambda log: log.entries.get(log.newest(subject)))

    async def read(self, first: int, subject: str = "") -> AsyncIterator[Record]:
        """Iterate over the entries from `first` to the newest at the time of the call."""
        last = (await self.state()).last
        while first <= last:
            # `first` is bound as a default, for a lambda would see its later values.
            record = await self._do(lambda log, at=first: log.after(at, last, subject))  # type: ignore[misc]
            if record is None:
                return
            yield record
            first = record.sequence + 1

    async def state(self) -> LogState:
        """Return the sequences of the first and last entry, and the log's size."""
        return await self._do(StoredLog.state)

    async def purge(self, below: int, subject: str = "") -> None:
        """Delete all entries, or those under `subject`, with a sequence lower than `below`."""
        await self._do(lambda log: log.purge(below, subject))
        self._link.broker.tick()

    async def delete(self, sequence: int) -> None:
        """Delete one entry."""
        await self._do(lambda log: log.remove(sequence))
        self._link.broker.tick()

    async def consumer(self, spec: ConsumerSpec) -> MemoryConsumer:
        """Make the named consumer, or go on from its position."""
        key = spec.name or f" {next(_ephemeral)}"  # no name can have a space
        now = self._link.broker.now()
        return self._begun(key, await self._do(lambda log: log.consumer(key, spec, now)), spec)

    def _begun(self, key: str, position: StoredConsumer, spec: ConsumerSpec) -> MemoryConsumer:
        consumer = MemoryConsumer(self._link, self._stored, key, position, spec.max_pending)
        self._link.own(consumer)
        return consumer

    async def prepare_consumer(self, spec: ConsumerSpec) -> None:
        """Make the named consumer, or change it to `spec`."""
        now = self._link.broker.now()
        await self._do(lambda log: log.prepare(spec, now))

    async def find_consumer(self, spec: ConsumerSpec) -> MemoryConsumer | None:
        """Go on from the position of the named consumer; None if there is none."""
        position = await self._do(lambda log: log.consumers.get(spec.name))
        return self._begun(spec.name, position, spec) if position is not None else None

    async def consumers(self) -> list[ConsumerState]:
        """Return the state of every named consumer."""
        now = self._link.broker.now()
        return await self._do(lambda log: [c.state(now) for c in log.consumers.values() if c.spec.name])

    async def forget_consumer(self, name: str) -> None:
        """Delete a named consumer and its position."""
        await self._do(lambda log: _forget(log, name))
        self._link.broker.tick()


def _forget(log: StoredLog, key: str) -> None:
    gone = log.consumers.pop(key, None)
    if gone is not None:
        gone.gone = True


class MemoryConsumer:
    """A consumer of one connection. Consumers may share a position: each delivery goes to one of them."""

    def __init__(self, link: Link, log: StoredLog, key: str, position: StoredConsumer, most: int) -> None:
        self._link = link
        self._most = most
        self._log = log
        self._key = key
        self._position = position
        self._pulse = Pulse()
        self._closed = False
        link.broker.watch(log, self._pulse)

    async def get(self) -> list[Delivery]:
        """Wait for at least one delivery and return all that are due, in order."""
        await asyncio.sleep(0)  # a busy log must not keep the loop from other tasks
        broker = self._link.broker
        while True:
            with broker.lock:
                self._check()
                now = broker.now()
                self._log.expire(now)
                if self._link.connected and (deliveries := self._position.take(now, self._most)):
                    return deliveries
                self._pulse.arm()
                pause = broker.seconds_until(self._position.due()) if self._link.connected else None
            await self._pulse.wait(pause)

    def _check(self) -> None:
        self._link.check_open()
        if self._closed:
            raise TransportClosed(f"the consumer {self._position.spec.name!r} is closed. Open it anew.")
        if self._log.gone or self._position.gone:
            raise TransportError(
                f"the consumer {self._position.spec.name!r} or its log {self._log.spec.name!r} has been "
                "deleted."
            )

    def acknowledge(self, delivery: Delivery) -> None:
        """Acknowledge `delivery`; the acknowledgement is lost while the link is down."""
        broker = self._link.broker
        with broker.lock:
            if self._link.connected:
                self._position.acknowledge(delivery.sequence, broker.now())
                broker.wake(self._log)  # there is room for another delivery now

    def hold(self, deliveries: Sequence[Delivery]) -> None:
        """Start the `ack_wait` of `deliveries` anew, for they are still being worked on."""
        broker = self._link.broker
        with broker.lock:
            if self._link.connected:
                for delivery in deliveries:
                    self._position.hold(delivery.sequence, broker.now())

    async def rewind(self) -> None:
        """Let all unacknowledged deliveries come again, in order, before newer entries."""
        await self._link.link_up()
        self._check()
        self.rewind_now()

    async def reset(self, sequence: int) -> None:
        """Deliver the entries from `sequence` on; the entries before count as acknowledged."""
        await self._link.link_up()
        self._check()
        with self._link.broker.lock:
            self._position.reset(sequence)
            self._link.broker.wake(self._log)

    def rewind_now(self) -> None:
        """Rewind without waiting for the link."""
        with self._link.broker.lock:
            self._position.rewind()
            self._link.broker.wake(self._log)

    async def state(self) -> ConsumerState:
        """Return the consumer's progress."""
        await self._link.link_up()
        self._check()
        broker = self._link.broker
        with broker.lock:
            return self._position.state(broker.now())

    async def close(self) -> None:
        """Stop delivering; the position stays, unless the consumer is ephemeral."""
        broker = self._link.broker
        with broker.lock:
            self._closed = True
            if not self._position.spec.name:
                _forget(self._log, self._key)
            broker.unwatch(self._pulse)
        self._link.disown(self)
