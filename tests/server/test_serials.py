"""Certificates that the server knows by their serial numbers, with plain clients of the NATS library."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest

from pratipad_nb.errors import NotInvited
from pratipad_nb.pki.certificates import identity_in
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.tls import client_context, probe

EDGE = Party("house", "edge")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    store = CertificateStore.open(tmp_path)
    server = EmbeddedServer(tmp_path / "server", store.server("urn:pratipad:server"))
    await server.start()
    yield server
    await server.stop()


def named_in(credentials: Credentials) -> Party:
    party = Party.parse(identity_in(credentials.certificate))
    assert party is not None
    return party


async def heard(url: str, credentials: Credentials) -> bytes:
    """Connect as the edge, publish to oneself, and return what came back."""
    context = client_context(credentials)
    async with contextlib.AsyncExitStack() as stack:
        client = await nats.connect(url, tls=context, tls_handshake_first=True, allow_reconnect=False)
        stack.push_async_callback(client.close)
        own = await client.subscribe("pratipad.house.x")
        await client.publish("pratipad.house.x", b"heard")
        return (await own.next_msg(5)).data


async def test_a_stolen_certificate_stays_out_when_its_name_is_issued_again(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    authority = CertificateStore.open(tmp_path).authority
    stolen, new = (authority.issue(EDGE.identity, tmp_path / name) for name in ("stolen", "new"))
    await server.allow([named_in(stolen)])
    assert await heard(server.url, stolen) == b"heard"
    await server.revoke(named_in(stolen))
    await server.allow([named_in(new)])
    assert await heard(server.url, new) == b"heard"
    with pytest.raises(NotInvited):
        await probe(server.url, stolen)


async def test_a_server_that_lists_identities_takes_every_certificate_of_the_party(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    authority = CertificateStore.open(tmp_path).authority
    await server.allow([EDGE])
    for name in ("first", "second"):
        assert await heard(server.url, authority.issue(EDGE.identity, tmp_path / name)) == b"heard"
