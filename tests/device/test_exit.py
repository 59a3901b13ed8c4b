"""`sys.exit()` in a function of one device: a process with two devices goes on with both."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pratipad_nb import Flow
from pratipad_nb.testing import real_server

#: Two devices in one process; the first one leaves at its first order. Ends when both have run the order
#: "end".
DEVICES = """
import json, sys, threading, time
from pratipad_nb import Credentials, Device, Endpoint

run, ended = {{"leaves": [], "stays": []}}, threading.Semaphore(0)

{kind} leaves(order):
    run["leaves"].append(order)
    if order == "leave":
        sys.exit(3)
    if order == "end":
        ended.release()

def stays(order):
    run["stays"].append(order)
    if order == "end":
        ended.release()

def endpoint(name):
    return Endpoint({url!r}, "house", Credentials.in_folder({folder!r} + "/" + name))

devices = [
    Device(name, receive=receive).connect(endpoint(name))
    for name, receive in (("leaves", leaves), ("stays", stays))
]
for device in devices:
    device.push("hello").wait(20)
print("connected", flush=True)
end = time.monotonic() + 20
while not devices[0].error and time.monotonic() < end:
    time.sleep(0.01)
error = devices[0].error
print("failed", flush=True)
both = all(ended.acquire(timeout=20) for _ in devices)
for device in devices:
    device.push("still here").wait(20)
    device.close()
print(json.dumps({{"run": run, "error": error, "both": both}}))
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with real_server() as folder:
        yield folder


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_receive_that_calls_sys_exit_ends_neither_device_of_its_process(
    home: Path, tmp_path: Path, kind: str
) -> None:
    namespace = {"same": lambda payload: payload}
    with Flow("Push <~> same <~> Output", name="house", home=home, namespace=namespace) as flow:
        for name in ("leaves", "stays"):
            endpoint = flow.invite(name, tmp_path / name)
        program = DEVICES.format(kind=kind, url=endpoint.url, folder=str(tmp_path))
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                assert process.stdout.readline() == "connected\n", process.stderr.read()
                flow.send("leave", to="leaves")
                assert process.stdout.readline() == "failed\n"
                flow.send("end", to=["leaves", "stays"])
                told = json.loads(process.stdout.readline())
                assert process.wait(20) == 0
            finally:
                process.kill()
        assert told["both"]
        assert told["run"] == {"leaves": ["leave", "end"], "stays": ["end"]}
        assert "device 'leaves': receive raised SystemExit: 3" in told["error"]
        payloads = [message.payload for message in flow.take(4, timeout=10)]
        assert sorted(payloads) == ["hello", "hello", "still here", "still here"]
        flow.forget()
