"""Pull asks for n and gets n: over slow devices, kept stores, gateways, and devices that heed nothing.

On both transports.
"""

from __future__ import annotations

import asyncio
import itertools

import pytest
from patience import eventually

from pratipad_nb import AsyncGateway
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.connecting import connect
from pratipad_nb.transport.frames import CreditFrame, HelloFrame, UplinkFrame
from pratipad_nb.transport.subjects import Subjects


async def known(flow, *names):
    await eventually(lambda: set(names) <= set(flow.devices))


async def passed(flow):
    await flow.settled()
    return flow.stats().delivered


class Slow:
    """A `read` that takes until it is let go, and says whether it has begun."""

    def __init__(self):
        self.go = asyncio.Event()
        self.begun = 0

    async def __call__(self):
        self.begun += 1
        await self.go.wait()
        return "slow"


async def test_a_slow_devices_late_reading_is_not_passed_on_besides_the_one_asked_of_another(scene):
    flow = await scene.flow("Pull <~> same <~> Output")
    read = Slow()
    slow = await scene.device(flow, "slow", read=read)
    await scene.device(flow, "quick", read=itertools.repeat("quick"))
    await known(flow, "slow", "quick")
    request = await flow.pull(6)
    await eventually(lambda: read.begun)
    await request.wait(20)
    assert [message.payload for message in await flow.take(6)] == ["quick"] * 6
    read.go.set()
    await eventually(lambda: slow.waiting == 1)
    assert await passed(flow) == 6
    # The late reading is held at its device, and is the first that the device is asked for next.
    await (await flow.pull(1, "slow")).wait(20)
    assert (await passed(flow), read.begun, slow.waiting) == (7, 1, 0)
    assert await flow.dead_letters() == []


async def test_what_a_killed_device_had_kept_counts_for_the_next_request(scene, tmp_path):
    flow = await scene.flow("Pull <~> same <~> Output")
    dies = await scene.device(flow, "dies", keep=tmp_path)
    for number in range(3):
        await dies.push(f"kept {number}")
    await scene.device(flow, "lives", read=itertools.repeat("lives"))
    await known(flow, "dies", "lives")
    await eventually(lambda: flow.edge.parts.ledger.accounts["dies"].spare == 3)
    await scene.kill(dies)
    await (await flow.pull(6)).wait(20)
    again = await scene.device(flow, "dies", keep=tmp_path)
    await eventually(lambda: flow.stats().devices["dies"].connected and again.mode)
    assert (await passed(flow), again.waiting) == (6, 3)
    await (await flow.pull(3, "dies")).wait(20)
    assert [message.payload for message in await flow.take(9)] == ["lives"] * 6 + [
        "kept 0",
        "kept 1",
        "kept 2",
    ]
    assert await flow.dead_letters() == []


async def test_a_gateway_and_a_device_bring_as_many_as_were_asked_for(scene):
    flow = await scene.flow("Pull <~> same <~> Output")
    await scene.device(flow, "reads", read=itertools.count())
    async with await AsyncGateway("gw").connect(flow) as gateway:
        for number in range(5):
            await gateway.push(number, device=f"t{number % 2}")
        await known(flow, "gw", "reads")
        await eventually(lambda: flow.edge.parts.ledger.accounts["gw"].spare == 5)
        for asked in (6, 12):
            await (await flow.pull(6)).wait(20)
            assert await passed(flow) == asked
        assert gateway.waiting == 0


class Heedless:
    """A device by its signals alone, which sends what it was ever asked for, and heeds nothing else."""

    def __init__(self, flow, link, name):
        self.flow, self.link, self.name = flow, link, name
        self.subjects = Subjects(flow.name)
        self.total = 0

    @classmethod
    async def connect(cls, flow, name="heedless"):
        endpoint = await flow.endpoint_for("device", name)
        link = await connect(endpoint, role="device", name=name)
        self = cls(flow, link, name)
        await link.subscribe(self.subjects.credit(name), self.hear)
        await self.hello()
        return self

    def hear(self, signal):
        self.total = max(self.total, decode(signal.data, CreditFrame).total)

    async def hello(self):
        frame = HelloFrame(self.flow.name, self.name, 1, 0, 0, True)
        await self.link.publish(self.subjects.hello(self.name), encode(frame))

    async def send(self, payloads):
        frame = UplinkFrame(self.flow.name, self.name, 1, 1, [0.0] * len(payloads), payloads)
        await self.link.append(self.subjects.up(self.name), encode(frame))


@pytest.fixture
async def heedless(scene):
    """A device that was asked for three readings, which another device has brought since."""
    flow = await scene.flow("Pull <~> [same, same] <~> Output")
    device = await Heedless.connect(flow)
    await scene.device(flow, "quick", read=itertools.repeat("quick"))
    await known(flow, "heedless", "quick")
    request = await flow.pull(6)
    await eventually(lambda: device.total == 3)
    await request.wait(20)
    yield flow, device
    await device.link.close()


async def test_readings_that_come_after_others_were_asked_are_kept_and_passed_on_when_told_to(heedless):
    flow, device = heedless
    await device.send(["late 1", "late 2", "late 3"])
    await eventually(lambda: flow.stats().received == 9)
    assert await passed(flow) == 6
    letters = await flow.dead_letters()
    assert [letter.payload for letter in letters] == ["late 1", "late 2", "late 3"]
    assert letters[0].processor == "Pull"
    assert "asked of another device" in letters[0].error
    assert await flow.retry_dead_letters() == 3
    assert [message.payload for message in await flow.take(9)] == ["quick"] * 6 + [
        "late 1",
        "late 2",
        "late 3",
    ]
    assert await flow.dead_letters() == []


async def test_late_readings_that_were_asked_for_once_more_pass_and_the_rest_does_not(heedless):
    flow, device = heedless
    request = await flow.pull(1, "heedless")
    await device.send(["late 1", "late 2", "late 3"])
    await request.wait(20)
    await eventually(lambda: flow.stats().received == 9)
    assert await passed(flow) == 7
    assert [letter.payload for letter in await flow.dead_letters()] == ["late 2", "late 3"]


async def test_no_more_than_max_demand_are_in_flight_when_a_device_answers_late(scene):
    flow = await scene.flow("Demand ~> gate ~> Output", max_demand=4, min_demand=0)
    device = await Heedless.connect(flow)
    await eventually(lambda: device.total == 1)
    scene.gate.open.clear()
    await scene.device(flow, "quick", read=itertools.count())
    await eventually(lambda: flow.stats().in_flight)
    await device.send(["a", "b", "c", "d"])
    for _ in range(20):
        await asyncio.sleep(0.005)
        assert flow.stats().in_flight <= 4
    scene.gate.open.set()
    await eventually(lambda: flow.stats().devices["heedless"].received == 4)
    await device.link.close()
