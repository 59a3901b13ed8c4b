"""What the live picture costs: one durable flow at full load, with and without it, in turn and in one run.

    python tests/benchmarks/bench_view.py [--repeats 6] [--seconds 5] [--save artefacts/bench_view.json]

The flow runs in a real kernel over the real server with mutual TLS; its device pushes as fast as it is let,
from a process of its own. This process is the front end: it shows the widget as a `%%dataflow` cell does,
receives every update that a page would, and opens the inspector by the message that a click sends. The
stretches alternate (none, picture, none, picture with an open inspector), since a machine's speed drifts;
what counts is the ratio of medians.

Measured is what the kernel pays: snapshots, samples, the widget's thread, JSON and sockets, and taking the
updates in. Not measured is what the page does with them: a browser draws in processes of its own, mostly on
another machine. Exits 1 if either costs more of the throughput than `ALLOWED`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from bench_swap import __file__ as device_program
from jupyter_client.manager import KernelManager

#: The share of the throughput that the picture may cost.
ALLOWED = 0.05
#: Seconds that the flow has to find its pace again after the picture has come or gone.
SETTLES = 1.0
ROUND = ("none", "picture", "none", "inspector")

SETUP = """
import json, time
from pratipad_nb import Flow
from pratipad_nb.notebook.shows import Shows

class Celsius:
    def process(self, reading):
        return reading | {"celsius": (reading["fahrenheit"] - 32) / 1.8}

bench = Flow("Push <~> Celsius <~> Output", name="bench").start()
shows = Shows(get_ipython())
files = bench.endpoint_for("device", "room1").credentials
print(json.dumps([bench.endpoint.url, str(files.authority), str(files.certificate), str(files.key)]))
"""
MEASURE = """
first, began = bench.stats().delivered, time.monotonic()
time.sleep({seconds})
last, ended = bench.stats(), time.monotonic()
count = last.delivered - first
print(json.dumps({{"rate": count / (ended - began), "count": count, "dead": last.dead}}))
"""


class FrontEnd:
    """A kernel's client that takes in all a page would, and counts what comes for widgets."""

    def __init__(self, manager: KernelManager) -> None:
        self._client = manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)
        self._widget = ""
        self.updates = self.bytes = 0

    def run(self, source: str) -> str:
        """Run a cell to its end and return what it printed."""
        asked, printed = self._client.execute(source), ""
        while True:
            message = self._client.get_iopub_msg(timeout=60)
            kind, content = message["msg_type"], message["content"]
            if kind == "comm_msg":
                self.updates += 1
                self.bytes += len(json.dumps(content))
            elif kind == "display_data":
                view = content["data"].get("application/vnd.jupyter.widget-view+json", {})
                self._widget = view.get("model_id", self._widget)
            elif message["parent_header"].get("msg_id") != asked:
                continue
            elif kind == "stream":
                printed += content["text"]
            elif kind == "error":
                raise SystemExit("\n".join(content["traceback"]))
            elif kind == "status" and content["execution_state"] == "idle":
                return printed

    def inspect(self, key: str) -> None:
        """Open a node's inspector, by the message that the page sends."""
        data = {"method": "custom", "content": {"do": "inspect", "key": key, "filter": ""}}
        self._client.shell_channel.send(
            self._client.session.msg("comm_msg", {"comm_id": self._widget, "data": data})
        )

    def close(self) -> None:
        self._client.stop_channels()


@contextlib.contextmanager
def kernel(folder: Path) -> Iterator[tuple[FrontEnd, psutil.Process]]:
    """Start a kernel whose flows have a state folder of their own."""
    manager = KernelManager(connection_file=str(folder / "kernel.json"))
    private = {"PRATIPAD_HOME": str(folder / "state"), "IPYTHONDIR": str(folder / "ipython")}
    manager.start_kernel(env=os.environ | private, cwd=str(folder))
    front_end = None
    try:
        front_end = FrontEnd(manager)
        yield front_end, psutil.Process(manager.provisioner.pid)
    finally:
        if front_end is not None:
            front_end.close()
        manager.shutdown_kernel(now=True)


def stretch(front_end: FrontEnd, process: psutil.Process, shown: str, seconds: float) -> dict[str, float]:
    """Measure the flow for so many seconds with what is shown: nothing, the picture, or an inspector too."""
    front_end.run("shows.close()" if shown == "none" else "shows.show(bench)")
    if shown == "inspector":
        front_end.inspect("Celsius")
    front_end.run(f"time.sleep({SETTLES})")
    front_end.updates = front_end.bytes = 0
    before = sum(process.cpu_times()[:2])
    found = json.loads(front_end.run(MEASURE.format(seconds=seconds)))
    assert not found["dead"], f"{found['dead']} messages failed"
    cpu = sum(process.cpu_times()[:2]) - before
    updates, size = front_end.updates / seconds, front_end.bytes / seconds
    if shown != "none":
        front_end.run("shows.close()")
    return {
        "messages/s": found["rate"], "kernel, µs CPU a message": 1e6 * cpu / found["count"],
        "updates/s": updates, "bytes/s": size,
    }  # fmt: skip


def measure(repeats: int, seconds: float, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Run the flow and return, by what was shown, the values of all its stretches."""
    values: dict[str, dict[str, list[float]]] = {shown: {} for shown in ROUND}
    with kernel(folder) as (front_end, process):
        place = front_end.run(SETUP).strip()
        device = subprocess.Popen(
            [sys.executable, device_program, f"--place={place}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        try:
            front_end.run("while not bench.stats().delivered: time.sleep(0.05)")
            stretch(front_end, process, "inspector", 1.0)  # the first picture loads matplotlib
            for repeat in range(repeats):
                print(f"round {repeat + 1} of {repeats} …", file=sys.stderr, flush=True)
                for shown in ROUND:
                    for name, value in stretch(front_end, process, shown, seconds).items():
                        values[shown].setdefault(name, []).append(value)
        finally:
            device.communicate("end\n", timeout=60)
        front_end.run("bench.stop()")
    return values


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each stretch")
    parser.add_argument("--save", type=Path, default=Path("artefacts") / "bench_view.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pratipad-bench-", ignore_cleanup_errors=True) as folder:
        values = measure(options.repeats, options.seconds, Path(folder))
    found: dict[str, dict[str, Any]] = {
        shown: {name: float(f"{statistics.median(each):.4g}") for name, each in columns.items()}
        for shown, columns in values.items()
    }
    plain = statistics.median(values["none"]["messages/s"])
    costs = {
        shown: 1 - statistics.median(values[shown]["messages/s"]) / plain
        for shown in ("picture", "inspector")
    }
    for shown, cost in costs.items():
        found[shown]["cost of throughput, %"] = round(100 * cost, 1)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    print(text)
    options.save.parent.mkdir(parents=True, exist_ok=True)
    options.save.write_text(text + "\n")
    sys.exit(any(cost > ALLOWED for cost in costs.values()))


if __name__ == "__main__":
    main()
