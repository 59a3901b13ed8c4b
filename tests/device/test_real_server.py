"""Devices against a real server over mutual TLS: who is let in, and what a server's death costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from patience import eventually

from pratipad_nb.device import AsyncDevice
from pratipad_nb.errors import CertificateError, DeviceError, NotInvited
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.settings import Endpoint
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.subjects import Subjects
from pratipad_nb.transport.tls import client_context

FLOW = "house"


@contextlib.asynccontextmanager
async def raw_device(house: Any, name: str) -> AsyncIterator[Client]:
    """Let a device in, and connect as that device with the plain client of NATS."""
    await house.server.allow([Party(FLOW, "device", name)])
    client = await nats.connect(
        house.server.url,
        tls=client_context(house.of_device(name)),
        tls_handshake_first=True,
        inbox_prefix=Party(FLOW, "device", name).inbox,
    )
    yield client
    await client.close()


async def stored(client: Client, name: str, message_id: str) -> dict[str, Any]:
    """Publish a reading with a message id, and return the server's acknowledgement."""
    headers = {"Nats-Msg-Id": message_id}
    answer = await client.request(Subjects(FLOW).up(name), b"1", timeout=5, headers=headers)
    return dict(json.loads(answer.data))


async def test_messages_and_orders_pass_through_a_real_server(house: Any, edge: Any) -> None:
    real = await house.edge(type(edge))
    orders: list[Any] = []
    async with await AsyncDevice("room1", receive=orders.append).connect(house.endpoint()) as device:
        for number in range(10_000):
            await device.push({"n": number})
        await device.flush()
        await eventually(lambda: len(real.payloads) == 10_000)
        assert [payload["n"] for payload in real.payloads] == list(range(10_000))
        await real.order(1, "led on")
        await eventually(lambda: orders == ["led on"] and real.hello.ready == 1)
    await eventually(lambda: real.hello.leaving)
    await real.stop()


async def test_a_server_killed_in_a_burst_costs_neither_a_message_nor_the_order(
    house: Any, edge: Any
) -> None:
    real = await house.edge(type(edge))
    device = await AsyncDevice("room1").connect(house.endpoint())
    await (await device.push(0))
    pid = house.server.pid
    assert pid is not None
    for number in range(1, 20_000):
        await device.push(number)
        if number == 8_000:
            os.kill(pid, signal.SIGKILL)
        if number % 500 == 0:
            await asyncio.sleep(0)
    await device.flush(30)
    assert house.server.restarts == 1
    await real.stop()
    again = await house.edge(type(edge))
    seen: dict[int, Any] = {}

    def take() -> bool:
        for reader in (real, again):
            seen.update(zip(reader.numbers, reader.payloads, strict=True))
        return len(seen) == 20_000

    await eventually(take, 20)
    assert [seen[number] for number in sorted(seen)] == list(range(20_000))
    await device.close()
    await again.stop()


async def test_fast_delivery_passes_through_a_real_server(house: Any, edge: Any) -> None:
    real = await house.edge(type(edge))
    await real.link.delete_log(real.subjects.input_stream)
    await real.link.subscribe(real.subjects.up_all, real.take)
    real.auto = ("push", -1, "fast")
    async with await AsyncDevice("room1").connect(house.endpoint()) as device:
        for number in range(10_000):
            await device.push(number)
        await device.flush()
    await eventually(lambda: real.payloads == list(range(10_000)))
    await real.stop()


async def test_a_device_that_is_not_invited_is_told_so_at_once(house: Any) -> None:
    with pytest.raises(NotInvited):
        await AsyncDevice("stranger").connect(house.endpoint("stranger"))
    other = CertificateStore.open(house.store._folder.parent / "other")
    credentials = other.device(FLOW, "room1", Party(FLOW, "device", "room1").identity)
    with pytest.raises(CertificateError):
        await AsyncDevice("room1").connect(Endpoint(house.server.url, FLOW, credentials))


async def test_a_device_may_not_send_as_another(house: Any, edge: Any) -> None:
    real = await house.edge(type(edge))
    impostor = await AsyncDevice("room2").connect(house.endpoint("room1"))
    honest = await AsyncDevice("room1").connect(house.endpoint("room1"))
    await impostor.push("forged")
    await (await honest.push("true"))
    with pytest.raises(DeviceError, match="1 messages of device 'room2'"):
        await impostor.close(0.1)
    await eventually(lambda: real.payloads == ["true"])
    assert {hello.device for hello in real.hellos} == {"room1"}
    await honest.close()
    await real.stop()


async def test_a_device_that_guesses_another_s_message_ids_costs_the_other_no_reading(
    house: Any, edge: Any
) -> None:
    real = await house.edge(type(edge))
    async with raw_device(house, "room2") as attacker:
        async with await AsyncDevice("room1").connect(house.endpoint()) as device:
            await eventually(lambda: real.hellos)
            for number in range(1, 4):
                await stored(attacker, "room2", f"room1-{real.hello.epoch}-{number}-{number}")
            for number in range(3):
                await (await device.push(number))
        await eventually(lambda: real.payloads == [0, 1, 2])
    await real.stop()


async def test_the_input_forgets_message_ids_of_foreign_devices_at_once(house: Any, edge: Any) -> None:
    real = await house.edge(type(edge))
    async with raw_device(house, "room2") as first, raw_device(house, "room3") as second:
        assert "duplicate" not in await stored(first, "room2", "1")

        async def is_stored() -> bool:
            return "duplicate" not in await stored(second, "room3", "1")

        await eventually(is_stored, 5)
    await real.stop()


async def test_a_device_may_start_before_its_server(house: Any, edge: Any, caplog: Any) -> None:
    url = house.server.url
    await house.server.stop()
    device = await AsyncDevice("room1").connect(Endpoint(url, FLOW, house.of_device("room1")))
    assert device.state == "connecting"
    receipt = await device.push("early")
    await house.server.start(house.users)
    assert house.server.url == url
    real = await house.edge(type(edge))
    await eventually(lambda: receipt.done, 20)
    await eventually(lambda: real.payloads == ["early"])
    await device.close()
    await real.stop()


async def test_a_device_closes_in_time_whenever_its_link_is_down(house: Any) -> None:
    before = asyncio.all_tasks()
    devices = [await AsyncDevice(f"room{n}").connect(house.endpoint("room1")) for n in range(12)]
    await house.server.stop()

    async def close_at(device: AsyncDevice, moment: float) -> None:
        await device.push("never safe")
        await asyncio.sleep(moment)
        async with asyncio.timeout(5):
            with pytest.raises(DeviceError, match="1 messages"):
                await device.close(0.1)

    await asyncio.gather(*(close_at(device, index / 10) for index, device in enumerate(devices)))
    assert asyncio.all_tasks() <= before


async def test_a_device_that_is_revoked_while_it_runs_says_so_once_and_comes_back_when_invited_again(
    house: Any, edge: Any, caplog: Any
) -> None:
    device = await AsyncDevice("room1").connect(house.endpoint())
    room1 = house.users[1]
    await house.server.revoke(room1)
    await eventually(lambda: device.state.startswith("not let in: "), 10)
    assert "revoked" in device.state
    await house.server.allow([room1])
    await eventually(lambda: device.state == "connected", 20)
    assert sum("is not let in any more" in record.message for record in caplog.records) == 1
    await device.close()
