"""A flow that runs for long while a page watches it: memory stays flat, the page unflooded, and all arrives.

    python tests/benchmarks/soak.py --minutes 60 [--save artefacts/soak.json]

JupyterLab in Chromium shows the picture of a durable flow on the real server with mutual TLS. Its devices
live in the same kernel: they push in waves, and come and go. Once a minute the cell of the processor is
changed and run again (a hot swap), and every other minute a node's inspector is open. The processor checks
that no device's numbers have a gap or turn back, over swaps and returns; at the end all that was pushed has
to be at Output, once.

Every `EVERY` seconds this samples the kernel's resident memory, the page's JavaScript heap and DOM nodes
after a garbage collection, and what the picture has sent over the websocket. Exits 1 if one of `LIMITS` is
exceeded, or anything is lost, doubled or failed. Memory counts after the first quarter, in which buffers and
code caches fill: what the straight line through the rest rises by from its first to its last sample.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
from playwright.sync_api import Page, sync_playwright

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "browser")]
from conftest import Jupyter, Lab, chromium  # the browser tests' JupyterLab

EVERY = 10.0
WARM_UP = 0.25
#: What may not be exceeded. Updates and bytes are those of the busiest minute (a click is answered at once,
#: so that ten seconds may have one update more); a rise is that of the fitted line.
LIMITS = {"updates/s": 5.0, "bytes/s": 20_000.0, "kernel rise, MB": 8.0, "page rise, MB": 4.0}

SETUP = """
%load_ext pratipad_nb
import json, math, random, threading, time
from pathlib import Path
from pratipad_nb import Device, Processor
"""
PROCESSOR = """
class InOrder(Processor):  # edition {edition}
    def __init__(self): self.last = {{}}
    def snapshot(self): return self.last
    def restore(self, state): self.last = dict(state)
    def process(self, reading, message):
        before, self.last[message.device] = self.last.get(message.device, 0), reading["n"]
        if reading["n"] != before + 1:
            raise ValueError(f"{{reading['n']}} after {{before}}")
        return reading

def Same(reading): return reading
"""
FLOW = "%%dataflow soak\nPush <~> InOrder <~> Same <~> Output"
DRIVE = """
pushed, ending = {f"room{n}": 0 for n in range(12)}, threading.Event()

def drive():
    chance, connected, number = random.Random(1), {}, 0
    while not ending.wait(0.1):
        number += 1
        if number % 20 == 1:  # every two seconds one comes or goes
            name = chance.choice(list(pushed))
            if name in connected:
                connected.pop(name).close()
            else:
                connected[name] = Device(name).connect(soak)
        count = round(4 + 3 * math.sin(number / 100))  # a wave a minute
        for name, device in connected.items():
            for _ in range(count):
                pushed[name] += 1
                device.push({"n": pushed[name], "temperature_c": 20 + chance.random(), "humidity": 40.5})
    for device in connected.values():
        device.close()

driver = threading.Thread(target=drive)
driver.start()
"""
END = """
ending.set(); driver.join(60); soak.settled(60)
s = soak.stats()
Path("end.json").write_text(json.dumps({
    "pushed": sum(pushed.values()), "received": s.received, "delivered": s.delivered, "dead": s.dead,
    "repeats": s.repeats, "swaps": s.processors["InOrder"].version}))
