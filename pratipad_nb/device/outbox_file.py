"""The store: messages that aren't safe at the server yet, in a SQLite file that outlives the device.

Owns the file: its one owner, its bound, and when messages are forced to the disk. Messages keep their epoch
and number in the file, so that the edge recognises repeats when the device sends messages again after a
crash. The receipts, and the messages in flight, are for `pratipad_nb.device.kept_outbox`. A `Store` is not
safe for several threads at once; its user locks.

Every message is written when it is pushed, so it outlives the process, however the process ends. Messages
that were forced to the disk also outlive a power cut. They are forced once a second, and always before they
are sent. The invariant behind the second rule: a number is given once. It holds because every number that the
server may know is on the disk. A file that forgot a sent message would give its number to a new message, and
the edge would drop the new message as a repeat.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pratipad_nb.errors import DeviceError
from pratipad_nb.transport.frames import MAX_MESSAGES

__all__ = ["ROW_BYTES", "Dropped", "Store", "StoredParcel"]

#: Bytes that SQLite takes for a row beside the payload: number, time, source and bookkeeping, rounded up.
ROW_BYTES = 48
#: Divisor of the bound: such a part of it is freed at a time, so that dropping is rare and cheap.
_FREED = 16
#: Seconds after which a push forces its message, and all before it, to the disk.
_SYNC_SECONDS = 1.0
#: Size that the write-ahead log's file is cut back to, in bytes.
_LOG_BYTES = 1 << 20

_TABLES = """
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, source TEXT, payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS state (epoch INTEGER NOT NULL, mode TEXT NOT NULL DEFAULT '');
"""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A run of `count` messages that were deleted to make room, from number `first` to number `last`."""

    first: int
    last: int
    count: int


@dataclass(frozen=True, slots=True)
class StoredParcel:
    """Consecutive messages as they are stored; `last` is the number of the last message."""

    last: int
    times: list[float]
    payloads: list[bytes]
    sources: list[str | None]


