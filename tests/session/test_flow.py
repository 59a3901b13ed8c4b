"""`Flow` in a notebook: started, stopped, forgotten, changed, from any thread; and all it leaves behind."""

import asyncio
import contextlib
import gc
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from patience import patient

from pratipad_nb import AsyncFlow, Cloud, Device, Flow, FlowOptions, Keep, NotationError, Processor, flows
from pratipad_nb.errors import (
    DeviceError,
    FlowError,
    OneWayError,
    ProcessorError,
    ServerError,
    SettingsError,
    WaitTimeout,
)
from pratipad_nb.runtime.edge.edge import Edge
from pratipad_nb.transport.memory_broker import Broker


def same(payload):
    return payload


def double(payload):
    return payload * 2


@pytest.fixture
def flow(url):
    with Flow("Push <~> same <~> Output", server=url, name="house") as flow:
        yield flow


# -- life ----------------------------------------------------------------------------------------------------


def test_start_and_stop_may_be_called_again_and_the_state_tells(url):
    flow = Flow("Push ~> same ~> Output", server=url)
    assert flow.state == "stopped"
    flow.stop()
    assert flow.start() is flow
    assert flow.start() is flow
    assert flow.state == "running"
    flow.stop()
    flow.stop()
    assert flow.state == "stopped"
    flow.start()
    assert flow.state == "running"
    flow.stop()


def test_a_context_manager_stops_whatever_happens(url):
    with pytest.raises(ZeroDivisionError), Flow("Push ~> same ~> Output", server=url) as flow:
        _ = 1 / 0
    assert flow.state == "stopped"
    assert flows() == {}


def test_stop_finishes_what_is_in_hand(url):
    begun, done = threading.Event(), []

    def slow(payload):
        begun.set()
        time.sleep(0.01)
        done.append(payload)
        return payload

    with Flow("Push ~> slow ~> Output", server=url, namespace={"slow": slow}) as flow:
        with Device("d").connect(flow) as device:
            for number in range(20):
                device.push(number)
            device.flush()
        begun.wait(5)
    stats = flow.stats()
    assert stats.state == "stopped"
    assert stats.received == stats.delivered == len(done)
    assert stats.in_flight == 0


def test_a_processor_that_never_returns_holds_up_a_stop_for_drain_seconds_and_its_message_is_kept(
    url, caplog
):
    stuck, begun, returned = threading.Event(), threading.Event(), threading.Event()

    def sticks(payload):
        begun.set()
        stuck.wait(patient(30))
        returned.set()
        return payload

    options = FlowOptions(drain_seconds=0.3, hang_seconds=0.2)
    flow = Flow("Push ~> sticks ~> Output", server=url, namespace={"sticks": sticks}, options=options).start()
    with Device("d").connect(flow) as device:
        device.push("kept").wait(5)
    begun.wait(5)
    flow.stop()
    assert not returned.is_set()
    assert "processor sticks has been in its call since" in caplog.text
    stuck.set()
    with flow:
        assert flow.take(1)[0].payload == "kept"


def test_a_coroutine_that_swallows_its_cancellation_is_left_behind_and_named_and_the_server_given_back(
    home, monkeypatch, caplog
):
    monkeypatch.setattr("pratipad_nb.session.asynchronous._CLOSE_SECONDS", 0.3)
    monkeypatch.setattr("pratipad_nb.session.asynchronous._CUT_OFF_SECONDS", 0.3)
    monkeypatch.setattr("pratipad_nb.portal._PATIENCE", 0.3)
    enough, begun = threading.Event(), threading.Event()

    async def swallows(payload):
        begun.set()
        while not enough.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        return payload

    flow = Flow(
        "Push ~> swallows ~> Output",
        home=home,
        namespace={"swallows": swallows},
        options=FlowOptions(drain_seconds=0.1, hang_seconds=0.2),
    ).start()
    with Device("d").connect(flow) as device:
        device.push(1).wait(5)
    begun.wait(5)
    flow.stop()
    assert flow.state == "stopped"
    assert "left behind: cancelling did not end" in caplog.text
    assert not [thread.name for thread in threading.enumerate() if "server" in thread.name]
    enough.set()


