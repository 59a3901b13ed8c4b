"""How long an order takes from `flow.send` to one device of many, while all of them send readings.

    python tests/benchmarks/bench_orders.py --devices 1000 --orders 200

The devices, each with a connection and a certificate of its own, run in a second process. An order carries
the time at which `send` was called; the device notes how long ago that was when its `receive` begins. Both
read one clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from pratipad_nb import AsyncDevice, AsyncFlow, Credentials, Endpoint


def same(payload: object) -> object:
    return payload


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between a device's readings")
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two orders")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


async def devices(options: argparse.Namespace) -> None:
    """Be all devices; say when they are connected, and what each order took."""
    places = json.loads(options.child.read_text())

    async def receive(payload: dict[str, float]) -> None:
        print(json.dumps({"took": time.time() - payload["at"]}), flush=True)

    async def one(name: str, url: str, flow: str, files: list[str]) -> AsyncDevice:
        endpoint = Endpoint(url, flow, Credentials(*map(Path, files)))

        async def read() -> dict[str, float]:
            return {"temperature_c": 21.5, "humidity": 40.0}

        return await AsyncDevice(name, read=read, receive=receive, every=options.every).connect(endpoint)

    connected = []
    for start in range(0, len(places), 50):
        connected += await asyncio.gather(*(one(*place) for place in places[start : start + 50]))
    print(json.dumps({"connected": len(connected)}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    for device in connected:
        await device.close(timeout=1)


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="pratipad-bench-") as folder:
        flow = AsyncFlow("Push <~> same <~> Output", name="orders", home=Path(folder) / "state")
        async with flow:
            places = []
            for number in range(options.devices):
                endpoint = await flow.endpoint_for("device", f"d{number}")
                files = endpoint.credentials
                assert files is not None
                places.append(
                    [f"d{number}", endpoint.url, flow.name,
                     [str(files.authority), str(files.certificate), str(files.key)]]
                )  # fmt: skip
            table = Path(folder) / "devices.json"
            table.write_text(json.dumps(places))
            await measure(flow, options, table)


async def measure(flow: AsyncFlow, options: argparse.Namespace, table: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--child", str(table), "--every", str(options.every),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    await child.stdout.readline()
    while len(flow.devices) < options.devices:
        await asyncio.sleep(0.1)
    await asyncio.sleep(3)
    chance, took = random.Random(1), []
    before, began = flow.stats().delivered, time.monotonic()
    for _ in range(options.orders):
        await flow.send({"at": time.time()}, to=f"d{chance.randrange(options.devices)}")
        took.append(json.loads(await asyncio.wait_for(child.stdout.readline(), 30))["took"])
        await asyncio.sleep(options.pause)
    rate = (flow.stats().delivered - before) / (time.monotonic() - began)
    child.stdin.write(b"\n")
    child.stdin.close()
    await child.wait()
    cuts = statistics.quantiles(took, n=100)
    print(
        f"{options.devices} devices, {rate:,.0f} readings/s forward, {len(took)} orders: "
        f"p50 {1e3 * cuts[49]:.1f} ms, p90 {1e3 * cuts[89]:.1f} ms, p99 {1e3 * cuts[98]:.1f} ms"
    )


if __name__ == "__main__":
    given = arguments()
    asyncio.run(devices(given) if given.child else main(given))
