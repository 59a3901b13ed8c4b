"""The books of a hunt: the files that its processes write, read while they grow."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orders import Order
from states import Key, Result, State


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


class RunBook:
    """The orders and the answers that one start of a device has run; see `hunted_room.py`."""

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path)

    def new(self) -> Iterator[tuple[str, int, int]]:
        """Give what was run since the last call: its kind, the sender's start, the number."""
        for line in self._lines.new():
            kind, start, number = line.split()
            yield kind, int(start), int(number)


class SentBook:
    """The orders that one start of the desk has sent; see `hunted_desk.py`."""

    def __init__(self, path: Path, start: int) -> None:
        self._lines = Lines(path)
        self._start = start

    def new(self) -> Iterator[Order]:
        for line in self._lines.new():
            device, number = line.split()
            yield Order(device, self._start, int(number))


class OutputBook:
    """The results as the JSON lines of `pratipad cloud`."""

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path)

    def new(self) -> Iterator[Result]:
        for line in self._lines.new():
            message = json.loads(line)
            yield _result(message["device"], message["payload"])


class DatabaseBook:
    """The results in the file of `pratipad cloud --sqlite`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._row = 0

    def new(self) -> Iterator[Result]:
        for row, device, text in self._rows():
            self._row = row
            yield _result(device, json.loads(text))

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


def _result(device: str, payload: dict[str, Any]) -> Result:
    key = Key(device, payload["start"], payload["n"])
    return Result(key, State(payload["count"], payload["total"]))
