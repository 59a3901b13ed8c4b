"""The store: what is in it after an end of any kind, its bound, its one owner, and what is wrong with it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from pratipad_nb.device.outbox_file import ROW_BYTES, Start, Store, StoreAway, StoreDamaged
from pratipad_nb.device.overflow import Waiting
from pratipad_nb.errors import DeviceError

PLENTY = 1 << 20
#: The tables as the first version made them: all messages in one epoch.
FIRST_TABLES = """
CREATE TABLE messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, source TEXT, payload BLOB NOT NULL
);
CREATE TABLE state (epoch INTEGER NOT NULL, mode TEXT NOT NULL DEFAULT '');
INSERT INTO state VALUES (7, 'push');
"""


def path_in(folder: Path) -> Path:
    return folder / "house.room1.sqlite3"


def opened(folder: Path, epoch: int = 7, most_bytes: int = PLENTY) -> Store:
    store = Store(path_in(folder), most_bytes)
    store.begin([*store.starts, Start(store.last + 1, epoch, store.last)])
    return store


def fill(store: Store, count: int, size: int = 1) -> None:
    for number in range(store.last + 1, store.last + count + 1):
        store.add(Waiting(number, float(number), None, b"x" * size))


def numbers(store: Store) -> list[int]:
    found: list[int] = []
    after = store.before
    while messages := store.read(after, store.last, None, PLENTY):
        found += [message.number for message in messages]
        after = found[-1]
    return found


def test_messages_come_back_as_they_were_with_their_epochs_and_numbers(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.add(Waiting(1, 1.5, "t1", b"one"))
    store.add(Waiting(2, 2.5, "", b"two"))
    store.close()
    again = opened(tmp_path, epoch=9)
    assert (again.last, again.before, again.count) == (2, 0, 2)
    fill(again, 1)
    assert again.read(0, 2, None, PLENTY) == [Waiting(1, 1.5, "t1", b"one"), Waiting(2, 2.5, "", b"two")]
    again.close()
    third = Store(path_in(tmp_path), PLENTY)
    assert third.starts == [Start(1, 7, 0), Start(3, 9, 2)]
    third.close()


def test_a_file_of_the_first_version_keeps_its_messages_their_epoch_and_the_mode(tmp_path: Path) -> None:
    with sqlite3.connect(path_in(tmp_path)) as file:
        file.execute("PRAGMA journal_mode = WAL")
        file.executescript(FIRST_TABLES)
        file.executemany("INSERT INTO messages VALUES (?, 1.0, NULL, ?)", [(4, b"4"), (5, b"5")])
    file.close()
    store = opened(tmp_path, epoch=9)
    assert (store.mode, store.before, store.starts) == ("push", 3, [Start(1, 7, 0), Start(6, 9, 5)])
    fill(store, 1)
    assert numbers(store) == [4, 5, 6]
    store.close()


def test_the_epoch_of_messages_that_are_gone_is_gone_as_well(tmp_path: Path) -> None:
    store = opened(tmp_path)
    fill(store, 5)
    store.close()
    again = opened(tmp_path, epoch=8)
    fill(again, 5)
    again.delete(7, 7, 7)
    again.close()
    third = Store(path_in(tmp_path), PLENTY)
    assert (third.starts, third.before, third.last) == ([Start(6, 8, 5)], 7, 10)
    third.close()


def test_an_empty_store_counts_anew(tmp_path: Path) -> None:
    store = opened(tmp_path)
    fill(store, 5)
    store.delete(5, 5, 5)
    store.close()
    again = Store(path_in(tmp_path), PLENTY)
    assert (again.starts, again.last, again.before, again.bytes) == ([], 0, 0, 0)
    again.close()


def test_what_the_file_held_gets_in_line_behind_messages_that_come_before_it(tmp_path: Path) -> None:
    store = opened(tmp_path)
    fill(store, 5)
    store.delete(2, 2, 2)
    store.close()
    again = Store(path_in(tmp_path), PLENTY)
    again.begin([Start(1, 9, 0), Start(11, 7, 8), Start(14, 10, 13)])
    again.add_all([Waiting(number, 0.0, None, b"new") for number in (9, 10)], above=10)
    assert [message.time for message in again.read(0, 99, None, PLENTY)] == [0.0, 0.0, 3.0, 4.0, 5.0]
    assert numbers(again) == [9, 10, 11, 12, 13]
    assert (again.last, again.count) == (13, 5)
    again.close()


def test_at_the_bound_the_oldest_go_but_none_that_is_on_its_way_and_not_the_newest(tmp_path: Path) -> None:
    most = 100 * (ROW_BYTES + 52)
    store = opened(tmp_path, most_bytes=most)
    fill(store, 100, 52)
    assert store.make_room(0) is None
    fill(store, 1, 52)
    dropped = store.make_room(10)
    assert dropped is not None
    assert (dropped.first, dropped.last, dropped.count) == (11, 18, 8)
    assert store.bytes <= most - most // 16
    assert numbers(store) == [*range(1, 11), *range(19, 102)]
    fill(store, 1, 2 * most)
    assert store.make_room(0) is not None
    assert numbers(store) == [102]
    assert store.make_room(0) is None
    store.close()


def test_messages_for_a_frame_end_at_a_gap_at_the_credit_and_at_the_bytes_of_a_frame(tmp_path: Path) -> None:
    store = opened(tmp_path)
    fill(store, 4, 100)
    for number in range(6, 11):
        store.add(Waiting(number, 0.0, None, b"x" * 100))

    def last(after: int, upto: int = 10, most: int | None = None, size: int = PLENTY) -> int | None:
        messages = store.read(after, upto, most, size)
        return messages[-1].number if messages else None

    assert last(0) == 4
    assert last(4) == 10
    assert last(5, upto=7) == 7
    assert last(5, most=1) == 6
    assert last(5, upto=5) is None
    assert last(5, size=250) == 7
    assert last(5, size=1) == 6
    store.close()


def test_forcing_messages_to_the_disk_makes_a_commit_which_alone_is_forced(tmp_path: Path) -> None:
    store = opened(tmp_path)
    fill(store, 1)
    log = Path(f"{path_in(tmp_path)}-wal")
    before = log.stat().st_size
    store.sync()
    assert log.stat().st_size > before
    assert not store.dirty
    store.close()


def test_a_file_has_one_owner(tmp_path: Path) -> None:
    store = opened(tmp_path)
    fill(store, 1)
    with pytest.raises(DeviceError, match="another device's at present"):
        opened(tmp_path)
    store.close()
    opened(tmp_path).close()


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


def truncated(path: Path) -> None:
    store = Store(path, PLENTY)
    store.begin([Start(1, 7, 0)])
    fill(store, 500, 100)
    store.close()
    os.truncate(path, path.stat().st_size // 2)


def scribbled_on(path: Path) -> None:
    store = Store(path, PLENTY)
    store.begin([Start(1, 7, 0)])
    fill(store, 500, 100)
    store.close()
    with path.open("r+b") as file:
        file.seek(12288)
        file.write(os.urandom(4096))


def of_another_program(path: Path) -> None:
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE messages (id TEXT, body TEXT)")
    file.close()


def with_text_for_payloads(path: Path) -> None:
    with sqlite3.connect(path) as file:
        file.executescript(FIRST_TABLES)
        file.execute("INSERT INTO messages VALUES (1, 1.0, NULL, 'text')")
    file.close()


def a_folder(path: Path) -> None:
    (path / "inside").mkdir(parents=True)


DAMAGES = [garbage, truncated, scribbled_on, of_another_program, with_text_for_payloads, a_folder]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_named(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    damage(path_in(tmp_path))
    with pytest.raises(StoreDamaged, match=r"house\.room1\.sqlite3 can't be opened: "):
        Store(path_in(tmp_path), PLENTY)


def test_a_folder_that_can_not_be_made_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DeviceError, match=r"taken.*Give `keep` a folder") as raised:
        opened(tmp_path / "taken")
    assert not isinstance(raised.value, (StoreAway, StoreDamaged))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user, whose file it is not")
def test_a_file_of_another_user_is_named_and_stays_where_it_is(tmp_path: Path) -> None:
    opened(tmp_path).close()
    path_in(tmp_path).chmod(0o600)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(DeviceError, match=r"sqlite3 can't be opened: Permission denied\. Give `keep`"):
            Store(path_in(tmp_path), PLENTY)
    finally:
        os.seteuid(0)
    opened(tmp_path).close()
