"""No party starves the others: a raw client sends what it likes, and the others' messages flow and are whole.

At a real server, since these clients are the library's own.
"""

from __future__ import annotations

import asyncio
import random

import pytest
from hostile import raw_client
from patience import eventually, patient

from pratipad_nb import FlowOptions
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import UplinkFrame
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
