"""Letting parties in and out of a running server, from one process and from two."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from nats.aio.client import Client
from patience import eventually

from pratipad_nb.errors import NotInvited, ServerError
from pratipad_nb.files import FileLock
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server.admission import Admission
from pratipad_nb.server.config import ServerFiles
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.server.joined import JoinedServer
from pratipad_nb.server.register import Change, Rules
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.tls import client_context, probe

ROOM1, ROOM2 = Party("house", "device", "room1"), Party("house", "device", "room2")


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    return CertificateStore.open(tmp_path)


@pytest.fixture
def room1(store: CertificateStore) -> Credentials:
    return store.device("house", "room1", ROOM1.identity)


@pytest.fixture
def room2(store: CertificateStore) -> Credentials:
    return store.device("house", "room2", ROOM2.identity)


@pytest.fixture
async def server(store: CertificateStore, tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path / "server", store.server("urn:x:server"))
    await server.start([ROOM1])
    yield server
    await server.stop()


async def connected(server: EmbeddedServer, credentials: Credentials) -> Client:
    async def on_error(error: Exception) -> None:
        pass

    client = Client()
    await client.connect(
        server.url,
        tls=client_context(credentials),
        tls_handshake_first=True,
        allow_reconnect=False,
        error_cb=on_error,
    )
    return client


def listed(server: EmbeddedServer | JoinedServer) -> set[Party]:
    return set(server.register.parties.values())


def reloads(folder: Path) -> int:
    return (folder / "log").read_text().count("Reloaded server configuration")


async def test_who_is_let_in_may_connect_once_the_call_returns(
    server: EmbeddedServer, room2: Credentials
) -> None:
    with pytest.raises(NotInvited):
        await probe(server.url, room2)
    await server.allow([ROOM2])
    await probe(server.url, room2)
    assert listed(server) == {ROOM1, ROOM2}


async def test_letting_one_in_disturbs_nobody_else(server: EmbeddedServer, room1: Credentials) -> None:
    client = await connected(server, room1)
    await server.allow([ROOM2])
    await client.flush()
    assert client.is_connected
    await client.close()


async def test_who_is_revoked_loses_the_connection_and_gets_in_no_more(
    server: EmbeddedServer, room1: Credentials
) -> None:
    client = await connected(server, room1)
    await server.revoke(ROOM1)
    await eventually(lambda: client.is_closed)
    with pytest.raises(NotInvited):
        await probe(server.url, room1)
    await server.revoke(ROOM1)


async def test_a_device_that_speaks_mqtt_from_now_on_takes_the_place_of_the_one_that_did_not(
    server: EmbeddedServer,
) -> None:
    speaking = replace(ROOM1, mqtt=True)
    await server.allow([speaking])
    assert listed(server) == {speaking}


async def test_many_calls_at_once_are_one_change(server: EmbeddedServer, tmp_path: Path) -> None:
    names = [f"d{n}" for n in range(100)]
    await asyncio.gather(*(server.allow([Party("house", "device", name)]) for name in names))
    assert len(listed(server)) == 101
    assert reloads(tmp_path / "server") == 1


async def test_a_caller_that_gives_up_does_not_take_the_others_with_it(
    server: EmbeddedServer, room2: Credentials
) -> None:
    first = asyncio.ensure_future(server.allow([Party("house", "device", "room3")]))
    second = asyncio.ensure_future(server.allow([ROOM2]))
    await asyncio.sleep(0)
    first.cancel()
    await second
    await probe(server.url, room2)
    assert first.cancelled()


async def test_letting_nobody_in_costs_nothing(server: EmbeddedServer, tmp_path: Path) -> None:
    await server.allow([])
    assert reloads(tmp_path / "server") == 0


async def test_a_change_while_the_server_is_down_holds_once_it_is_back(
    server: EmbeddedServer, room2: Credentials
) -> None:
    os.kill(server.pid or 0, signal.SIGKILL)
    await server.allow([ROOM2])
    await eventually(lambda: server.restarts == 1)
    await probe(server.url, room2)


async def test_a_stop_in_the_middle_of_a_change_is_told(server: EmbeddedServer) -> None:
    changing = asyncio.ensure_future(server.allow([ROOM2]))
    await asyncio.sleep(0)
    await server.stop()
    with pytest.raises(ServerError, match="stopped before it took the change"):
        await changing


async def test_a_change_of_a_server_that_was_never_started_is_refused(
    store: CertificateStore, tmp_path: Path
) -> None:
    server = EmbeddedServer(tmp_path / "other", store.server("urn:x:server"))
    (tmp_path / "other").mkdir()
    with pytest.raises(ServerError, match="isn't running; start it first"):
        await server.allow([ROOM1])


async def test_a_renewed_certificate_is_read_without_ending_connections(
    server: EmbeddedServer, store: CertificateStore, room1: Credentials, tmp_path: Path
) -> None:
    client = await connected(server, room1)
    before = await shown_certificate(server, room1)
    store.authority.issue("urn:x:server", tmp_path / "pki" / "server", hosts=("127.0.0.1",), server=True)
    await server.reload()
    assert await shown_certificate(server, room1) != before
    await client.flush()
    await client.close()


async def shown_certificate(server: EmbeddedServer, credentials: Credentials) -> bytes:
    port = int(server.url.rpartition(":")[2])
    context = client_context(credentials)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="127.0.0.1")
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    await asyncio.sleep(0)
    return shown


async def test_a_joined_server_is_changed_by_both_at_once(
    server: EmbeddedServer, room2: Credentials, tmp_path: Path
) -> None:
    joined = JoinedServer(tmp_path / "server")
    assert await joined.start([ROOM2]) == server.url
    await probe(server.url, room2)
    await asyncio.gather(
        *(server.allow([Party("house", "device", f"a{n}")]) for n in range(20)),
        *(joined.allow([Party("house", "device", f"b{n}")]) for n in range(20)),
    )
    assert len(listed(server)) == len(listed(joined)) == 42
    await joined.revoke(ROOM2)
    with pytest.raises(NotInvited):
        await probe(server.url, room2)
    await joined.stop()
    assert server.pid == joined.pid is not None


async def test_joining_where_no_server_runs_is_refused(server: EmbeddedServer, tmp_path: Path) -> None:
    joined = JoinedServer(tmp_path / "server")
    await joined.start()
    await server.stop()
    assert not joined.running
    with pytest.raises(ServerError, match=r"no server runs on .* any more"):
        await joined.allow([ROOM2])
    with pytest.raises(ServerError, match="no server runs on"):
        await JoinedServer(tmp_path / "nowhere").start()


async def test_a_process_that_is_stuck_in_a_change_is_told_of(server: EmbeddedServer, tmp_path: Path) -> None:
    admission = Admission(ServerFiles(tmp_path / "server"), lambda: None, patience=0.05)
    held = FileLock(tmp_path / "server" / "parties.lock")
    with held.held(1), pytest.raises(ServerError, match=r"changing .*parties\.json for over 0\.05 s"):
        await admission.allow([ROOM2])


async def test_a_flow_for_which_there_is_no_room_is_told_of_its_own_tenants_flows_alone(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pratipad_nb.server.config.MAX_STORE", 1000)
    await server.change(Change(rules={"globex/secret": Rules(bytes=600), "acme/house": Rules(bytes=300)}))
    with pytest.raises(ServerError, match="'acme/garden' 300 bytes, 'acme/house' 300") as told:
        await server.change(Change(rules={"acme/garden": Rules(bytes=300)}))
    assert "globex" not in str(told.value)
    assert "secret" not in str(told.value)
