"""The transports that the contract is held against: in memory, and a real server with mutual TLS."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from pratipad_nb.transport.memory import MemoryConnection
from pratipad_nb.transport.memory_broker import Broker
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.transport.subjects import Subjects

FLOW = "house"


@dataclass
class Transport:
    """One kind of transport: `connect` opens one more connection of the edge, closed when the test ends."""

    kind: str
    connect: Callable[[], Awaitable[Connection]]
    subjects: Subjects


@pytest.fixture(params=["memory", "nats"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "memory":
            opener = in_memory()
        else:
            pytest.importorskip("pratipad_nb.transport.server")

        async def connect() -> Connection:
            connection = await opener()
            stack.push_async_callback(connection.close)
            return connection

        yield Transport(request.param, connect, Subjects(FLOW))


def in_memory() -> Callable[[], Awaitable[Connection]]:
    broker = Broker("contract")

    async def opener() -> Connection:
        return MemoryConnection(broker, identity="urn:pratipad:house:edge", name="edge")

    return opener
