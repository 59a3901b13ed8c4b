"""Orders for devices: sent in order, again until they are run, deleted from the log once dealt with."""

from __future__ import annotations

import asyncio
import math

import msgspec
import pytest
from msgspec import Raw

from pratipad_nb.errors import WaitTimeout
from pratipad_nb.runtime.devices.foreign import PlainDevices
from pratipad_nb.runtime.devices.order_queues import OrderQueues, order_number
from pratipad_nb.runtime.devices.roster import Roster
from pratipad_nb.transport.codec import decode
from pratipad_nb.transport.frames import DownFrame
from pratipad_nb.transport.subjects import Subjects


class Wire:
    """A connection, an attendance and an order log that note what they are told; `down` makes them fail.

    `known`: the order log is known to be the log that the orders were read from. `live`: the server tells who
    comes and goes. `heard`: the subjects that are listened to.
    """

    def __init__(self):
        self.sent, self.deleted, self.asked, self.down = [], [], [], False
        self.known, self.live, self.heard = True, False, frozenset()
        self.on_publish = lambda: None

    async def publish(self, subject, data):
        await asyncio.sleep(0)
        if self.down:
            raise WaitTimeout("the link is down")
        frame = decode(data, DownFrame)
        self.sent.append((subject.rpartition(".")[2], frame.payload, frame.after))
        self.on_publish()

    async def delete(self, sequence):
        if self.down:
            raise WaitTimeout("the link is down")
        self.deleted.append(sequence)

    async def listening(self, subjects):
        self.asked += subjects
        return frozenset(subjects) & self.heard


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
def roster():
    return Roster({}, {}, lambda device: True)


@pytest.fixture
async def queues(wire, roster):
    plain = PlainDevices(wire, Subjects("house"), wire, roster)
    queues = OrderQueues(wire, Subjects("house"), wire, wire, plain)
    task = asyncio.create_task(queues.run())
    yield queues
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def put(queues, sequence, *payloads, device="room1", connected=True):
    queues.begin(sequence)
    for place, payload in enumerate(payloads):
        number = order_number(sequence, place)
        queues.put(
            device,
            DownFrame("house", 1, number, f"{number}", 0.0, payload),
            expires=1e12,
            connected=connected,
        )
    queues.end(sequence)


async def test_orders_go_out_in_order_and_each_names_the_one_before_it(queues, wire, until):
    put(queues, 1, "a", "b")
    put(queues, 2, "c")
    await until(lambda: len(wire.sent) == 3)
    assert wire.sent == [
        ("room1", "a", 0),
        ("room1", "b", order_number(1, 0)),
        ("room1", "c", order_number(1, 1)),
    ]


async def test_an_entry_is_deleted_once_all_its_orders_are_run(queues, wire, until):
    put(queues, 1, "a", "b")
    put(queues, 2, "c")
    queues.hello("room1", order_number(1, 0), connected=True)
    await until(lambda: queues.waiting == 2)
    assert wire.deleted == []
    queues.hello("room1", order_number(1, 1), connected=True)
    await until(lambda: wire.deleted == [1])
    assert queues.counts("room1")[1] == 2


async def test_further_orders_wait_while_the_payloads_fill_the_memory(queues, wire, until, monkeypatch):
    monkeypatch.setattr("pratipad_nb.runtime.devices.order_queues._MEMORY", 1_000)
    large = Raw(msgspec.msgpack.encode("x" * 600))
    for device in ("room1", "room2", "room3"):  # one order for three devices
        put(queues, 1, large, device=device)
    assert not queues.full
    put(queues, 2, large)
    waiting = asyncio.ensure_future(queues.room())
    for device in ("room1", "room2"):
        queues.hello(device, order_number(1, 0), connected=True)
        await asyncio.sleep(0)
    assert queues.full
    assert not waiting.done()
    queues.hello("room3", order_number(1, 0), connected=True)
    await asyncio.wait_for(waiting, 5)
    queues.hello("room1", order_number(2, 0), connected=True)
    assert queues._memory == 0
    assert not queues._packed


async def test_an_entry_for_nobody_is_deleted_at_once(queues, wire, until):
    put(queues, 5)
    await until(lambda: wire.deleted == [5])


