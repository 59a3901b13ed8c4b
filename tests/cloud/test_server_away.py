"""A cloud client whose server goes away: time-outs hold, and it says how things stand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from patience import patient

from pratipad_nb.cloud.client import AsyncCloud, Cloud
from pratipad_nb.errors import WaitTimeout
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.settings import Endpoint
from pratipad_nb.transport.connecting import connect
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.protocol import LogSpec
from pratipad_nb.transport.subjects import Subjects

FLOW = "house"


class House:
    """A server with the logs of a flow that nobody runs, and a reader's way to it."""

    def __init__(self, folder: Path) -> None:
        store = CertificateStore.open(folder)
        self.server = EmbeddedServer(folder / "server", store.server("urn:pratipad:server"))
        self._edge = store.edge(FLOW, Party(FLOW, "edge").identity)
        self._reader = store.reader(FLOW, "cloud", Party(FLOW, "reader", "cloud").identity)

    async def start(self) -> None:
        url = await self.server.start([Party(FLOW, "edge"), Party(FLOW, "reader", "cloud")])
        self.endpoint = Endpoint(url, FLOW, self._reader)
        edge = await connect(Endpoint(url, FLOW, self._edge), role="edge", name="")
        subjects = Subjects(FLOW)
        for name, retention in ((subjects.output_stream, "log"), (subjects.mark_stream, "latest")):
            await edge.open_log(LogSpec(name, subjects.streams[name], 1 << 20, retention))
        await edge.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.start()
    yield made
    await made.server.stop()


@pytest.mark.parametrize("opened", [False, True], ids=["before the first take", "after one"])
async def test_a_take_ends_at_its_time_out_while_the_server_is_away(house: Any, opened: bool) -> None:
    async with AsyncCloud(FLOW, endpoint=house.endpoint) as cloud:
        if opened:
            with pytest.raises(WaitTimeout):
                await cloud.take(1, timeout=0.1)
        assert repr(cloud).endswith("connected>")
        await house.server.stop()
        for timeout in (1.0, 2.5):  # the second one long enough for a look into the log itself
            began = time.monotonic()
            with pytest.raises(WaitTimeout, match="server doesn't answer"):
                await cloud.take(1, timeout=timeout)
            assert time.monotonic() - began < timeout + patient(1)
        assert repr(cloud).endswith("link down>")


async def test_a_blocking_take_counts_the_opening_of_its_reader(house: Any) -> None:
    cloud = await asyncio.to_thread(Cloud(FLOW, endpoint=house.endpoint).__enter__)
    await house.server.stop()

    def took() -> float:
        began = time.monotonic()
        with pytest.raises(WaitTimeout, match="server doesn't answer"):
            cloud.take(1, timeout=1)
        spent = time.monotonic() - began
        cloud.close()
        return spent

    assert await asyncio.to_thread(took) < 1 + patient(1)


async def test_a_connect_that_is_cancelled_leaves_no_task(house: Any) -> None:
    before = asyncio.all_tasks()
    for moment in range(0, 40, 2):
        connecting = asyncio.create_task(connect(house.endpoint, role="reader", name="cloud"))
        await asyncio.wait({connecting}, timeout=moment / 1000)
        connecting.cancel()
        await asyncio.wait({connecting})
        if not connecting.cancelled():
            await connecting.result().close()
    assert asyncio.all_tasks() == before
