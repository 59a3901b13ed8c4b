"""An ordered log in memory, and the positions in it: the state alone.

Owns what `LogSpec`, `ConsumerSpec` and their states mean for the in-memory transport: bounds, fencing,
retention, redelivery. Knows no lock, no event loop and no clock: `pratipad_nb.transport.memory_broker` holds
the lock and passes the time. Where the contract leaves a choice, a stored log behaves as a NATS server does.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator
from copy import deepcopy
from itertools import takewhile, zip_longest

from pratipad_nb.errors import Fenced, LogFull, TransportError
from pratipad_nb.transport.protocol import ConsumerSpec, ConsumerState, Delivery, LogSpec, LogState, Record

__all__ = ["StoredConsumer", "StoredLog", "matches", "overlap"]

#: Bytes that an entry counts to the bound besides its subject and data: as in the server's file store.
_ENTRY_OVERHEAD = 30
#: How many message ids, the newest, a log remembers; the contract promises "a short memory" only.
_REMEMBERED_IDS = 4096


def matches(pattern: str, subject: str) -> bool:
    """Return whether `subject` falls under `pattern` (``*``: one token; ``>`` at the end: one or more)."""
    if pattern == subject:
        return True
    return ("*" in pattern or pattern.endswith(">")) and overlap(pattern, subject)


def overlap(one: str, other: str) -> bool:
    """Return whether a subject can fall under both patterns."""
    for a, b in zip_longest(one.split("."), other.split(".")):
        if a is None or b is None:
            return False
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return True


class StoredLog:
    """The entries of one log, the newest of each subject, and its consumers."""

    def __init__(self, spec: LogSpec) -> None:
        self.spec = spec
        self.last = max(0, spec.first - 1)
        self.gone = False
        self.consumers: dict[str, StoredConsumer] = {}
        # Not plain dictionaries: an ordered dictionary finds its first key at once, also after many removals.
        self.entries: OrderedDict[int, Record] = OrderedDict()
        self._under: dict[str, OrderedDict[int, None]] = {}
        self._ids: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0

    @property
    def first(self) -> int:
        """Sequence of the oldest entry; ``last + 1`` if there is no entry."""
        return next(iter(self.entries), self.last + 1)

    def takes(self, subject: str) -> bool:
        """Return whether appends under `subject` go to this log."""
        return any(matches(pattern, subject) for pattern in self.spec.subjects)

    def state(self) -> LogState:
        """Return the sequences of the first and last entry, and the log's size."""
        return LogState(self.first, self.last, len(self.entries), self._bytes, self.spec.max_bytes)

    def newest(self, subject: str) -> int:
        """Return the sequence of the newest entry under `subject`; 0 if there is no entry."""
        under = self._under.get(subject)
        return next(reversed(under)) if under else 0

    def append(
        self, subject: str, data: bytes, now: float, expect: int | None, message_id: str | None
    ) -> int:
        """Store an entry and return its sequence; raises `Fenced` or `LogFull`.

        The expectation is checked before the message id, as a NATS server does: a repeat of an append that
        *was* stored is `Fenced`, and its writer finds the stored entry by reading the log's end.
        """
        subject = self.spec.stored_as or subject
        if self.spec.partitioning is not None:
            subject = self.spec.partitioning.stored_under(subject)
        newest = self.newest(subject)
        if expect is not None and expect != newest:
            raise Fenced(
                f"an append to log {self.spec.name!r} expected {expect} as the newest sequence under "
                f"{subject!r}, which is {newest}: another owner has written. Read the log's end before "
                "writing on."
            )
        if not self.spec.message_ids:
            message_id = None
        if message_id is not None and message_id in self._ids:
            return self._ids[message_id]
        replaced = newest if self.spec.retention == "latest" else 0
        self._check_room(subject, data, replaced)
        self.last += 1
        if replaced:
            self.remove(replaced)
        self._store(Record(subject, data, self.last, now))
        if message_id is not None:
            self._remember(message_id)
        return self.last

    def _check_room(self, subject: str, data: bytes, replaced: int) -> None:
        after = self._bytes + _size(subject, data)
        if replaced:
            after -= _size(subject, self.entries[replaced].data)
        if after > self.spec.max_bytes:
            raise LogFull(
                f"log {self.spec.name!r} holds {self._bytes} bytes; {len(data)} more would exceed its bound "
                f"of {self.spec.max_bytes}. Try again once entries have been consumed or purged."
            )

    def _store(self, record: Record) -> None:
        self.entries[record.sequence] = record
        self._under.setdefault(record.subject, OrderedDict())[record.sequence] = None
        self._bytes += _size(record.subject, record.data)

    def _remember(self, message_id: str) -> None:
        self._ids[message_id] = self.last
        if len(self._ids) > _REMEMBERED_IDS:
            self._ids.popitem(last=False)

    def forget_ids(self) -> None:
        """Forget all message ids, as a restarted server does."""
        self._ids.clear()

    def go_back(self, earlier: StoredLog) -> None:
        """Become again as `earlier`, a copy of this log; consumers made since are gone."""
        copied = deepcopy(earlier)
        for key in self.consumers.keys() - copied.consumers.keys():
            self.consumers[key].gone = True
        for key, before in copied.consumers.items():
            consumer = copied.consumers[key] = self.consumers.get(key, before)
            consumer.become(before, self)
        vars(self).update(vars(copied))

    def remove(self, sequence: int) -> None:
        """Delete an entry, also from the consumers' deliveries in flight; a missing entry is no error."""
        record = self.entries.pop(sequence, None)
        if record is None:
            return
        self._bytes -= _size(record.subject, record.data)
        under = self._under[record.subject]
        del under[sequence]
        if not under:
            del self._under[record.subject]
        for consumer in self.consumers.values():
            consumer.discard(sequence)

    def purge(self, below: int, subject: str = "") -> None:
        """Delete all entries, or those under `subject`, with a sequence lower than `below`."""
        if not subject:
            while self.entries and self.first < below:
                self.remove(self.first)
            return
        for sequence, record in list(takewhile(lambda entry: entry[0] < below, self.entries.items())):
            if matches(subject, record.subject):
                self.remove(sequence)

    def expire(self, now: float) -> None:
        """Delete the entries that are older than `max_age`."""
        if self.spec.max_age:
            while self.entries and self.entries[self.first].time + self.spec.max_age <= now:
                self.remove(self.first)

    def after(self, first: int, last: int, subject: str) -> Record | None:
        """Return the first entry from `first` to `last`, under `subject` if it is given."""
        for sequence in self._sequences(max(first, self.first), last):
            record = self.entries.get(sequence)
            if record is not None and (not subject or matches(subject, record.subject)):
                return record
        return None

    def _sequences(self, first: int, last: int) -> Iterator[int]:
        if last - first > 2 * len(self.entries):  # more holes than entries, as "latest" logs have
            return (sequence for sequence in self.entries if first <= sequence <= last)
        return iter(range(first, last + 1))

    def consumer(self, key: str, spec: ConsumerSpec, now: float) -> StoredConsumer:
        """Return the consumer under `key`, made if it is missing, with the bounds of `spec`.

        Raises
        ------
        TransportError
            Where a NATS server would refuse: a second consumer of a work log, ``"all"`` on a work log, or
            another way of acknowledging than the consumer's.
        """
        known = self.consumers.get(key)
        if known is not None and known.spec.acknowledge != spec.acknowledge:
            raise TransportError(
                f"consumer {spec.name!r} of log {self.spec.name!r} acknowledges {known.spec.acknowledge!r}, "
                f"not {spec.acknowledge!r}: forget it first."
            )
        if known is not None:
            known.spec = spec
            return known
        if self.spec.retention == "work":
            self._check_work(spec)
        made = self.consumers[key] = StoredConsumer(self, spec, now)
        return made

    def prepare(self, spec: ConsumerSpec, now: float) -> None:
        """Make the consumer of `spec`, or change it to what `spec` says; it keeps its position."""
        known = self.consumers.get(spec.name)
        if known is not None and known.spec.acknowledge != spec.acknowledge:
            floor = known.state(now).floor
            self.consumers.pop(spec.name).gone = True
            self.consumer(spec.name, spec, now).reset(floor + 1)
        else:
            self.consumer(spec.name, spec, now)

    def _check_work(self, spec: ConsumerSpec) -> None:
        if spec.acknowledge == "all":
            raise TransportError(
                f"log {self.spec.name!r} is a work log: its consumer acknowledges 'each', not 'all'."
            )
        for other in self.consumers.values():
            if not spec.subject or not other.spec.subject or overlap(spec.subject, other.spec.subject):
                raise TransportError(
                    f"log {self.spec.name!r} is a work log and has the consumer {other.spec.name!r}; "
                    f"{spec.name!r} would share its entries. Forget {other.spec.name!r} first, or filter by "
                    "subjects."
                )


