"""An edge, as little of one as a device's tests need, over the in-memory transport or a real server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from patience import eventually

from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.settings import Credentials, Endpoint
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.connecting import connect
from pratipad_nb.transport.frames import CreditFrame, DownFrame, HelloFrame, UplinkFrame, decode_uplink
from pratipad_nb.transport.memory import connect_memory
from pratipad_nb.transport.memory_broker import Broker
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.protocol import Connection, ConsumerSpec, LogSpec, Signal
from pratipad_nb.transport.subjects import Subjects

FLOW = "house"
_names = itertools.count()


class Edge:
    """Reads what devices send, keeps their hellos, and grants credit when a test says so.

    `auto`, if set, is the credit (mode, total, delivery) that answers every hello.
    """

    def __init__(self, link: Connection, url: str, broker: Broker) -> None:
        self.endpoint = Endpoint(url, FLOW)
        self.broker = broker
        self.subjects = Subjects(FLOW)
        self.link = link
        self.hellos: list[HelloFrame] = []
        self.frames: list[UplinkFrame] = []
        self.auto: tuple[str, int, str] | None = ("push", -1, "durable")
        self.owner = 1
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def payloads(self) -> list[Any]:
        return [payload for frame in self.frames for payload in frame.payloads]

    @property
    def numbers(self) -> list[int]:
        return [frame.first + index for frame in self.frames for index in range(len(frame.payloads))]

    @property
    def hello(self) -> HelloFrame:
        return self.hellos[-1]

    async def start(self, max_bytes: int = 64 << 20) -> None:
        await self.link.subscribe(self.subjects.hello_all, self._on_hello)
        await self.open_log(max_bytes)

    async def open_log(self, max_bytes: int = 64 << 20, *, read: bool = True) -> None:
        log = await self.link.open_log(
            LogSpec(self.subjects.input_stream, (self.subjects.up_all,), max_bytes, "work")
        )
        if read:
            consumer = await log.consumer(ConsumerSpec("edge", "each"))
            # As every edge does when it starts: unacknowledged messages of an earlier edge would come late.
            await consumer.rewind()
            self.spawn(self._read(consumer))

    def spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

    async def _read(self, consumer: Any) -> None:
        while True:
            for delivery in await consumer.get():
                self.take(Signal(delivery.subject, delivery.data))
                consumer.acknowledge(delivery)

    def take(self, signal: Signal) -> None:
        frame = decode_uplink(signal.data, FLOW, self.subjects.device_of(signal.subject))
        if frame is not None:  # None: a reading of a foreign device
            self.frames.append(frame)

    def _on_hello(self, signal: Signal) -> None:
        hello = decode(signal.data, HelloFrame)
        self.hellos.append(hello)
        if self.auto is not None and not hello.leaving:
            mode, total, delivery = self.auto
            self.spawn(self.grant(total, mode=mode, delivery=delivery))

    async def grant(
        self, total: int, *, mode: str = "demand", delivery: str = "durable", epoch: int | None = None
    ) -> None:
        await eventually(lambda: self.hellos)
        frame = CreditFrame(mode, self.owner, self.hello.epoch if epoch is None else epoch, total, delivery)
        await self.link.publish(self.subjects.credit(self.hello.device), encode(frame))

    async def order(
        self,
        number: int,
        payload: Any,
        *,
        epoch: int = 1,
        after: int = 0,
        device: str = "room1",
        called: str = "",
    ) -> None:
        called = called or f"order-{number}" + (f"-{epoch}" if epoch != 1 else "")
        frame = DownFrame(FLOW, epoch, number, called, 0.0, payload, after=after)
        await self.link.publish(self.subjects.down(device), encode(frame))

    def identity(self, device: str = "room1") -> str:
        return Party(FLOW, "device", device).identity

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.link.close()


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    name = f"device-tests-{next(_names)}"
    url = f"memory://{name}"
    edge = Edge(await connect_memory(url, name="edge"), url, Broker.named(name))
    await edge.start()
    yield edge
    await edge.stop()
    Broker.forget(name)


class House:
    """A server that lets in an edge and the device room1, and their certificates."""

    def __init__(self, folder: Path) -> None:
        self.store = CertificateStore.open(folder)
        self.server = EmbeddedServer(folder / "server", self.store.server("urn:pratipad:server"))
        self.users = [Party(FLOW, "edge"), Party(FLOW, "device", "room1")]

    def of_device(self, name: str) -> Credentials:
        return self.store.device(FLOW, name, Party(FLOW, "device", name).identity)

    def endpoint(self, name: str = "room1") -> Endpoint:
        return Endpoint(self.server.url, FLOW, self.of_device(name))

    async def edge(self, kind: Any) -> Any:
        endpoint = Endpoint(self.server.url, FLOW, self.store.edge(FLOW, Party(FLOW, "edge").identity))
        edge = kind(await connect(endpoint, role="edge", name=""), self.server.url, None)
        await edge.start()
        return edge


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    await house.server.start(house.users)
    yield house
    await house.server.stop()
