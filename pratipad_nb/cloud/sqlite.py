"""Results in SQLite: one row for each message, however often the message is written.

Owns the table, and writing and reading its rows. Taking messages is for `client`; tables of messages in
memory are for `dataframe`.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from pratipad_nb.errors import PayloadError, PratipadError, SettingsError
from pratipad_nb.forks import closing_in_parent, watch
from pratipad_nb.leaks import leak
from pratipad_nb.message import Message

__all__ = ["SQLiteSink", "SinkAway", "SinkDamaged"]

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_COLUMNS = ("number", "flow", "id", "device", "time", "received", "payload", "utc")
#: How long a write waits for another process that writes to the same file, in seconds.
_BUSY = 10.0

#: SQLite's codes for a disk that is full or fails, and for a file that another process holds for long.
_AWAY = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY)

_TABLE = """
CREATE TABLE IF NOT EXISTS "{table}" (
    number INTEGER PRIMARY KEY,
    flow TEXT NOT NULL,
    id TEXT NOT NULL,
    device TEXT NOT NULL,
    time REAL NOT NULL,
    received REAL NOT NULL,
    payload TEXT NOT NULL CHECK (json_valid(payload)),
    utc TEXT GENERATED ALWAYS AS (strftime('%Y-%m-%dT%H:%M:%fZ', time, 'unixepoch')) VIRTUAL,
    UNIQUE (flow, id)
)
"""


class SinkAway(PratipadError):
    """The file can't be used at present: its disk is full or fails, or another process holds it for long."""


class SinkDamaged(PratipadError):
    """The file was a SQLite file, and is damaged."""


