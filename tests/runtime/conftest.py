"""Transports, logs and processors for tests of the runtime's parts."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from patience import eventually, patient

from pratipad_nb.dataflow import resolve
from pratipad_nb.pki.authority import Authority
from pratipad_nb.runtime.edge.edge import Edge
from pratipad_nb.runtime.positions.chain import OutputChain
from pratipad_nb.runtime.values.plan import EdgeSettings, log_specs
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.settings import FlowOptions, Keep
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import UplinkFrame
from pratipad_nb.transport.memory import MemoryConnection
from pratipad_nb.transport.memory_broker import Broker
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.protocol import Connection, Log
from pratipad_nb.transport.subjects import Subjects

FLOW = "house"
EDGE = Party(FLOW, "edge")


class Place:
    """Where the logs of one flow are, and how a process that is started anew comes to them."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], broker: Broker | None = None) -> None:
        self.subjects = Subjects(FLOW)
        self.broker = broker
        self._connect = connect

    async def connection(self) -> Connection:
        return await self._connect()

    async def logs(self, connection: Connection, **bounds: Any) -> dict[str, Log]:
        settings = EdgeSettings(FLOW, **bounds)
        return {name: await connection.open_log(spec) for name, spec in log_specs(settings).items()}

    async def chain(self, connection: Connection | None = None, **bounds: Any) -> OutputChain:
        """Return a chain as an edge that starts makes it; it isn't opened."""
        connection = connection or await self.connection()
        logs = await self.logs(connection, **bounds)
        return OutputChain(
            connection,
            logs[self.subjects.output_stream],
            logs[self.subjects.mark_stream],
            out_subject=self.subjects.out(0),
            mark_subject=self.subjects.mark("partition-0"),
        )


@contextlib.asynccontextmanager
async def in_memory() -> AsyncIterator[Place]:
    broker = Broker("runtime")
    async with contextlib.AsyncExitStack() as stack:

        async def connect() -> Connection:
            connection = MemoryConnection(broker, identity=EDGE.identity, name="edge")
            stack.push_async_callback(connection.close)
            return connection

        yield Place(connect, broker)


@contextlib.asynccontextmanager
async def at_a_server(folder: Path) -> AsyncIterator[Place]:
    authority = Authority.open(folder / "authority")
    credentials = authority.issue(EDGE.identity, folder / "edge")
    server = EmbeddedServer(
        folder / "state",
        authority.issue("urn:pratipad:server", folder / "server", hosts=("127.0.0.1",), server=True),
    )
    numbers = itertools.count()
    async with contextlib.AsyncExitStack() as stack:
        url = await server.start([EDGE])
        stack.push_async_callback(server.stop)

        async def connect() -> Connection:
            inbox = f"{Party(FLOW, 'edge').inbox}.t{next(numbers)}"
            connection = await NatsConnection.connect(url, credentials, name="edge", inbox_prefix=inbox)
            stack.push_async_callback(connection.close)
            return connection

        yield Place(connect)


@pytest.fixture
async def memory() -> AsyncIterator[Place]:
    """Give a place in memory, with its broker."""
    async with in_memory() as place:
        yield place


@pytest.fixture(params=["memory", "nats"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Give a place in memory, and one at a real server with mutual TLS."""
    async with in_memory() if request.param == "memory" else at_a_server(tmp_path) as place:
        yield place


@pytest.fixture
def small() -> dict[str, Any]:
    """Give the smallest output log that a flow can have."""
    return {"keep": Keep(bytes=1 << 20), "options": FlowOptions()}


class Edges:
    """Makes edges of one flow, opened and not yet run, and ends them all."""

    def __init__(self, place: Place, stack: contextlib.AsyncExitStack) -> None:
        self._place = place
        self._stack = stack

    async def opened(
        self, notation: str = "Push <~> same <~> Output", names: dict[str, Any] | None = None, **settings: Any
    ) -> Edge:
        """Return an edge that has its logs and its processors."""
        namespace = {"same": lambda payload: payload} | (names or {})
        connection = await self._place.connection()
        edge = await Edge.open(connection, resolve(notation, namespace), EdgeSettings(FLOW, **settings))
        self._stack.push_async_callback(edge.close)
        return edge

    async def running(self, *notation: str, **settings: Any) -> Edge:
        """Return an edge that runs until the test ends."""
        edge = await self.opened(*notation, **settings)
        task = asyncio.create_task(edge.run())
        self._stack.push_async_callback(self._ended, edge, task)
        await asyncio.sleep(0)
        return edge

    async def _ended(self, edge: Edge, task: asyncio.Task[None]) -> None:
        edge.drain()
        async with asyncio.timeout(patient(5)):
            await task


@pytest.fixture
async def edges(memory: Place) -> AsyncIterator[Edges]:
    """Give what makes edges, in memory."""
    async with contextlib.AsyncExitStack() as stack:
        yield Edges(memory, stack)


@pytest.fixture
async def push(memory: Place) -> Callable[..., Awaitable[None]]:
    """Give what sends a device's messages, numbered from `first` on, as one frame."""
    connection = await memory.connection()

    async def push(*payloads: Any, device: str = "room1", first: int = 1) -> None:
        frame = UplinkFrame(FLOW, device, 1, first, [0.0] * len(payloads), list(payloads))
        await connection.append(memory.subjects.up(device), encode(frame))

    return push


@pytest.fixture(name="until")
def _until() -> Callable[..., Awaitable[None]]:
    """Give what waits on a condition in the event loop."""
    return eventually
