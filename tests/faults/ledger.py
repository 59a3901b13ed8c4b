"""The ledger of results: what devices were promised, and what each reader got.

A result is known by the numbers that the hunt itself gave its message, never by the product's: the device,
the start of the device's process, and the number in that start. A poisoned message becomes a dead letter
before it is a result, so it arrives late, out of order, and once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from states import Key, Result, States


class Book(Protocol):
    """A file that a device writes, as messages."""

    def new(self) -> Iterator[Key]:
        """Give the messages that were written since the last call, in the order of the file."""


class ResultBook(Protocol):
    """A file that a reader writes, as results."""

    def new(self) -> Iterator[Result]:
        """Give the results that were written since the last call, in the order of the file."""


class Numbers:
    """The messages that are known: a byte for each number of a device's start."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], bytearray] = {}

    def __contains__(self, key: Key) -> bool:
        known = self._known.get(key[:2], b"")
        return key.number < len(known) and known[key.number] == 1

    def add(self, key: Key) -> None:
        """Note a message."""
        known = self._known.setdefault(key[:2], bytearray())
        if key.number >= len(known):
            known.extend(bytes(key.number + 1024 - len(known)))
        known[key.number] = 1


class Arrivals:
    """What one reader got, held against what was promised."""

    def __init__(self) -> None:
        self.got = Numbers()
        #: What is promised, or has arrived elsewhere, and has not arrived yet.
        self.owed: set[Key] = set()
        self.doubled: set[Key] = set()
        self.reordered: set[Key] = set()
        #: Results whose state does not follow from the device's result before.
        self.wrong: set[Key] = set()
        #: The latest message of each device, the poisoned ones apart.
        self.latest: dict[str, Key] = {}
        self._states = States()
        self._repeats = False

    def resume(self) -> None:
        """Let the reader, which has started again behind its last message, repeat what it got before."""
        self._repeats = True

    def promise(self, key: Key) -> None:
        """Note that a message has to arrive."""
        if key not in self.got:
            self.owed.add(key)

    def add(self, result: Result) -> None:
        """Note that a result has arrived."""
        key = result.key
        if key in self.got:
            if not self._repeats:
                self.doubled.add(key)
            return
        self._repeats = False
        self.got.add(key)
        self.owed.discard(key)
        if not self._states.exact(result):
            self.wrong.add(key)
        if key.poisoned:
            return
        if key < self.latest.get(key.device, key):
            self.reordered.add(key)
        else:
            self.latest[key.device] = key

    def overtaken(self, key: Key) -> bool:
        """Whether a later message of the device has arrived, so that `key` has arrived, or comes too late."""
        return key <= self.latest.get(key.device, Key(key.device, 0, 0))


class Ledger:
    """What devices were promised, and what each of the readers got."""

    def __init__(self, readers: dict[str, ResultBook]) -> None:
        self._readers = readers
        self._receipts: list[Book] = []
        self.arrivals = {reader: Arrivals() for reader in readers}
        self.receipts = 0
        #: The results that a processor answers, once they have arrived anywhere.
        self.answered: set[Key] = set()

    def expect(self, book: Book) -> None:
        """Read the receipts of one more start of a device from now on."""
        self._receipts.append(book)

    def update(self) -> int:
        """Read what is new in all books; return how many arrivals that was."""
        for book in self._receipts:
            for key in book.new():
                self.receipts += 1
                for arrivals in self.arrivals.values():
                    arrivals.promise(key)
        count = 0
        for reader, results in self._readers.items():
            for result in results.new():
                count += 1
                self._add(reader, result)
        return count

    def _add(self, reader: str, result: Result) -> None:
        self.arrivals[reader].add(result)
        for other, arrivals in self.arrivals.items():
            if other != reader:
                arrivals.promise(result.key)
        if result.key.answered and not result.key.poisoned:
            self.answered.add(result.key)

    @property
    def lost(self) -> set[Key]:
        """What is promised, or has arrived at another reader, and has not arrived at each."""
        return set[Key]().union(*(arrivals.owed for arrivals in self.arrivals.values()))

    @property
    def under_way(self) -> set[Key]:
        """What of `lost` may arrive yet.

        A dead letter may; of the others, those that no reader has a later message of the device in place of.
        """
        overtaken = {
            key
            for arrivals in self.arrivals.values()
            for key in arrivals.owed
            if not key.poisoned and arrivals.overtaken(key)
        }
        return self.lost - overtaken

    @property
    def doubled(self) -> set[Key]:
        """What arrived twice at one reader."""
        return set[Key]().union(*(arrivals.doubled for arrivals in self.arrivals.values()))

    @property
    def reordered(self) -> set[Key]:
        """What arrived after a later message of its device."""
        return set[Key]().union(*(arrivals.reordered for arrivals in self.arrivals.values()))

    @property
    def wrong(self) -> set[Key]:
        """Results in which the processor's state is not exact."""
        return set[Key]().union(*(arrivals.wrong for arrivals in self.arrivals.values()))
