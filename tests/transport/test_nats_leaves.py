"""Pull consumers at a server that leaves join: there a pull request outlives its subscription."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.protocol import Consumer, ConsumerSpec, Delivery, Log, LogSpec
from pratipad_nb.transport.subjects import Subjects

SUBJECTS = Subjects("house")
UP = SUBJECTS.up("room1")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[NatsConnection]:
    store, user = CertificateStore.open(tmp_path), Party("house", "edge")
    server = EmbeddedServer(
        tmp_path / "server", store.server("urn:x:server"), leaves=f"127.0.0.1:{free_port()}"
    )
    url = await server.start([user])
    edge = await NatsConnection.connect(
        url, store.edge("house", user.identity), name="edge", inbox_prefix=Party("house", "edge").inbox
    )
    yield edge
    await edge.close()
    await server.stop()


@pytest.fixture
async def inputs(connection: NatsConnection) -> Log:
    return await connection.open_log(LogSpec(SUBJECTS.input_stream, (SUBJECTS.up_all,), 1 << 20, "work"))


async def taken(consumer: Consumer, count: int) -> list[Delivery]:
    got: list[Delivery] = []
    while len(got) < count:
        got += await consumer.get()
    return got


async def test_what_comes_after_a_rewind_comes_once_and_in_order(
    connection: NatsConnection, inputs: Log
) -> None:
    consumer = await inputs.consumer(ConsumerSpec("edge", "each", max_pending=64))
    await consumer.rewind()
    for rewinds in range(3):
        first = 200 * rewinds
        for number in range(first, first + 200):
            await connection.append(UP, str(number).encode())
        await taken(consumer, 20)
        await consumer.rewind()  # with a request that stands, and deliveries under way
        got: list[int] = []
        while len(got) < 200:
            for delivery in await consumer.get():
                # A rewind may overtake the last acknowledgements of the round before: those come again.
                got += [int(delivery.data)] if int(delivery.data) >= first else []
                consumer.acknowledge(delivery)
        assert got == list(range(first, first + 200)), rewinds