def test_forget_deletes_what_waits_and_the_positions(url):
    flow = Flow("Push ~> same ~> Output", server=url).start()
    with Device("d").connect(flow) as device:
        device.push("old").wait(5)
        flow.settled()
    flow.forget()
    assert flow.state == "stopped"
    with flow:
        assert flow.stats().delivered == 0
        with pytest.raises(WaitTimeout):
            flow.take(1, timeout=0.2)


def test_forget_lets_a_flow_run_with_the_other_delivery(url):
    with (
        Flow("Push ~> same ~> Output", server=url, name="house") as flow,
        Device("d").connect(flow) as device,
    ):
        device.push(1).wait(5)
    with pytest.raises(FlowError, match=r"has run with delivery='durable'.*Forget them first"):
        Flow("Push ~> same ~> Output", server=url, name="house", delivery="fast").start()
    flow.forget()
    with Flow("Push ~> same ~> Output", server=url, name="house", delivery="fast") as fast:
        assert fast.state == "running"


def test_a_start_that_fails_leaves_nothing_behind_and_can_be_repeated(url):
    ready = False

    class Sensor:
        def setup(self):
            if not ready:
                raise OSError("no such bus")

        def process(self, payload):
            return payload

    before = threading.active_count()
    flow = Flow("Push ~> Sensor ~> Output", server=url, namespace={"Sensor": Sensor})
    with pytest.raises(ProcessorError, match=r"Sensor.*setup.*no such bus"):
        flow.start()
    assert (flow.state, flows()) == ("stopped", {})
    assert threading.active_count() == before
    ready = True
    with flow:
        assert flow.state == "running"


def fail(flow):
    """Have the flow fail: its next checkpoint can't be stored."""

    async def fails(line):
        raise OSError("no space left")

    async def drain():
        flow._flow._edge.parts.upkeep.last_checkpoint = fails
        flow._flow._edge.drain()

    flow._portal.run(drain())


def test_a_flow_that_failed_while_a_loop_read_it_can_be_stopped_and_started_again(flow, until):
    with Device("d").connect(flow) as device:
        device.push(1)
        device.push(2)
        for message in flow:
            assert message.payload == 1
            break
    fail(flow)
    until(lambda: flow.state == "failed")
    flow.stop()
    assert flows() == {}
    flow.start()
    assert flow.state == "running"


def test_a_stop_gives_back_what_a_device_had_opened_after_a_failure(home, until):
    before = left()
    flow = Flow("Push ~> same ~> Output", name="later", home=home).start()
    fail(flow)
    until(lambda: flow.state == "failed")  # its server may still be ending
    flow.endpoint_for("device", "late")
    flow.stop()
    assert left() == before


def test_devices_that_come_at_the_same_time_are_let_in_after_every_start(home):
    flow = Flow("Push ~> same ~> Output", name="later", home=home)
    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(flow.endpoint_for, "device", name) for name in ("a", "b", "c")]
        assert [each.result().flow for each in asked] == ["later"] * 3
        flow.stop()


def test_request_stop_returns_at_once_and_stops_soon(flow, until):
    flow.request_stop()
    flow.request_stop()
    until(lambda: flow.state == "stopped")


# -- messages ------------------------------------------------------------------------------------------------


def test_take_returns_each_message_once_and_keeps_what_came_for_the_next_if_it_is_too_few(flow):
    with Device("d").connect(flow) as device:
        for number in range(3):
            device.push(number)
        device.flush()
        with pytest.raises(WaitTimeout, match="got 3 of 5"):
            flow.take(5, timeout=0.3)
        assert [message.payload for message in flow.take(3)] == [0, 1, 2]
    with pytest.raises(WaitTimeout):
        flow.take(1, timeout=0.1)


def test_two_threads_that_take_share_the_messages_out(flow):
    taken = []

    def take():
        taken.extend(message.payload for message in flow.take(50))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    with Device("d").connect(flow) as device:
        for number in range(200):
            device.push(number)
    for thread in threads:
        thread.join(10)
    assert sorted(taken) == list(range(200))


