"""The state of processors is exact after `kill -9` of their edge, as positions are."""

import itertools
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pratipad_nb import Cloud, Device

SUMMING = Path(__file__).with_name("summing.py")
DEVICES = [f"room{n}" for n in range(4)]
pytestmark = pytest.mark.timeout(120)


class Edge:
    """A child process running `summing.py`."""

    def __init__(self, endpoint):
        folder = endpoint.credentials.certificate.parent
        self._process = subprocess.Popen(
            [sys.executable, str(SUMMING), endpoint.url, str(folder), endpoint.flow],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
        )
        assert self._process.stdout.readline()

    def is_killed(self):
        self._process.kill()
        self._process.wait(20)
        self._process.stdout.close()
        self._process.stdin.close()


def test_sums_and_windows_are_exact_after_several_kills(endpoint_for):
    chance = random.Random(7)
    stop, counts = threading.Event(), dict.fromkeys(DEVICES, 0)

    def push(device):
        while not stop.is_set():
            counts[device.name] += 1
            device.push({"n": counts[device.name]})
            time.sleep(0.0005)

    devices = [Device(name).connect(endpoint_for("device", name)) for name in DEVICES]
    pushing = [threading.Thread(target=push, args=(device,)) for device in devices]
    edge = Edge(endpoint_for("edge", ""))
    for thread in pushing:
        thread.start()
    for _ in range(4):
        time.sleep(chance.uniform(0.1, 0.7))  # the moment of the kill is what the test varies
        edge.is_killed()
        edge = Edge(endpoint_for("edge", ""))
    stop.set()
    for thread in pushing:
        thread.join()
    for device in devices:
        device.close()

    sums = {name: list(itertools.accumulate(range(1, n + 1))) for name, n in counts.items()}
    wanted = {name: [float(sum(found[at : at + 7])) for at in range(0, len(found) - 6, 7)]
              for name, found in sums.items()}  # fmt: skip
    arrived = {name: [] for name in DEVICES}
    with Cloud("house", endpoint=endpoint_for("reader", "cloud")) as cloud:
        for message in cloud.take(sum(map(len, wanted.values())), timeout=60):
            arrived[message.device].append(message.payload["sum"])
    edge.is_killed()
    assert arrived == wanted
