"""Readings: when they are taken, in each mode, from each kind of `read`."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from patience import eventually

from pratipad_nb.device import reading
from pratipad_nb.device.client import AsyncDevice
from pratipad_nb.errors import DeviceError


async def connected(edge: Any, **what: Any) -> AsyncDevice:
    return await AsyncDevice("room1", **what).connect(edge.endpoint)


async def test_a_callable_is_read_at_every_tick_on_a_thread_of_its_own(edge: Any) -> None:
    threads: set[str] = set()

    def read() -> float:
        threads.add(threading.current_thread().name)
        begun = time.monotonic()
        time.sleep(0.03)
        return begun

    async with await connected(edge, read=read, every=0.05):
        await eventually(lambda: len(edge.payloads) >= 20)
    assert threads == {"pratipad-read-room1"}
    # A grid: what a reading takes doesn't delay the next reading, or all of them were 0.08 s apart.
    assert min(later - earlier for earlier, later in itertools.pairwise(edge.payloads)) < 0.07


async def test_ticks_that_a_slow_reading_missed_are_not_made_up(edge: Any) -> None:
    times: list[float] = []

    def read() -> int:
        times.append(time.monotonic())
        if len(times) == 2:
            time.sleep(1.0)  # twenty ticks
        return len(times)

    async with await connected(edge, read=read, every=0.05):
        await eventually(lambda: len(times) >= 13)
    assert (
        times[12] - times[2] > 0.4
    )  # ten readings at their pace, the first of them late by one tick at most


async def test_a_coroutine_function_is_read_on_the_loop(edge: Any) -> None:
    async def read() -> str:
        return threading.current_thread().name

    async with await connected(edge, read=read, every=0.01):
        await eventually(lambda: edge.payloads)
        assert edge.payloads[0] == threading.current_thread().name


async def numbers_soon() -> AsyncIterator[int]:
    for number in range(1000):
        yield number


@pytest.mark.parametrize("make", [lambda: range(1000), lambda: iter(range(1000)), numbers_soon])
async def test_an_iterable_is_drawn_from_as_fast_as_the_flow_takes_it_to_its_end(
    edge: Any, make: Any
) -> None:
    async with await connected(edge, read=make()) as device:
        await eventually(lambda: len(edge.payloads) == 1000)
        await eventually(lambda: not edge.hello.answers)
        assert edge.payloads == list(range(1000))
        await (await device.push("by hand"))


async def test_nothing_is_read_before_the_flow_has_said_its_mode(edge: Any) -> None:
    edge.auto = None
    read: list[int] = []
    async with await connected(edge, read=lambda: read.append(1), every=0.005):
        await eventually(lambda: edge.hellos)
        await asyncio.sleep(0.03)
        assert read == []


async def test_when_asked_a_device_reads_as_often_as_it_was_asked(edge: Any) -> None:
    edge.auto = ("pull", 0, "durable")
    count = itertools.count(1)
    async with await connected(edge, read=lambda: next(count)) as device:
        await eventually(lambda: device.mode == "pull")
        assert edge.hello.answers
        await asyncio.sleep(0.02)
        assert edge.payloads == []
        await edge.grant(3, mode="pull")
        await eventually(lambda: edge.payloads == [1, 2, 3])
        await edge.grant(500, mode="pull")
        await eventually(lambda: len(edge.payloads) == 500)
        await asyncio.sleep(0.02)
        assert next(count) == 501


async def test_what_was_pushed_is_sent_before_anything_is_read(edge: Any) -> None:
    edge.auto = ("demand", 0, "durable")
    async with await connected(edge, read=lambda: "read") as device:
        await device.push("pushed")
        await eventually(lambda: device.mode == "demand")
        await edge.grant(2)
        await eventually(lambda: edge.payloads == ["pushed", "read"])


async def test_a_failed_reading_is_told_once_skipped_and_tried_again(
    edge: Any, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = itertools.count(1)

    def read() -> int:
        attempt = next(attempts)
        if attempt in (2, 3, 4):
            raise OSError("I2C NAK at 0x76")
        return attempt

    async with await connected(edge, read=read, every=0.01) as device:
        await eventually(lambda: any(hello.error for hello in edge.hellos))
        await eventually(lambda: len(edge.payloads) >= 3)
        await eventually(lambda: edge.hello.error == "")
        assert device.error == ""
    assert edge.payloads[:3] == [1, 5, 6]
    assert {hello.error for hello in edge.hellos} == {"", "OSError: I2C NAK at 0x76"}
    assert caplog.text.count("a reading failed") == 1


async def test_a_reading_that_can_not_travel_is_an_error_of_that_reading_alone(
    edge: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reading, "DEFAULT_EVERY", 0.01)
    values: Iterator[Any] = iter([1, object(), 3])
    async with await connected(edge, read=values):
        await eventually(lambda: edge.payloads == [1, 3])
    assert "PayloadError" in caplog.text


async def test_a_reading_that_blocks_stalls_neither_pushes_nor_the_end(
    edge: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pratipad_nb.device.engine._PATIENCE", 0.02)
    begun, release = threading.Event(), threading.Event()

    def read() -> int:
        begun.set()
        release.wait(10)
        return 1

    device = await connected(edge, read=read)
    await eventually(begun.is_set)
    await (await device.push("pushed"))
    await device.close()
    release.set()
    await eventually(lambda: "pratipad-read-room1" not in [t.name for t in threading.enumerate()])


async def test_a_reading_that_ends_while_the_device_closes_is_dropped_without_a_word(
    edge: Any, caplog: Any
) -> None:
    edge.auto = ("demand", 1, "durable")
    begun, go_on = threading.Event(), threading.Event()

    def read() -> str:
        begun.set()
        go_on.wait(5)
        return "late"

    device = await connected(edge, read=read)
    await eventually(begun.is_set)
    await device.push("asked for")
    await device.push("not asked for")  # what closing waits for
    closing = asyncio.create_task(device.close(0.5))
    await eventually(lambda: device.outbox.is_shut)
    go_on.set()
    await eventually(lambda: edge.hello.waiting == 1 and not edge.hello.answers)
    with pytest.raises(DeviceError, match="hasn't asked"):
        await closing
    assert edge.payloads == ["asked for"]
    assert [record for record in caplog.records if record.levelname != "INFO"] == []
