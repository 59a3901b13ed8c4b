"""Orders and replies that version 0.1 stored under one subject, at an edge of today."""

from __future__ import annotations

import time

import pytest

from pratipad_nb.settings import Storage
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import DownFrame, HelloFrame, Order, OrderFrame
from pratipad_nb.transport.protocol import LogSpec


async def stored_by_0_1(place):
    """Store an order and a reply as version 0.1 did, and return a connection."""
    subjects, connection = place.subjects, await place.connection()
    await connection.open_log(
        LogSpec(subjects.order_stream, (subjects.former_order,), 1 << 20, "log", 3600.0)
    )
    for payload, reply in (("order", False), ("reply", True)):
        frame = OrderFrame(time.time(), [Order(payload, payload, ["room1"])], reply=reply)
        await connection.append(subjects.former_order, encode(frame))
    return connection


@pytest.mark.parametrize(
    ("notation", "passing"),
    [
        ("Push <~> Twice <~> Output", ["orderorder", "reply"]),
        ("Push <~> Twice ~> Output", ["reply"]),
        ("Push ~> Twice ~> Output", []),
    ],
)
async def test_what_version_0_1_stored_goes_on_as_the_arrows_let_it(memory, edges, until, notation, passing):
    class Twice:
        def process(self, payload):
            return payload

        def backward(self, payload):
            return payload * 2

    connection, got = await stored_by_0_1(memory), []
    await connection.subscribe(memory.subjects.down("room1"), lambda s: got.append(decode(s.data, DownFrame)))
    edge = await edges.running(notation, {"Twice": Twice})
    await connection.publish(memory.subjects.hello("room1"), encode(HelloFrame("house", "room1", 1, 0)))
    await until(lambda: [frame.payload for frame in got] == passing)
    await until(lambda: edge.snapshot().backward.refused == 2 - len(passing))


async def test_new_orders_are_stored_though_the_disk_is_tight(memory, edges):
    connection = await stored_by_0_1(memory)
    memory.broker.store_as(Storage(tight=True))
    assert (await connection.storage()).tight
    edge = await edges.running()
    await edge.order("led on", to="room1")
    log = await connection.find_log(memory.subjects.order_stream)
    assert await log.latest(memory.subjects.edge_order) is not None