class SQLiteSink:
    """A table of messages in a SQLite file. Any thread may call its methods; the calls run one at a time.

    The columns are ``flow``, ``id``, ``device``, ``time`` and ``received`` (seconds since 1970), ``payload``
    (JSON text), ``utc`` (the time as ISO 8601) and a column for each of `fields`; ``number`` counts rows in
    the order in which they were written. There is an index over device and time, and an index over time.

    Parameters
    ----------
    path
        The file; made if it isn't there. It is written ahead (WAL), so that other processes may read while
        this sink writes: two more files stand beside the file while the sink is open.
    table
        Name of the table; made if it isn't there.
    fields
        Keys of payloads to show as columns of their own, computed at every read:
        ``fields=["temperature_c"]`` allows ``SELECT avg(temperature_c) …``.

    Raises
    ------
    SettingsError
        If the file can't be opened, or `table` or a field can't name a table or a column.
    SinkAway
        If the file's disk is full or fails, or another process holds the file.
    SinkDamaged
        If the file is a SQLite file that is damaged.
    """

    def __init__(self, path: str | Path, table: str = "messages", *, fields: Iterable[str] = ()) -> None:
        self.path = Path(path).expanduser()
        self.table = _identifier(table, "table")
        self.fields = tuple(_identifier(field, "column") for field in fields)
        if taken := [field for field in self.fields if field.lower() in _COLUMNS]:
            raise SettingsError(f"fields: {taken[0]!r} is a column of every message already. Leave it out.")
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        try:
            # `check_same_thread=False`, and `_lock`: a connection may move between threads, but not be
            # shared.
            self._connection = sqlite3.connect(self.path, timeout=_BUSY, check_same_thread=False)
            self._prepare(self._connection)
        except sqlite3.Error as error:
            self.close()
            self._translate("opening", error)
            raise SettingsError(
                f"{self.path} can't be opened as a SQLite file: {error}. Choose a file in a folder that "
                "exists and may be written to."
            ) from error
        watch(self)

    def _find_forked(self) -> bool:
        self._lock = threading.Lock()
        if self._connection is None:
            return False
        leak(self._connection)
        return True

    def __repr__(self) -> str:
        return (
            f"<SQLiteSink {str(self.path)!r}, table {self.table!r}{'' if self._connection else ', closed'}>"
        )

    def __enter__(self) -> SQLiteSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with closing_in_parent():
            self.close()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        # With WAL, NORMAL keeps the file whole at a power failure; the last transactions may be missing then.
        connection.execute("PRAGMA synchronous = NORMAL")
        with connection:
            connection.execute(_TABLE.format(table=self.table))
            existing = {row[1] for row in connection.execute(f'PRAGMA table_xinfo("{self.table}")')}
            for field in self.fields:
                if field not in existing:
                    connection.execute(
                        f'ALTER TABLE "{self.table}" ADD COLUMN "{field}" '
                        f"GENERATED ALWAYS AS (json_extract(payload, '$.\"{field}\"')) VIRTUAL"
                    )
            for name, columns in (("device_time", "device, time"), ("time", "time")):
                connection.execute(
                    f'CREATE INDEX IF NOT EXISTS "{self.table}_{name}" ON "{self.table}" ({columns})'
                )

    def write(self, messages: Iterable[Message]) -> int:
        """Write `messages` in one transaction, all or, on an error, none; return the number of new messages.

        A row whose flow and id are in the table already is left as it is, so that writing a batch again does
        no harm.

        Raises
        ------
        PayloadError
            If a payload is not JSON-like.
        SinkAway
            If the disk is full or fails, or another process holds the file for long.
        SinkDamaged
            If the file is damaged.
        PratipadError
            If SQLite fails in another way.
        """
        rows = [(m.flow, m.id, m.device, m.time, m.received, _text(m.payload)) for m in messages]
        # S608: a table can't be a parameter; its name is checked.
        insert = (
            f'INSERT OR IGNORE INTO "{self.table}" (flow, id, device, time, received, payload) '  # noqa: S608
            "VALUES (?, ?, ?, ?, ?, ?)"
        )
        with self._using("writing to") as connection, connection:
            before = connection.total_changes
            connection.executemany(insert, rows)
            return connection.total_changes - before

    def read(
        self,
        *,
        device: str | None = None,
        flow: str | None = None,
        since: float | datetime | None = None,
        until: float | datetime | None = None,
        limit: int | None = None,
    ) -> list[Message]:
        """Return messages by time, as `write` got them; the last `limit` messages if there are more.

        Parameters
        ----------
        device, flow
            Only messages of this device, of this flow.
        since, until
            Only messages from `since` on, and before `until`: seconds since 1970, or a `datetime` with its
            time zone.
        limit
            Most messages to return.
        """
        wanted = [
            ("device = ?", device),
            ("flow = ?", flow),
            ("time >= ?", _seconds(since)),
            ("time < ?", _seconds(until)),
        ]
        where = " AND ".join(term for term, value in wanted if value is not None) or "1"
        values = [value for _, value in wanted if value is not None]
        select = (
            f'SELECT payload, id, device, time, received, flow FROM "{self.table}" '  # noqa: S608
            f"WHERE {where} ORDER BY time DESC, number DESC LIMIT ?"
        )
        with self._using("reading") as connection:
            rows = connection.execute(select, [*values, -1 if limit is None else limit]).fetchall()
        return [
            Message(
                payload=msgspec.json.decode(row[0]),
                id=row[1],
                device=row[2],
                time=row[3],
                received=row[4],
                flow=row[5],
            )
            for row in reversed(rows)
        ]

    def __len__(self) -> int:
        with self._using("reading") as connection:
            row = connection.execute(f'SELECT count(*) FROM "{self.table}"').fetchone()  # noqa: S608
        return int(row[0])

    @contextlib.contextmanager
    def _using(self, doing: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._connection is None:
                raise SettingsError(f"the SQLite sink of {self.path} is closed. Open a new one.")
            try:
                yield self._connection
            except sqlite3.Error as error:
                self._translate(doing, error)
                raise PratipadError(f"{doing} {self.path}, table {self.table!r}, failed: {error}.") from error

    def _translate(self, doing: str, error: sqlite3.Error) -> None:
        """Raise `SinkAway` or `SinkDamaged` if `error` means that; else return."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        failed = f"{doing} {self.path}, table {self.table!r}, failed: {error}."
        if code in _AWAY:
            raise SinkAway(f"{failed} Make room on its disk, or end the process that holds it.") from error
        if code == sqlite3.SQLITE_CORRUPT:
            raise SinkDamaged(failed) from error

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()


def _identifier(name: object, kind: str) -> str:
    if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
        raise SettingsError(
            f"{name!r} can't name a {kind}: a name starts with a letter or '_' and goes on with at most 62 "
            "letters, digits or '_'."
        )
    return name


def _text(payload: Any) -> str:
    try:
        return msgspec.json.encode(payload).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise PayloadError(f"a payload can't be written as JSON: {error}. Convert it first.") from error


def _seconds(moment: float | datetime | None) -> float | None:
    if not isinstance(moment, datetime):
        return moment
    if moment.tzinfo is None:
        raise SettingsError(f"{moment!r} has no time zone. Give it one: moment.astimezone().")
    return moment.timestamp()
