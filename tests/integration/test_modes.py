"""The acquisition modes, side by side: who starts a message, what limits it, and what happens when that
party is slow, absent or restarted. One table; each row holds on the in-memory transport and at a real
server with mutual TLS.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from patience import eventually

from pratipad_nb import FlowOptions
from pratipad_nb.errors import FlowError, WaitTimeout

TABLE = []


@dataclass(frozen=True)
class Row:
    mode: str
    when: str
    then: str
    check: Callable[[Any], Awaitable[None]]

    def __str__(self):
        return f"{self.mode} | {self.when} | {self.then}"


def row(mode, when, then):
    def add(check):
        TABLE.append(Row(mode, when, then, check))
        return check

    return add


async def payloads(flow, count, timeout=20):
    return [message.payload for message in await flow.take(count, timeout)]


async def nothing_more(flow):
    with pytest.raises(WaitTimeout):
        await flow.take(1, timeout=0.2)


async def quiet(measure, seconds=0.2):
    """Assert that `measure` stays what it is."""
    before = measure()
    await asyncio.sleep(seconds)
    assert measure() == before


def error_of(flow, device):
    found = flow.stats().devices.get(device)
    return found.error if found else ""


def counter():
    """A `read` that counts, and how often it was called."""
    numbers = itertools.count(1)

    def read():
        read.calls += 1
        return next(numbers)

    read.calls = 0
    return read


# -- Push, durable -------------------------------------------------------------------------------------------


@row("Push, durable", "who starts a message", "the device, unasked")
async def _(scene):
    flow = await scene.flow("Push ~> same ~> Output")
    device = await scene.device(flow)
    for number in range(100):
        await device.push(number)
    assert await payloads(flow, 100) == list(range(100))


@row("Push, durable", "what limits it", "the room at the edge: push waits for it")
async def _(scene):
    block = random.randbytes(200_000).hex()  # what no compression makes small
    scene.gate.open.clear()
    flow = await scene.flow("Push ~> gate ~> Output", options=FlowOptions(input_bytes=4 << 20))
    device = await scene.device(flow)
    pushed = []

    async def push_all():
        for number in range(100):
            await device.push([number, block])
            pushed.append(number)

    pushing = asyncio.create_task(push_all())
    await eventually(lambda: len(pushed) >= 48)  # the send buffer takes 42 of them, the input another 10
    await asyncio.sleep(0.5)
    assert len(pushed) < 60
    scene.gate.open.set()
    await pushing
    assert [number for number, _ in await payloads(flow, 100)] == list(range(100))


@row("Push, durable", "the device is slow", "its readings come at its pace, others' at theirs")
async def _(scene):
    flow = await scene.flow("Push ~> same ~> Output")
    await scene.device(flow, "slow", read=counter(), every=0.15)
    fast = await scene.device(flow, "fast")
    for number in range(50):
        await fast.push(number)
    await fast.flush()
    await eventually(lambda: flow.stats().devices["slow"].received >= 3)
    assert flow.stats().devices["fast"].received == 50


@row("Push, durable", "the device is absent", "nothing of it comes; others go on")
async def _(scene):
    flow = await scene.flow("Push ~> same ~> Output")
    gone, stays = await scene.device(flow, "gone"), await scene.device(flow, "stays")
    await (await gone.push("last words"))
    await scene.kill(gone)
    await (await stays.push("still here"))
    assert await payloads(flow, 2) == ["last words", "still here"]
    await eventually(lambda: set(flow.devices) == {"stays"})


@row(
    "Push, durable",
    "the device is restarted",
    "what it has a receipt for is there, then what is new, each once",
)
async def _(scene):
    flow = await scene.flow("Push ~> same ~> Output")
    first = await scene.device(flow)
    receipts = [await first.push(number) for number in range(50)]
    await receipts[-1]
    await scene.kill(first)
    second = await scene.device(flow)
    for number in range(50, 100):
        await second.push(number)
    assert await payloads(flow, 100) == list(range(100))
    await nothing_more(flow)


@row("Push, durable", "the edge is absent", "what is pushed is safe at the server and waits for it")
async def _(scene):
    flow = await scene.flow("Push ~> same ~> Output")
    device = await scene.device(flow)
    await (await device.push(0))
    await flow.stop()
    receipts = [await device.push(number) for number in range(1, 20)]
    await _receipt(receipts[-1])
    await flow.start()
    assert await payloads(flow, 20) == list(range(20))


@row("Push, durable", "the edge is restarted", "it goes on where it was: nothing lost, doubled or overtaken")
async def _(scene):
    flow = await scene.flow("Push ~> same ~> Output")
    device = await scene.device(flow)

    async def push_all():
        for number in range(600):
            await device.push(number)
            if number % 10 == 0:
                await asyncio.sleep(0.002)

    pushing = asyncio.create_task(push_all())
    for _ in range(3):
        await flow.stop()
        await flow.start()
    await pushing
    assert await payloads(flow, 600) == list(range(600))
    await nothing_more(flow)


# -- Push, fast ----------------------------------------------------------------------------------------------


@row("Push, fast", "who starts a message", "the device, unasked")
async def _(scene):
    flow = await scene.flow("Push ~> same ~> Output", delivery="fast")
    device = await scene.device(flow)
    for number in range(100):
        await device.push(number)
    assert await payloads(flow, 100) == list(range(100))


@row("Push, fast", "what limits it", "nothing: push goes on, the edge drops the oldest and counts them")
async def _(scene):
    scene.gate.open.clear()
    flow = await scene.flow("Push ~> gate ~> Output", delivery="fast")
    device = await scene.device(flow)
    for number in range(1000):
        await device.push(number)
        await device.flush(5)  # a frame each: the edge's buffer holds 256
    scene.gate.open.set()
    await eventually(lambda: flow.stats().delivered + flow.stats().dropped == 1000)
    stats = flow.stats()
    assert stats.dropped > 500
    assert stats.devices["room1"].gaps == stats.dropped
    taken = await payloads(flow, stats.delivered)
    assert taken == sorted(set(taken))
    assert taken[-1] == 999


@row("Push, fast", "the device is absent", "nothing of it comes; others go on")
async def _(scene):
    flow = await scene.flow("Push ~> same ~> Output", delivery="fast")
    gone, stays = await scene.device(flow, "gone"), await scene.device(flow, "stays")
    await scene.kill(gone)
    await stays.push("still here")
    assert await payloads(flow, 1) == ["still here"]
    await eventually(lambda: set(flow.devices) == {"stays"})


@row("Push, fast", "the device is restarted", "it goes on; its numbers begin anew, and no gap is counted")
async def _(scene):
    flow = await scene.flow("Push ~> same ~> Output", delivery="fast")
    for name in ("first", "second"):
        device = await scene.device(flow)
        await device.push(name)
        assert await payloads(flow, 1) == [name]
        await scene.kill(device)
    assert flow.stats().dropped == 0


@row("Push, fast", "the edge is absent", "what is sent meanwhile is gone; push goes on")
async def _(scene):
    flow = await scene.flow("Push ~> same ~> Output", delivery="fast")
    device = await scene.device(flow)
    await device.push("before")
    assert await payloads(flow, 1) == ["before"]
    await flow.stop()
    await device.push("lost")
    await device.flush(5)
    await flow.start()
    await eventually(lambda: "room1" in flow.devices)
    await device.push("after")
    assert await payloads(flow, 1) == ["after"]


@row("Push, fast", "the edge is restarted", "it goes on with what comes then, nothing twice")
async def _(scene):
    flow = await scene.flow("Push ~> same ~> Output", delivery="fast")
    device = await scene.device(flow)
    taken = []
    for start in range(0, 60, 20):
        for number in range(start, start + 20):
            await device.push(number)
        taken += await payloads(flow, 20)
        await flow.stop()
        await flow.start()
        await eventually(lambda: "room1" in flow.devices)
    assert taken == list(range(60))


# -- Demand --------------------------------------------------------------------------------------------------


@row("Demand", "who starts a message", "the edge: what is pushed unasked is held at the device")
async def _(scene):
    scene.gate.open.clear()
    flow = await scene.flow("Demand ~> gate ~> Output", max_demand=3, min_demand=0)
    device = await scene.device(flow)
    for number in range(10):
        await device.push(number)
    await eventually(lambda: device.sent == 3)
    await quiet(lambda: device.sent)
    assert device.waiting == 7
    scene.gate.open.set()
    assert await payloads(flow, 10) == list(range(10))


@row("Demand", "what limits it", "the room at the edge: no more than max_demand are asked for or in flight")
async def _(scene):
    flow = await scene.flow("Demand ~> gate ~> Output", max_demand=8, min_demand=4)
    scene.gate.open.clear()
    devices = [await scene.device(flow, f"d{n}", read=itertools.count()) for n in range(3)]
    await eventually(lambda: flow.stats().in_flight > 4)
    for _ in range(20):  # what was asked for may still be on its way, so the number may yet grow: up to 8
        assert flow.stats().in_flight <= sum(device.sent for device in devices) <= 8
        await asyncio.sleep(0.02)
    scene.gate.open.set()
    await flow.take(100)


@row("Demand", "what limits it, too", "the rate: so many messages a second, whatever the room")
async def _(scene):
    flow = await scene.flow("Demand ~> same ~> Output", rate=40)
    await scene.device(flow, read=itertools.count())
    received = [message.received for message in await flow.take(30)]
    assert 28 / 50 < received[-1] - received[0] < 28 / 25


@row("Demand", "the edge is slow", "devices are asked for less; nothing is lost, and the order stays")
async def _(scene):
    async def slow(payload):
        await asyncio.sleep(0.01)
        return payload

    flow = await scene.flow("Demand ~> slow ~> Output", max_demand=4, min_demand=2, namespace={"slow": slow})
    device = await scene.device(flow, read=range(60))
    most = 0
    while flow.stats().delivered < 60:
        most = max(most, device.sent - flow.stats().delivered)
        await asyncio.sleep(0.01)
    assert most <= 4 + 1  # one is stored and not counted yet
    assert await payloads(flow, 60) == list(range(60))


@row("Demand", "the edge is absent", "what is pushed is held, and the receipt waits")
async def _(scene):
    flow = await scene.flow("Demand ~> same ~> Output")
    device = await scene.device(flow)
    await (await device.push(0))
    await flow.stop()
    receipts = [await device.push(number) for number in range(1, 20)]
    await quiet(lambda: device.sent, 0.2)
    await flow.start()
    await _receipt(receipts[-1])
    assert await payloads(flow, 20) == list(range(20))


@row("Demand", "the edge is restarted", "it asks anew: nothing lost, nothing twice")
async def _(scene):
    flow = await scene.flow("Demand ~> same ~> Output", max_demand=20)
    await scene.device(flow, read=range(3000))
    for _ in range(3):
        await flow.take(1)
        await flow.stop()
        await flow.start()
    taken = await payloads(flow, 2997)
    assert taken == sorted(set(taken))
    assert taken[-1] == 2999


@row("Demand", "a device is silent", "others are asked in its place")
async def _(scene):
    async def silent():
        await asyncio.Event().wait()

    flow = await scene.flow("Demand ~> same ~> Output", max_demand=4, min_demand=0)
    await scene.device(flow, "silent", read=silent)
    await eventually(lambda: "silent" in flow.devices)
    await scene.device(flow, "works", read=range(300))
    assert await payloads(flow, 300) == list(range(300))


@row("Demand", "a device fails", "others are asked in its place, and it again once it works")
async def _(scene):
    broken = True

    def read():
        if broken:
            raise OSError("no answer from the sensor")
        return "works again"

    flow = await scene.flow("Demand ~> same ~> Output", max_demand=4, min_demand=0)
    await scene.device(flow, "broken", read=read)
    await eventually(lambda: "no answer" in error_of(flow, "broken"))
    await scene.device(flow, "works", read=range(300))
    assert await payloads(flow, 300) == list(range(300))
    broken = False
    assert "works again" in await payloads(flow, 1)


@row("Demand", "a device is absent", "what was asked of it is asked of others")
async def _(scene):
    async def silent():
        await asyncio.Event().wait()

    flow = await scene.flow("Demand ~> same ~> Output", max_demand=1, min_demand=0)
    dies = await scene.device(flow, "dies", read=silent)
    await eventually(lambda: dies._credit.total == 1)
    await scene.kill(dies)
    await scene.device(flow, "lives", read=range(10))
    assert await payloads(flow, 10) == list(range(10))


@row("Demand", "a device is restarted", "it is asked again, within the flow's room")
async def _(scene):
    flow = await scene.flow("Demand ~> same ~> Output", max_demand=4)
    await scene.device(flow, "other", read=itertools.repeat("other"))
    for name in ("first", "second", "third"):
        device = await scene.device(flow, read=itertools.repeat(name))
        await eventually(lambda device=device: device.sent > 5)
        await scene.kill(device)
    await flow.settled()
    assert {"first", "second", "third", "other"} == set(await payloads(flow, flow.stats().delivered))


# -- Pull ----------------------------------------------------------------------------------------------------


@row("Pull", "who starts a message", "the cloud: unasked, nothing is read and nothing sent")
async def _(scene):
    flow = await scene.flow("Pull <~> same <~> Output")
    read = counter()
    reads, pushes = await scene.device(flow, "reads", read=read), await scene.device(flow, "pushes")
    await pushes.push("held")
    await eventually(lambda: len(flow.devices) == 2)
    await quiet(lambda: (read.calls, reads.sent, pushes.sent))
    assert (read.calls, pushes.waiting) == (0, 1)
    await (await flow.pull(2)).wait(10)
    assert set(await payloads(flow, 2)) == {1, "held"}


@row("Pull", "what limits it", "the cloud's number: exactly so many come, devices in turn")
async def _(scene):
    flow = await scene.flow("Pull <~> same <~> Output")
    for name in ("a", "b", "c"):
        await scene.device(flow, name, read=itertools.repeat(name))
    await eventually(lambda: len(flow.devices) == 3)
    await (await flow.pull(31)).wait(10)
    taken = await payloads(flow, 31)
    assert sorted(taken.count(name) for name in "abc") == [10, 10, 11]
    await nothing_more(flow)


@row("Pull", "what limits it, too", "the rate, however many are asked for")
async def _(scene):
    flow = await scene.flow("Pull <~> same <~> Output", rate=40)
    await scene.device(flow, read=itertools.count())
    request = await flow.pull(30)
    received = [message.received for message in await flow.take(30)]
    await request.wait(10)
    assert 28 / 50 < received[-1] - received[0] < 28 / 25


@row("Pull", "the cloud is slow", "readings are as fresh as its requests: none waits for it anywhere")
async def _(scene):
    flow = await scene.flow("Pull <~> same <~> Output")
    read = counter()
    await scene.device(flow, read=read)
    await eventually(lambda: "room1" in flow.devices)
    for number in range(1, 4):
        await quiet(lambda: read.calls, 0.1)
        await (await flow.pull()).wait(10)
        assert await payloads(flow, 1) == [number]


@row("Pull", "the cloud is absent", "nothing is sent; what is pushed is held")
async def _(scene):
    flow = await scene.flow("Pull <~> same <~> Output")
    device = await scene.device(flow)
    cloud = await scene.cloud(flow)
    await eventually(lambda: "room1" in flow.devices)
    await cloud.close()
    await device.push("held")
    await quiet(lambda: (device.sent, device.waiting))
    assert device.waiting == 1


@row("Pull", "the cloud is restarted", "its successor pulls, and reads on where it stopped")
async def _(scene):
    flow = await scene.flow("Pull <~> same <~> Output")
    await scene.device(flow, read=itertools.count(1))
    await eventually(lambda: "room1" in flow.devices)
    first = await scene.cloud(flow)
    await (await first.pull(4)).wait(10)
    assert [message.payload for message in await first.take(3)] == [1, 2, 3]
    await first.close()
    second = await scene.cloud(flow)
    await (await second.pull(2)).wait(10)
    assert [message.payload for message in await second.take(3)] == [4, 5, 6]


@row(
    "Pull", "a device is silent", "asked alone, the time-out names it; asked with others, those answer for it"
)
async def _(scene):
    async def never():
        await asyncio.Event().wait()

    flow = await scene.flow("Pull <~> same <~> Output")
    await scene.device(flow, "mute", read=never)
    await scene.device(flow, "talks", read=itertools.count())
    await eventually(lambda: len(flow.devices) == 2)
    with pytest.raises(WaitTimeout, match="silent: mute"):
        await (await flow.pull(1, device="mute")).wait(0.3)
    await (await flow.pull(6)).wait(10)
    assert len(await payloads(flow, 6)) == 6


@row("Pull", "a device is absent", "what was asked of it is asked of others")
async def _(scene):
    async def never():
        await asyncio.Event().wait()

    flow = await scene.flow("Pull <~> same <~> Output")
    dies = await scene.device(flow, "dies", read=never)
    await scene.device(flow, "lives", read=itertools.count())
    await eventually(lambda: len(flow.devices) == 2)
    request = await flow.pull(10)
    await eventually(lambda: dies._credit.total == 5)
    await scene.kill(dies)
    await request.wait(10)
    assert await payloads(flow, 10) == list(range(10))


@row("Pull", "a device is restarted", "what it owed is asked of it anew")
async def _(scene):
    async def never():
        await asyncio.Event().wait()

    flow = await scene.flow("Pull <~> same <~> Output")
    dies = await scene.device(flow, read=never)
    await eventually(lambda: "room1" in flow.devices)
    request = await flow.pull(3, device="room1")
    await eventually(lambda: dies._credit.total == 3)
    await scene.kill(dies)
    await scene.device(flow, read=itertools.count())
    await request.wait(10)
    assert await payloads(flow, 3) == [0, 1, 2]
    await nothing_more(flow)


@row("Pull", "the edge is slow", "the request is done when its readings have left the pipeline")
async def _(scene):
    scene.gate.open.clear()
    flow = await scene.flow("Pull <~> gate <~> Output")
    device = await scene.device(flow, read=itertools.count())
    await eventually(lambda: "room1" in flow.devices)
    request = await flow.pull(5)
    await eventually(lambda: device.sent == 5)
    with pytest.raises(WaitTimeout, match="5 of 5 readings"):
        await request.wait(0.1)
    scene.gate.open.set()
    await request.wait(10)
    assert flow.stats().delivered == 5


@row("Pull", "the edge is absent", "a pull says so")
async def _(scene):
    flow = await scene.flow("Pull <~> same <~> Output")
    await flow.stop()
    with pytest.raises(FlowError, match=r"is not running.*start"):
        await flow.pull()


@row("Pull", "the edge is restarted", "its devices answer the next pull, exactly")
async def _(scene):
    flow = await scene.flow("Pull <~> same <~> Output")
    await scene.device(flow, read=itertools.count(1))
    for start in (1, 4, 7):
        await eventually(lambda: "room1" in flow.devices)
        await (await flow.pull(3)).wait(10)
        assert await payloads(flow, 3) == [start, start + 1, start + 2]
        await flow.stop()
        await flow.start()
    await nothing_more(flow)


# ------------------------------------------------------------------------------------------------------------


async def _receipt(receipt):
    async with asyncio.timeout(10):
        await receipt


@pytest.mark.parametrize("row", TABLE, ids=str)
async def test_the_table_of_modes(row, scenes):
    async def check(scene):
        try:
            await row.check(scene)
        except BaseException as error:
            error.add_note(f"on the transport: {scene.kind}")
            raise

    async with asyncio.TaskGroup() as group:
        for scene in scenes:
            group.create_task(check(scene))


def test_the_table_says_of_each_mode_who_starts_what_limits_and_what_happens_when_slow_absent_restarted():
    for mode in ("Push, durable", "Push, fast", "Demand", "Pull"):
        said = " ".join(row.when for row in TABLE if row.mode == mode)
        for asked in ("who starts", "what limits", "absent", "restarted"):
            assert asked in said, mode