soak.stop()
"""
CELLS = (SETUP, PROCESSOR.format(edition=0), FLOW, DRIVE, END)
AT_PROCESSOR, AT_END = 1, 4


class Traffic:
    """Counts what the websockets of a page bring: updates of widgets, and their bytes."""

    def __init__(self, page: Page) -> None:
        self.updates = self.bytes = 0
        page.on("websocket", lambda socket: socket.on("framereceived", self._count))

    def _count(self, frame: str | bytes) -> None:
        data = frame.encode() if isinstance(frame, str) else frame
        if b"comm_msg" in data and b'"update"' in data:
            self.updates += 1
            self.bytes += len(data)

    def taken(self) -> tuple[int, int]:
        """Return what was counted, and begin anew."""
        found, self.updates, self.bytes = (self.updates, self.bytes), 0, 0
        return found


class Watch:
    """Samples one kernel and the page that shows its flow."""

    def __init__(self, page: Page, traffic: Traffic) -> None:
        self._kernel = next(
            p
            for p in psutil.Process().children(recursive=True)
            if "ipykernel_launcher" in " ".join(p.cmdline())
        )
        self._debugger = page.context.new_cdp_session(page)
        self._debugger.send("Performance.enable")
        self._traffic = traffic
        self._began = self._at = time.monotonic()
        traffic.taken()
        self._kernel.cpu_percent()
        self.samples: list[dict[str, float]] = []

    def sample(self) -> None:
        """Take one sample."""
        (updates, size), now = self._traffic.taken(), time.monotonic()
        seconds, self._at = now - self._at, now
        self._debugger.send("HeapProfiler.collectGarbage")
        page = {m["name"]: m["value"] for m in self._debugger.send("Performance.getMetrics")["metrics"]}
        self.samples.append(
            {
                "minute": round((now - self._began) / 60, 2),
                "kernel, MB": round(self._kernel.memory_info().rss / 1e6, 2),
                "kernel, % CPU": self._kernel.cpu_percent(),
                "page, MB": round(page["JSHeapUsedSize"] / 1e6, 2),
                "page, nodes": page["Nodes"],
                "updates/s": round(updates / seconds, 2),
                "bytes/s": round(size / seconds),
            }
        )


def rise(samples: list[dict[str, float]], name: str) -> float:
    """Return what the line through the samples rises by over their time."""
    minutes = [each["minute"] for each in samples]
    slope = statistics.linear_regression(minutes, [each[name] for each in samples]).slope
    return slope * (minutes[-1] - minutes[0])


def busiest_minute(samples: list[dict[str, float]], name: str) -> float:
    """Return the highest mean of as many samples in a row as a minute has."""
    width, values = min(len(samples), round(60 / EVERY)), [each[name] for each in samples]
    return max(statistics.fmean(values[at : at + width]) for at in range(len(values) - width + 1))


def run(lab: Lab, minutes: float, watch: Watch) -> dict[str, Any]:
    """Let the flow run, touch it now and then, and return what it says in the end."""
    until, minute = time.monotonic() + 60 * minutes, 0
    began, node = time.monotonic(), lab.page.locator("[data-key=Same]").first
    while time.monotonic() < until:
        lab.page.wait_for_timeout(1000 * EVERY)
        watch.sample()
        if int((time.monotonic() - began) / 60) > minute:
            minute += 1
            lab.write(AT_PROCESSOR, PROCESSOR.format(edition=minute))
            lab.run(AT_PROCESSOR)
            lab.cell(AT_PROCESSOR).get_by_text("lost 0").wait_for()
            # Opens the inspector, or closes it. A mouse would make its cell the active one, and JupyterLab
            # 4.6 never frees the toolbars that it gives to active cells: some 500 nodes at each change.
            node.dispatch_event("click")
    lab.run(AT_END)
    found = lab.jupyter.notebooks / "end.json"
    patience = time.monotonic() + 150
    while not found.exists() or not found.read_text().endswith("}"):
        assert time.monotonic() < patience, "the flow did not end"
        lab.page.wait_for_timeout(500)
    return {"swaps asked": minute} | json.loads(found.read_text())


def soak(minutes: float, folder: Path) -> tuple[list[dict[str, float]], dict[str, Any], list[str]]:
    """Run the notebook for so long; return the samples, the flow's last numbers and the page's errors."""
    jupyter = Jupyter(folder)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, jupyter.notebooks / "soak.ipynb")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1200, "height": 1600})
            traffic = Traffic(page)
            lab = Lab(page, jupyter, "soak.ipynb")
            for cell in range(AT_END):
                lab.run(cell)
            page.locator("[data-key=Output]").get_by_text("delivered").wait_for()
            lab.until_idle()
            watch = Watch(page, traffic)
            end = run(lab, minutes, watch)
            browser.close()
            return watch.samples, end, lab.errors
    finally:
        jupyter.end_kernels()
        jupyter.stop()


def judged(
    samples: list[dict[str, float]], end: dict[str, Any], errors: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return the figures that count, and what is wrong with them."""
    warm = samples[int(WARM_UP * len(samples)) :]
    figures = {
        "updates/s": round(busiest_minute(samples, "updates/s"), 2),
        "bytes/s": round(busiest_minute(samples, "bytes/s")),
        "kernel rise, MB": round(rise(warm, "kernel, MB"), 2),
        "page rise, MB": round(rise(warm, "page, MB"), 2),
    }
    wrong = [
        f"{name}: {figures[name]} is more than {most}"
        for name, most in LIMITS.items()
        if figures[name] > most
    ]
    if not end["pushed"] == end["received"] == end["delivered"]:
        wrong.append(f"lost or doubled: {end}")
    if end["dead"]:
        wrong.append(f"{end['dead']} readings came out of order")
    if end["swaps"] != end["swaps asked"]:
        wrong.append(f"{end['swaps']} of {end['swaps asked']} swaps")
    return figures, wrong + errors


def show(samples: list[dict[str, float]], figures: dict[str, Any], end: dict[str, Any]) -> None:
    names = list(samples[0])
    print("  ".join(f"{name:>13}" for name in names))
    for each in samples[:: max(1, len(samples) // 20)]:
        print("  ".join(f"{each[name]:>13,.6g}" for name in names))
    for name, value in figures.items():
        print(f"{name}: {value:,} (at most {LIMITS[name]:,})")
    print(", ".join(f"{name} {value:,}" for name, value in end.items()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--save", type=Path, default=Path("artefacts") / "soak.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pratipad-soak-", ignore_cleanup_errors=True) as folder:
        samples, end, errors = soak(options.minutes, Path(folder))
    figures, wrong = judged(samples, end, errors)
    show(samples, figures, end)
    options.save.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"figures": figures, "end": end, "wrong": wrong, "samples": samples}, indent=1)
    options.save.write_text(text + "\n")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
