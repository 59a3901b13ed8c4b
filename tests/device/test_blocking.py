"""`Device`: the same for synchronous code, from any thread; and what importing it costs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from patience import eventually

import pratipad_nb.device
from pratipad_nb.device import AsyncDevice, AsyncGateway, Device, Gateway
from pratipad_nb.device.outbox import MAX_HELD
from pratipad_nb.errors import DeviceError, SettingsError, WaitTimeout
from pratipad_nb.settings import Endpoint


@pytest.fixture
def blocking(edge: Any) -> Callable[[Callable[[], Any]], Any]:
    """Run a function in another thread, as a program's own, while the edge runs on the test's loop."""
    return lambda function: asyncio.to_thread(function)


def portal_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "pratipad-portal"]


async def test_a_script_pushes_waits_and_closes_and_no_thread_remains(edge: Any, blocking: Any) -> None:
    def script() -> None:
        with Device("room1").connect(edge.endpoint) as device:
            receipt = device.push({"t": 1})
            receipt.wait(5)
            assert receipt.done
            for number in range(2 * MAX_HELD):
                device.push(number)
            device.flush()
            assert (
                repr(device) == f"<Device 'room1' of 'house': connected, {2 * MAX_HELD + 1} sent, 0 waiting>"
            )
        with pytest.raises(DeviceError, match="closed"):
            device.push(2)

    await blocking(script)
    await eventually(lambda: len(edge.payloads) == 2 * MAX_HELD + 1)
    assert edge.payloads == [{"t": 1}, *range(2 * MAX_HELD)]
    assert portal_threads() == []


async def test_it_may_be_used_where_an_event_loop_runs(edge: Any) -> None:
    device = Device("room1").connect(edge.endpoint)
    receipt = device.push(1)
    await receipt
    device.close()


async def test_many_threads_push_and_each_keeps_its_order(edge: Any, blocking: Any) -> None:
    def script() -> None:
        with Device("room1").connect(edge.endpoint) as device:

            def push(thread: int) -> None:
                for number in range(1000):
                    device.push([thread, number])

            pushers = [threading.Thread(target=push, args=(thread,)) for thread in range(4)]
            for pusher in pushers:
                pusher.start()
            for pusher in pushers:
                pusher.join()

    await blocking(script)
    await eventually(lambda: len(edge.payloads) == 4000)
    for thread in range(4):
        assert [number for who, number in edge.payloads if who == thread] == list(range(1000))
    assert edge.numbers == list(range(1, 4001))


async def test_push_blocks_while_the_buffer_is_full_and_fails_when_the_device_closes(
    edge: Any, blocking: Any
) -> None:
    edge.auto = ("demand", 0, "durable")

    def script() -> None:
        device = Device("room1").connect(edge.endpoint)
        for number in range(MAX_HELD):
            device.push(number)
        with pytest.raises(WaitTimeout, match=f"{MAX_HELD} messages"):
            device.flush(0.05)
        failed: list[str] = []

        def push() -> None:
            try:
                device.push("one too many")
            except DeviceError as error:
                failed.append(str(error))

        pusher = threading.Thread(target=push)
        pusher.start()
        with pytest.raises(DeviceError, match=f"{MAX_HELD} messages .* hasn't asked for them"):
            device.close(timeout=0.1)
        pusher.join(5)
        assert len(failed) == 1

    await blocking(script)
    assert portal_threads() == []


async def test_rerunning_a_cell_leaves_one_device(edge: Any, blocking: Any) -> None:
    def cell() -> Device:
        return Device("room1", read=lambda: time.time(), every=0.01).connect(edge.endpoint)

    first = await blocking(cell)
    second = await blocking(cell)
    assert first.state == "closed: a newer device of that name took over"
    assert second.connected
    assert edge.link.broker.connections().total() == 2
    await blocking(first.close)
    await blocking(second.close)
    assert portal_threads() == []


def test_a_device_that_can_not_connect_leaves_nothing() -> None:
    with pytest.raises(SettingsError, match="no connection without TLS"):
        Device("room1").connect(Endpoint("nats://127.0.0.1:4222", "house"))
    assert portal_threads() == []


def test_an_asynchronous_flow_is_for_asynchronous_devices() -> None:
    class AsyncFlow:
        async def endpoint_for(self, role: str, name: str) -> Endpoint:
            raise AssertionError

    with pytest.raises(DeviceError, match="Connect an AsyncDevice"):
        Device("room1").connect(AsyncFlow())


def test_handles_are_twins() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(AsyncDevice) - {"described"} <= public(Device)


def test_a_program_that_ends_without_closing_is_told_what_it_did_not_send() -> None:
    program = """
from pratipad_nb.device import Device
from pratipad_nb.settings import Endpoint
device = Device("room1").connect(Endpoint("memory://nobody", "house"))
close = device.close
device.close = lambda: close(0.05)  # no edge will ever grant anything here
device.push(1)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "1 messages of device 'room1' are not safe" in ended.stderr


def test_importing_a_device_costs_neither_server_nor_notebook() -> None:
    program = """
import sys
import pratipad_nb.device.blocking
heavy = {"pydantic", "cryptography", "networkx", "nats", "psutil", "smbus2", "IPython", "numpy"}
print(sorted(heavy & set(sys.modules)))
"""
    assert subprocess.check_output([sys.executable, "-c", program], text=True, timeout=30) == "[]\n"


def test_every_public_name_is_there() -> None:
    for name in pratipad_nb.device.__all__:
        assert getattr(pratipad_nb.device, name).__name__ == name
        assert name in dir(pratipad_nb.device)
    with pytest.raises(AttributeError, match="Nothing"):
        pratipad_nb.device.Nothing  # noqa: B018


@pytest.mark.parametrize(("twin", "handle"), [(AsyncDevice, Device), (AsyncGateway, Gateway)])
def test_what_a_handle_has_its_asynchronous_twin_has_too(twin: type, handle: type) -> None:
    assert {name for name in dir(handle) if not name.startswith("_")} <= set(dir(twin))
