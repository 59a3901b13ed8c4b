"""The store: messages that aren't safe at the server yet, in a SQLite file that outlives the device.

Owns the file: its one owner, its bound, and what is wrong with it. Messages keep their epoch and number in
the file, so that the edge recognises repeats when the device sends messages again after a crash. The
receipts, the messages in flight, and what becomes of messages that the file can't take are for
`pratipad_nb.device.kept_outbox`. A `Store` is not safe for several threads at once; its user locks.

Every message is written when it is pushed, so it outlives the process, however the process ends. Messages
that were forced to the disk (`Store.sync`) also outlive a power cut.

A start of a device numbers its messages in an epoch of its own, so the file can hold messages of several
epochs: the *starts* say at which number each epoch begins. So it does no harm if the file never learnt of a
message that the server has, because the card was full or the power was cut: no later start gives the number
of that message, in its epoch, to another message.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pratipad_nb.device.overflow import Waiting
from pratipad_nb.errors import DeviceError
from pratipad_nb.leaks import leak
from pratipad_nb.transport.frames import MAX_MESSAGES

__all__ = ["COMPANIONS", "ROW_BYTES", "Dropped", "Start", "Store", "StoreAway", "StoreDamaged"]

#: Bytes that SQLite takes for a row beside the payload: number, time, source and bookkeeping, rounded up.
ROW_BYTES = 48
#: Endings of the files that SQLite keeps beside the file.
COMPANIONS = ("-wal", "-shm", "-journal")
#: Divisor of the bound: such a part of it is freed at a time, so that dropping is rare and cheap.
_FREED = 16
#: Size that the write-ahead log's file is cut back to, in bytes.
_LOG_BYTES = 1 << 20

#: `state.epoch` is the epoch of all messages in a file that has no `starts`: earlier versions wrote such
#: files.
_TABLES = """
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY, time REAL NOT NULL, source TEXT, payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS state (epoch INTEGER NOT NULL, mode TEXT NOT NULL DEFAULT '');
"""
_STARTS = """
CREATE TABLE IF NOT EXISTS starts (
    first INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, base INTEGER NOT NULL
)
"""
_SURVEY = """
SELECT count(*), ifnull(sum(length(payload)), 0), min(number), ifnull(max(number), 0),
    ifnull(sum(typeof(time) != 'real' OR typeof(payload) != 'blob'), 0)
FROM messages
"""

#: SQLite's codes for a file that another connection has locked.
_TAKEN = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
#: SQLite's codes, and the operating system's, for a card that is full, fails, or may only be read.
_AWAY = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
)
_FULL_ERRNO = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_AWAY_ERRNO = (
    *_FULL_ERRNO,
    *(errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENODEV, errno.ENXIO, errno.ESTALE),
)


class StoreAway(DeviceError):
    """The file can't be used at present: its disk is full (`full`), fails, or may only be read."""

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class StoreDamaged(DeviceError):
    """The file is no store, or no longer."""


@dataclass(frozen=True, slots=True)
class Start:
    """The messages from number `first` on, up to the next start's, have `epoch`.

    The message `base` + 1, which need not be there any more, is number 1 of the epoch.
    """

    first: int
    epoch: int
    base: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """A run of `count` messages that were deleted to make room, from number `first` to number `last`."""

    first: int
    last: int
    count: int