class StoredConsumer:
    """A position: the next new entry, the deliveries in flight, and the deliveries that come again.

    The invariant: every entry of the consumer's subject from its start to `_next` that the log holds is
    acknowledged, or in exactly one of `_out` (in flight) and `_back` (to come again). It holds because `take`
    moves an entry into `_out` as it passes `_next`, `_overdue` and `rewind` move entries from `_out` to
    `_back`, and only `discard` removes them.
    """

    def __init__(self, log: StoredLog, spec: ConsumerSpec, now: float) -> None:
        self.spec = spec
        self.gone = False
        self._log = log
        self._next = min(max(spec.start, log.first), log.last + 1)
        self._out: dict[int, float] = {}  # sequence in flight → time at which it comes again
        self._back: list[int] = []  # sequences that come again, in order
        self._delivered = self._rewinds = 0  # deliveries since the last rewind, and rewinds
        self._active = now

    def become(self, earlier: StoredConsumer, log: StoredLog) -> None:
        """Become again as `earlier` was, a consumer of `log`."""
        vars(self).update(vars(earlier))
        self._log = log

    def take(self, now: float, most: int) -> list[Delivery]:
        """Return the deliveries that are due and have room: first repeats, in order, then new entries.

        There are never more than `most`.
        """
        self._active = now
        self._overdue(now)
        room = min(most, self.spec.max_pending - len(self._out))
        again, self._back = self._back[:room], self._back[room:]
        taken = [self._deliver(self._log.entries[sequence], now, redelivered=True) for sequence in again]
        while len(taken) < room:
            record = self._log.after(self._next, self._log.last, self.spec.subject)
            self._next = record.sequence + 1 if record else self._log.last + 1
            if record is None:
                break
            taken.append(self._deliver(record, now, redelivered=False))
        return taken

    def _deliver(self, record: Record, now: float, *, redelivered: bool) -> Delivery:
        self._out[record.sequence] = now + self.spec.ack_wait
        self._delivered += 1
        return Delivery(
            record.subject,
            record.data,
            record.sequence,
            record.time,
            redelivered,
            str(record.sequence),
            self._delivered,
            self._rewinds,
        )

    def _overdue(self, now: float) -> None:
        for sequence in [s for s, due in self._out.items() if due <= now]:
            del self._out[sequence]
            insort(self._back, sequence)

    def due(self) -> float | None:
        """Return when the next delivery in flight comes again; None if no delivery is in flight."""
        return min(self._out.values(), default=None)

    def acknowledge(self, sequence: int, now: float) -> None:
        """Settle `sequence`, and all before it if this consumer acknowledges ``"all"``."""
        self._active = now
        held = [*self._out, *self._back]
        if self.spec.acknowledge == "all":
            settled = [s for s in held if s <= sequence]
        else:
            settled = [sequence] if sequence in held else []
        for done in settled:
            self.discard(done)
            if self._log.spec.retention == "work":
                self._log.remove(done)

    def hold(self, sequence: int, now: float) -> None:
        """Start the `ack_wait` of `sequence` anew."""
        self._active = now
        if sequence in self._out:
            self._out[sequence] = now + self.spec.ack_wait

    def rewind(self) -> None:
        """Let all entries from the first unacknowledged entry on come again, in order.

        Acknowledged entries that the log still holds are among them: a server keeps no account, over a
        rewind, of what was acknowledged behind an unacknowledged entry.
        """
        first = max(self._floor + 1, self._log.first)
        self._out.clear()
        self._delivered, self._rewinds = 0, self._rewinds + 1
        self._back = [
            sequence
            for sequence in range(first, self._next)
            if (record := self._log.entries.get(sequence)) and self._wants(record)
        ]

    def reset(self, sequence: int) -> None:
        """Let the next delivery be the first entry from `sequence` on, whatever was acknowledged."""
        self._out.clear()
        self._back.clear()
        self._delivered, self._rewinds = 0, self._rewinds + 1
        self._next = max(sequence, 1)

    def _wants(self, record: Record) -> bool:
        return not self.spec.subject or matches(self.spec.subject, record.subject)

    @property
    def _floor(self) -> int:
        """The sequence up to which all entries are acknowledged."""
        return min([*self._out, *self._back], default=max(self._next, self._log.first)) - 1

    def discard(self, sequence: int) -> None:
        """Forget `sequence`, which is no longer to be acknowledged."""
        if self._out.pop(sequence, None) is None and sequence in self._back:
            self._back.remove(sequence)

    def state(self, now: float) -> ConsumerState:
        """Return the consumer's state."""
        new = sum(
            1
            for sequence, record in self._log.entries.items()
            if sequence >= self._next and self._wants(record)
        )
        unacknowledged = len(self._out) + len(self._back)
        return ConsumerState(self.spec.name, self._floor, new + unacknowledged, now - self._active)


def _size(subject: str, data: bytes) -> int:
    return len(subject) + len(data) + _ENTRY_OVERHEAD