async def test_a_link_that_is_down_ends_nothing_and_what_waits_goes_out_and_is_deleted_later(
    queues, wire, until
):
    wire.down = True
    put(queues, 1, "a")
    queues.hello("room2", 0, connected=True)
    await until(lambda: queues.waiting == 1)
    queues.hello("room1", order_number(1, 0), connected=True)
    put(queues, 2, "b")
    await asyncio.sleep(0)
    wire.down = False
    await until(lambda: wire.deleted == [1] and ("room1", "b", 0) in wire.sent)


async def test_a_device_that_comes_while_orders_are_being_sent_disturbs_nothing(queues, wire, until):
    wire.on_publish = lambda: queues.hello(f"new{len(wire.sent)}", 0, connected=True)
    put(queues, 1, *range(10))
    await until(lambda: len(wire.sent) == 10)


async def test_what_a_device_lost_is_sent_to_it_again_when_it_has_started_anew(queues, wire, until):
    put(queues, 1, "a", "b")
    await until(lambda: len(wire.sent) == 2)
    queues.hello("room1", 0, connected=True)
    await until(lambda: len(wire.sent) == 4)
    assert [payload for _, payload, _ in wire.sent] == ["a", "b", "a", "b"]
    assert (queues.sent, queues.counts("room1")) == (2, (2, 0))


def looked_at(queues):
    """Note which devices are looked at from now on, but for the look at all of them twice a second."""
    devices, send = [], queues._send

    async def noting(device, queue):
        devices.append(device)
        await send(device, queue)

    queues._send, queues._next_look = noting, math.inf
    return devices


async def test_a_hello_and_an_order_look_at_their_own_device_alone_however_many_have_orders(
    queues, wire, until
):
    for number in range(1, 1001):
        put(queues, number, "a", device=f"room{number}")
    await until(lambda: len(wire.sent) == 1000)
    devices = looked_at(queues)
    queues.hello("room7", 0, connected=True)
    await until(lambda: len(wire.sent) == 1001)
    put(queues, 1001, "b", device="room8")
    await until(lambda: len(wire.sent) == 1002)
    assert devices == ["room7", "room8"]


async def test_a_hello_of_a_device_without_orders_costs_nothing(queues, wire, until):
    put(queues, 1, "a")
    await until(lambda: len(wire.sent) == 1)
    devices = looked_at(queues)
    for number in range(1000):
        queues.hello(f"other{number}", 0, connected=True)
        queues.gone(f"other{number}")
    assert not queues._wake.is_set()
    assert devices == []


async def test_who_listens_is_asked_for_the_devices_that_an_order_came_for_and_not_for_all_that_are_away(
    queues, wire, until
):
    put(queues, 1, "a", device="away", connected=False)
    await until(lambda: wire.asked)
    looked_at(queues)
    wire.asked.clear()
    put(queues, 2, "b", device="here")
    await until(lambda: len(wire.sent) == 1)
    assert wire.asked == []
    put(queues, 3, "c", device="plain", connected=False)
    await until(lambda: wire.asked == [Subjects("house").plain("plain")])


async def test_a_device_that_goes_away_has_no_more_sent_again_than_what_was_sent(queues, wire, until):
    put(queues, 1, *range(1000))
    await until(lambda: len(wire.sent) == 64)
    queues.gone("room1")
    queues.hello("room1", order_number(1, 9), connected=True)
    await until(lambda: len(wire.sent) == 128)
    assert [payload for _, payload, _ in wire.sent[64:]] == list(range(10, 74))
    assert queues.waiting == 990


async def test_what_expires_is_dropped_and_counted_wherever_its_device_is(queues, wire, until):
    queues.begin(1)
    for place, (device, connected) in enumerate({"here": True, "away": False}.items()):
        frame = DownFrame("house", 1, order_number(1, place), f"{place}", 0.0, "late")
        queues.put(device, frame, expires=1.0, connected=connected)
    queues.end(1)
    put(queues, 2, "in time")
    await until(lambda: wire.deleted == [1])
    assert (queues.expired, queues.waiting) == (2, 1)
