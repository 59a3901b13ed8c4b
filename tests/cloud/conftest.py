"""An output log over the in-memory transport, and frames to put into it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from pratipad_nb.cloud.reader import Reader
from pratipad_nb.portal import Portal
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ControlFrame, OutputFrame, Segment
from pratipad_nb.transport.memory import MemoryConnection, connect_memory
from pratipad_nb.transport.memory_broker import Broker
from pratipad_nb.transport.memory_log import MemoryLog
from pratipad_nb.transport.protocol import LogSpec, Signal
from pratipad_nb.transport.readers import prepare_reader
from pratipad_nb.transport.subjects import Subjects

FLOW = "house"
_worlds = itertools.count(1)
DESCRIPTION = {
    "notation": "Push <~> A <~> Output",
    "delivery": "durable",
    "cloud_reaches_devices": True,
    "text": "",
}


class World:
    """One broker with the logs of one flow, and the edge's side of them."""

    def __init__(self) -> None:
        self.name = f"cloud-{next(_worlds)}"
        self.broker = Broker.named(self.name)
        self.url = f"memory://{self.name}"
        self.subjects = Subjects(FLOW)
        self.number = 0
        self.frames = 0
        self.readers: list[Reader] = []

    async def open(self, *, max_bytes: int = 1 << 28) -> None:
        self.edge = await connect_memory(self.url, name="edge")
        self.tasks: set[asyncio.Task[None]] = set()
        self.listening = await self.edge.subscribe(self.subjects.control_all, self.on_request)
        streams = self.subjects.streams
        for name, retention in (
            (self.subjects.output_stream, "log"),
            (self.subjects.order_stream, "work"),
        ):
            message_ids = name == self.subjects.order_stream
            spec = LogSpec(name, streams[name], max_bytes, retention, message_ids=message_ids)
            log = await self.edge.open_log(spec)
            if retention == "log":
                self.output = log

    def on_request(self, signal: Signal) -> None:
        """Make for a reader what it asks for, as a running edge does."""
        if decode(signal.data, ControlFrame).verb == "reader":
            task = asyncio.ensure_future(self.prepare(signal))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def prepare(self, signal: Signal) -> None:
        await prepare_reader(self.edge, FLOW, self.subjects.reader_of(signal.subject))
        await self.edge.publish(signal.reply, encode(ControlFrame("ok")))

    async def positions(self, name: str = "cloud") -> MemoryLog:
        """The log of a reader's position."""
        found = await self.edge.find_log(self.subjects.position_stream(name))
        assert found is not None
        return found

    async def connect(self, name: str = "cloud") -> MemoryConnection:
        return await connect_memory(self.url, name=name)

    async def reader(self, name: str = "cloud", **options: object) -> Reader:
        """A reader with a connection of its own, as another process has it."""
        reader = Reader(await self.connect(name), FLOW, name, **options)
        self.readers.append(reader)
        return reader

    def frame(self, count: int, device: str = "room1") -> bytes:
        """A frame of `count` messages; payloads count on from 1."""
        first, self.number = self.number + 1, self.number + count
        self.frames += 1
        segments = []
        if count:
            payloads = list(range(first, first + count))
            segments = [Segment(device, 7, first, 2.0, [1.0] * count, payloads)]
        return encode(OutputFrame("edge", self.frames, [(device, 7, self.number)], segments))

    async def append(self, *counts: int) -> None:
        for count in counts:
            await self.edge.append(self.subjects.out(0), self.frame(count))

    async def signal(self, *counts: int) -> None:
        for count in counts:
            await self.edge.publish(self.subjects.out(0), self.frame(count))

    async def floor(self, name: str = "cloud") -> int:
        return next((c.floor for c in await self.output.consumers() if c.name == name), -1)

    async def kill(self, reader: Reader) -> None:
        """What kill -9 of the reader's process leaves: a connection that is gone, and nothing else."""
        source = reader._source
        source.wake()
        await source._connection.close()

    async def close(self) -> None:
        for reader in self.readers:
            connection = reader._source._connection
            if not connection._closed:
                await reader.close()
            await connection.close()
        await self.edge.close()
        Broker.forget(self.name)


async def _made() -> World:
    world = World()
    await world.open()
    return world


@pytest.fixture(scope="session")
def make_world() -> Callable[[], Awaitable[World]]:
    """For tests that run many histories, each in a world of its own."""
    return _made


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.open()
    yield made
    await made.close()


class Edge:
    """Answers requests from a table; verbs that it doesn't have are left unanswered."""

    def __init__(self, world) -> None:
        self.world = world
        self.answers = {"describe": DESCRIPTION}
        self.description = DESCRIPTION
        self.asked = []
        self.tasks = set()

    async def open(self):
        await self.world.edge.subscribe(self.world.subjects.control_all, self.on_request)

    def on_request(self, signal):
        frame = decode(signal.data, ControlFrame)
        self.asked.append((frame.verb, frame.arguments))
        answer = self.answers.get(frame.verb)
        if answer is None:
            return
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        verb = "error" if "kind" in answer else "ok"
        task = asyncio.ensure_future(
            self.world.edge.publish(signal.reply, encode(ControlFrame(verb, answer)))
        )
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


@pytest.fixture
async def edge(world):
    made = Edge(world)
    await made.open()
    return made


class Elsewhere:
    """A world and its edge on a loop of their own, for synchronous handles."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        portal.run(self.open())
        self.url = self.world.url

    async def open(self) -> None:
        self.world = World()
        await self.world.open()
        self.edge = Edge(self.world)
        await self.edge.open()

    def append(self, *counts: int) -> None:
        self.portal.run(self.world.append(*counts))


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with Portal("edge of a test") as portal:
        made = Elsewhere(portal)
        yield made
        portal.run(made.world.close())