class Store:
    """One device's messages for one flow.

    Parameters
    ----------
    path
        The file; made with its folder if it isn't there.
    epoch
        The epoch of the messages if the file holds none yet; else the messages in the file keep theirs.
    most_bytes
        The file's bound: payloads, and `ROW_BYTES` for each.

    Raises
    ------
    DeviceError
        If the file can't be opened, is another device's at present, or is damaged.
    """

    def __init__(self, path: Path, epoch: int, most_bytes: int) -> None:
        self.path = path
        self._most_bytes = most_bytes
        self._dirty = False
        self._synced = 0.0
        with self._translated("opened"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                self._open(epoch)
            except BaseException:
                self._file.close()
                raise

    def _open(self, epoch: int) -> None:
        # The file's lock is kept until the file is closed: two devices that sent from one file
        # would number alike.
        self._file.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        self._force(True)
        self._file.executescript(_TABLES)
        query = "SELECT count(*), ifnull(sum(length(payload)), 0), min(number) FROM messages"
        self.count, size, first = self._file.execute(query).fetchone()
        self.bytes: int = size + ROW_BYTES * self.count
        if not self.count:
            self._begin(epoch)
        #: The messages' epoch, and the last mode that the flow is known to have had; empty if
        #: it was never known.
        self.epoch: int
        self.mode: str
        self.epoch, self.mode = self._file.execute("SELECT epoch, mode FROM state").fetchone()
        newest = self._file.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
        #: Number of the newest message, and the number before the oldest message in the file.
        self.last: int = newest[0] if newest else 0
        self.before: int = first - 1 if first is not None else self.last
        self._force(False)

    def _begin(self, epoch: int) -> None:
        with self._transaction():
            if not self._file.execute("UPDATE state SET epoch = ?", (epoch,)).rowcount:
                self._file.execute("INSERT INTO state (epoch) VALUES (?)", (epoch,))
            self._file.execute("DELETE FROM sqlite_sequence")

    def note_mode(self, mode: str) -> None:
        """Store the flow's mode."""
        if mode != self.mode:
            with self._translated("written"):
                self._file.execute("UPDATE state SET mode = ?", (mode,))
            self.mode = mode

    def add(self, number: int, when: float, source: str | None, payload: bytes) -> None:
        """Store a message."""
        due = time.monotonic() - self._synced > _SYNC_SECONDS
        with self._translated("written"):
            if due:
                self._force(True)
            self._file.execute("INSERT INTO messages VALUES (?, ?, ?, ?)", (number, when, source, payload))
            if due:
                self._force(False)
        self._dirty = not due
        self.last = number
        self.count += 1
        self.bytes += len(payload) + ROW_BYTES

    def make_room(self, after: int) -> Dropped | None:
        """Delete the oldest messages after number `after` if the bound is passed, but never the newest.

        Return the messages that were deleted; None if none were.
        """
        if self.bytes <= self._most_bytes:
            return None
        target = self._most_bytes - self._most_bytes // _FREED
        first = last = count = freed = 0
        query = "SELECT number, length(payload) FROM messages WHERE number > ? AND number < ? ORDER BY number"
        with self._translated("cut"):
            for number, size in self._file.execute(query, (after, self.last)):
                first, last = first or number, number
                count += 1
                freed += size + ROW_BYTES
                if self.bytes - freed <= target:
                    break
            if not count:
                return None
            self._file.execute("DELETE FROM messages WHERE number BETWEEN ? AND ?", (first, last))
        self.count -= count
        self.bytes -= freed
        return Dropped(first, last, count)

    def read(self, after: int, upto: int | None, max_bytes: int) -> StoredParcel | None:
        """Return the next messages after number `after`, none beyond `upto`.

        As many are returned as fit a frame, and at least one; None if there is no message. All of them are
        forced to the disk before `read` returns.
        """
        limit = MAX_MESSAGES if upto is None else min(MAX_MESSAGES, upto - after)
        query = (
            "SELECT number, time, source, payload FROM messages WHERE number > ? AND number <= ? "
            "ORDER BY number LIMIT ?"
        )
        found = StoredParcel(0, [], [], [])
        size = last = 0
        with self._translated("read"):
            for number, when, source, payload in self._file.execute(
                query, (after, self.last if upto is None else upto, limit)
            ):
                size += len(payload)
                if last and (size > max_bytes or number != last + 1):
                    break
                last = number
                found.times.append(when)
                found.payloads.append(payload)
                found.sources.append(source)
            if not last:
                return None
            self._sync()
        return StoredParcel(last, found.times, found.payloads, found.sources)

    def delete(self, first: int, last: int, size: int) -> None:
        """Delete the messages from `first` to `last`, with payloads of `size` bytes: the server has them."""
        with self._translated("cut"):
            self._file.execute("DELETE FROM messages WHERE number BETWEEN ? AND ?", (first, last))
        self.count -= last - first + 1
        self.bytes -= size + ROW_BYTES * (last - first + 1)

    def close(self) -> None:
        """Force all messages to the disk and close the file."""
        with contextlib.suppress(DeviceError), self._translated("closed"):
            self._sync()
        self._file.close()

    def _sync(self) -> None:
        if not self._dirty:
            return
        # SQLite forces the log to the disk at a commit, and with it all earlier commits; so make a commit.
        self._force(True)
        self._file.execute("UPDATE state SET epoch = epoch")
        self._force(False)
        self._dirty = False

    def _force(self, on: bool) -> None:
        """Set whether each commit from now on is forced to the disk, and all earlier commits with it."""
        self._file.execute(f"PRAGMA synchronous = {'FULL' if on else 'NORMAL'}")
        self._synced = time.monotonic()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._file.execute("ROLLBACK")
            raise
        self._file.execute("COMMIT")

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise DeviceError(
                    f"{self.path} is another device's at present: a device of the same name runs in another "
                    "process. Stop that device, or keep elsewhere."
                ) from error
            raise DeviceError(f"{self.path} can't be {what}: {error}.") from error
        except sqlite3.DatabaseError as error:
            raise DeviceError(
                f"{self.path} can't be {what}: {error}. If it is damaged, move it away; the messages in it "
                "are lost then."
            ) from error
        except OSError as error:
            raise DeviceError(f"{self.path} can't be {what}: {error}.") from error
