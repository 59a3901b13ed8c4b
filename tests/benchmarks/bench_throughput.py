"""How fast one flow is: a device in one process, flow and `take` in another, the real server, mutual TLS.

    python tests/benchmarks/bench_throughput.py [--repeats 5] [--messages 400000] \\
        [--save docs/benchmarks.json]

One processor, messages of six fields. Each repeat is a fresh pair of processes and a fresh state folder; the
table shows medians, and the lowest and highest value beside them. Machines are noisy: compare ratios of one
run, not runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from pratipad_nb import Credentials, Device, Endpoint, Flow

RESULT = Path("artefacts") / "bench.json"
#: Rates are counted over windows of so many seconds.
WINDOW = 0.25
LATENCY_RATE, LATENCY_SECONDS = 200, 5.0
#: The rate that is tried first when a fast flow lost some at full speed, messages a second.
FAST_FROM = 200_000.0


class Celsius:
    def process(self, reading: dict[str, Any]) -> dict[str, Any]:
        return reading | {"celsius": (reading["fahrenheit"] - 32) / 1.8}


def reading(number: int) -> dict[str, Any]:
    """Return a message of six fields."""
    return {
        "n": number,
        "room": "kitchen",
        "fahrenheit": 70.0 + number % 100 / 10,
        "humidity": 40.5,
        "co2": 400 + number % 900,
        "open": number % 7 == 0,
    }


def flow_at(home: Path, delivery: str) -> Flow:
    return Flow(
        "Push <~> Celsius <~> Output",
        name="bench",
        namespace={"Celsius": Celsius},
        home=home,
        delivery=delivery,
    )


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


# -- the two processes ---------------------------------------------------------------------------------------


def be_the_device(options: argparse.Namespace) -> None:
    """Push `--messages` messages, at `--rate` a second or as fast as they are taken."""
    url, *files = json.loads(options.place)
    endpoint = Endpoint(url, "bench", Credentials(*map(Path, files)))
    device = Device("room1").connect(endpoint)
    device.push(reading(0)).wait(20)
    began, cpu = time.monotonic(), time.process_time()
    for number in range(1, options.messages + 1):
        if options.rate and (wait := began + number / options.rate - time.monotonic()) > 0.001:
            time.sleep(wait)
        device.push(reading(number))
    device.flush(120)
    say(cpu=time.process_time() - cpu)
    device.close()


def be_the_flow(options: argparse.Namespace) -> None:
    """Run the flow, let the device in, take what arrives and say what was seen."""
    with tempfile.TemporaryDirectory(prefix="pratipad-bench-") as folder:
        flow = flow_at(Path(folder) / "home", options.delivery).start()
        files = flow.endpoint_for("device", "room1").credentials
        say(place=[flow.endpoint.url, str(files.authority), str(files.certificate), str(files.key)])
        server = next(p for p in psutil.Process().children(recursive=True) if p.name() == "nats-server")
        flow.take(1, timeout=30)
        cpu, server_cpu = time.process_time(), sum(server.cpu_times()[:2])
        chunk = 1 if 0 < options.rate <= 1000 else 1000
        seen = list(_taken(flow, options.messages, chunk))
        taken = sum(count for _, count, _ in seen)
        stats = flow.stats()
        say(
            rate=_sustained(seen),
            lost=options.messages - taken,
            dropped=stats.dropped,
            latencies=[late for _, _, lates in seen for late in lates] if options.rate else [],
            cpu=time.process_time() - cpu,
            server_cpu=sum(server.cpu_times()[:2]) - server_cpu,
            peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            taken=taken,
        )
        flow.stop()


def _taken(flow: Flow, messages: int, chunk: int) -> Iterator[tuple[float, int, list[float]]]:
    """Yield when how many messages were taken, and how old they were; check that none is out of order."""
    last = 0
    while last < messages:
        try:
            found = flow.take(min(chunk, messages - last), timeout=3.0)
        except TimeoutError:
            if chunk == 1:
                return
            chunk = 1  # some are missing: the rest one by one
            continue
        now = time.time()
        for message in found:
            assert message.payload["n"] > last, "out of order"
            last = message.payload["n"]
        yield now, len(found), [now - message.time for message in found]


def _sustained(seen: list[tuple[float, int, list[float]]]) -> float:
    """Return messages a second over all windows but the first and last: there it speeds up and runs dry."""
    if not seen:
        return 0.0
    windows: dict[int, int] = {}
    for now, count, _ in seen:
        at = int((now - seen[0][0]) / WINDOW)
        windows[at] = windows.get(at, 0) + count
    full = [windows.get(at, 0) for at in range(1, max(windows))]
    return statistics.fmean(full) / WINDOW if full else 0.0


def be_a_newcomer() -> None:
    """Time from the call that starts a flow, certificates and all, to the first message of its device."""
    with tempfile.TemporaryDirectory(prefix="pratipad-bench-") as folder:
        began = time.monotonic()
        with flow_at(Path(folder) / "home", "durable") as flow:
            device = Device("room1", read=lambda: reading(1), every=0.05).connect(flow)
            flow.take(1)
            say(first=time.monotonic() - began)
            device.close()


# -- the runs ------------------------------------------------------------------------------------------------


def child(role: str, options: argparse.Namespace, **more: Any) -> subprocess.Popen[str]:
    settings = {"messages": options.messages, "rate": 0, "delivery": "durable"} | more
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    return subprocess.Popen(
        [sys.executable, __file__, f"--role={role}", *arguments], stdout=subprocess.PIPE, text=True
    )


def facts(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a process of the benchmark ended early; its error stands above")
    return dict(json.loads(line))


def pair(options: argparse.Namespace, **settings: Any) -> dict[str, Any]:
    """Run flow and device once, and return what both say."""
    flow = child("flow", options, **settings)
    place = facts(flow)["place"]
    device = child("device", options, place=json.dumps(place), **settings)
    sent, found = facts(device), facts(flow)
    for process in (device, flow):
        process.wait(60)
        process.stdout.close()
    return found | {"device_cpu": sent["cpu"]}


def throughput(options: argparse.Namespace, delivery: str) -> dict[str, float]:
    found = pair(options, delivery=delivery)
    rate = FAST_FROM  # nothing holds a fast device back: find what gets through whole
    while found["lost"] and delivery == "fast":
        found = pair(options, delivery=delivery, rate=rate)
        rate *= 0.9
    assert not found["lost"], f"{found['lost']} messages were lost"
    micros = 1e6 / found["taken"]
    return {
        f"{delivery}: messages/s": found["rate"],
        f"{delivery}: device, µs CPU a message": found["device_cpu"] * micros,
        f"{delivery}: flow and take, µs CPU a message": found["cpu"] * micros,
        f"{delivery}: server, µs CPU a message": found["server_cpu"] * micros,
        f"{delivery}: flow's process, peak MB": found["peak"] / 1e6,
    }


def latency(options: argparse.Namespace, delivery: str) -> dict[str, float]:
    messages = int(LATENCY_RATE * LATENCY_SECONDS)
    found = pair(options, delivery=delivery, rate=LATENCY_RATE, messages=messages)
    lates = sorted(found["latencies"])
    return {
        f"{delivery}: latency p50 at {LATENCY_RATE}/s, ms": 1000 * statistics.median(lates),
        f"{delivery}: latency p99 at {LATENCY_RATE}/s, ms": 1000 * lates[int(0.99 * len(lates))],
    }


def first_message(options: argparse.Namespace) -> dict[str, float]:
    process = child("newcomer", options)
    found = facts(process)
    process.wait(30)
    process.stdout.close()
    return {"start to first message, s": found["first"]}


def measured(options: argparse.Namespace) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for repeat in range(options.repeats):
        print(f"repeat {repeat + 1} of {options.repeats} …", file=sys.stderr, flush=True)
        for delivery in ("durable", "fast"):
            for found in (throughput(options, delivery), latency(options, delivery)):
                for name, value in found.items():
                    values.setdefault(name, []).append(value)
        for name, value in first_message(options).items():
            values.setdefault(name, []).append(value)
    return values


def show(values: dict[str, list[float]]) -> None:
    width = max(map(len, values))
    print(f"{'':{width}}  {'median':>10}  {'lowest':>10}  {'highest':>10}")
    for name, found in values.items():
        print(f"{name:{width}}  " + "  ".join(f"{v:>10,.4g}" if v < 1000 else f"{v:>10,.0f}" for v in (
            statistics.median(found), min(found), max(found))))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--messages", type=int, default=400_000)
    parser.add_argument("--save", type=Path, default=RESULT)
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--delivery", default="durable", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        roles = {"device": be_the_device, "flow": be_the_flow, "newcomer": lambda _: be_a_newcomer()}
        roles[options.role](options)
        return
    load = os.getloadavg()[0]
    values = measured(options)
    show(values)
    options.save.parent.mkdir(parents=True, exist_ok=True)
    options.save.write_text(
        json.dumps(
            {
                "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}",
                "load average before": round(load, 2),
                "messages": options.messages,
                "values": {name: [float(f"{v:.4g}") for v in found] for name, found in values.items()},
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
