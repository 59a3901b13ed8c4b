"""Orders of a reader that keeps to no rule: refused and counted, and the orders of others go on."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from pratipad_nb.errors import SettingsError
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import DownFrame, HelloFrame, Order, OrderFrame


class House:
    """An edge with devices that are there, and the orders that these got."""

    def __init__(self, place, edge, connection, got):
        self.place, self.edge, self.connection, self.got = place, edge, connection, got

    async def store(self, *orders, sent=None, reader="hostile"):
        frame = OrderFrame(time.time() if sent is None else sent, list(orders))
        await self.connection.append(self.place.subjects.order(reader), encode(frame))

    @property
    def refused(self):
        return self.edge.snapshot().backward.refused


@pytest.fixture
async def house(memory, edges):
    edge = await edges.running("Push <~> same <~> Output")
    connection, got = await memory.connection(), []

    def note(signal):
        got.append((signal.subject.rpartition(".")[2], decode(signal.data, DownFrame)))

    await connection.subscribe(memory.subjects.down_all, note)
    for number in range(20):
        name = f"room{number}"
        await connection.publish(memory.subjects.hello(name), encode(HelloFrame("house", name, 1, 0)))
    return House(memory, edge, connection, got)


async def honest(house, until):
    await house.store(Order("good", "on", ["room1"]), reader="honest")
    await until(lambda: house.got)
    assert [(device, down.payload, down.to) for device, down in house.got] == [("room1", "on", None)]


@pytest.mark.parametrize(
    "orders",
    [
        [Order(f"{number}", 1) for number in range(4096)],
        [Order("1", 1, [f"x{number}" for number in range((1 << 16) + 1)])],
        [Order(f"{number}", 1, ["room2"] * 40) for number in range(2000)],
    ],
    ids=["all-again-and-again", "one-for-many", "many-for-many"],
)
async def test_an_entry_whose_orders_are_for_too_many_devices_is_refused(house, until, orders):
    await until(lambda: len(house.edge.parts.roster.known) == 20)
    await house.store(*orders)
    await honest(house, until)
    assert house.refused == 1


@pytest.mark.parametrize("sent", [math.nan, math.inf, -math.inf, 1e300])
async def test_orders_of_no_time_are_refused(house, until, sent):
    await house.store(Order("1", 1), sent=sent)
    await honest(house, until)
    assert house.refused == 1


async def test_a_device_that_an_order_names_again_and_again_runs_the_order_once(house, until):
    await house.store(Order("1", "on", ["room1"] * 30_000))
    await until(lambda: house.got)
    await house.store(Order("2", "off", ["hall.lamp", "hall.lamp", "room1"]))
    await until(lambda: len(house.got) == 2)
    assert [(device, down.payload, down.to) for device, down in house.got] == [
        ("room1", "on", None),
        ("room1", "off", None),
    ]


async def test_what_can_be_no_device_is_left_out_with_one_word_about_all(house, until, caplog):
    await house.store(Order("1", "on", ["room1", *(f"no device {n} {'x' * 300}" for n in range(500))]))
    await until(lambda: house.got)
    assert house.got[0][0] == "room1"
    assert house.refused == 1
    assert sum(len(record.getMessage()) for record in caplog.records) < 2000


async def test_an_order_to_more_devices_than_an_edge_takes_is_refused_where_it_is_sent(house):
    with pytest.raises(SettingsError, match="65,537 devices; 65,536 at most"):
        await house.edge.order("on", to=[f"x{number}" for number in range((1 << 16) + 1)])


@pytest.mark.parametrize("claim", ["beyond", "later"])
async def test_a_device_that_claims_to_have_run_what_was_never_sent_has_orders_numbered_anew_few_times(
    house, until, claim
):
    backward, numberings = house.edge.parts.backward, set()
    for turn in range(60):
        numbering = backward.epoch if claim == "beyond" else 7
        hello = HelloFrame("house", "hostile", 1, 0, numbering=numbering, ready=1 << 50)
        hello.ready_at = time.time() + 1e6
        await house.connection.publish(house.place.subjects.hello("hostile"), encode(hello))
        numberings.add(backward.epoch)
        await asyncio.sleep(0.006 if turn % 10 else 0.05)  # the edge works on each, and numbers anew
    assert 1 < len(numberings) <= 6
    await honest(house, until)
