"""The transports that the contract is held against: in memory, and a real server with mutual TLS."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pratipad_nb.pki.authority import Authority
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.memory import MemoryConnection
from pratipad_nb.transport.memory_broker import Broker
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.protocol import Connection

FLOW = "house"
EDGE = Party(FLOW, "edge")

Opener = Callable[[], Awaitable[Connection]]
Restart = Callable[[], Awaitable[None]]
#: Copies the server's store, and returns what restarts the server with that copy.
BackUp = Callable[[], Awaitable[Restart]]


@dataclass(frozen=True)
class Certificates:
    server: Credentials
    edge: Credentials


@dataclass(frozen=True)
class Transport:
    """One kind of transport: `connect` opens one more connection of the edge, closed when the test ends.

    `restart` ends the server and brings it back, at the same address and with what it has stored.
    """

    kind: str
    connect: Opener
    restart: Restart
    back_up: BackUp


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority.open(folder / "authority")
    return Certificates(
        authority.issue("urn:pratipad:server", folder / "server", hosts=("127.0.0.1",), server=True),
        authority.issue(EDGE.identity, folder / "edge"),
    )


@pytest.fixture(params=["memory", "nats"])
async def transport(
    request: pytest.FixtureRequest, tmp_path: Path, certificates: Certificates
) -> AsyncIterator[Transport]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "memory":
            opener, restart, back_up = in_memory()
        else:
            opener, restart, back_up = await at_a_server(tmp_path, certificates, stack)

        async def connect() -> Connection:
            connection = await opener()
            stack.push_async_callback(connection.close)
            return connection

        yield Transport(request.param, connect, restart, back_up)


def in_memory() -> tuple[Opener, Restart, BackUp]:
    broker = Broker("contract")

    async def opener() -> Connection:
        return MemoryConnection(broker, identity=EDGE.identity, name="edge")

    async def restart() -> None:
        broker.restart()

    async def back_up() -> Restart:
        store = broker.copied_store()

        async def restore() -> None:
            broker.restart(store)

        return restore

    return opener, restart, back_up


async def at_a_server(
    folder: Path, certificates: Certificates, stack: contextlib.AsyncExitStack
) -> tuple[Opener, Restart, BackUp]:
    """Start a real server that lets the edge in, with the edge's permissions and no more."""
    server = EmbeddedServer(folder, certificates.server)
    url = await server.start([EDGE])
    stack.push_async_callback(server.stop)

    async def opener() -> Connection:
        inbox = f"{Party(FLOW, 'edge').inbox}.{secrets.token_hex(4)}"
        return await NatsConnection.connect(url, certificates.edge, name="edge", inbox_prefix=inbox)

    async def restart() -> None:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)  # its keeper brings it back

    async def back_up() -> Restart:
        await server.stop()
        shutil.copytree(folder / "store", folder / "backup")
        await server.start([EDGE])

        async def restore() -> None:
            await server.stop()
            shutil.rmtree(folder / "store")
            shutil.copytree(folder / "backup", folder / "store")
            await server.start([EDGE])

        return restore

    return opener, restart, back_up
