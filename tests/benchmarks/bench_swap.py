"""What a change of processors costs under full load: hot swaps of a numbering processor with its state.

    python tests/benchmarks/bench_swap.py [--swaps 5] [--every 1.0] [--save artefacts/bench_swap.json]

The device pushes as fast as it is let, from a process of its own; flow and `take` run here, durable, over the
real server with mutual TLS. Each swap is what re-running a changed cell does: `Flow.update` with a namespace
in which the class is another one. Two numberings are checked to the last message: the device's and the
processor's own, which only goes on if `snapshot` and `restore` carried it over. Exits 1 if anything was lost,
doubled or reordered.

`pause` is how long the processor's stage stood still, as the swap's receipt says.
`messages_per_second` counts what reached Output while the swaps went on; the reader may be behind it,
and reads on to the last message.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench_throughput import facts, reading, say

from pratipad_nb import Credentials, Device, Endpoint, Flow

NOTATION = "Push <~> Numbers <~> Output"
#: Messages that one `take` asks for, and how long it may last in the end, in seconds, before the
#: rest counts as lost.
CHUNK, PATIENCE = 1000, 10.0


def numbering() -> type:
    """Return a new class, as a re-run cell makes one; it starts far off unless `restore` is called."""

    class Numbers:
        def __init__(self) -> None:
            self.count = -(10**12)

        def process(self, payload: dict[str, Any]) -> dict[str, Any]:
            self.count = max(self.count, 0) + 1
            return payload | {"count": self.count}

        def snapshot(self) -> int:
            return self.count

        def restore(self, state: int) -> None:
            self.count = state

    return Numbers


class Tally:
    """Checks both numberings of what is taken."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.taken = self.doubled = self.reordered = self.restarted = 0
        self._last = -1

    def add(self, payloads: list[dict[str, Any]]) -> None:
        for payload in payloads:
            n = payload["n"]
            if n >= len(self.seen):
                self.seen.extend(bytes(n + 1 - len(self.seen)))
            self.doubled += self.seen[n]
            self.reordered += n < self._last
            self.seen[n], self._last = 1, n
            self.taken += 1
            self.restarted += payload["count"] != self.taken


def be_the_device(place: str) -> None:
    """Push until a line comes in; say how many messages there were."""
    url, *files = json.loads(place)
    device = Device("room1").connect(Endpoint(url, "bench", Credentials(*map(Path, files))))
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    pushed = 0
    while not stop.is_set():
        device.push(reading(pushed))
        pushed += 1
    device.flush(120)
    say(pushed=pushed)
    device.close()


def take_all(flow: Flow, tally: Tally, pushed: list[int]) -> None:
    """Take until all pushed messages are there, or none come any more; `pushed` has their number."""
    quiet = time.monotonic()
    while not pushed or (tally.taken < pushed[0] and time.monotonic() - quiet < PATIENCE):
        wanted = min(CHUNK, pushed[0] - tally.taken) if pushed else CHUNK
        try:
            tally.add([message.payload for message in flow.take(wanted, timeout=1.0)])
            quiet = time.monotonic()
        except TimeoutError:
            # The last thousand is not full, or some are missing: take what is there one by one.
            if pushed and wanted > 1 and _one_by_one(flow, tally):
                quiet = time.monotonic()


def _one_by_one(flow: Flow, tally: Tally) -> bool:
    found = False
    try:
        while True:
            tally.add([flow.take(1, timeout=0.5)[0].payload])
            found = True
    except TimeoutError:
        return found


def measure(swaps: int, every: float, home: Path) -> dict[str, Any]:
    """Run the flow and swap its processor so many times while messages stream through it."""
    flow = Flow(NOTATION, name="bench", namespace={"Numbers": numbering()}, home=home).start()
    files = flow.endpoint_for("device", "room1").credentials
    place = json.dumps([flow.endpoint.url, str(files.authority), str(files.certificate), str(files.key)])
    child = subprocess.Popen(
        [sys.executable, __file__, f"--place={place}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    tally, pushed, receipts = Tally(), [], []
    reader = threading.Thread(target=take_all, args=(flow, tally, pushed))
    reader.start()
    while not tally.taken:
        time.sleep(0.01)
    time.sleep(every)
    first, at = flow.stats().delivered, time.monotonic()
    for _ in range(swaps):
        receipts.append(flow.update(NOTATION, {"Numbers": numbering()}))
        time.sleep(every)
    rate = (flow.stats().delivered - first) / (time.monotonic() - at)
    print("end", file=child.stdin, flush=True)
    pushed.append(facts(child)["pushed"])
    reader.join()
    child.communicate(timeout=30)
    stats = flow.stats()
    flow.stop()
    pauses = [r.pause for r in receipts]
    return {
        "swaps": sum(r.changed == ("Numbers",) for r in receipts),
        "messages": pushed[0],
        "messages_per_second": round(rate),
        "in_hand_most": max(r.in_flight for r in receipts),
        "pause_ms": {
            "median": round(1000 * statistics.median(pauses), 2),
            "max": round(1000 * max(pauses), 2),
        },
        "lost": pushed[0] - sum(tally.seen),
        "doubled": tally.doubled,
        "reordered": tally.reordered,
        "state_not_carried_over": tally.restarted,
        "dead": stats.dead,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--swaps", type=int, default=5)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two swaps")
    parser.add_argument("--save", type=Path, default=Path("artefacts") / "bench_swap.json")
    parser.add_argument("--place", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.place:
        be_the_device(options.place)
        return
    with tempfile.TemporaryDirectory(prefix="pratipad-bench-") as folder:
        found = measure(options.swaps, options.every, Path(folder))
    text = json.dumps(found, indent=1)
    print(text)
    options.save.parent.mkdir(parents=True, exist_ok=True)
    options.save.write_text(text + "\n")
    wrong = ("lost", "doubled", "reordered", "state_not_carried_over", "dead")
    sys.exit(found["swaps"] != options.swaps or any(found[name] for name in wrong))


if __name__ == "__main__":
    main()
