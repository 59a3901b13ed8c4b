"""Forwarding from a leaf's log to the cloud's when either log went back: nothing is lost, nothing doubled."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from patience import eventually

from pratipad_nb.runtime.positions.forwarding import Forwarder
from pratipad_nb.runtime.positions.frame_names import name_of
from pratipad_nb.settings import FlowOptions, Keep
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ControlFrame, OutputFrame, OutputHeader
from pratipad_nb.transport.memory import MemoryConnection
from pratipad_nb.transport.memory_broker import Broker
from pratipad_nb.transport.protocol import LogSpec
from pratipad_nb.transport.subjects import Subjects

SUBJECTS = Subjects("house")


class Leaf(MemoryConnection):
    """A connection to a broker that is a leaf of the broker `cloud`."""

    def __init__(self, broker, cloud):
        super().__init__(broker, identity="edge", name="edge")
        self.cloud = MemoryConnection(cloud, identity="leaf", name="leaf")

    def beyond(self):
        return self.cloud

    async def append(self, subject, data, **options):
        link = self.cloud if subject == SUBJECTS.sent else super()
        return await link.append(subject, data, **options)


class Barn:
    """An edge's broker, the cloud's, and a forwarder between the two."""

    def __init__(self):
        self.edge, self.cloud = Broker("edge"), Broker("cloud")
        self.link = Leaf(self.edge, self.cloud)
        self.forwarder = Forwarder(self.link, "house", Keep(), FlowOptions())
        self._task = None

    async def open(self):
        stream = SUBJECTS.output_stream
        self.output = await self.link.open_log(LogSpec(stream, (SUBJECTS.out_all,), 1 << 20, "log"))

    def start(self):
        self._task = asyncio.create_task(self.forwarder.run())

    async def stop(self):
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def append(self, writer, *numbers):
        for number in numbers:
            await self.link.append(SUBJECTS.out(0), encode(OutputFrame(writer, number, [], [])))

    async def at_cloud(self):
        log = await self.link.cloud.find_log(SUBJECTS.output_stream)
        if log is None:
            return []
        headers = [decode(record.data, OutputHeader) async for record in log.read(1)]
        return [(header.writer, header.number) for header in headers]

    async def arrives(self, *frames):
        async def arrived():
            return await self.at_cloud() == list(frames)

        await eventually(arrived)


def frames(writer, *numbers):
    return [(writer, number) for number in numbers]


@pytest.fixture
async def barn():
    made = Barn()
    await made.open()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(made.link.close)
        stack.push_async_callback(made.link.cloud.close)
        stack.push_async_callback(made.stop)
        yield made


@pytest.mark.parametrize("running", [True, False], ids=["while it forwards", "before it starts"])
async def test_what_the_cloud_lost_is_sent_again_as_far_as_the_edge_keeps_it(barn, running, caplog):
    barn.start()
    await barn.append("a", 1, 2, 3)
    await barn.arrives(*frames("a", 1, 2, 3))
    backup = barn.cloud.copied_store()
    await barn.append("a", 4, 5, 6)
    await barn.append("b", 1, 2)
    await barn.arrives(*frames("a", 1, 2, 3, 4, 5, 6), *frames("b", 1, 2))
    if not running:
        await barn.stop()
    barn.cloud.restart(backup)
    if not running:
        barn.start()
    await barn.append("b", 3)
    await barn.arrives(*frames("a", 1, 2, 3, 4, 5, 6), *frames("b", 1, 2, 3))
    assert "log OUT_house of the cloud went back" in caplog.text


async def test_a_cloud_whose_store_vanished_gets_all_that_the_edge_keeps(barn):
    barn.start()
    await barn.append("a", 1, 2, 3)
    await barn.arrives(*frames("a", 1, 2, 3))
    barn.cloud.restart({})
    await barn.append("a", 4)
    await barn.arrives(*frames("a", 1, 2, 3, 4))


@pytest.mark.parametrize("running", [True, False], ids=["while it forwards", "before it starts"])
async def test_an_edge_that_went_back_sends_its_new_frames_alone(barn, running):
    barn.start()
    await barn.append("a", 1, 2, 3)
    await barn.arrives(*frames("a", 1, 2, 3))
    backup = barn.edge.copied_store()
    await barn.append("a", 4, 5, 6)
    await barn.arrives(*frames("a", 1, 2, 3, 4, 5, 6))
    if not running:
        await barn.stop()
    barn.edge.restart(backup)
    await barn.append("b", 1, 2)
    if not running:
        barn.start()
    await barn.append("b", 3, 4)
    await barn.arrives(*frames("a", 1, 2, 3, 4, 5, 6), *frames("b", 1, 2, 3, 4))


async def test_an_edge_that_went_back_before_the_cloud_confirmed_its_frames_sends_none_twice(barn):
    await barn.append("a", 1, 2, 3)
    backup = barn.edge.copied_store()
    barn.start()
    await barn.arrives(*frames("a", 1, 2, 3))
    await barn.append("a", 4)
    await barn.arrives(*frames("a", 1, 2, 3, 4))
    barn.edge.restart(backup)
    await barn.append("b", 1)
    await barn.arrives(*frames("a", 1, 2, 3, 4), *frames("b", 1))


async def readable_at_cloud(barn):
    log = await barn.link.cloud.find_log(SUBJECTS.output_stream)
    found = [name_of(record) async for record in log.read(1)] if log is not None else []
    return [name for name in found if name is not None]


@pytest.mark.parametrize("garbage", [b"", b"?", encode(ControlFrame("who"))])
async def test_an_entry_that_is_no_frame_ends_no_forwarding_and_doubles_nothing(barn, garbage):
    await barn.append("a", 1, 2, 3)
    backup = barn.edge.copied_store()
    barn.start()
    await barn.arrives(*frames("a", 1, 2, 3))
    await barn.link.cloud.append(SUBJECTS.sent, garbage)  # at the cloud
    await barn.link.append(SUBJECTS.out(0), garbage)  # at the edge
    await barn.append("a", 4)

    async def arrived():
        return await readable_at_cloud(barn) == frames("a", 1, 2, 3, 4)

    await eventually(arrived)
    await barn.link.cloud.append(SUBJECTS.sent, garbage)
    barn.edge.restart(backup)  # and the edge knows no longer what the cloud has confirmed
    await barn.append("b", 1)

    async def gone_on():
        return await readable_at_cloud(barn) == frames("a", 1, 2, 3, 4) + frames("b", 1)

    await eventually(gone_on)
