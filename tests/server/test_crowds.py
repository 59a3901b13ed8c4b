"""A party with very many connections loses the newest of them, and nobody else loses any."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from patience import eventually

from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server.accounts import OWNER
from pratipad_nb.server.crowds import MOST_CONNECTIONS
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.tls import client_context

ROOM1, ROOM2 = Party("house", "device", "room1"), Party("house", "device", "room2")


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EmbeddedServer]:
    monkeypatch.setattr("pratipad_nb.server.crowds._BEGIN_SECONDS", 0.0)
    store = CertificateStore.open(tmp_path)
    server = EmbeddedServer(
        tmp_path / "server", store.server("urn:pratipad:server"), owner=store.owner(OWNER)
    )
    await server.start([ROOM1, ROOM2])
    yield server
    await server.stop()


async def connected(url: str, credentials: Credentials, stack: contextlib.AsyncExitStack) -> Client:
    async def quiet(error: Exception) -> None:
        pass

    context = client_context(credentials)
    client = await nats.connect(
        url, tls=context, tls_handshake_first=True, allow_reconnect=False, error_cb=quiet
    )
    stack.push_async_callback(client.close)
    return client


async def test_a_party_keeps_its_first_connections_and_others_keep_theirs(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    store = CertificateStore.open(tmp_path)
    room1 = store.device("house", "room1", ROOM1.identity)
    room2 = store.device("house", "room2", ROOM2.identity)
    async with contextlib.AsyncExitStack() as stack:
        other = await connected(server.url, room2, stack)
        first = await connected(server.url, room1, stack)
        many = [await connected(server.url, room1, stack) for _ in range(MOST_CONNECTIONS + 8)]
        everybody = [first, *many]
        await eventually(lambda: sum(not each.is_closed for each in everybody) <= MOST_CONNECTIONS)
        assert not first.is_closed
        await other.flush()
        await asyncio.gather(*(each.flush() for each in everybody if not each.is_closed))
