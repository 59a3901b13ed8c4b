"""The account of a connection, asked of a real server."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import replace

import pytest

from pratipad_nb.errors import WaitTimeout
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.nats_account import QUESTION, account_of
from pratipad_nb.transport.permissions import edge_user, inbox_prefix

EDGE = edge_user("house")


@contextlib.asynccontextmanager
async def connected(folder, certificates, user):
    server = EmbeddedServer(folder, certificates.server)
    url = await server.start([user])
    try:
        inbox = f"{inbox_prefix('house', 'edge')}.{secrets.token_hex(4)}"
        yield await NatsConnection.connect(url, certificates.edge, name="edge", inbox_prefix=inbox)
    finally:
        await server.stop()


async def test_a_party_that_may_ask_learns_its_account(tmp_path, certificates):
    asking = replace(EDGE, publish=(*EDGE.publish, QUESTION))
    async with connected(tmp_path, certificates, asking) as connection:
        assert await account_of(connection) == "$G"
        await connection.close()


async def test_a_party_that_may_not_ask_gets_no_account(tmp_path, certificates):
    silent = replace(EDGE, publish=tuple(each for each in EDGE.publish if each != QUESTION))
    async with connected(tmp_path, certificates, silent) as connection:
        assert await account_of(connection) == ""
        await connection.close()


async def test_a_silent_server_leaves_the_account_unknown():
    class Silent:
        async def request(self, subject, data, timeout):
            raise WaitTimeout("no answer came")

    with pytest.raises(WaitTimeout):
        await account_of(Silent())
