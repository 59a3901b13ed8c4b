"""Orders: each once, in order, confirmed; whatever `receive` does."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from patience import eventually

from pratipad_nb.device.client import AsyncDevice
from pratipad_nb.device.downlink import Downlink
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import DownFrame


async def test_orders_are_run_in_order_on_a_thread_and_confirmed(edge: Any) -> None:
    run: list[tuple[Any, bool]] = []

    def receive(payload: Any) -> None:
        run.append((payload, threading.current_thread() is threading.main_thread()))

    async with await AsyncDevice("room1", receive=receive).connect(edge.endpoint):
        for number in (3, 5, 9):
            await edge.order(number, {"n": number})
        await eventually(lambda: edge.hellos and edge.hello.ready == 9)
        assert run == [({"n": 3}, False), ({"n": 5}, False), ({"n": 9}, False)]


async def test_orders_beyond_a_devices_memory_are_run_when_they_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pratipad_nb.device.downlink._MEMORY", 1 << 20)
    run: list[int] = []
    go = asyncio.Event()

    async def receive(payload: Any) -> None:
        run.append(payload[0])
        await go.wait()

    def order(number: int) -> bytes:
        payload = [number, *[[]] * 3_000]  # 180 kB of a device's memory
        return encode(DownFrame("house", 1, number, f"order-{number}", 0.0, payload, after=number - 1))

    downlink = Downlink("house", "room1", receive, lambda: None)
    for number in range(1, 21):
        downlink.take(order(number))
    running = asyncio.ensure_future(downlink.run())
    go.set()
    await eventually(lambda: downlink.ready >= 4)
    first = downlink.ready
    assert first <= 6
    for number in range(1, 8):
        downlink.take(order(number))
    await eventually(lambda: downlink.ready == 7)
    assert run == list(range(1, 8))
    running.cancel()
    await downlink.close(1.0)


async def test_a_repeat_is_not_run_again_but_confirmed_again(edge: Any) -> None:
    run: list[Any] = []

    async def receive(payload: Any) -> None:
        run.append(payload)

    async with await AsyncDevice("room1", receive=receive).connect(edge.endpoint):
        await edge.order(4, "led on")
        await eventually(lambda: edge.hellos and edge.hello.ready == 4)
        greeted = len(edge.hellos)
        await edge.order(4, "led on")
        await eventually(lambda: len(edge.hellos) > greeted)
        assert edge.hello.ready == 4
        assert run == ["led on"]


async def test_an_order_that_comes_in_the_next_numbering_too_is_run_once_and_confirmed(edge: Any) -> None:
    go, run = asyncio.Event(), []

    async def receive(payload: Any) -> None:
        run.append(payload)
        await go.wait()

    async with await AsyncDevice("room1", receive=receive).connect(edge.endpoint):
        for number in (7, 8):
            await edge.order(number, f"order {number}", after=number - 1 if number > 7 else 0)
        await eventually(lambda: run == ["order 7"])
        await edge.order(8, "order 8", epoch=2, after=7, called="order-8")  # its predecessor isn't here
        await edge.order(7, "order 7", epoch=2, called="order-7")
        await edge.order(8, "order 8", epoch=2, after=7, called="order-8")
        await edge.order(9, "order 9", epoch=2, after=8, called="order-9")
        go.set()
        await eventually(lambda: (edge.hello.numbering, edge.hello.ready) == (2, 9))
        assert run == ["order 7", "order 8", "order 9"]


async def test_a_repeat_of_an_order_that_is_running_is_neither_run_nor_confirmed(edge: Any) -> None:
    go, run = asyncio.Event(), []

    async def receive(payload: Any) -> None:
        run.append(payload)
        await go.wait()

    async with await AsyncDevice("room1", receive=receive).connect(edge.endpoint):
        for _ in range(5):
            await edge.order(1, "a")
        await edge.order(2, "b")
        await eventually(lambda: run == ["a"])
        assert edge.hello.ready == 0
        go.set()
        await eventually(lambda: edge.hello.ready == 2)
        assert run == ["a", "b"]


async def test_an_order_whose_predecessor_got_lost_waits_for_it(edge: Any) -> None:
    run: list[Any] = []
    async with await AsyncDevice("room1", receive=run.append).connect(edge.endpoint):
        await edge.order(2, "open")
        await edge.order(7, "blink", after=5)
        await eventually(lambda: run == ["open"] and edge.hello.ready == 2)
        for number, payload, after in ((5, "shut", 0), (7, "blink", 5)):
            await edge.order(number, payload, after=after)
        await eventually(lambda: edge.hello.ready == 7)
        assert run == ["open", "shut", "blink"]


async def test_a_forgotten_flow_numbers_its_orders_anew(edge: Any) -> None:
    run: list[Any] = []
    async with await AsyncDevice("room1", receive=run.append).connect(edge.endpoint):
        await edge.order(7, "old", epoch=1)
        await eventually(lambda: run == ["old"])
        await edge.order(1, "new", epoch=2)
        await edge.order(8, "late", epoch=1)
        await eventually(lambda: run == ["old", "new"] and edge.hello.ready == 1)
        assert edge.hello.numbering == 2


async def test_a_flow_that_was_made_anew_by_a_clock_that_stands_behind_is_heeded(edge: Any) -> None:
    run: list[Any] = []
    async with await AsyncDevice("room1", receive=run.append).connect(edge.endpoint):
        await edge.order(7, "old", epoch=9)
        await eventually(lambda: run == ["old"])
        await edge.order(1, "new", epoch=2)
        await edge.order(8, "late", epoch=9)
        await edge.order(2, "next", epoch=2, after=1)
        await eventually(lambda: edge.hello.ready == 2)
        assert run == ["old", "new", "next"]
        assert edge.hello.numbering == 2


async def test_an_order_that_fails_is_told_to_the_edge_and_the_next_one_is_run(
    edge: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def receive(payload: Any) -> None:
        if payload == "bad":
            raise ValueError("no such LED")

    async with await AsyncDevice("room1", receive=receive).connect(edge.endpoint) as device:
        await edge.order(1, "bad")
        await eventually(lambda: edge.hellos and edge.hello.ready == 1)
        assert edge.hello.error == device.error == "ValueError: no such LED"
        await edge.order(2, "good")
        await eventually(lambda: edge.hello.ready == 2)
        assert edge.hello.error == ""
    assert "order-1 failed" in caplog.text


async def test_an_order_for_a_device_without_receive_is_refused_aloud(
    edge: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with await AsyncDevice("room1").connect(edge.endpoint):
        await edge.order(1, "led on")
        await eventually(lambda: edge.hellos and edge.hello.ready == 1)
        assert edge.hello.error.startswith("device 'room1' got an order and has no `receive`")
    assert "Traceback" not in caplog.text  # there is no code of the user's to be found


async def test_a_receive_that_hangs_holds_up_neither_messages_nor_the_end(
    edge: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pratipad_nb.device.engine._PATIENCE", 0.02)
    begun, release = threading.Event(), threading.Event()

    def receive(_: Any) -> None:
        begun.set()
        release.wait(10)

    device = await AsyncDevice("room1", receive=receive).connect(edge.endpoint)
    await edge.order(1, "x")
    await eventually(begun.is_set)
    await (await device.push("still sending"))
    await device.close()
    assert "is left behind after" in caplog.text
    release.set()
    await eventually(lambda: "pratipad-receive-room1" not in [t.name for t in threading.enumerate()])
