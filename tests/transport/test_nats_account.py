"""The account of a connection, asked of a real server."""

from __future__ import annotations

import contextlib
import secrets

import pytest

from pratipad_nb.errors import Unavailable, WaitTimeout
from pratipad_nb.pki.authority import Authority
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.nats_account import account_of
from pratipad_nb.transport.parties import Party

EDGE = Party("house", "edge")


@contextlib.asynccontextmanager
async def connected(folder, certificates, party, credentials):
    server = EmbeddedServer(folder, certificates.server)
    url = await server.start([party])
    try:
        inbox = f"{party.inbox}.{secrets.token_hex(4)}"
        yield await NatsConnection.connect(url, credentials, name="party", inbox_prefix=inbox)
    finally:
        await server.stop()


async def test_a_party_that_may_ask_learns_its_account(tmp_path, certificates):
    async with connected(tmp_path, certificates, EDGE, certificates.edge) as connection:
        assert await account_of(connection) == "F_house"
        await connection.close()


async def test_a_party_that_may_not_ask_gets_no_account(tmp_path, certificates):
    room1 = Party("house", "device", "room1")
    authority = Authority.open(certificates.server.certificate.parent.parent / "authority")
    credentials = authority.issue(room1.identity, tmp_path / "room1")
    async with connected(tmp_path, certificates, room1, credentials) as connection:
        assert await account_of(connection) == ""
        await connection.close()


async def test_a_silent_server_leaves_the_account_unknown():
    class Silent:
        async def request(self, subject, data, timeout):
            raise WaitTimeout("no answer came")

    with pytest.raises(WaitTimeout):
        await account_of(Silent())


async def test_a_server_that_reads_its_accounts_again_is_asked_again():
    """For a moment, nobody answers: such a server is no server of another making."""

    class Reloading:
        asked = 0

        async def request(self, subject, data, timeout):
            self.asked += 1
            if self.asked < 3:
                raise Unavailable("nobody answers")
            return b'{"data": {"account": "F_house"}}'

    assert await account_of(Reloading()) == "F_house"
