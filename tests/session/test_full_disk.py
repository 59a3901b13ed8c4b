"""Flows on a small disk, on a disk that gets full, and at a server that has no room for their logs."""

from __future__ import annotations

import asyncio
import random

import pytest
from patience import eventually, patient
from small_disk import small_disk

from pratipad_nb import AsyncDevice, AsyncFlow, FlowOptions
from pratipad_nb.errors import ServerError
from pratipad_nb.settings import Keep

SOON = patient(60)


def same(payload):
    return payload


def flow(home, name="house", **more):
    return AsyncFlow("Push ~> same ~> Output", name=name, namespace={"same": same}, home=home, **more)


async def test_a_flow_on_a_disk_that_gets_full_waits_says_so_and_loses_nothing(tmp_path):
    got = []

    async def read(house):
        while True:
            got.extend(message.payload["n"] for message in await house.take(1, timeout=None))

    async def push(device, numbers):
        for number in numbers:
            await device.push({"n": number, "noise": random.Random(number).randbytes(3000)})
            await asyncio.sleep(0)

    with small_disk(tmp_path / "disk", "size=48m") as disk:
        async with flow(disk.folder / "home") as house, await AsyncDevice("room1").connect(house) as device:
            reading = asyncio.create_task(read(house))
            await push(device, range(200))
            await eventually(lambda: len(got) > 100)
            disk.fill()
            pushing = asyncio.create_task(push(device, range(200, 2000)))
            await eventually(lambda: any("is full: " in reason for reason in house.stats().blocked_by))
            disk.empty()
            async with asyncio.timeout(SOON):
                await pushing
                await device.flush()
                await house.settled()
                await eventually(lambda: len(got) == 2000)
            assert got == list(range(2000))
            await eventually(lambda: house.stats().blocked_by == ())
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def test_results_beyond_a_small_disk_flow_through_when_nobody_reads(tmp_path):
    with small_disk(tmp_path / "disk", "size=16m") as disk:
        async with flow(disk.folder / "home") as house, await AsyncDevice("room1").connect(house) as device:
            async with asyncio.timeout(SOON):
                for number in range(160):
                    await device.push(random.Random(number).randbytes(100_000))
                await device.flush()
                await house.settled()
            assert house.stats().delivered == 160


async def test_flow_after_flow_runs_on_a_small_disk_and_all_that_was_stored_stays(tmp_path):
    with small_disk(tmp_path / "disk", "size=64m") as disk:
        home = disk.folder / "home"
        async with flow(home, "first") as first:
            for number in range(6):
                async with flow(home, f"flow{number}") as other:
                    async with await AsyncDevice("room1").connect(other) as device:
                        await device.push(number)
                    assert [m.payload for m in await other.take(1)] == [number]
            assert first.state == "running"


async def test_a_server_without_room_for_a_flow_is_told_with_what_each_part_takes(tmp_path, monkeypatch):
    monkeypatch.setattr("pratipad_nb.server.config.MAX_STORE", 2 << 30)
    async with flow(tmp_path, "first") as first:
        with pytest.raises(ServerError) as told:
            await flow(tmp_path, "second").start()
        for words in (
            "the server may store 2 GiB on its disk",
            str(tmp_path),
            "'first' 1.",
            "'second' 1.",
            "keep=Keep(bytes=…)",
            "forget()",
        ):
            assert words in str(told.value)
        assert first.state == "running"
        assert await flow(tmp_path, "second").forget() is False  # nothing of it was left
        options = FlowOptions(input_bytes=8 << 20, order_bytes=8 << 20, dead_letter_bytes=8 << 20)
        async with flow(tmp_path, "second", keep=Keep(bytes=64 << 20), options=options) as second:
            assert second.state == "running"
