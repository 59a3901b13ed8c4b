"""Which devices `flow.stats()` shows as connected, at a real server: killed, closed, and raw ones."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from patience import patient, until

from pratipad_nb import Device, Flow
from pratipad_nb.settings import Endpoint
from pratipad_nb.transport.tls import client_context

_PROGRAM = """
import sys, time
from pratipad_nb.device import Device
with Device("room1").connect(sys.argv[1], flow=sys.argv[2], certs=sys.argv[3]):
    time.sleep(600)
"""


def same(payload: object) -> object:
    return payload


@pytest.fixture(params=["", "acme"])
def flow(request: pytest.FixtureRequest, home: Path) -> Iterator[Flow]:
    name = f"there{time.monotonic_ns()}"
    with Flow("Push <~> same <~> Output", name=name, tenant=request.param, home=home) as flow:
        yield flow


def connected(flow: Flow, name: str = "room1") -> bool:
    devices = flow.stats().devices
    return name in devices and devices[name].connected


def test_a_device_is_shown_from_its_start_to_its_close_or_kill(flow: Flow, tmp_path: Path) -> None:
    folder = tmp_path / "room1"
    url = flow.invite("room1", folder).url
    assert not connected(flow)
    device = Device("room1").connect(flow)
    until(lambda: connected(flow))
    device.close()
    until(lambda: not connected(flow), 2)
    program = subprocess.Popen([sys.executable, "-c", _PROGRAM, url, flow.name, str(folder)])
    try:
        until(lambda: connected(flow))
    finally:
        program.kill()
        program.wait()
    until(lambda: not connected(flow), 2)


def test_a_device_that_says_no_hello_is_shown_while_it_has_a_connection(flow: Flow, tmp_path: Path) -> None:
    asyncio.run(_come_and_go(flow, flow.invite("lamp", tmp_path / "lamp")))


async def _come_and_go(flow: Flow, endpoint: Endpoint) -> None:
    assert endpoint.credentials is not None
    context = client_context(endpoint.credentials)
    options = {"tls_handshake_first": True, "allow_reconnect": False}
    inbox = f"_INBOX.{flow.name}.device.lamp"
    clients = [await nats.connect(endpoint.url, tls=context, inbox_prefix=inbox, **options) for _ in range(9)]
    await _until(lambda: connected(flow, "lamp") and flow.stats().devices["lamp"].connections == 9)
    assert "9 connections at once" in repr(flow.stats().devices)
    for client in clients[1:]:
        await client.close()
    await _until(lambda: flow.stats().devices["lamp"].connections == 1)
    assert connected(flow, "lamp")
    clients[0]._transport._io_writer.transport.abort()  # as by a program that is killed
    await _until(lambda: not connected(flow, "lamp"))


async def _until(condition) -> None:
    """Wait for `condition` at most two seconds of a quiet machine."""
    end = time.monotonic() + patient(2)
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
