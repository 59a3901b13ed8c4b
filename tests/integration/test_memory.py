"""Memory at the edge, at a real server: no device takes much of it, or anything of the others' share.

The hostile devices are plain clients of NATS, with a certificate like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lz4.block
import msgspec
import pytest
from hostile import raw_client
from patience import eventually

from pratipad_nb import AsyncFlow, FlowOptions
from pratipad_nb.transport.frames import Order, OrderFrame, UplinkFrame
from pratipad_nb.transport.subjects import Subjects

pytestmark = pytest.mark.parametrize("scene", ["nats"], indirect=True)

MEBIBYTE = 1 << 20


def lists(count: int) -> bytes:
    """Return the MessagePack of a list of empty lists."""
    return b"\xdd" + struct.pack(">I", count) + b"\x90" * count


def frame_of(flow: AsyncFlow, device: str, number: int, payload: bytes) -> bytes:
    frame = UplinkFrame(flow.name, device, 7, number, [1.0], [msgspec.Raw(payload)])
    return b"PNB\x01" + lz4.block.compress(msgspec.msgpack.encode(frame))


@contextlib.contextmanager
def peak() -> Iterator[list[int]]:
    """Yield a list that holds, at the end, how much memory was taken at most meanwhile."""
    found: list[int] = []
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield found
        found.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()


async def test_frames_of_many_objects_are_set_aside_and_an_honest_device_is_served(
    scene: Any, tmp_path: Path
) -> None:
    flow = await scene.flow("Push ~> same ~> Output")
    honest = await scene.device(flow, "honest")
    async with raw_client(flow, "device", "hostile", tmp_path) as client:
        with peak() as taken:
            for number in range(1, 51):
                frame = frame_of(flow, "hostile", number, lists(2_000_000))
                assert len(frame) < 9_000
                await client.publish(Subjects(flow.name).up("hostile"), frame)
                await honest.push(number)
            assert [message.payload for message in await flow.take(50, 30)] == list(range(1, 51))
            await eventually(lambda: flow.stats().dead == 50, 30)
    assert taken[0] < 40 * MEBIBYTE
    assert flow.stats().malformed == 50
    letters = await flow.dead_letters()
    assert {letter.device for letter in letters} == {"hostile"}
    assert "67,108,864 bytes of memory" in letters[0].error


async def test_one_device_takes_half_of_the_memory_and_the_others_are_served(
    scene: Any, tmp_path: Path
) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(payload: Any) -> Any:
        if isinstance(payload, list):
            started.set()
            await go_on.wait()
        return payload if isinstance(payload, int) else len(payload)

    flow = await scene.flow(
        "Push ~> slow ~> Output",
        namespace={"slow": slow},
        options=FlowOptions(memory_bytes=8 * MEBIBYTE),
    )
    honest = await scene.device(flow, "honest")
    async with raw_client(flow, "device", "hostile", tmp_path) as client:
        with peak() as taken:
            for number in range(1, 51):
                frame = frame_of(flow, "hostile", number, lists(20_000))
                await client.request(Subjects(flow.name).up("hostile"), frame, timeout=10)
            await started.wait()
            assert flow.stats().in_flight <= 4
            for number in range(20):
                await honest.push(number)
            await honest.flush()
            await eventually(lambda: flow.stats().in_flight >= 20)
            go_on.set()
            results = [message.payload for message in await flow.take(70, 30)]
    assert [each for each in results if each != 20_000] == list(range(20))
    assert results.count(20_000) == 50
    # The honest device's messages passed most of those that were sent before them.
    assert results.index(0) < 25
    assert taken[0] < 32 * MEBIBYTE


async def test_an_order_that_no_device_can_hold_is_dropped_and_those_behind_it_are_run(
    scene: Any, tmp_path: Path
) -> None:
    flow = await scene.flow("Push <~> same <~> Output")
    run: list[Any] = []
    await scene.device(flow, "room1", receive=run.append)
    packed = msgspec.Raw(lists(600_000))
    frame = OrderFrame(1.0, [Order("hostile", packed, ["room1"]), Order("honest", "led on", ["room1"])])
    data = b"PNB\x01" + lz4.block.compress(msgspec.msgpack.encode(frame))
    assert len(data) < 3_000
    async with raw_client(flow, "reader", "hostile", tmp_path) as client:
        await client.request(Subjects(flow.name).order("hostile"), data, timeout=10)
    await flow.send("led off", to="room1")
    await eventually(lambda: run == ["led on", "led off"])


async def test_frames_that_wait_for_memory_are_whole_over_a_pause_a_change_and_a_drain(scene: Any) -> None:
    flow = await scene.flow("Push ~> same ~> Output", options=FlowOptions(memory_bytes=MEBIBYTE))
    devices = [await scene.device(flow, name) for name in ("room1", "room2", "room3")]

    async def push(first: int) -> None:
        for number in range(first, first + 40):
            for device in devices:
                await device.push([number, *[0.5] * 3_000])

    pushing = asyncio.ensure_future(push(0))
    await flow.take(6, 20)
    await flow.pause()
    await flow.resume()
    await flow.update("Push ~> same ~> same ~> Output", {"same": lambda payload: payload})
    await pushing
    for device in devices:
        await device.flush()
    await flow.stop()
    await flow.start()
    found: dict[str, list[int]] = {}
    for message in await flow.take(114, 30):
        found.setdefault(message.device, []).append(message.payload[0])
    assert all(numbers == sorted(numbers) and numbers[-1] == 39 for numbers in found.values())
    assert sum(map(len, found.values())) == 114