class Store:
    """One device's messages for one flow.

    Parameters
    ----------
    path
        The file; made with its folder if it isn't there.
    most_bytes
        The file's bound: payloads, and `ROW_BYTES` for each.

    Attributes
    ----------
    count, bytes
        How many messages are held, and their size as the bound counts it.
    before, last
        Number before the oldest message, and number of the newest message.
    mode
        The last mode that the flow is known to have had; empty if the mode was never known.
    starts
        The epochs of the messages in the file.
    dirty
        Whether messages were written that were not forced to the disk yet.

    Raises
    ------
    StoreAway
        If the file can't be opened at present.
    StoreDamaged
        If the file is there and is no store.
    DeviceError
        If the file is another device's at present, or may not be read and written.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        self.path = path
        self.dirty = False
        self._most_bytes = most_bytes
        with self._translated("opened"):
            _check(path)
            self._file = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self._file.close()
                raise

    def _open(self) -> None:
        # The file's lock is kept until the file is closed: two devices that sent from one file
        # would send each message twice, and delete each other's.
        self._file.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        self._file.execute("PRAGMA synchronous = NORMAL")
        # Nothing below writes to a store that is there: a full disk must not keep its messages.
        self._file.executescript(_TABLES)
        self.count, size, first, self.last, strange = self._file.execute(_SURVEY).fetchone()
        self.bytes: int = size + ROW_BYTES * self.count
        self.before: int = first - 1 if first is not None else 0
        self.mode: str
        epoch, self.mode = self._file.execute("SELECT epoch, mode FROM state").fetchone() or (0, "")
        self.starts = self._read_starts(epoch) if self.count else []
        self._starts_written = True
        numbers = [number for each in self.starts for number in (each.first, each.epoch, each.base)]
        if strange or not isinstance(self.mode, str) or not all(type(number) is int for number in numbers):
            raise StoreDamaged(f"{self.path} can't be opened: it holds what no device has written.")

    def _read_starts(self, epoch: int) -> list[Start]:
        """Return the starts that the messages in the file are of."""
        there = self._file.execute("SELECT 1 FROM sqlite_master WHERE name = 'starts'").fetchone()
        query = "SELECT first, epoch, base FROM starts ORDER BY first"
        rows = self._file.execute(query).fetchall() if there else []
        starts = [Start(*row) for row in rows] or [Start(1, epoch, 0)]
        following = [each.first for each in starts[1:]] + [self.last + 1]
        return [each for each, end in zip(starts, following, strict=True) if end > self.before + 1]

    def begin(self, starts: Sequence[Start]) -> None:
        """Go on with `starts`, which are written together with the next message."""
        self.starts = list(starts)
        self._starts_written = False

    def note_mode(self, mode: str) -> None:
        """Store the flow's mode."""
        if mode != self.mode:
            with self._translated("written"):
                if not self._file.execute("UPDATE state SET mode = ?", (mode,)).rowcount:
                    self._file.execute("INSERT INTO state (epoch, mode) VALUES (0, ?)", (mode,))
            self.mode = mode

    def add(self, message: Waiting) -> None:
        """Store a message, with the next number."""
        if not self._starts_written:
            self.add_all([message])
            return
        with self._translated("written"):
            self._insert(message)
        self._added(message)

    def add_all(self, messages: Sequence[Waiting], above: int | None = None) -> None:
        """Store messages with the next numbers, and the starts: all or nothing.

        With `above`, the messages that the file held before get the numbers from `above` + 1 on, and
        `messages`, up to number `above`, come before them.
        """
        with self._translated("written"), self._transaction():
            if above is not None:
                self._move(above - self.before)
            self._write_starts()
            for message in messages:
                self._insert(message)
        self._starts_written = True
        if above is not None:
            self.last += above - self.before
        for message in messages:
            self._added(message)

    def _insert(self, message: Waiting) -> None:
        # OR REPLACE: an earlier write of the message may have reached the disk, though it failed.
        self._file.execute("INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?)", message)

    def _added(self, message: Waiting) -> None:
        self.dirty = True
        self.last = max(self.last, message.number)
        self.count += 1
        self.bytes += len(message.payload) + ROW_BYTES

    def _move(self, up: int) -> None:
        """Add `up` to all numbers. In two steps, for no two messages may have one number at any moment."""
        self._file.execute("UPDATE messages SET number = -number")
        self._file.execute("UPDATE messages SET number = ? - number", (up,))

    def _write_starts(self) -> None:
        self._file.execute(_STARTS)
        self._file.execute("DELETE FROM starts")
        rows = [(each.first, each.epoch, each.base) for each in self.starts]
        self._file.executemany("INSERT INTO starts VALUES (?, ?, ?)", rows)
        if not self._file.execute("SELECT 1 FROM state").fetchone():
            self._file.execute("INSERT INTO state (epoch, mode) VALUES (0, ?)", (self.mode,))

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

    def read(self, after: int, upto: int, most: int | None, max_bytes: int) -> list[Waiting]:
        """Return the next messages after number `after`, none beyond `upto`, with consecutive numbers.

        As many are returned as fit a frame, at most `most` (None: any number) and at least one; none if there
        is no message. The first number is above `after` + 1 if messages were dropped.
        """
        query = (
            "SELECT number, time, source, payload FROM messages WHERE number > ? AND number <= ? "
            "ORDER BY number LIMIT ?"
        )
        found: list[Waiting] = []
        size = 0
        with self._translated("read"):
            limit = MAX_MESSAGES if most is None else min(MAX_MESSAGES, most)
            for row in self._file.execute(query, (after, upto, limit)):
                message = Waiting(*row)
                size += len(message.payload)
                if found and (size > max_bytes or message.number != found[-1].number + 1):
                    break
                found.append(message)
        return found

    def discard(self, message: Waiting) -> None:
        """Delete one message, which is not sent. It is no longer counted, even if it can't be deleted now."""
        self.count -= 1
        self.bytes -= len(message.payload) + ROW_BYTES
        with self._translated("cut"):
            self._file.execute("DELETE FROM messages WHERE number = ?", (message.number,))

    def delete(self, upto: int, count: int, size: int) -> None:
        """Delete the messages up to number `upto`: the server has them.

        `count` of them are in the file, with payloads of `size` bytes. They are no longer counted, even if
        they can't be deleted at present.
        """
        self.count -= count
        self.bytes -= size + ROW_BYTES * count
        with self._translated("cut"):
            self._file.execute("DELETE FROM messages WHERE number <= ?", (upto,))

    def sync(self, *, try_out: bool = False) -> None:
        """Force all messages that were written to the disk; with `try_out`, write in any case."""
        if not self.dirty and not try_out:
            return
        with self._translated("written"):
            # SQLite forces the log to the disk at a commit that changes something, and with the
            # log all earlier commits. The version means nothing.
            (version,) = self._file.execute("PRAGMA user_version").fetchone()
            self._file.execute("PRAGMA synchronous = FULL")
            try:
                self._file.execute(f"PRAGMA user_version = {(version + 1) % (1 << 30)}")
            finally:
                self._file.execute("PRAGMA synchronous = NORMAL")
        self.dirty = False

    def abandon(self) -> None:
        """Leave the open file to the process from which this process was forked."""
        leak(self._file)

    def remove(self) -> None:
        """Close the file and delete it, which gives its room back to the disk."""
        self.close()
        with self._translated("deleted"):
            for ending in ("", *COMPANIONS):
                Path(f"{self.path}{ending}").unlink(missing_ok=True)

    def close(self) -> None:
        """Force all messages to the disk and close the file."""
        with contextlib.suppress(DeviceError):
            self.sync()
        with contextlib.suppress(sqlite3.Error):
            self._file.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._file.execute("COMMIT")
        except BaseException:
            if self._file.in_transaction:  # SQLite has ended the transaction itself after some errors
                self._file.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is None:  # not of SQLite: the connection was misused
                raise
            raise _translation(self.path, what, error, code & 0xFF) from error
        except OSError as error:
            said = f"{self.path} can't be {what}: {error.strerror}."
            if error.errno in _AWAY_ERRNO:
                raise StoreAway(said, full=error.errno in _FULL_ERRNO) from error
            raise DeviceError(f"{said} Give `keep` a folder that this user may read and write.") from error


def _check(path: Path) -> None:
    """Make the folder of `path`, and raise if `path` is in the way or may not be used.

    SQLite says "unable to open database file" in all these cases.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        # A file that is there must not be opened and closed here: closing it would give up
        # the locks that SQLite holds on it for another device of this process.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        return
    if not stat.S_ISREG(mode):
        raise StoreDamaged(f"{path} can't be opened: it is no file.")
    if os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        return
    why = errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES
    raise OSError(why, os.strerror(why))


def _translation(path: Path, what: str, error: sqlite3.Error, code: int) -> DeviceError:
    if code in _TAKEN:
        return DeviceError(
            f"{path} is another device's at present: a device of the same name runs in another process. Stop "
            "that device, or keep elsewhere."
        )
    if code in _AWAY:
        return StoreAway(f"{path} can't be {what}: {error}.", full=code == sqlite3.SQLITE_FULL)
    return StoreDamaged(f"{path} can't be {what}: {error}.")
