"""What is no frame in any log of a flow ends nothing, at a real server: stored with an edge's certificate."""

from __future__ import annotations

import contextlib
import secrets

import nats
import pytest
from patience import eventually

from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.subjects import Subjects
from pratipad_nb.transport.tls import client_context

pytestmark = pytest.mark.parametrize("scene", ["nats"], indirect=True)


@contextlib.asynccontextmanager
async def raw_edge(flow):
    """Yield a connection of the library `nats`, which the server knows as the flow's edge."""
    client = await nats.connect(
        flow.endpoint.url,
        tls=client_context(flow.endpoint.credentials),
        tls_handshake_first=True,
        inbox_prefix=f"{Party(flow.name, 'edge').inbox}.{secrets.token_hex(4)}",
    )
    try:
        yield client
    finally:
        await client.close()


@pytest.mark.parametrize("garbage", [b"", b"PNB\x00?"])
async def test_a_flow_runs_and_starts_again_with_what_is_no_frame_in_each_of_its_logs(scene, garbage):
    flow = await scene.flow("Push <~> same <~> Output")
    orders, subjects = [], Subjects(flow.name)
    device = await scene.device(flow, "honest", receive=orders.append)
    cloud = await scene.cloud(flow, "desk")

    async def goes_on(number):
        await device.push(number)
        assert [m.payload for m in await cloud.take(1)] == [number]
        await flow.send(number, to="honest")
        await eventually(lambda: orders[-1:] == [number])

    await goes_on(1)
    marks = [subjects.mark(name) for name in ("partition-0", "orders", "edges")]
    async with raw_edge(flow) as client:
        for subject in (subjects.out(0), subjects.edge_order, subjects.dead("same"), *marks):
            await client.request(subject, garbage, timeout=20)
        await goes_on(2)
        assert await flow.dead_letters() == []
        assert await flow.retry_dead_letters() == 0
        await eventually(lambda: flow.stats().unreadable >= 4)
    await flow.stop()
    await flow.start()
    await goes_on(3)
    assert orders == [1, 2, 3]
