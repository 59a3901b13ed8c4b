"""A real server comes back with an older store, as after a restored backup; all parties go on."""

from __future__ import annotations

import shutil

import pytest
from patience import eventually

from pratipad_nb import AsyncCloud, AsyncDevice, AsyncFlow, FlowOptions
from pratipad_nb.cloud.sqlite import SQLiteSink
from pratipad_nb.errors import WaitTimeout
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.session import state_folder
from pratipad_nb.testing import real_server

pytestmark = pytest.mark.timeout(120)


class Server:
    """The server of the state folder `home`, beside the flows that join it."""

    def __init__(self, home):
        self.home = home
        state_folder.prepare(home)
        self.store = home / "server" / "store"
        self.backup = home / "backup"
        self._server = EmbeddedServer(
            home / "server", CertificateStore.open(home).server("urn:pratipad:server"), standalone=True
        )

    async def start(self):
        await self._server.start()

    async def stop(self):
        await self._server.stop()

    async def back_up(self):
        await self.stop()
        shutil.copytree(self.store, self.backup)
        await self.start()

    async def restore(self):
        """Start with the backup in the place of the store."""
        shutil.rmtree(self.store)
        shutil.copytree(self.backup, self.store)
        await self.start()


@pytest.fixture
async def server():
    with real_server() as home:
        made = Server(home)
        await made.start()
        yield made
        await made.stop()


def flow_at(home, partitions=1):
    options = FlowOptions(checkpoint_seconds=0.05, partitions=partitions)
    names = {"same": lambda payload: payload}
    return AsyncFlow("Push <~> same <~> Output", name="house", namespace=names, home=home, options=options)


async def cloud_of(flow, reader="cloud"):
    return AsyncCloud("house", reader=reader, endpoint=await flow.endpoint_for("reader", reader))


async def pushed(device, numbers):
    for number in numbers:
        await (await device.push(number))


async def taken(cloud, n):
    return [message.payload for message in await cloud.take(n, timeout=60)]


@pytest.mark.parametrize("partitions", [1, 2])
async def test_edge_reader_and_device_go_on_through_a_restored_backup(server, partitions, caplog):
    async with flow_at(server.home, partitions) as flow, await cloud_of(flow) as cloud:
        device = await AsyncDevice("room1").connect(flow)
        await pushed(device, range(10))
        assert await taken(cloud, 10) == list(range(10))
        await server.back_up()
        await pushed(device, range(10, 30))
        assert await taken(cloud, 15) == list(range(10, 25))
        with pytest.raises(WaitTimeout):  # asking for more than there is has the reader get all that there is
            await cloud.take(6, timeout=0.5)
        await server.stop()
        await server.restore()
        await pushed(device, range(30, 40))
        # The reader had got the frames with the messages to 30 before the log lost them.
        assert await taken(cloud, 15) == list(range(25, 40))
        assert flow.state == "running"
        assert "log OUT_house went back" in caplog.text
        assert "begins anew from its logs" in caplog.text
        await eventually(lambda: flow.stats().devices["room1"].gaps == 20)
        await pushed(device, [40])
        assert await taken(cloud, 1) == [40]
        await device.close()


async def test_an_edge_started_afterwards_and_a_kept_device_go_on(server, tmp_path):
    flow = await flow_at(server.home).start()
    endpoint = await flow.endpoint_for("device", "room1")
    device = await AsyncDevice("room1", keep=tmp_path).connect(endpoint)
    await pushed(device, range(5))
    await server.back_up()
    await pushed(device, range(5, 10))
    await flow.stop()
    await server.stop()
    for number in range(10, 15):
        await device.push(number)
    await server.restore()
    async with flow_at(server.home) as flow, await cloud_of(flow) as cloud:
        assert await taken(cloud, 10) == [*range(5), *range(10, 15)]
        assert flow.stats().devices["room1"].gaps == 5
    await device.close()


async def test_a_database_that_is_ahead_gets_each_message_once(server, tmp_path):
    async with flow_at(server.home) as flow:
        device = await AsyncDevice("room1").connect(flow)
        with SQLiteSink(tmp_path / "house.db") as sink:
            async with await cloud_of(flow, "archive") as cloud:
                await pushed(device, range(10))
                sink.write(await cloud.take(5, timeout=60))
                await server.back_up()
                sink.write(await cloud.take(5, timeout=60))
                await pushed(device, range(10, 20))
                sink.write(await cloud.take(10, timeout=60))
            await server.stop()
            await server.restore()
            await pushed(device, range(20, 25))
            async with await cloud_of(flow, "archive") as cloud:
                again = await cloud.take(10, timeout=60)
            assert [message.payload for message in again] == [*range(5, 10), *range(20, 25)]
            assert sink.write(again) == 5
            assert [message.payload for message in sink.read()] == list(range(25))
        await device.close()


@pytest.mark.parametrize("partitions", [1, 2])
async def test_all_go_on_at_a_server_whose_store_vanished(server, partitions):
    ordered = []
    async with flow_at(server.home, partitions) as flow, await cloud_of(flow) as cloud:
        device = await AsyncDevice("room1", receive=ordered.append).connect(flow)
        await pushed(device, range(10))
        assert await taken(cloud, 10) == list(range(10))
        for number in range(3):
            await flow.send(number, to="room1")
        await eventually(lambda: ordered == [0, 1, 2])
        await server.stop()
        shutil.rmtree(server.store)
        await server.start()
        await pushed(device, range(10, 20))
        assert await taken(cloud, 10) == list(range(10, 20))
        await eventually(lambda: flow.stats().devices["room1"].gaps == 10)
        await flow.send(3, to="room1")
        await eventually(lambda: ordered == [0, 1, 2, 3])
        await device.close()