def test_a_loop_over_a_flow_ends_when_it_stops(flow):
    with Device("d").connect(flow) as device:
        for number in range(3):
            device.push(number)
    seen = []
    for message in flow:
        seen.append(message.payload)
        if len(seen) == 3:
            flow.request_stop()
    assert seen == [0, 1, 2]


def test_a_loop_keeps_up_with_a_device_and_goes_on_after_a_new_start(flow):
    count = 20_000
    with Device("d").connect(flow) as device:
        for number in range(count):
            device.push(number)
        loop = iter(flow)
        assert [next(loop).payload for _ in range(count // 2)] == list(range(count // 2))
    flow.stop()
    assert list(flow) == []
    flow.start()
    assert [message.payload for message in flow.take(count // 2)] == list(range(count // 2, count))


def test_seek_skips_what_has_arrived_or_goes_back_to_it_also_between_two_turns_of_a_loop(flow):
    with Device("room1").connect(flow) as device:

        def push(*numbers):
            for n in numbers:
                device.push({"n": n}).wait(10)
            flow.settled()

        push(1, 2, 3)
        flow.seek("newest")
        push(4, 5)
        assert [message.payload["n"] for message in flow.take(2)] == [4, 5]
        flow.seek("oldest")
        assert next(iter(flow)).payload["n"] == 1
        flow.seek("newest")
        push(6)
        assert next(iter(flow)).payload["n"] == 6
        with pytest.raises(SettingsError, match="'oldest' or 'newest'"):
            flow.seek("first")
    flow.stop()
    with pytest.raises(FlowError, match="start"):
        flow.seek("oldest")


def test_a_take_that_the_flows_stop_interrupts_says_so(flow):
    raised = []

    def take():
        try:
            flow.take(1, timeout=None)
        except FlowError as error:
            raised.append(str(error))

    taker = threading.Thread(target=take)
    taker.start()
    time.sleep(0.1)
    flow.stop()
    taker.join(5)
    (text,) = raised
    assert text.startswith("flow 'house' ended while 1 messages were waited for.")


def test_settled_says_what_is_left(url):
    hold = threading.Event()

    def holds(payload):
        hold.wait(20)
        return payload

    with Flow("Push ~> holds ~> Output", server=url, namespace={"holds": holds}) as flow:
        with Device("d").connect(flow) as device:
            device.push(1).wait(5)
        with pytest.raises(
            WaitTimeout, match=r"not settled after 0.2 s: 1 frames wait .* 1 messages are in flight"
        ):
            flow.settled(timeout=0.2)
        hold.set()
        flow.settled()
        assert flow.stats().delivered == 1


def test_what_a_handle_of_a_stopped_flow_is_asked_says_to_start_it(url):
    flow = Flow("Pull <~> same <~> Output", server=url)
    asked = [flow.take, flow.pull, flow.settled, flow.dead_letters, flow.pause, lambda: flow.send(1)]
    for ask in asked:
        with pytest.raises(FlowError, match=r"is not running\. Start it with start\(\)"):
            ask()


def test_pull_is_refused_where_the_cloud_does_not_decide(flow):
    with pytest.raises(FlowError, match=r"begins with Push.*Pull <~>"):
        flow.pull(1)


def test_pull_names_what_is_wrong_with_its_arguments(url, until):
    with Flow("Pull <~> same <~> Output", server=url) as flow:
        with pytest.raises(
            SettingsError, match=r"pull: n is 0; it must be a whole number from 1 to 1,000,000"
        ):
            flow.pull(0)
        with Device("room1").connect(flow):
            until(lambda: "room1" in flow.devices)
            with pytest.raises(DeviceError, match=r"no device 'room2'.*Known: room1"):
                flow.pull(1, device="room2")


def test_a_request_counts_down_and_ends_when_its_readings_are_filtered_or_dead_lettered(url):
    def picky(payload):
        if payload == 2:
            raise ValueError("two")
        if payload != 1:
            yield payload

    names = {"picky": picky}
    with (
        Flow("Pull <~> picky <~> Output", server=url, namespace=names) as flow,
        Device("d", read=range(100)).connect(flow),
    ):
        request = flow.pull(5)
        request.wait(10)
        assert (request.done, request.left) == (True, 0)
        assert [message.payload for message in flow.take(3)] == [0, 3, 4]
        assert len(flow.dead_letters()) == 1


def test_pull_asked_before_there_is_a_device_waits_for_one(url):
    with Flow("Pull <~> same <~> Output", server=url) as flow:
        request = flow.pull(2)
        with pytest.raises(WaitTimeout, match=r"2 of 2 readings.*no device is connected"):
            request.wait(0.1)
        with Device("d", read=[1, 2, 3]).connect(flow):
            request.wait(10)
        assert [message.payload for message in flow.take(2)] == [1, 2]


def test_send_over_a_one_way_hop_is_refused(url):
    with Flow("Push <~> same ~> Output", server=url) as flow, pytest.raises(OneWayError, match="arrow 2"):
        flow.send("blink")


# -- changing ------------------------------------------------------------------------------------------------


def test_what_is_no_device_and_no_time_is_refused(flow):
    with pytest.raises(SettingsError, match=r"send\(to=3\)"):
        flow.send(1, to=3)
    with pytest.raises(SettingsError, match="timeout is 'soon'"):
        flow.settled("soon")


def test_update_swaps_what_differs_while_a_device_sends(flow):
    with Device("d").connect(flow) as device:
        device.push(1).wait(5)
        assert flow.update("Push <~> same <~> Output") is None
        receipt = flow.update("Push <~> same <~> double <~> Output")
        assert (receipt.lost, receipt.doubled) == (0, 0)
        device.push(2).wait(5)
        assert [message.payload for message in flow.take(2)] == [1, 4]
    assert flow.notation == "Push <~> same <~> double <~> Output"


def test_update_of_a_stopped_flow_holds_from_the_next_start(url):
    flow = Flow("Push ~> same ~> Output", server=url)
    assert flow.update("Push ~> double ~> Output") is None
    with flow, Device("d").connect(flow) as device:
        device.push(2).wait(5)
        assert flow.take(1)[0].payload == 4


def test_update_with_a_wrong_notation_or_processor_leaves_all_as_it_was(flow):
    class Broken(Processor):
        def setup(self):
            raise OSError("no such bus")

        def process(self, payload):
            return payload

    with pytest.raises(NotationError, match="twice"):
        flow.update("Push <~> twice <~> Output")
    with pytest.raises(ProcessorError, match="no such bus"):
        flow.update("Push <~> Broken <~> Output", {"Broken": Broken})
    assert flow.notation == "Push <~> same <~> Output"
    with Device("d").connect(flow) as device:
        device.push(1).wait(5)
        assert flow.take(1)[0].payload == 1


def test_update_changes_the_mode_and_devices_follow(url, until):
    with Flow("Push <~> same <~> Output", server=url) as flow:
        reads = iter(range(10_000))
        with Device("d", read=lambda: next(reads), every=0.02).connect(flow) as device:
            flow.take(2)
            flow.update("Pull <~> same <~> Output")
            until(lambda: device.mode == "pull")
            flow.settled()
            before = flow.stats().received
            flow.pull(3).wait(10)
            assert flow.stats().received == before + 3
            flow.update("Demand <~> same <~> Output")
            until(lambda: flow.stats().received > before + 10)
            flow.update("Push <~> same <~> Output")
            until(lambda: device.mode == "push")
            flow.take(before + 20)


def test_pause_lets_nothing_begin_until_resume(flow, until):
    with Device("d").connect(flow) as device:
        flow.pause()
        assert flow.state == "paused"
        device.push(1).wait(5)
        with pytest.raises(WaitTimeout):
            flow.take(1, timeout=0.2)
        flow.resume()
        assert flow.take(1)[0].payload == 1
        flow.pause("same")
        assert flow.stats().processors["same"].state == "paused"
        device.push(2).wait(5)
        with pytest.raises(WaitTimeout):
            flow.take(1, timeout=0.2)
        flow.resume("same")
        assert flow.take(1)[0].payload == 2


def test_a_rate_that_is_none_is_refused(flow):
    for wrong in (0, -1, "fast", True):
        with pytest.raises(SettingsError, match="rate is"):
            flow.rate = wrong


# -- what it is ----------------------------------------------------------------------------------------------


def test_arguments_are_checked_when_the_flow_is_made(url):
    for options in (
        {"name": "two words"},
        {"name": "Output"},
        {"delivery": "eventually"},
        {"rate": 0},
        {"max_demand": 0},
        {"max_demand": 5, "min_demand": 5},
    ):
        with pytest.raises(SettingsError):
            Flow("Push ~> same ~> Output", server=url, **options)
    with pytest.raises(SettingsError):
        Flow("Push ~> same ~> Output", server=url, keep=Keep(bytes=1))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"keep": "1h"}, "keep is '1h'; it is a Keep"),
        ({"keep": 0.5}, "seconds is 0.5; it must be a number of at least 1"),
        ({"options": {"partitions": 2}}, r"options is .*; it is FlowOptions\("),
    ],
)
def test_what_is_kept_and_the_options_are_checked_by_their_kind(wrong, said):
    with pytest.raises(SettingsError, match=said):
        Flow("Push ~> same ~> Output", **wrong)


