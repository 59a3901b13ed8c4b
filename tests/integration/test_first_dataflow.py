"""A flow over the real server with mutual TLS, as a newcomer runs it, and the mistakes a newcomer makes."""

import asyncio
import collections
import subprocess
import sys
import threading

import pytest
from patience import eventually, patient, until

from pratipad_nb import AsyncFlow, Cloud, Device, Flow, NotationError
from pratipad_nb.errors import FlowError, OneWayError, ProcessorError, ServerError, WaitTimeout
from pratipad_nb.testing import real_server

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def home():
    with real_server() as folder:
        yield folder


class A:
    def process(self, reading):
        return reading | {"a": True}


def B(payload):  # noqa: N802
    yield payload


async def C(payload):  # noqa: N802
    return payload


class Sees:
    """A member of braces that notes what it saw, then spoils its copy."""

    seen: list = []

    def process(self, payload):
        type(self).seen.append(dict(payload))
        payload["n"] = "spoilt"


class D(Sees):
    seen: list = []


class E(Sees):
    seen: list = []


def test_fifty_thousand_messages_pass_every_kind_of_stage_in_order_and_unchanged(home):
    count = 50_000
    with (
        Flow("Push ~> A ~> [B, C] ~> {D, E} ~> Output", name="stages", home=home) as flow,
        Device("room1").connect(flow) as device,
    ):
        pusher = threading.Thread(target=lambda: [device.push({"n": n}) for n in range(count)])
        pusher.start()
        taken = [message.payload for message in flow.take(count, timeout=60)]
        pusher.join()
        assert taken == [{"n": n, "a": True} for n in range(count)]
        assert D.seen == taken
        assert E.seen == taken
        stats = flow.stats()
        assert (stats.received, stats.delivered, stats.dead, stats.repeats) == (count, count, 0, 0)


def test_three_members_that_wait_do_so_at_the_same_time(home):
    begun = collections.Counter()

    class Waits:
        def process(self, payload):
            begun[payload] += 1
            until(lambda: begun[payload] == 3)

    async def waits(payload):
        begun[payload] += 1
        await eventually(lambda: begun[payload] == 3)

    names = {"Waits": Waits, "waits": waits}
    with (
        Flow("Push ~> {Waits, waits, Waits} ~> Output", name="waits", namespace=names, home=home) as flow,
        Device("d").connect(flow) as device,
    ):
        for number in range(10):
            device.push(number)
        flow.take(10, timeout=patient(30))
        assert flow.stats().dead == 0
    assert begun == dict.fromkeys(range(10), 3)


def test_a_stopped_flow_goes_on_where_it_was_with_its_device_still_there(home):
    flow = Flow("Push <~> A <~> Output", name="resumes", home=home)
    with Device("d").connect(flow.start()) as device:
        device.push({"n": 1}).wait(10)
        assert flow.take(1)[0].payload["n"] == 1
        flow.stop()
        assert flow.state == "stopped"
        waiting = device.push({"n": 2})
        assert not waiting.done
        flow.start()
        waiting.wait(20)
        assert flow.take(1)[0].payload["n"] == 2
        flow.stop()


def test_forget_deletes_what_waits(home):
    flow = Flow("Push <~> A <~> Output", name="forgets", home=home).start()
    with Device("d").connect(flow) as device:
        device.push({"n": 1}).wait(10)
        flow.settled()
    flow.forget()
    with flow, pytest.raises(WaitTimeout):
        flow.take(1, timeout=0.3)


def test_a_wrong_notation_leaves_the_running_flow_of_that_name_alone(home):
    with Flow("Push <~> A <~> Output", name="safe", home=home) as flow, Device("d").connect(flow) as device:
        for wrong in ("Push -> A ~> Output", "Push <~> Aa <~> Output", "Push <~> A <~> B", ""):
            with pytest.raises(NotationError):
                flow.update(wrong)
        with pytest.raises(NotationError, match="Aa"):
            Flow("Push <~> Aa <~> Output", name="safe", home=home)
        device.push({"n": 1}).wait(10)
        assert flow.take(1)[0].payload == {"n": 1, "a": True}


def test_a_processor_that_cannot_be_set_up_is_named_and_nothing_starts(home):
    class Broken:
        def setup(self):
            raise OSError("no such sensor")

        def process(self, payload):
            return payload

    flow = Flow("Push ~> Broken ~> Output", name="broken", home=home)
    with pytest.raises(ProcessorError, match=r"Broken.*setup.*no such sensor"):
        flow.start()
    assert flow.state == "stopped"
    assert not [thread for thread in threading.enumerate() if "Broken" in thread.name]


def test_two_flows_of_one_name_are_refused_in_one_process(home):
    with Flow("Push ~> A ~> Output", name="twice", home=home) as first:
        with pytest.raises(FlowError, match="'twice' runs in this process already"):
            Flow("Push ~> B ~> Output", name="twice", home=home).start()
        assert first.state == "running"


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(ServerError, match=r"state folder .*file.* can't be written"):
        Flow("Push ~> A ~> Output", home=blocked).start()


def test_a_missing_server_binary_is_named_with_the_next_step(monkeypatch, tmp_path):
    from importlib.metadata import PackageNotFoundError

    from pratipad_nb.server import process as server_process

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(server_process.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(server_process.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(server_process.importlib.metadata, "files", missing)
    with pytest.raises(ServerError, match=r"nats-server.*pip install"):
        Flow("Push ~> A ~> Output", home=tmp_path / "state").start()


async def test_a_hundred_starts_and_stops_leave_nothing_behind(home):
    threads = threading.active_count()
    flow = AsyncFlow("Push ~> A ~> Output", name="hundred", home=home)
    async with AsyncFlow("Push ~> A ~> Output", name="holds-the-server", home=home):
        for _ in range(100):
            await flow.start()
            await flow.stop()
    assert threading.active_count() == threads
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


def test_a_program_that_forgets_to_stop_its_flow_drains_it_and_ends_without_a_word(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from pratipad_nb import Device, Flow\n"
        "def same(payload): return payload\n"
        f"flow = Flow('Push ~> same ~> Output', home={str(tmp_path / 'state')!r}).start()\n"
        "device = Device('d').connect(flow)\n"
        "device.push(1).wait(10)\n"
        "print(flow.take(1)[0].payload)\n"
    )
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_a_cloud_elsewhere_is_told_which_hop_an_order_cannot_pass(home):
    with Flow("Push <~> A ~> Output", name="house", home=home) as flow:
        endpoint = flow.endpoint_for("reader", "cloud")
        with Cloud("house", endpoint=endpoint) as cloud, pytest.raises(OneWayError, match="arrow 2"):
            cloud.send({"led": "on"})


def test_what_the_handle_of_a_fast_flow_did_not_take_in_time_is_counted(home):
    with Flow("Push ~> A ~> Output", name="swift", delivery="fast", home=home) as flow:
        with Device("room1").connect(flow) as device:
            for n in range(150_000):
                device.push({"n": n})
            device.flush()
            flow.settled()
        assert flow.stats().delivered == 150_000 - flow.stats().dropped
        assert flow.stats().readers["notebook"].skipped > 0
