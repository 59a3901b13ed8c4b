"""What ``pratipad cloud`` writes to, on a disk without room, and a database that is damaged."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from disks import small_files_only
from patience import eventually

from pratipad_nb.cli.exits import said
from pratipad_nb.cli.patient_output import PatientSink, print_patiently
from pratipad_nb.cloud.sqlite import SQLiteSink
from pratipad_nb.errors import SettingsError
from pratipad_nb.message import Message


def messages(first: int, count: int) -> Sequence[Message]:
    return [
        Message(payload=f"{n:0200}", id=f"id-{n}", device="room1", time=n, received=n, flow="house")
        for n in range(first, first + count)
    ]


def count_in(path: Path) -> int:
    with SQLiteSink(path) as sink:
        return len(sink)


def patient(path: Path) -> PatientSink:
    return PatientSink(path, (0.01, 0.01))


@pytest.mark.parametrize("there", [True, False])
async def test_a_full_disk_is_said_once_and_waited_out(tmp_path: Path, capsys: Any, there: bool) -> None:
    path = tmp_path / "house.db"
    if there:
        SQLiteSink(path).close()
    sink = patient(path)
    with small_files_only():
        writing = asyncio.ensure_future(sink.write(messages(0, 100)))
        await asyncio.sleep(0.1)
        assert not writing.done()
    await eventually(writing.done)
    await writing
    sink.close()
    assert count_in(path) == 100
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "house.db, table 'messages', failed: " in told[0]
    assert told[1].endswith("house.db can be written again.")


async def test_a_disk_that_fills_up_later_is_waited_out_as_well(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "house.db"
    sink = patient(path)
    await sink.write(messages(0, 100))
    with small_files_only():
        writing = asyncio.ensure_future(sink.write(messages(100, 100)))
        await eventually(lambda: capsys.readouterr().err)
        assert not writing.done()
    await writing
    sink.close()
    assert count_in(path) == 200


async def test_a_damaged_file_is_moved_aside_and_named(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "house.db"
    with SQLiteSink(path) as written:
        written.write(messages(0, 2000))
    os.truncate(path, path.stat().st_size // 2)
    sink = patient(path)
    await sink.open()
    await sink.write(messages(2000, 10))
    sink.close()
    assert count_in(path) == 10
    aside = next(tmp_path.glob("house.db.damaged-*"))
    assert f"moved aside to {aside}" in capsys.readouterr().err


async def test_a_file_that_never_was_a_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database at all" * 100)
    with pytest.raises(SettingsError, match=r"notes\.txt can't be opened as a SQLite file"):
        await patient(path).open()
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


async def test_results_are_printed_whole_once_there_is_room(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    lines = b"".join(b"%05d\n" % number for number in range(1000))
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with small_files_only(2500):
            printing = asyncio.ensure_future(print_patiently(lines, (0.01, 0.01)))
            await asyncio.sleep(0.1)
            assert not printing.done()
        await printing
    assert (tmp_path / "out").read_bytes() == lines
    assert capsys.readouterr().err.count("can't be printed: File too large") == 1


def test_a_command_whose_messages_can_not_be_written_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    with (tmp_path / "err").open("w", buffering=1) as err:
        monkeypatch.setattr(sys, "stderr", err)
        with small_files_only():
            said("the disk is full")
        monkeypatch.undo()