def test_a_number_for_keep_is_its_seconds():
    assert AsyncFlow("Push ~> same ~> Output", keep=60).settings.keep == Keep(seconds=60)


def test_a_flow_shows_what_it_is(flow, until):
    assert repr(flow) == "<Flow 'house': Push <~> same <~> Output (running)>"
    assert flow.endpoint.flow == "house"
    with Device("room1").connect(flow):
        until(lambda: set(flow.devices) == {"room1"})
        assert {"room1", "same"} <= {
            str(data.get("label", node)) for node, data in flow.graph.nodes(data=True)
        }
    until(lambda: not flow.devices)


def test_what_runs_in_this_process_is_listed_by_name(url):
    first, second = (Flow("Push ~> same ~> Output", server=url, name=name) for name in ("one", "two"))
    with first, second:
        assert flows() == {"one": first, "two": second}
        with pytest.raises(FlowError, match=r"'one' runs in this process already.*another name"):
            Flow("Push ~> double ~> Output", server=url, name="one").start()
    assert flows() == {}


def test_a_flow_of_that_name_that_runs_elsewhere_is_refused_with_where(url):
    """In another process, that is; an `AsyncFlow` isn't in this process's list, and stands for one."""
    with Flow("Push ~> same ~> Output", server=url, name="house"):

        async def start_another():
            await AsyncFlow("Push ~> same ~> Output", server=url, name="house").start()

        with pytest.raises(FlowError, match=rf"'house' runs already, in process {os.getpid()}"):
            asyncio.run(start_another())


