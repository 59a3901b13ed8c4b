"""The store: what is in it after an end of any kind, its bound, its one owner."""

from __future__ import annotations

from pathlib import Path

import pytest

from pratipad_nb.device.outbox_file import ROW_BYTES, Store
from pratipad_nb.errors import DeviceError

PLENTY = 1 << 20


def opened(path: Path, epoch: int = 7, most_bytes: int = PLENTY) -> Store:
    return Store(path / "house.room1.sqlite3", epoch, most_bytes)


def fill(store: Store, count: int, size: int = 1) -> None:
    for number in range(store.last + 1, store.last + count + 1):
        store.add(number, float(number), None, b"x" * size)


def numbers(store: Store) -> list[int]:
    found: list[int] = []
    after = store.before
    while (parcel := store.read(after, None, PLENTY)) is not None:
        found += range(parcel.last - len(parcel.times) + 1, parcel.last + 1)
        after = parcel.last
    return found


def test_messages_come_back_as_they_were_with_their_epoch_and_numbers(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.add(1, 1.5, "t1", b"one")
    store.add(2, 2.5, "", b"two")
    store.close()
    again = opened(tmp_path, epoch=9)
    assert (again.epoch, again.last, again.before, again.count) == (7, 2, 0, 2)
    parcel = again.read(0, None, PLENTY)
    assert parcel is not None
    assert (parcel.last, parcel.times, parcel.payloads) == (2, [1.5, 2.5], [b"one", b"two"])
    assert parcel.sources == ["t1", ""]
    again.close()


def test_numbers_go_on_where_they_ended_while_anything_is_left(tmp_path: Path) -> None:
    store = opened(tmp_path)
    fill(store, 5)
    store.delete(1, 3, 3)
    store.close()
    again = opened(tmp_path, epoch=9)
    assert (again.epoch, again.before, again.last, numbers(again)) == (7, 3, 5, [4, 5])
    again.close()


def test_an_empty_store_counts_anew_in_a_new_epoch(tmp_path: Path) -> None:
    store = opened(tmp_path)
    fill(store, 5)
    store.delete(1, 5, 5)
    store.close()
    again = opened(tmp_path, epoch=9)
    assert (again.epoch, again.last, again.before, again.bytes) == (9, 0, 0, 0)
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


def test_a_parcel_ends_at_a_gap_at_the_credit_and_at_the_bytes_of_a_frame(tmp_path: Path) -> None:
    store = opened(tmp_path)
    fill(store, 10, 100)
    store.delete(5, 5, 100)

    def last(after: int, upto: int | None = None, size: int = PLENTY) -> int | None:
        parcel = store.read(after, upto, size)
        return parcel and parcel.last

    assert last(0) == 4
    assert last(4) == 10
    assert last(5, upto=7) == 7
    assert last(5, upto=5) is None
    assert last(5, size=250) == 7
    assert last(5, size=1) == 6
    store.close()


def test_a_file_has_one_owner(tmp_path: Path) -> None:
    store = opened(tmp_path)
    fill(store, 1)
    with pytest.raises(DeviceError, match="another device's at present"):
        opened(tmp_path)
    store.close()
    opened(tmp_path).close()


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "house.room1.sqlite3").write_bytes(b"no database at all" * 100)
    with pytest.raises(DeviceError, match=r"house\.room1\.sqlite3 can't be opened: .*move it away"):
        opened(tmp_path)


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DeviceError, match="taken"):
        opened(tmp_path / "taken")
