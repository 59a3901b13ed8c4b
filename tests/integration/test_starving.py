"""No party starves the others: a raw client sends what it likes, and the others' messages flow and are whole.

At a real server, since these clients are the library's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random

import pytest
from hostile import HELLOS, raw_client
from patience import eventually, patient

from pratipad_nb import FlowOptions
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import HelloFrame, UplinkFrame
from pratipad_nb.transport.subjects import Subjects

pytestmark = pytest.mark.parametrize("scene", ["nats"], indirect=True)


def frame(flow, device, first, *, epoch=7, count=1):
    return encode(UplinkFrame(flow.name, device, epoch, first, [1.0] * count, [first] * count))


async def flood(client, subject, frames):
    """Have all `frames` stored, in their order."""
    for start in range(0, len(frames), 100):
        await asyncio.gather(
            *(client.request(subject, each, timeout=20) for each in frames[start : start + 100])
        )


async def honest_messages_arrive(flow, device, count, seconds):
    """Push `count` messages, and take them, in their order, within so many seconds of a quiet machine."""
    async with asyncio.timeout(patient(seconds)):
        for number in range(count):
            await device.push(number)
        got = []
        while len(got) < count:
            got += [m.payload for m in await flow.take(1) if m.device == device.name]
    assert got == list(range(count))


@pytest.mark.parametrize("steps", ["up", "down", "epochs"])
async def test_a_device_whose_numbers_have_gaps_without_end_holds_up_nobody(scene, tmp_path, steps):
    flow = await scene.flow("Push ~> same ~> Output")
    honest = await scene.device(flow, "honest")
    subject = Subjects(flow.name).up("hostile")
    if steps == "epochs":
        frames = [frame(flow, "hostile", 10, epoch=epoch) for epoch in range(1, 501)]
    else:
        firsts = range(10, 5010, 10)
        frames = [frame(flow, "hostile", n) for n in (firsts if steps == "up" else reversed(firsts))]
    async with raw_client(flow, "device", "hostile", tmp_path) as client:
        flooding = asyncio.create_task(flood(client, subject, frames))
        await honest_messages_arrive(flow, honest, 50, seconds=5)
        await flooding
        await flow.settled(patient(5))
    devices = flow.stats().devices
    assert (devices["honest"].received, devices["honest"].gaps) == (50, 0)
    if steps == "up":
        assert (devices["hostile"].received, devices["hostile"].gaps) == (500, 500 * 9)
    await eventually(lambda: flow.state == "running")


async def test_a_device_that_sends_what_is_no_frame_holds_up_nobody_and_is_named(scene, tmp_path):
    flow = await scene.flow("Push ~> same ~> Output", options=FlowOptions(dead_letter_bytes=1 << 20))
    honest = await scene.device(flow, "honest")
    frames = [b"PNB\x00" + random.Random(number).randbytes(300) for number in range(1500)]
    async with raw_client(flow, "device", "hostile", tmp_path) as client:
        flooding = asyncio.create_task(flood(client, Subjects(flow.name).up("hostile"), frames))
        await honest_messages_arrive(flow, honest, 50, seconds=5)
        await flooding
        await flow.settled(patient(5))
    await eventually(lambda: flow.stats().dead + flow.stats().dropped_letters == 1500)
    stats = flow.stats()
    assert (stats.devices["hostile"].malformed, stats.devices["honest"].dropped_letters) == (1500, 0)
    assert stats.devices["hostile"].dropped_letters > 500
    assert any("'hostile'" in reason for reason in stats.blocked_by)
    await flow.stop()
    await flow.start()
    assert flow.stats().dead == stats.dead  # and its share is as used up as before
    await honest_messages_arrive(flow, honest, 50, seconds=5)


async def test_a_reader_whose_orders_are_no_frames_keeps_no_order_of_others_back(scene, tmp_path):
    flow = await scene.flow("Push <~> same <~> Output")
    orders = []
    await scene.device(flow, "honest", receive=orders.append)
    async with raw_client(flow, "reader", "hostile", tmp_path) as client:
        await flood(client, Subjects(flow.name).order("hostile"), [b"", b"?", bytes(range(256))] * 20)
    await flow.send("on", to="honest")
    await eventually(lambda: orders == ["on"])
    assert flow.stats().unreadable == 60


async def hail(flow, client, device, hello):
    """Say hello, thirty times a second, for ever."""
    for turn in itertools.count():
        await client.publish(Subjects(flow.name).hello(device), encode(hello(flow.name, device, turn)))
        await asyncio.sleep(0.03)


def out_of_bounds(flow, device, turn):
    """Make a hello with one number, another each turn, that a frame can't carry on."""
    names = ("sent", "waiting", "floor", "owner", "ready", "numbering", "former", "former_sent", "epoch")
    numbers = {"epoch": 1, "sent": 0} | {names[turn % len(names)]: 2**64 - 1 - turn % 3}
    return HelloFrame(flow, device, **numbers)


async def in_demand(scene, flow, hailed):
    honest = await scene.device(flow, "honest")
    await hailed
    await honest_messages_arrive(flow, honest, 200, seconds=10)


async def in_pull(scene, flow, hailed):
    honest = await scene.device(flow, "honest")
    for number in range(60):
        await honest.push(number)
    await hailed
    got = []
    async with asyncio.timeout(patient(20)):
        for _ in range(3):
            await (await flow.pull(20)).wait(patient(20))
            got += [message.payload for message in await flow.take(20)]
    assert got == list(range(60))


async def test_no_hellos_of_devices_hold_up_an_honest_device(scene, tmp_path):
    demand = await scene.flow("Demand ~> same ~> Output", max_demand=40)
    pull = await scene.flow("Pull <~> same <~> Output")
    # The others are in the tests of `Ledger`, by a clock of their own.
    hellos = {name: HELLOS[name] for name in ("much", "all-sent-before")} | {"out-of-bounds": out_of_bounds}
    async with contextlib.AsyncExitStack() as stack:
        hailing = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = []
        for flow in (demand, pull):
            for name, hello in hellos.items():
                party = raw_client(flow, "device", name, tmp_path / flow.name)
                client = await stack.enter_async_context(party)
                tasks.append(hailing.create_task(hail(flow, client, name, hello)))

        async def hailed(flow):
            await eventually(lambda: set(hellos) <= set(flow.stats().devices))

        async with asyncio.TaskGroup() as honest:
            honest.create_task(in_demand(scene, demand, hailed(demand)))
            honest.create_task(in_pull(scene, pull, hailed(pull)))
        for flow in (demand, pull):
            stats = flow.stats()
            assert stats.state == "running"
            assert stats.devices["out-of-bounds"].hellos_dropped > 0
        for task in tasks:
            task.cancel()
