"""One owner a folder, across processes: who holds it, who joins, and what a killed owner leaves (nothing)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from patience import until

from pratipad_nb.errors import ServerError
from pratipad_nb.files import FileLock
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server import state as server_state
from pratipad_nb.server.config import ServerFiles
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.server.joined import JoinedServer
from pratipad_nb.server.state import ServerLocked
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.tls import probe

ROOM1 = Party("house", "device", "room1")

OWNER = """
import asyncio, os, pathlib, sys, time
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server.embedded import EmbeddedServer

async def main(state, how):
    server = EmbeddedServer(state / "server", CertificateStore.open(state).server("urn:x:server"))
    url = await server.start()
    if how == "forks" and os.fork() == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        time.sleep(60)
    print(server.pid, url, flush=True)
    await asyncio.Event().wait()

asyncio.run(main(pathlib.Path(sys.argv[1]), sys.argv[2]))
"""


class Owner:
    """Another Python process that owns a server on `state`."""

    def __init__(self, state: Path, how: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(state), how], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        pid, self.url = self.process.stdout.readline().split()
        self.server = int(pid)
        self.children = [
            p for p in psutil.Process(self.process.pid).children(recursive=True) if p.pid != self.server
        ]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for child in self.children:
            if child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
                child.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def owned(tmp_path: Path) -> Iterator[Callable[[str], Owner]]:
    owners: list[Owner] = []

    def make(how: str = "") -> Owner:
        owners.append(Owner(tmp_path, how))
        return owners[-1]

    yield make
    for owner in owners:
        owner.close()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def embedded(state: Path) -> EmbeddedServer:
    return EmbeddedServer(state / "server", CertificateStore.open(state).server("urn:x:server"))


@pytest.mark.parametrize("how", ["", "forks"])
def test_a_server_dies_with_its_owner_even_by_kill_9(owned: Callable[[str], Owner], how: str) -> None:
    owner = owned(how)
    assert not gone(owner.server)
    owner.kill()
    until(lambda: gone(owner.server), seconds=2)
    # The watchdog has nothing left to watch; a worker that the owner forked is its own business.
    until(lambda: sum(not gone(child.pid) for child in owner.children) == (1 if how else 0))


@pytest.mark.parametrize("how", ["", "forks"])
async def test_after_a_killed_owner_the_next_one_starts_on_the_same_port(
    owned: Callable[[str], Owner], tmp_path: Path, how: str
) -> None:
    owner = owned(how)
    owner.kill()
    server = embedded(tmp_path)
    assert await server.start() == owner.url
    assert gone(owner.server), "two servers would have run on one store"
    await server.stop()


async def test_the_second_process_is_told_who_holds_the_folder(
    owned: Callable[[str], Owner], tmp_path: Path
) -> None:
    owner = owned("")
    with pytest.raises(
        ServerLocked, match=f"process {owner.process.pid} already runs .* at {owner.url}"
    ) as caught:
        await embedded(tmp_path).start()
    assert (caught.value.state.owner, caught.value.state.pid) == (owner.process.pid, owner.server)
    assert not gone(owner.server)


async def test_two_servers_in_one_process_are_told_apart_as_well(tmp_path: Path) -> None:
    first, second = embedded(tmp_path), embedded(tmp_path)
    await first.start()
    with pytest.raises(ServerLocked, match=f"process {os.getpid()} already"):
        await second.start()
    await second.stop()
    assert first.pid is not None
    await first.stop()


async def test_one_who_joins_adds_users_and_takes_over_when_the_owner_is_killed(
    owned: Callable[[str], Owner], tmp_path: Path
) -> None:
    owner = owned("")
    room1 = CertificateStore.open(tmp_path).device("house", "room1", ROOM1.identity)
    joined = JoinedServer(tmp_path / "server")
    assert await joined.start([ROOM1]) == owner.url
    await probe(owner.url, room1)
    owner.kill()
    until(lambda: not joined.running)
    with pytest.raises(ServerError, match="its owner has ended"):
        await joined.allow([ROOM1])
    server = embedded(tmp_path)
    assert await server.start() == owner.url
    await probe(owner.url, room1)
    await server.stop()


async def test_one_who_comes_while_the_owner_stops_waits_for_it(tmp_path: Path) -> None:
    first, second = embedded(tmp_path), embedded(tmp_path)
    url = await first.start()
    stopping = asyncio.ensure_future(first.stop())
    while (tmp_path / "server" / "server.json").exists():
        await asyncio.sleep(0)
    assert await second.start() == url
    assert stopping.done()
    await second.stop()


async def test_a_holder_that_says_nothing_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    held = FileLock(tmp_path / "server" / "lock")
    with held.held(1), pytest.raises(ServerError, match="says nothing of its server"):
        await server_state.locked_folder(ServerFiles(tmp_path / "server"), patience=0.05)


async def test_an_owner_that_never_hands_over_keeps_its_server(
    owned: Callable[[str], Owner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_state, "_HANDOVER_SECONDS", 0.3)
    owner = owned("")
    credentials = CertificateStore.open(tmp_path).server("urn:x:server")
    with pytest.raises(ServerLocked):
        await EmbeddedServer(tmp_path / "server", credentials, standalone=True).start()
    assert not gone(owner.server)
    assert not (tmp_path / "server/wanted").exists()


def test_what_a_process_that_ended_wanted_is_wanted_no_more(tmp_path: Path) -> None:
    files = ServerFiles(tmp_path)
    ended = subprocess.Popen(["true"])
    for text, wanted in ((str(os.getpid()), True), (str(ended.pid), False), ("", False)):
        ended.wait()
        files.wanted.write_text(text)
        assert server_state.is_wanted(files) is wanted
    files.wanted.unlink()
    assert not server_state.is_wanted(files)
