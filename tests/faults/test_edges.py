"""Several edges share a flow: they come, go and are killed while devices push; no message suffers."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from patience import until

from pratipad_nb import Cloud, Device

EDGE = Path(__file__).with_name("edge.py")
PARTITIONS = 4
pytestmark = pytest.mark.timeout(120)


class EdgeProcess:
    """A child process running `edge.py`."""

    def __init__(self, endpoint):
        folder = endpoint.credentials.certificate.parent
        self.process = subprocess.Popen(
            [sys.executable, str(EDGE), endpoint.url, str(folder), endpoint.flow, str(PARTITIONS)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.runs = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self):
        for line in self.process.stdout:
            self.runs = json.loads(line).get("runs", [])

    def end(self, how):
        how()
        self.process.wait(20)
        self._reading.join(5)
        self.process.stdout.close()
        self.process.stdin.close()
        self.runs = []

    def kill(self):
        self.end(self.process.kill)

    def stop(self):
        def ask():
            self.process.stdin.write("stop\n")
            self.process.stdin.flush()

        self.end(ask)


class Pushing:
    """Devices that push numbers, each from a thread of its own, until told to stop."""

    def __init__(self, endpoint_for, names):
        self.devices = [Device(name).connect(endpoint_for("device", name)) for name in names]
        self.counts = dict.fromkeys(names, 0)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._push, args=(device,)) for device in self.devices]
        for thread in self._threads:
            thread.start()

    def _push(self, device):
        while not self._stop.is_set():
            self.counts[device.name] += 1
            device.push({"n": self.counts[device.name]})
            time.sleep(0.001)

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for device in self.devices:
            device.close()


def test_edges_that_come_go_and_are_killed_lose_double_and_reorder_nothing(endpoint_for):
    edge = endpoint_for("edge", "")
    first = EdgeProcess(edge)
    until(lambda: first.runs == list(range(PARTITIONS)))
    pushing = Pushing(endpoint_for, [f"room{i}" for i in range(8)])

    second = EdgeProcess(edge)
    until(lambda: len(first.runs) == len(second.runs) == PARTITIONS // 2)
    first.kill()
    until(lambda: second.runs == list(range(PARTITIONS)))
    third = EdgeProcess(edge)
    until(lambda: len(second.runs) == len(third.runs) == PARTITIONS // 2)
    second.stop()
    until(lambda: third.runs == list(range(PARTITIONS)))
    pushing.stop()

    total = sum(pushing.counts.values())
    arrived = {name: [] for name in pushing.counts}
    with Cloud("house", endpoint=endpoint_for("reader", "cloud")) as cloud:
        for message in cloud.take(total, timeout=60):
            arrived[message.device].append(message.payload["n"])
        assert arrived == {name: list(range(1, n + 1)) for name, n in pushing.counts.items()}
        with pytest.raises(TimeoutError):
            cloud.take(1, timeout=1.0)
    third.stop()
