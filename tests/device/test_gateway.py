"""Gateways: many devices over one connection, each under its own name."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from patience import eventually

from pratipad_nb import AsyncFlow, AsyncGateway, Flow, FlowOptions, Gateway, Processor, reply
from pratipad_nb.device import AsyncDevice
from pratipad_nb.errors import SettingsError
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import DownFrame


async def order(edge: Any, number: int, payload: Any, to: list[str] | None, device: str = "gw") -> None:
    frame = DownFrame("house", 1, number, f"order-{number}", 0.0, payload, to)
    await edge.link.publish(edge.subjects.down(device), encode(frame))


async def test_every_message_says_which_device_it_is_of(edge: Any) -> None:
    async with await AsyncGateway("gw").connect(edge.endpoint) as gateway:
        await gateway.push(1, device="t1")
        await gateway.device("t2").push(2)
        await gateway.push(3)
        await gateway.flush()
    said = [name for frame in edge.frames for name in frame.sources]
    assert list(zip(said, edge.payloads, strict=True)) == [("t1", 1), ("t2", 2), ("", 3)]
    assert edge.numbers == [1, 2, 3]
    assert gateway.device("t2").name == "gw.t2"


async def test_long_frames_keep_devices_and_payloads_together(edge: Any) -> None:
    edge.auto = ("demand", 3_000, "durable")
    gateway = await AsyncGateway("gw").connect(edge.endpoint)
    for number in range(5_000):
        await gateway.push(number, device=f"t{number % 7}")
    await eventually(lambda: len(edge.payloads) == 3_000)
    await edge.grant(5_000)
    await gateway.close()
    said = [name for frame in edge.frames for name in frame.sources]
    assert said == [f"t{number % 7}" for number in edge.payloads]
    assert edge.payloads == list(range(5_000))


async def test_messages_that_are_too_much_for_one_frame_in_memory_go_in_several(edge: Any) -> None:
    edge.auto = ("demand", 0, "durable")
    gateway = await AsyncGateway("gw").connect(edge.endpoint)
    names, dense = ["t" * 59 + str(number) for number in range(1_000, 1_007)], [{"": {}}] * 40
    for number in range(4_000):
        await gateway.push([number, *dense], device=names[number % 7])
    await edge.grant(4_000)
    await gateway.close()
    assert len(edge.frames) > 1
    assert [number for number, *_ in edge.payloads] == list(range(4_000))
    assert edge.numbers == list(range(1, 4_001))
    said = [name for frame in edge.frames for name in frame.sources]
    assert said == [names[number % 7] for number in range(4_000)]


@pytest.mark.parametrize("name", ["", "a.b", "*", "Push", "1st"])
async def test_a_device_behind_a_gateway_has_a_name_like_any_other(edge: Any, name: str) -> None:
    async with await AsyncGateway("gw").connect(edge.endpoint) as gateway:
        with pytest.raises(SettingsError, match="can't name a device"):
            gateway.device(name)
        if name:
            with pytest.raises(SettingsError, match="can't name a device"):
                await gateway.push(1, device=name)


async def test_an_order_is_run_for_each_device_that_it_is_for(edge: Any) -> None:
    ran: list[tuple[Any, str | None]] = []

    def receive(payload: Any, device: str | None) -> None:
        ran.append((payload, device))
        if device == "t1":
            raise RuntimeError("its relay is stuck")

    async with await AsyncGateway("gw", receive=receive).connect(edge.endpoint) as gateway:
        await order(edge, 1, "on", ["t1", "t2"])
        await order(edge, 2, "off", None)
        await eventually(lambda: edge.hellos and edge.hello.ready == 2)
        assert ran == [("on", "t1"), ("on", "t2"), ("off", None)]
        await order(edge, 3, "on", ["t1"])
        await eventually(lambda: edge.hello.ready == 3)
        assert gateway.error == "RuntimeError: its relay is stuck"


async def test_a_plain_device_refuses_an_order_for_one_behind_it(edge: Any) -> None:
    ran: list[Any] = []
    async with await AsyncDevice("room1", receive=ran.append).connect(edge.endpoint) as device:
        await order(edge, 1, "on", ["t1"], device="room1")
        await eventually(lambda: edge.hellos and edge.hello.ready == 1)
        assert "no Gateway" in device.error
    assert ran == []


class Answer(Processor):
    """Answers every message; its instances keep count by device."""

    concurrency = 3

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def process(self, payload: Any, message: Any) -> Any:
        count = self.counts[message.device] = self.counts.get(message.device, 0) + 1
        reply({"seen": payload["n"]}, to=message)
        return payload | {"device": message.device, "count": count}


@pytest.mark.parametrize("delivery", ["durable", "fast"])
async def test_a_flow_treats_devices_behind_a_gateway_as_devices_of_their_own(
    tmp_path: Path, delivery: Any
) -> None:
    answers: list[tuple[str | None, Any]] = []

    async def receive(payload: Any, device: str | None) -> None:
        answers.append((device, payload))

    flow = AsyncFlow(
        "Push <~> Answer <~> Output", name="house", delivery=delivery, home=tmp_path, namespace=globals()
    )
    await flow.start()
    gateway = await AsyncGateway("gw", receive=receive).connect(flow)
    for n in range(100):
        await gateway.push({"n": n}, device=f"t{n % 10}")
    await gateway.flush()
    messages = await flow.take(100)
    assert {m.device for m in messages} == {f"gw.t{i}" for i in range(10)}
    assert all(m.payload["device"] == m.device for m in messages)
    for i in range(10):  # in order, and one instance saw all of a device
        mine = [m.payload for m in messages if m.device == f"gw.t{i}"]
        assert [p["n"] for p in mine] == list(range(i, 100, 10))
        assert [p["count"] for p in mine] == list(range(1, 11))
    assert len({m.id for m in messages}) == 100
    stats = flow.stats()
    assert list(stats.devices) == ["gw"]
    assert (stats.devices["gw"].sources, stats.devices["gw"].received) == (10, 100)

    async with asyncio.timeout(10):
        while len(answers) < 100:
            await asyncio.sleep(0.01)
    assert sorted(answers, key=lambda pair: pair[1]["seen"]) == [
        (f"t{n % 10}", {"seen": n}) for n in range(100)
    ]
    await gateway.close()
    await flow.stop()


def Same(payload: Any) -> Any:  # noqa: N802 - named as in the notation
    return payload


def test_a_synchronous_gateway_gets_orders_by_the_same_names(tmp_path: Path) -> None:
    got: list[tuple[Any, str | None]] = []
    three = threading.Event()

    def receive(payload: Any, device: str | None) -> None:
        got.append((payload, device))
        if len(got) == 3:
            three.set()

    with Flow("Push <~> Same <~> Output", name="house", home=tmp_path, namespace=globals()) as flow:
        gateway = Gateway("gw", receive=receive).connect(flow)
        behind = gateway.device("t1")
        behind.push(1).wait(5)
        gateway.push(2, device="t2")
        assert [(m.device, m.payload) for m in flow.take(2)] == [("gw.t1", 1), ("gw.t2", 2)]
        flow.send("a", to=behind.name)
        flow.send("b", to=["gw.t1", "gw"])
        assert three.wait(5)
        assert got == [("a", "t1"), ("b", "t1"), ("b", None)]
        gateway.close()


async def test_what_a_gateway_holds_is_sent_when_it_is_asked_for(tmp_path: Path) -> None:
    flow = AsyncFlow("Pull <~> Same <~> Output", name="house", home=tmp_path, namespace=globals())
    await flow.start()
    gateway = await AsyncGateway("gw").connect(flow)
    for n in range(6):
        await gateway.push(n, device=f"t{n}")
    request = await flow.pull(4, device="gw")
    await request.wait(10)
    assert [(m.device, m.payload) for m in await flow.take(4)] == [(f"gw.t{n}", n) for n in range(4)]
    assert flow.stats().received == 4
    await (await flow.pull(2)).wait(10)
    await gateway.close()
    await flow.stop()


def Odd(payload: Any) -> Any:  # noqa: N802 - named as in the notation
    if payload["n"] % 2 == 0 and not payload.get("mended"):
        raise ValueError("even")
    return payload


def Mended(payload: Any) -> Any:  # noqa: N802 - named as in the notation
    return payload


async def test_a_dead_letter_keeps_the_device_behind_the_gateway(tmp_path: Path) -> None:
    flow = AsyncFlow("Push <~> Odd <~> Output", name="house", home=tmp_path, namespace=dict(globals()))
    await flow.start()
    async with await AsyncGateway("gw").connect(flow) as gateway:
        for n in range(4):
            await gateway.push({"n": n}, device=f"t{n}")
    await flow.settled()
    assert [letter.device for letter in await flow.dead_letters()] == ["gw.t0", "gw.t2"]
    await flow.stop()
    again = AsyncFlow(
        "Push <~> Odd <~> Output", name="house", home=tmp_path, namespace=globals() | {"Odd": Mended}
    )
    await again.start()
    assert await again.retry_dead_letters() == 2
    messages = await again.take(4)
    assert sorted((m.device, m.payload["n"]) for m in messages) == [(f"gw.t{n}", n) for n in range(4)]
    assert len({m.id for m in messages}) == 4
    await again.stop()


async def test_orders_find_a_device_behind_a_gateway_in_any_partition(tmp_path: Path) -> None:
    got: list[tuple[Any, str | None]] = []

    async def receive(payload: Any, device: str | None) -> None:
        got.append((payload, device))

    flow = AsyncFlow(
        "Push <~> Same <~> Output", name="house", home=tmp_path, namespace=globals(),
        options=FlowOptions(partitions=4),
    )  # fmt: skip
    await flow.start()
    gateways = [await AsyncGateway(f"gw{n}", receive=receive).connect(flow) for n in range(4)]
    for gateway in gateways:
        await gateway.push(1, device="t1")
        await gateway.flush()
    for gateway in gateways:
        await flow.send(gateway.name, to=f"{gateway.name}.t1")
    async with asyncio.timeout(10):
        while len(got) < 4:
            await asyncio.sleep(0.01)
    assert sorted(got) == [(f"gw{n}", "t1") for n in range(4)]
    for gateway in gateways:
        await gateway.close()
    await flow.stop()


async def test_an_order_to_what_can_not_be_a_name_is_refused(tmp_path: Path) -> None:
    flow = AsyncFlow("Push <~> Same <~> Output", name="house", home=tmp_path, namespace=globals())
    await flow.start()
    with pytest.raises(SettingsError, match="can't name a device"):
        await flow.send("on", to="gw.t1.x")
    await flow.stop()
