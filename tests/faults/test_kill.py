"""Processes are killed in the middle of a burst; what had a receipt arrives once and in order."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from patience import until

from pratipad_nb import Device, Flow
from pratipad_nb.errors import PratipadError
from pratipad_nb.testing import real_server

KERNEL = Path(__file__).with_name("kernel.py")
pytestmark = pytest.mark.timeout(120)


class Tag:
    def process(self, payload):
        return payload | {"tagged": True}


class Kernel:
    """A child process running `kernel.py`."""

    def __init__(self, home, first, count):
        self.process = subprocess.Popen(
            [sys.executable, str(KERNEL), str(home), str(first), str(count)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def facts(self, until):
        """Read what it says until `until` holds."""
        for line in self.process.stdout:
            fact = json.loads(line)
            if until(fact):
                return fact
        raise AssertionError("the kernel ended before that")

    def kill(self):
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()
        self.process.stdin.close()


def flow_at(home, **options):
    return Flow("Push ~> Tag ~> Output", name="house", namespace={"Tag": Tag}, home=home, **options)


def numbers_taken(flow, count):
    return [message.payload["n"] for message in flow.take(count, timeout=60)]


def server_pids(home):
    found = []
    for process in psutil.process_iter(["cmdline", "name"]):
        cmdline = " ".join(process.info["cmdline"] or ())
        if process.info["name"] == "nats-server" and str(home) in cmdline:
            found.append(process.pid)
    return found


def test_a_burst_survives_the_server_being_killed_twice():
    with real_server() as home, flow_at(home) as flow, Device("room1").connect(flow) as device:
        count = 30_000
        receipts = []

        def push():
            receipts.extend(device.push({"n": number}) for number in range(count))

        pusher = threading.Thread(target=push)
        pusher.start()
        for share in (0.2, 0.5):
            until(lambda share=share: flow.stats().delivered > count * share)
            (pid,) = server_pids(home)
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: any(p != pid for p in server_pids(home)))
        pusher.join(60)
        receipts[-1].wait(60)
        assert numbers_taken(flow, count) == list(range(count))
        flow.settled()
        assert flow.stats().delivered == count


def test_orders_survive_the_server_being_killed_while_they_flow():
    with (
        real_server() as home,
        Flow("Push <~> Tag <~> Output", name="house", namespace={"Tag": Tag}, home=home) as flow,
    ):
        run, sent, ending = [], [], threading.Event()
        with Device("room1", receive=run.append).connect(flow) as device:
            device.push({"n": 0}).wait(10)

            def send():
                while not ending.is_set():
                    if len(sent) > len(run) + 200:  # no faster than orders are run
                        time.sleep(0.001)
                        continue
                    with contextlib.suppress(
                        PratipadError
                    ):  # nobody knows whether it is stored: it may be run too
                        flow.send(len(sent), to="room1")
                        sent.append(len(sent))

            sender = threading.Thread(target=send)
            sender.start()
            for _ in range(2):
                count = len(run)
                until(lambda count=count: len(run) > count + 50)
                (pid,) = server_pids(home)
                os.kill(pid, signal.SIGKILL)
                until(lambda pid=pid: any(p != pid for p in server_pids(home)))
            count = len(run)
            until(lambda: len(run) > count + 50)
            ending.set()
            sender.join(30)
            until(lambda: run[-1] >= sent[-1])
            assert sorted(set(run)) == list(range(run[-1] + 1))
            assert run == sorted(run)
            assert flow.stats().state == "running"


def test_what_had_a_receipt_survives_the_whole_kernel_being_killed():
    with real_server() as home:
        kernel = Kernel(home, 0, 200_000)
        fact = kernel.facts(lambda fact: fact.get("confirmed", -1) > 10_000)
        kernel.kill()
        until(lambda: not server_pids(home))  # it dies with its parent
        with flow_at(home) as flow:
            flow.settled(60)
            stored = flow.stats()
            taken = numbers_taken(flow, fact["confirmed"] + 1)
            assert taken == list(range(fact["confirmed"] + 1))
            assert all(n >= 0 for n in taken)
            assert stored.state == "running"
            # What was sent and had no receipt yet may be there as well, but only once and in order.
            rest = flow_rest(flow)
            assert rest == list(range(len(taken), len(taken) + len(rest)))


def flow_rest(flow):
    from pratipad_nb.errors import WaitTimeout

    rest = []
    try:
        while True:
            rest += numbers_taken_soon(flow)
    except WaitTimeout:
        return rest


def numbers_taken_soon(flow):
    return [message.payload["n"] for message in flow.take(1, timeout=0.5)]


def test_a_second_kernel_joins_the_server_and_is_refused_the_same_flow():
    from pratipad_nb.errors import FlowError

    with real_server() as home:
        kernel = Kernel(home, 0, 10)
        try:
            kernel.facts(lambda fact: fact.get("done"))
            with pytest.raises(FlowError, match="runs already, in process"):
                flow_at(home).start()
            with Flow("Push ~> Tag ~> Output", name="other", home=home) as other:
                assert len(server_pids(home)) == 1
                with Device("d").connect(other) as device:
                    device.push({"n": 1}).wait(10)
                    assert numbers_taken(other, 1) == [1]
                    kernel.kill()
                    # The server died with its owner; the joined kernel takes over, on the
                    # same port and store.
                    device.push({"n": 2}).wait(30)
                assert numbers_taken(other, 1) == [2]
            with flow_at(home) as house:
                assert numbers_taken(house, 10) == list(range(10))
        finally:
            if kernel.process.poll() is None:
                kernel.kill()