def test_an_invitation_lets_a_device_in_from_its_folder_and_no_other_name(home, tmp_path):
    with Flow("Push <~> same <~> Output", name="invites", home=home) as flow:
        endpoint = flow.invite("room2", tmp_path / "room2")
        told = json.loads((tmp_path / "room2" / "pratipad.json").read_text())
        wanted = {"role": "device", "name": "room2", "flow": "invites"}
        assert told == wanted | {"server": endpoint.url}
        assert (tmp_path / "room2" / "key.pem").stat().st_mode & 0o077 == 0
        with Device("room2").connect(endpoint.url, flow="invites", certs=tmp_path / "room2") as device:
            device.push("hello").wait(5)
            message = flow.take(1)[0]
            assert (message.payload, message.device) == ("hello", "room2")
        flow.invite("room2", tmp_path / "room2")
        with pytest.raises(
            SettingsError, match=r"room2 is not overwritten by .*'room3'.* Name another folder"
        ):
            flow.invite("room3", tmp_path / "room2")
        with pytest.raises(SettingsError, match="can't name a device"):
            flow.invite("room 2", tmp_path)
        for let_in in (
            lambda: flow.invite("notebook", tmp_path / "n", "reader"),
            lambda: flow.endpoint_for("reader", "notebook"),
        ):
            with pytest.raises(SettingsError, match="'notebook' can't name a reader that is let in"):
                let_in()
        (tmp_path / "file").touch()
        with pytest.raises(SettingsError, match=r"can't be written to .*file"):
            flow.invite("room2", tmp_path / "file" / "folder")


