"""Letting parties in while a flow is under load disturbs nobody."""

from __future__ import annotations

import asyncio

import pytest
from patience import patient

from pratipad_nb.server.register import Change
from pratipad_nb.session.site import Site
from pratipad_nb.transport.parties import Party

pytestmark = pytest.mark.parametrize("scene", ["nats"], indirect=True)


async def test_thirty_reloads_under_load_lose_nothing_and_let_nothing_come_again(scene):
    flow = await scene.flow("Push <~> same <~> Output")
    orders: list[int] = []
    devices = [await scene.device(flow, f"busy{number}", receive=orders.append) for number in range(3)]
    stopped = asyncio.Event()
    pushed = [0, 0, 0]

    async def push(which: int) -> None:
        while not stopped.is_set():
            await devices[which].push([which, pushed[which]])
            pushed[which] += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for which in range(len(devices)):
            group.create_task(push(which))
        for number in range(30):
            # Each fifth brings a new account, which takes two reloads.
            role = "reader" if number % 5 == 4 else "device"
            await flow.endpoint_for(role, f"new{number}")
            await flow.send(number, to="busy0")
        stopped.set()
    for device in devices:
        await device.flush()
    got = []
    async with asyncio.timeout(patient(60)):
        while len(got) < sum(pushed):
            got += [message.payload for message in await flow.take(min(500, sum(pushed) - len(got)))]
    for which, count in enumerate(pushed):
        assert [n for w, n in got if w == which] == list(range(count))
    stats = flow.stats()
    assert (stats.repeats, stats.state) == (0, "running")
    async with asyncio.timeout(patient(20)):
        while len(orders) < 30:
            await asyncio.sleep(0.01)
    assert orders == list(range(30))


async def test_a_device_is_added_to_a_thousand_in_one_change_of_the_register(scene):
    """How long that takes is measured, and stands in docs/benchmarks.md."""
    flow = await scene.flow("Push ~> same ~> Output")
    site = next(iter(Site._open.values()))
    many = tuple(Party(flow.name, "device", f"d{number}") for number in range(1000))
    await site._on_portal(site._change(Change(many)))
    device = await scene.device(flow, "last")
    await device.push("in")
    assert [message.payload for message in await flow.take(1)] == ["in"]
    assert len(site._register.parties) >= 1002
