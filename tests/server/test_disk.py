"""The disk of the server's logs gets full and has room again, and the server goes on by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from patience import eventually, patient
from small_disk import SmallDisk, small_disk

from pratipad_nb.errors import ServerError, WaitTimeout
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server.disk import DiskSpace, disk_space, storage_in
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.protocol import LogSpec
from pratipad_nb.transport.subjects import Subjects

MIB = 1 << 20
EDGE, SUBJECTS = Party("house", "edge"), Subjects("house")
DEAD = LogSpec(SUBJECTS.dead_stream, (SUBJECTS.dead_all,), 1 << 30, "log", 0.0)
SUBJECT = SUBJECTS.dead("P1")
SOON = patient(30)


def space(free: int, total: int = 1 << 40, free_files: int = 1000, *, read_only: bool = False) -> DiskSpace:
    return DiskSpace(Path("/data"), free, total, free_files, 2000, read_only)


@pytest.mark.parametrize(
    ("state", "full", "has_room"),
    [
        (space(1 << 39), False, True),
        (space(64 * MIB), False, True),
        (space(63 * MIB), False, False),
        (space(MIB - 1), True, False),
        (space(3 * MIB, 60 * MIB), False, True),
        (space(2 * MIB, 60 * MIB), False, False),
        (space(1 << 39, free_files=15), True, False),
        (space(1 << 39, free_files=30), False, False),
        (space(1 << 39, read_only=True), True, False),
        (DiskSpace(Path("/data"), 1 << 39, 1 << 40, 0, 0, read_only=False), False, True),
    ],
)
def test_a_disk_is_full_and_has_room_by_its_bytes_its_files_and_its_mount(
    state: DiskSpace, full: bool, has_room: bool
) -> None:
    assert (state.full, state.has_room) == (full, has_room)


def test_the_storage_holds_up_first_old_results_then_new_messages_then_results() -> None:
    steps = [space(free * MIB).storage for free in (300, 200, 100, 50)]
    assert [bool(step.missing) for step in steps] == [False, True, True, True]
    assert [step.short for step in steps] == [False, False, True, True]
    assert [step.tight for step in steps] == [False, False, False, True]
    assert [bool(step.trouble) for step in steps] == [False, False, True, True]


def test_the_words_say_where_how_much_is_free_and_from_where_on_it_goes_on() -> None:
    assert space(512).words == (
        "the disk of the server's logs (/data) is full: 512 bytes of 1 TiB are free; the logs go on from 128 "
        "MiB on"
    )
    assert "takes no more files: 3 of 2,000 are left" in space(1 << 39, free_files=3).words
    assert "is mounted read-only" in space(1 << 39, read_only=True).words


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_the_folder_above(tmp_path: Path) -> None:
    assert disk_space(tmp_path / "a" / "b").total == disk_space(tmp_path).total
    assert storage_in(tmp_path / "a").total == disk_space(tmp_path).total


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    return CertificateStore.open(tmp_path)


class Scene:
    """A server on a small disk, and an edge that stores entries there."""

    def __init__(self, disk: SmallDisk, store: CertificateStore, told: list[str]) -> None:
        self.disk = disk
        self.told = told
        self.folder = disk.folder / "server"
        self.server = EmbeddedServer(self.folder, store.server("urn:x:server"), on_full=told.append)
        self.safe: list[int] = []
        self._store = store

    async def connection(self) -> NatsConnection:
        credentials = self._store.edge("house", EDGE.identity)
        return await NatsConnection.connect(
            self.server.url,
            credentials,
            name="edge",
            inbox_prefix=Party("house", "edge").inbox,
            disk=lambda: storage_in(self.folder),
        )

    async def append(self, connection: NatsConnection, **more: Any) -> None:
        self.safe.append(await connection.append(SUBJECT, bytes(50_000), **more))


@contextlib.asynccontextmanager
async def scene(tmp_path: Path, store: CertificateStore, options: str) -> AsyncIterator[tuple[Scene, Any]]:
    with small_disk(tmp_path / "disk", options) as disk:
        made = Scene(disk, store, [])
        await made.server.start([EDGE])
        connection = await made.connection()
        try:
            await connection.open_log(DEAD)
            await made.append(connection)
            yield made, connection
        finally:
            await connection.close()
            await made.server.stop()


async def test_a_full_disk_is_told_once_and_the_server_goes_on_when_there_is_room(
    tmp_path: Path, store: CertificateStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path, store, "size=32m") as (made, connection):
        made.disk.fill()
        with contextlib.suppress(WaitTimeout):
            while True:
                await made.append(connection, timeout=0.5)
        await eventually(lambda: made.told)
        trouble = (await connection.storage()).trouble
        assert str(made.folder) in trouble
        assert "of 32 MiB are free" in trouble
        pid = made.server.pid
        made.disk.empty()
        await eventually(lambda: made.server.pid not in (pid, None))
        async with asyncio.timeout(SOON):
            await made.append(connection)
        assert (await connection.storage()).trouble == ""
        log = await connection.find_log(DEAD.name)
        assert log is not None
        assert [record.sequence async for record in log.read(0)] == made.safe
        assert len(made.told) == 1
        assert len([r for r in caplog.records if "is full" in r.message]) == 1


async def test_a_server_killed_on_a_full_disk_comes_back_when_there_is_room(
    tmp_path: Path, store: CertificateStore
) -> None:
    async with scene(tmp_path, store, "size=32m") as (made, connection):
        made.disk.fill()
        pid = made.server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: made.told)
        assert made.server.pid is None
        made.disk.empty()
        async with asyncio.timeout(SOON):
            await eventually(lambda: made.server.pid is not None)
            await made.append(connection)
        assert made.safe == [1, 2]


async def test_a_disk_without_files_left_is_told(tmp_path: Path, store: CertificateStore) -> None:
    async with scene(tmp_path, store, "size=32m,nr_inodes=400") as (made, connection):
        files = [made.disk.folder / f"file{number}" for number in range(400)]
        with contextlib.suppress(OSError):
            for file in files:
                file.touch()
        await eventually(lambda: made.told)
        assert "takes no more files" in (await connection.storage()).trouble
        for file in files:
            file.unlink(missing_ok=True)
        async with asyncio.timeout(SOON):
            await eventually(lambda: made.server.restarts)
            await made.append(connection)


async def test_a_start_on_a_full_disk_names_the_disk(tmp_path: Path, store: CertificateStore) -> None:
    with small_disk(tmp_path / "disk", "size=16m") as disk:
        disk.fill()
        server = EmbeddedServer(disk.folder / "server", store.server("urn:x:server"))
        with pytest.raises(ServerError, match=r"is full: .* of 16 MiB are free.*Make room there"):
            await server.start()