def test_a_reader_is_invited_by_its_role_and_reads_from_its_folder(home, tmp_path):
    with Flow("Push ~> same ~> Output", name="invites", home=home) as flow:
        endpoint = flow.invite("audit", tmp_path / "audit", role="reader")
        with Cloud("invites", reader="audit", server=endpoint.url, certs=tmp_path / "audit") as cloud:
            with Device("room1").connect(flow) as device:
                device.push("hello").wait(5)
            assert cloud.take(1)[0].payload == "hello"


def test_a_device_and_a_reader_may_come_before_the_flow_is_started(home):
    flow = Flow("Push ~> same ~> Output", name="later", home=home)
    try:
        with Device("early").connect(flow) as device, Cloud(flow) as cloud:
            receipt = device.push("first")
            assert not receipt.done
            flow.start()
            receipt.wait(10)
            assert cloud.take(1)[0].payload == "first"
    finally:
        flow.stop()
    assert flows() == {}


def test_a_stop_gives_back_what_a_device_had_opened_before_any_start(home):
    before = left()
    flow = Flow("Push ~> same ~> Output", name="later", home=home)
    flow.endpoint_for("device", "early")
    assert left() != before
    flow.stop()
    assert left() == before
    assert flows() == {}


def test_a_party_that_can_not_be_let_in_leaves_nothing_open(tmp_path):
    before = left()
    (tmp_path / "file").touch()
    flow = Flow("Push ~> same ~> Output", name="later", home=tmp_path / "file" / "folder")
    with pytest.raises(ServerError, match="can't be written"):
        Device("early").connect(flow)
    assert flows() == {}
    assert left() == before


def test_server_and_certs_go_together():
    with pytest.raises(SettingsError, match="server= and certs= go together"):
        Flow("Push ~> same ~> Output", server="tls://127.0.0.1:4222").start()


def test_a_server_that_is_not_there_is_an_error_that_names_it(home, tmp_path):
    with Flow("Push ~> same ~> Output", name="lends", home=home) as flow:
        flow.invite("d", tmp_path)
    began = time.monotonic()
    with pytest.raises(Exception, match=r"127\.0\.0\.1:9"):
        Flow("Push ~> same ~> Output", server="tls://127.0.0.1:9", certs=tmp_path).start()
    assert time.monotonic() - began < patient(6)


# -- what is left --------------------------------------------------------------------------------------------


def left():
    """What this process holds: threads, child processes, sockets and open files."""
    gc.collect()
    me = psutil.Process()
    return (
        threading.active_count(),
        len(me.children(recursive=True)),
        len(me.net_connections(kind="all")),
        me.num_fds(),
    )


def test_a_hundred_starts_and_stops_leave_no_thread_process_socket_or_file(url):
    flow = Flow("Push ~> [same, double] ~> {same, same} ~> Output", server=url)
    flow.start()
    flow.stop()
    before = left()
    for _ in range(100):
        flow.start()
        flow.stop()
    assert left() == before


def test_starts_and_stops_with_a_server_of_its_own_leave_nothing(tmp_path, until):
    flow = Flow("Push ~> same ~> Output", home=tmp_path / "state")
    with flow, Device("d").connect(flow) as device:
        device.push(1).wait(10)
    before = left()
    for number in range(5):
        with flow, Device("d").connect(flow) as device:
            device.push(number).wait(10)
            assert len(psutil.Process().children(recursive=True)) > 0
    until(lambda: left() == before)


