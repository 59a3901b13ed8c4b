"""The server ends politely under load and comes back, as by `systemctl restart`; nothing is lost."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time

import pytest
from patience import until

from pratipad_nb import AsyncFlow, Cloud, Device, Flow, FlowOptions
from pratipad_nb.errors import TransportError, WaitTimeout
from pratipad_nb.testing import real_server
from pratipad_nb.transport.connecting import connect
from pratipad_nb.transport.subjects import Subjects

ENDS = 6
HOUSE = "Push <~> poisoned <~> Output"
pytestmark = pytest.mark.timeout(180)


class ServerProcess:
    """`pratipad server` on the state folder `home`."""

    def __init__(self, home):
        self._home = home
        self.start()

    def start(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pratipad_nb.cli.main", "server", "--home", str(self._home)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert "tls://" in self._process.stdout.readline()

    def end(self):
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(20)
        self._process.stdout.close()
        return code


@pytest.fixture
def server():
    with real_server() as home:
        process = ServerProcess(home)
        process.home = home
        yield process
        process.end()


def poisoned(payload):
    if payload["n"] % 500 == 7:
        raise ValueError("poisoned")
    return payload


def settings_at(home, **options):
    options = FlowOptions(checkpoint_seconds=0.05, **options)
    return {"name": "house", "namespace": {"poisoned": poisoned}, "home": home, "options": options}


class Threads:
    """Threads that run until `end`, whose failures are the test's."""

    def __init__(self):
        self.ending = threading.Event()
        self.failures = []
        self._threads = []

    def run(self, work):
        def loop():
            try:
                while not self.ending.is_set():
                    work()
            except BaseException as error:
                self.failures.append(error)

        thread = threading.Thread(target=loop)
        self._threads.append(thread)
        thread.start()

    def end(self):
        self.ending.set()
        for thread in self._threads:
            thread.join(60)
        assert self.failures == []


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_flow_its_reader_orders_and_dead_letters_go_on_over_six_ends_of_the_server(server, partitions):
    sent, ordered, taken, run = [], [], [], []
    with (
        Flow(HOUSE, **settings_at(server.home, partitions=partitions)) as flow,
        Device("room1", receive=run.append).connect(flow) as device,
        Cloud(flow, reader="archive") as cloud,
    ):
        threads = Threads()
        device.push({"n": -1}).wait(20)

        def push():
            number = len(sent)
            sent.append(device.push({"n": number}))
            if number % 20 == 0:
                time.sleep(0.001)

        def order():
            cloud.send(len(ordered), to="room1")
            ordered.append(len(ordered))
            time.sleep(0.005)

        def take():
            with contextlib.suppress(WaitTimeout):
                taken.extend(cloud.take(1, timeout=2))

        for work in (push, order, take):
            threads.run(work)
        for _ in range(ENDS):
            seen, orders = len(taken), len(run)
            until(lambda seen=seen, orders=orders: len(taken) > seen + 20 and len(run) > orders + 20)
            assert server.end() == 0
            server.start()
        seen, orders = len(taken), len(run)
        until(lambda: len(taken) > seen + 20 and len(run) > orders + 20)
        threads.end()
        sent[-1].wait(60)
        flow.settled()
        good = [number for number in range(-1, len(sent)) if number % 500 != 7]
        while len(taken) < len(good):
            taken.extend(cloud.take(min(5000, len(good) - len(taken)), timeout=30))
        assert [message.payload["n"] for message in taken] == good
        dead = [letter.payload["n"] for letter in flow.dead_letters()]
        assert dead == [number for number in range(len(sent)) if number % 500 == 7]
        until(lambda: len(run) >= len(ordered))
        assert run == ordered
        assert flow.stats().state == "running"


async def test_a_flow_that_was_forgotten_over_the_servers_end_is_said_to_be(server):
    async with AsyncFlow(HOUSE, **settings_at(server.home)) as flow:
        edge = await connect(flow.endpoint, role="edge", name="")
        output = await edge.find_log(Subjects("house").output_stream)
        await edge.append(Subjects("house").edge_order, b"")
        assert await asyncio.to_thread(server.end) == 0
        await asyncio.to_thread(server.start)
    await flow.forget()
    try:
        for work in (
            edge.append(Subjects("house").edge_order, b""),
            output.latest(Subjects("house").out(0)),
            output.state(),
        ):
            with pytest.raises(TransportError, match="never started there, or was forgotten"):
                await work
    finally:
        await edge.close()
