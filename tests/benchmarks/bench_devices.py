"""Many devices at one edge: 10,000 behind ten gateways, or 1,000 with a connection each; a message a second.

The edge, the server and the devices are processes of their own. A processor checks that each device's
messages come without a gap and in order. Prints one line of JSON::

    python tests/benchmarks/bench_devices.py --gateways 10 --devices 10000 --seconds 30
    python tests/benchmarks/bench_devices.py --gateways 0 --devices 1000 --seconds 30

Without gateways every device has its own connection. `cpu` is in per cent of one core, `rss` in MiB; of the
edge the latter is told at each fifth of the time, for it has to stay flat.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from pratipad_nb import AsyncDevice, AsyncFlow, AsyncGateway, Processor
from pratipad_nb.settings import Credentials, Endpoint

#: How often a gateway hands on what its devices measured, in seconds: each has its own moment in the second.
_STEP = 0.02
_SAMPLES = 5
Push = Callable[[Any], Awaitable[Any]]


class InOrder(Processor):
    """Fails on a message that doesn't follow the last one of its device, so that it becomes a dead letter."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}

    def process(self, payload: Any, message: Any) -> Any:
        before, self.last[message.device] = self.last.get(message.device, 0), payload["n"]
        if payload["n"] != before + 1:
            raise ValueError(f"{payload['n']} after {before}")
        return payload


async def send(devices: list[Push], rounds: int) -> None:
    """Let every device push once a second, at its own moment."""
    steps = round(1 / _STEP)
    began = time.monotonic()
    for number in range(rounds):
        for step in range(steps):
            for push in devices[step::steps]:
                await push({"n": number + 1, "temperature": 20.0 + number % 10, "humidity": 50})
            await asyncio.sleep(began + number + (step + 1) * _STEP - time.monotonic())


async def devices(url: str, folder: Path, count: int, gateways: int, rounds: int) -> None:
    """The process of the devices: connects, waits for a line of its input, sends."""
    links: list[Any] = []
    pushes: list[Push] = []
    if gateways:
        for index in range(gateways):
            where = Endpoint(url, "many", Credentials.in_folder(folder / f"gw{index}"))
            links.append(await AsyncGateway(f"gw{index}").connect(where))
        pushes = [links[i % gateways].device(f"t{i}").push for i in range(count)]
    else:
        room = asyncio.Semaphore(20)

        async def connected(name: str) -> AsyncDevice:
            async with room:
                where = Endpoint(url, "many", Credentials.in_folder(folder / name))
                return await AsyncDevice(name).connect(where)

        links = await asyncio.gather(*(connected(f"d{i}") for i in range(count)))
        pushes = [link.push for link in links]
    print("connected", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await send(pushes, rounds)
    await asyncio.gather(*(link.flush() for link in links))
    print("sent", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.gather(*(link.close() for link in links))


async def measure(count: int, gateways: int, seconds: int, home: Path) -> dict[str, Any]:
    """The edge's process: starts the flow and the devices, and measures."""
    flow = AsyncFlow("Push <~> InOrder <~> Output", name="many", home=home, namespace=globals())
    await flow.start()
    names = [f"gw{i}" for i in range(gateways)] or [f"d{i}" for i in range(count)]
    began = time.monotonic()
    for at in range(0, len(names), 100):  # together, for the server takes in those that come together at once
        await asyncio.gather(*(flow.invite(name, home / "cards" / name) for name in names[at : at + 100]))
    invited = time.monotonic() - began
    command = [sys.executable, __file__, "--role", flow.endpoint.url, "--home", str(home / "cards")]
    command += ["--devices", str(count), "--gateways", str(gateways), "--seconds", str(seconds)]
    began = time.monotonic()
    child = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert await child.stdout.readline() == b"connected\n"
    connected = time.monotonic() - began
    edge = psutil.Process()
    server = next(each for each in edge.children(recursive=True) if "nats-server" in each.name())
    parties = {"edge": edge, "server": server, "devices": psutil.Process(child.pid)}
    for party in parties.values():
        party.cpu_percent()
    child.stdin.write(b"go\n")
    rss = []
    for _ in range(_SAMPLES):
        await asyncio.sleep(seconds / _SAMPLES)
        rss.append(round(edge.memory_info().rss / (1 << 20), 1))
    cpu = {name: round(party.cpu_percent(), 1) for name, party in parties.items()}
    server_rss = round(parties["server"].memory_info().rss / (1 << 20), 1)
    assert await child.stdout.readline() == b"sent\n"
    await flow.settled()
    began = time.monotonic()
    stats = flow.stats()
    stats_seconds = time.monotonic() - began
    child.stdin.write(b"end\n")
    await child.wait()
    await flow.stop()
    return {
        "devices": count, "connections": len(names), "sent": count * seconds,
        "received": stats.received, "delivered": stats.delivered, "repeats": stats.repeats,
        "out_of_order": stats.dead,
        "p50_ms": round(1000 * stats.p50, 1), "p99_ms": round(1000 * stats.p99, 1),
        "cpu": cpu, "edge_rss": rss, "server_rss": server_rss,
        "invited_s": round(invited, 2), "connected_s": round(connected, 2),
        "stats_ms": round(1000 * stats_seconds, 2), "in_stats": len(stats.devices),
    }  # fmt: skip


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--gateways", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--role", default="", help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        asyncio.run(devices(given.role, given.home, given.devices, given.gateways, given.seconds))
        return
    with tempfile.TemporaryDirectory() as home:
        print(json.dumps(asyncio.run(measure(given.devices, given.gateways, given.seconds, Path(home)))))


if __name__ == "__main__":
    main()