def test_who_may_publish_and_hear_a_subject_is_told_of_all_that_are_let_in(home, tmp_path):
    of = "urn:pratipad:asked:"
    with Flow("Push <~> same <~> Output", name="asked", home=home) as flow:
        for name in ("room2", "room1"):
            flow.invite(name, tmp_path / name)
        flow.invite("archive", tmp_path / "archive", "reader")
        assert flow.who_can("publish", "up.room1") == (f"{of}device:room1", f"{of}edge")
        assert flow.who_can("publish", "pratipad.asked.up.room1") == flow.who_can("publish", "up.room1")
        assert flow.who_can("publish", "up.*") == (f"{of}edge",)
        assert flow.who_can("subscribe", "down.room2") == (f"{of}device:room2", f"{of}edge")
        assert flow.who_can("subscribe", "credit._all") == (
            f"{of}device:room1",
            f"{of}device:room2",
            f"{of}edge",
        )
        assert f"{of}reader:archive" in flow.who_can("publish", "order.archive")
        assert flow.who_can("publish", "$JS.API.STREAM.DELETE.OUT_asked") == (f"{of}edge",)
        for prefix in ("$JS.API", "$JS.asked.API"):
            call = f"{prefix}.CONSUMER.MSG.NEXT.OUT_asked.archive"
            assert f"{of}reader:archive" in flow.who_can("publish", call)
        assert flow.who_can("publish", "pratipad.garden.up.room1") == ()
        for arguments in (("read", "up.room1"), ("publish", "up..room1"), ("publish", "up room1")):
            with pytest.raises(SettingsError, match=r"is no (right|subject)"):
                flow.who_can(*arguments)
        flow.update("Push ~> same ~> Output")
        assert flow.who_can("subscribe", "down.room2") == (f"{of}edge",)
        assert f"{of}reader:archive" not in flow.who_can("publish", "order.archive")


def test_the_rights_in_a_stopped_flow_are_told_as_well(home, tmp_path):
    flow = Flow("Push ~> same ~> Output", name="resting", home=home)
    try:
        flow.invite("room1", tmp_path / "room1")
        flow.stop()
        assert flow.who_can("publish", "up.room1") == ("urn:pratipad:resting:device:room1",)
    finally:
        flow.stop()


def test_who_has_rights_at_a_server_of_others_is_for_that_server_to_say(home, tmp_path):
    with Flow("Push ~> same ~> Output", name="lent", home=home) as flow:
        endpoint = flow.invite("hall", tmp_path / "hall", "edge")
    guest = Flow("Push ~> same ~> Output", name="lent", server=endpoint.url, certs=tmp_path / "hall")
    with pytest.raises(FlowError, match=r"is for tls://\S+ to say.* without server="):
        guest.who_can("publish", "up.room1")
    inside = Flow("Push ~> same ~> Output", name="lent", server="memory://asked")
    with pytest.raises(SettingsError, match="everybody may publish everything"):
        inside.who_can("publish", "up.room1")


async def test_a_flow_whose_server_is_handed_over_while_it_starts_starts_all_the_same(url, monkeypatch):
    broker, opened = Broker.named(url.removeprefix("memory://")), []
    open_edge = Edge.open

    async def handed_over(*arguments, **options):
        opened.append(None)
        if len(opened) < 3:
            broker.stop()
            asyncio.get_running_loop().call_later(0.02, broker.start)
            raise WaitTimeout("the link to the server went down before an answer came")
        return await open_edge(*arguments, **options)

    monkeypatch.setattr(Edge, "open", handed_over)
    flow = await AsyncFlow("Push ~> same ~> Output", namespace={"same": same}, server=url).start()
    assert (flow.state, len(opened)) == ("running", 3)
    await flow.stop()


async def test_a_flow_whose_server_is_silent_while_the_link_stands_does_not_start(url, monkeypatch):
    async def silent(*arguments, **options):
        raise WaitTimeout("no answer came")

    monkeypatch.setattr(Edge, "open", silent)
    with pytest.raises(WaitTimeout, match="no answer came"):
        await AsyncFlow("Push ~> same ~> Output", namespace={"same": same}, server=url).start()
