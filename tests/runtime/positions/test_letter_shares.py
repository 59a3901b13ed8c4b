"""The shares of the dead letters: no device takes the room of the others, and what is dropped is named."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

import pytest

from pratipad_nb.runtime.positions.dead_letters import DeadLetters
from pratipad_nb.settings import FlowOptions
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import DeadEntry, FailureNote, UplinkFrame
from tests.runtime.conftest import FLOW, Place

BOUND = 1 << 20
SMALL = FlowOptions(dead_letter_bytes=BOUND)
QUARTER = BOUND // 4


def entry(device: str, number: int, size: int = 1000) -> DeadEntry:
    noise = random.Random(number).randbytes(size)
    return DeadEntry(device, 7, number, 0, 1.0, 2.0, noise, [FailureNote("P1", "ValueError: no", "")])


async def opened(place: Place, devices: int = 1) -> DeadLetters:
    connection = await place.connection()
    logs = await place.logs(connection, options=SMALL)
    letters = DeadLetters(connection, logs[place.subjects.dead_stream], place.subjects)
    await letters.find(lambda _: True)
    letters.shares.devices = lambda: devices
    return letters


async def malformed(letters: DeadLetters, device: str, count: int, size: int = 10_000) -> None:
    for number in range(count):
        await letters.store_malformed([("Push", entry(device, number, size))])


async def failed(letters: DeadLetters, device: str, count: int, size: int = 50_000) -> int:
    """Bury messages of `device` as the writer does; return how many are stored."""
    stored = 0
    for number in range(count):
        if not letters.shares.drops(device):
            await letters.store([("P1", entry(device, number, size))])
            stored += 1
    return stored


async def size_of(letters: DeadLetters) -> int:
    return (await letters._log.state()).bytes


async def test_malformed_frames_of_one_device_take_a_quarter_of_the_bound_and_the_rest_is_counted(
    memory: Place,
) -> None:
    letters = await opened(memory)
    await malformed(letters, "mallory", 100)
    assert QUARTER - 12_000 < await size_of(letters) <= QUARTER
    assert letters.count + letters.shares.dropped["mallory"] == 100
    assert letters.room.free.is_set()


async def test_each_device_has_a_share_however_many_have_used_theirs_up(memory: Place) -> None:
    letters = await opened(memory)
    for number in range(8):
        await malformed(letters, f"mallory{number}", 100)
        await malformed(letters, f"alice{number}", 1, 100)
    assert letters.shares.dropped.keys() == {f"mallory{number}" for number in range(8)}
    assert letters.room.free.is_set()


async def test_malformed_frames_that_come_together_keep_within_the_share(memory: Place) -> None:
    letters = await opened(memory)
    await letters.store_malformed([("Push", entry("mallory", number, 10_000)) for number in range(100)])
    assert await size_of(letters) <= QUARTER
    assert letters.count + letters.shares.dropped["mallory"] == 100


async def test_a_device_beyond_its_share_is_named_until_there_is_room(memory: Place, caplog: Any) -> None:
    letters = await opened(memory)
    with caplog.at_level(logging.WARNING):
        await malformed(letters, "mallory", 100)
    (reason,) = letters.blocked_by
    assert "'mallory'" in reason
    assert f"{letters.shares.dropped['mallory']} dropped" in reason
    assert len([line for line in caplog.messages if "mallory" in line]) == 1
    await letters.clear()
    assert letters.blocked_by == ()
    assert not letters.shares.drops_malformed("mallory")


async def test_a_start_knows_what_each_device_has_used(place: Place) -> None:
    letters = await opened(place)
    await letters.store([("P1", entry(device, 1, size)) for device, size in (("a", 9000), ("b", 1000))])
    await malformed(letters, "mallory", 40)
    await letters.look()
    later = await opened(place)
    assert later.shares._bytes == letters.shares._bytes
    assert later.shares._bytes["a"] > 5 * later.shares._bytes["b"]
    before = later.count
    await malformed(later, "mallory", 5)
    assert (later.count, later.shares.dropped["mallory"]) == (before, 5)


async def test_a_start_reads_the_letters_once(memory: Place, monkeypatch: Any) -> None:
    letters = await opened(memory)
    await malformed(letters, "room1", 3)
    read, times = letters._log.read, []
    monkeypatch.setattr(letters._log, "read", lambda *given: times.append(given) or read(*given))
    await letters.find(lambda _: True)
    assert len(times) == 1


async def test_a_device_that_fails_alone_uses_the_room_up_and_nothing_of_it_is_dropped(memory: Place) -> None:
    letters = await opened(memory)
    assert await failed(letters, "room1", 40) == 40
    assert not letters.room.free.is_set()
    assert letters.shares.dropped == {}


async def test_where_one_of_several_devices_has_used_up_the_room_its_newest_go(
    memory: Place,
) -> None:
    letters = await opened(memory, devices=3)
    stored = await failed(letters, "mallory", 40)
    assert letters.shares.dropped == {"mallory": 40 - stored}
    assert letters.room.free.is_set()
    (reason,) = letters.blocked_by
    assert "'mallory'" in reason
    assert await failed(letters, "room1", 3) == 3
    assert letters.room.free.is_set()


async def test_where_the_processors_fail_on_many_devices_new_messages_wait_and_no_letter_is_dropped(
    memory: Place,
) -> None:
    letters = await opened(memory, devices=3)
    for _ in range(12):
        for device in ("a", "b", "c"):
            assert await failed(letters, device, 1) == 1
    assert not letters.room.free.is_set()
    assert letters.shares.dropped == {}


async def test_a_device_that_comes_later_is_not_held_up_by_one_that_used_up_the_room(
    memory: Place,
) -> None:
    letters = await opened(memory)
    await failed(letters, "mallory", 40)
    assert not letters.room.free.is_set()
    letters.shares.devices = lambda: 2
    await letters.look()
    assert letters.room.free.is_set()


async def test_letters_of_failed_orders_are_of_no_device(memory: Place) -> None:
    letters = await opened(memory, devices=2)
    order = DeadEntry("", 0, 1, 0, 1.0, 1.0, "on", [FailureNote("P1", "no", "")], to=["room1"])
    await letters.store([("P1-backward", order)])
    assert letters.shares._bytes == {}
    assert not letters.shares.drops("")


@pytest.fixture
async def flood(memory: Place) -> Any:
    connection = await memory.connection()

    async def flood(device: str, frames: int) -> None:
        for number in range(frames):
            await connection.append(
                memory.subjects.up(device), b"PNB\x00" + random.Random(number).randbytes(300)
            )

    return flood


async def test_a_flood_of_malformed_frames_of_one_device_holds_no_other_up(
    edges: Any, push: Any, flood: Any, until: Any
) -> None:
    edge = await edges.running(options=SMALL)
    await flood("mallory", 2000)
    await push(1, 2, 3)
    await until(lambda: edge.snapshot().malformed == 2000 and edge.snapshot().dropped_letters)
    await until(lambda: edge.snapshot().delivered == 3)
    stats = edge.snapshot()
    mallory = stats.devices["mallory"]
    assert (mallory.malformed, mallory.dropped_letters) == (2000, stats.dropped_letters)
    assert any("'mallory'" in reason for reason in stats.blocked_by)
    await until(lambda: edge.snapshot().dead + edge.snapshot().dropped_letters == 2000)
    await edge.clear_dead_letters()
    assert edge.snapshot().blocked_by == ()


async def test_messages_of_one_device_that_all_fail_hold_no_other_up(
    edges: Any, memory: Place, push: Any, until: Any
) -> None:
    def picky(payload: Any) -> Any:
        if isinstance(payload, bytes):
            raise TypeError("bytes")
        return payload

    edge = await edges.running("Push <~> picky <~> Output", names={"picky": picky}, options=SMALL)
    await push(0)
    await until(lambda: edge.snapshot().delivered == 1)
    connection = await memory.connection()
    for number in range(1, 61):
        frame = UplinkFrame(FLOW, "mallory", 1, number, [0.0], [random.Random(number).randbytes(50_000)])
        await connection.append(memory.subjects.up("mallory"), encode(frame))
    await push(1, 2, first=2)
    await until(lambda: edge.snapshot().delivered == 3 and not edge.snapshot().in_flight)
    stats = edge.snapshot()
    assert stats.dead + stats.devices["mallory"].dropped_letters == 60
    assert stats.devices["mallory"].dropped_letters > 0
    assert stats.devices["room1"].dropped_letters == 0
    async with asyncio.timeout(10):
        await edge.retry_dead_letters()
    assert edge.snapshot().dead == stats.dead  # a letter that fails again is never dropped


async def test_a_name_that_no_device_can_have_is_a_malformed_delivery(
    edges: Any, memory: Place, push: Any, until: Any
) -> None:
    edge = await edges.running()
    connection = await memory.connection()
    await connection.append(f"pratipad.{FLOW}.up._all", b"1")
    await push(1)
    await until(lambda: edge.snapshot().delivered == 1 and edge.snapshot().dead == 1)
    (letter,) = await edge.dead_letters()
    assert (letter.device, edge.snapshot().malformed) == ("_all", 1)
