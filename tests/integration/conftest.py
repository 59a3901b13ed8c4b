"""A scene: flows, devices and clouds of a test, on the in-memory transport or a real server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from pratipad_nb import AsyncCloud, AsyncDevice, AsyncFlow
from pratipad_nb.portal import Portal
from pratipad_nb.session.site import Site
from pratipad_nb.testing import memory_server, real_server

_numbers = itertools.count(1)


def same(payload: Any) -> Any:
    return payload


class Gate:
    """A processor that lets messages pass while it is open: what a slow edge is, without a clock."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.at_work = 0

    def __call__(self) -> Any:
        return self.process

    async def process(self, payload: Any) -> Any:
        self.at_work += 1
        await self.open.wait()
        return payload


class Scene:
    """Makes the parts of a test and clears them away at its end."""

    def __init__(self, kind: str, where: dict[str, Any]) -> None:
        self.kind = kind
        self.gate = Gate()
        self._where = where
        self._flows: list[AsyncFlow] = []
        self._devices: list[AsyncDevice] = []
        self._clouds: list[AsyncCloud] = []

    async def flow(
        self, notation: str, *, namespace: dict[str, Any] | None = None, **options: Any
    ) -> AsyncFlow:
        """Start a flow; `gate` in its notation is this scene's gate."""
        names = {"same": same, "gate": self.gate.process} | (namespace or {})
        name = f"flow{next(_numbers)}"
        flow = AsyncFlow(notation, name=name, namespace=names, **self._where, **options)
        self._flows.append(flow)
        return await flow.start()

    async def device(self, flow: AsyncFlow, name: str = "room1", **options: Any) -> AsyncDevice:
        """Connect a device."""
        device = AsyncDevice(name, **options)
        self._devices.append(device)
        return await device.connect(flow)

    async def kill(self, device: AsyncDevice) -> None:
        """End a device as a power cut does: no farewell."""
        assert device._engine is not None
        assert device._running is not None
        if device._engine.link is not None:
            await device._engine.link.close()
        device._running.cancel()
        await asyncio.wait({device._running})

    def gone(self, device: AsyncDevice) -> None:
        """Know a closed device no longer."""
        self._devices.remove(device)

    async def cloud(self, flow: AsyncFlow, reader: str = "cloud") -> AsyncCloud:
        """Connect a cloud client."""
        cloud = AsyncCloud(flow.name, reader=reader, endpoint=await flow.endpoint_for("reader", reader))
        self._clouds.append(cloud)
        await cloud.connect()
        return cloud

    async def close(self) -> None:
        self.gate.open.set()
        for cloud in self._clouds:
            await cloud.close()
        for device in self._devices:
            with contextlib.suppress(Exception):
                await device.close(timeout=0)
        for flow in self._flows:
            await flow.stop()


@pytest.fixture(scope="module")
def server_home() -> Iterator[Path]:
    """The state folder of a real server that runs for all tests of a module."""
    with real_server() as home, Portal("holds the server") as portal:
        site = portal.run(Site.acquire(home, "interval"))
        yield home
        portal.run(site.release())


@contextlib.asynccontextmanager
async def opened(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    with contextlib.ExitStack() as stack:
        where: dict[str, Any]
        if kind == "memory":
            where = {"server": stack.enter_context(memory_server())}
        else:
            where = {"home": request.getfixturevalue("server_home")}
        scene = Scene(kind, where)
        try:
            yield scene
        finally:
            await scene.close()


@pytest.fixture(params=["memory", "nats"])
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """One scene, on each transport."""
    async with opened(request.param, request) as scene:
        yield scene


@pytest.fixture
async def scenes(request: pytest.FixtureRequest) -> AsyncIterator[list[Scene]]:
    """A scene on each transport, for tests that wait more than they work: both at the same time."""
    async with opened("memory", request) as memory, opened("nats", request) as nats:
        yield [memory, nats]
