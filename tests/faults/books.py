"""The books of a hunt: what devices were promised, what readers got, and the comparison of both.

A message is known by the numbers that the hunt itself gave it, never by the product's: its device, the start
of the device's process, and its number in that start.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol


class Key(NamedTuple):
    """A message. Of one device, keys rise in the order of its pushes."""

    device: str
    start: int
    number: int


class Book(Protocol):
    """A file that another process writes, as messages."""

    def new(self) -> Iterator[Key]:
        """Give the messages that were written since the last call, in the order of the file."""


class Lines:
    """The whole lines of a growing file; a line that is cut off waits for its rest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def new(self) -> Iterator[str]:
        """Give the lines that were written since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(end)
        yield from whole.decode().splitlines()


class ReceiptBook:
    """The ranges that one start of a device was promised; see `hunted_room.py`."""

    def __init__(self, path: Path, device: str, start: int) -> None:
        self._lines = Lines(path)
        self._device, self._start = device, start

    def new(self) -> Iterator[Key]:
        for line in self._lines.new():
            first, last = map(int, line.split())
            yield from (Key(self._device, self._start, number) for number in range(first, last + 1))


class OutputBook:
    """The results as the JSON lines of `pratipad cloud`."""

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path)

    def new(self) -> Iterator[Key]:
        for line in self._lines.new():
            message = json.loads(line)
            yield Key(message["device"], message["payload"]["start"], message["payload"]["n"])


class DatabaseBook:
    """The results in the file of `pratipad cloud --sqlite`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._row = 0

    def new(self) -> Iterator[Key]:
        for row, device, text in self._rows():
            self._row = row
            payload = json.loads(text)
            yield Key(device, payload["start"], payload["n"])

    def _rows(self) -> list[tuple[int, str, str]]:
        if self._database is None:
            if not self._path.exists():
                return []
            # Kept open: closing the last connection would write back what a killed reader has left for its
            # next start.
            self._database = sqlite3.connect(self._path, timeout=30)
        tables = self._database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'messages'")
        if tables.fetchone() == (0,):
            return []  # the reader is making the file
        select = "SELECT number, device, payload FROM messages WHERE number > ? ORDER BY number"
        return self._database.execute(select, [self._row]).fetchall()

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()


class Arrivals:
    """What one reader got, held against what was promised."""

    def __init__(self) -> None:
        self.got: set[Key] = set()
        #: What is promised and has not arrived yet.
        self.owed: set[Key] = set()
        self.doubled: set[Key] = set()
        self.reordered: set[Key] = set()
        #: The latest message of each device.
        self.latest: dict[str, Key] = {}
        self._repeats = False

    def resume(self) -> None:
        """Let the reader, which has started again behind its last message, repeat what it got before."""
        self._repeats = True

    def promise(self, key: Key) -> None:
        """Note that a message has to arrive."""
        if key not in self.got:
            self.owed.add(key)

    def add(self, key: Key) -> None:
        """Note that a message has arrived."""
        if key in self.got:
            if not self._repeats:
                self.doubled.add(key)
            return
        self._repeats = False
        self.got.add(key)
        self.owed.discard(key)
        if key < self.latest.get(key.device, key):
            self.reordered.add(key)
        else:
            self.latest[key.device] = key

    def overtaken(self, key: Key) -> bool:
        """Whether a later message of the device has arrived, so that `key` has arrived, or comes too late."""
        return key <= self.latest.get(key.device, Key(key.device, 0, 0))


class Ledger:
    """What devices were promised, and what each of the readers got."""

    def __init__(self, readers: dict[str, Book]) -> None:
        self._readers = readers
        self._receipts: list[Book] = []
        self.arrivals = {reader: Arrivals() for reader in readers}
        self.receipts = 0
        #: The latest message that each device was promised.
        self.promised: dict[str, Key] = {}

    def expect(self, book: Book) -> None:
        """Read the receipts of one more start of a device from now on."""
        self._receipts.append(book)

    def update(self) -> int:
        """Read what is new in all books; return how many arrivals that was."""
        for book in self._receipts:
            for key in book.new():
                self.receipts += 1
                self.promised[key.device] = key
                for arrivals in self.arrivals.values():
                    arrivals.promise(key)
        count = 0
        for reader, book in self._readers.items():
            for key in book.new():
                count += 1
                self.arrivals[reader].add(key)
        return count

    @property
    def lost(self) -> set[Key]:
        """What is promised, or has arrived at another reader, and has not arrived at each."""
        return {key for _, key in self._missing()}

    @property
    def under_way(self) -> set[Key]:
        """What of `lost` may arrive yet: no reader that lacks the message has a later one of the device."""
        missing = list(self._missing())
        return {key for _, key in missing} - {key for each, key in missing if each.overtaken(key)}

    def _missing(self) -> Iterator[tuple[Arrivals, Key]]:
        each = self.arrivals.values()
        everything = set[Key]().union(*(arrivals.got | arrivals.owed for arrivals in each))
        for arrivals in each:
            for key in everything - arrivals.got:
                yield arrivals, key

    @property
    def doubled(self) -> set[Key]:
        """What arrived twice at one reader."""
        return set[Key]().union(*(arrivals.doubled for arrivals in self.arrivals.values()))

    @property
    def reordered(self) -> set[Key]:
        """What arrived after a later message of its device."""
        return set[Key]().union(*(arrivals.reordered for arrivals in self.arrivals.values()))
