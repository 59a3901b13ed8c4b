"""Recording inputs, keeping them in a file, and putting them through once more."""

import threading
import time

import lz4.frame
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb import Device, Flow, FlowOptions, Tape, every, reply
from pratipad_nb.errors import FlowError, FrameError, PratipadError, SettingsError
from pratipad_nb.runtime.edge.edge import Edge
from pratipad_nb.session.inspection.tape import Recorder


def double(payload):
    return payload * 2


def spoil(payload):
    payload["f"] = "spoilt"
    return payload


def fails(payload):
    if payload == 13:
        raise ValueError("unlucky")
    return payload


class Answers:
    def process(self, payload, message):
        reply({"led": payload}, to=message)
        return payload


class Slow:
    def process(self, payload):
        time.sleep(0.002)
        return payload


class Late:
    """Emits what it has seen last, now and then."""

    @every(60)
    def look(self):
        pass

    def process(self, payload, message):
        return {"device": message.device, "time": message.time, "payload": payload}


@pytest.fixture
def start(url):
    opened = []

    def make(notation="Push ~> double ~> Output", **options):
        flow = Flow(notation, server=url, name="house", **options).start()
        opened.append(flow)
        return flow

    yield make
    for flow in opened:
        flow.stop()


def recorded(flow, payloads, devices=("room1",), pace=0.0, **bounds):
    """Record what devices push from now on, one message after the other."""

    def push():
        opened = [Device(name).connect(flow) for name in devices]
        for payload in payloads:
            for device in opened:
                device.push(payload).wait(10)
                time.sleep(pace)
        for device in opened:
            device.close()

    pusher = threading.Thread(target=push)
    # The devices begin once the tape runs, which the first tap tells.
    watcher = threading.Thread(target=lambda: (_wait_for_tap(flow), pusher.start()))
    watcher.start()
    try:
        return flow.record(**bounds)
    finally:
        watcher.join()
        pusher.join()


def _wait_for_tap(flow):
    while not all(edge.parts.gate.taps for edge in edges_of(flow)):
        time.sleep(0.001)


def edges_of(flow):
    """Return the run of each partition; of a flow in one place, its only run."""
    run = flow._flow._edge
    return [run] if isinstance(run, Edge) else list(run.edges.values())


def a_tape(*payloads, device="room1", apart=0.0, flow="house"):
    recorder = Recorder(flow, None, 1 << 20)
    for number, payload in enumerate(payloads):
        recorder(device, [100.0 + number * apart], 200.0 + number * apart, [payload])
    return recorder.tape()


# -- recording -----------------------------------------------------------------------------------------------


def test_the_next_inputs_are_recorded_as_they_came_in(start):
    flow = start("Push ~> spoil ~> Output")
    payloads = [{"f": n} for n in range(20)]
    tape = recorded(flow, payloads, ("room1", "room2"), n=30, seconds=20)
    assert len(tape) == 30
    assert tape.cut == ""
    assert sorted(tape.devices) == ["room1", "room2"]
    assert [entry.payload for entry in tape if entry.device == "room1"] == payloads[:15]
    assert all(entry.received >= entry.time - 1 for entry in tape)
    assert flow._flow._edge.parts.gate.taps == []


def test_a_tape_of_so_many_seconds_ends_then_and_is_not_cut(start):
    tape = recorded(start(), [1, 2, 3], seconds=0.5)
    assert [entry.payload for entry in tape] == [1, 2, 3]
    assert tape.cut == ""


def test_a_tape_that_did_not_get_all_it_was_to_have_says_so(start):
    assert recorded(start(), [1, 2], n=5, seconds=0.5).cut == "only 2 of 5 had come after 0.5 s"


def test_a_tape_at_its_bound_says_so(start):
    tape = recorded(start(), ["x" * 100] * 10, n=10, max_bytes=350)
    assert (len(tape), tape.bytes) == (3, 306)
    assert tape.cut == "its bound of 350 bytes was reached (max_bytes)"
    assert "cut: its bound" in repr(tape)


def test_a_flow_that_stops_ends_the_tape_and_keeps_what_is_on_it(start):
    flow = start()
    with Device("room1").connect(flow) as device:

        def end():
            _wait_for_tap(flow)
            device.push(1).wait(10)
            flow.settled()
            flow.stop()

        stopper = threading.Thread(target=end)
        stopper.start()
        tape = flow.record(n=100)
        stopper.join()
    assert [entry.payload for entry in tape] == [1]
    assert tape.cut == "the flow stopped"


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({}, r"needs n=… \(messages\), seconds=…, or both"),
        ({"n": 0}, "n is 0; it must be a whole number of at least 1"),
        ({"n": 2.5}, "n is 2.5; it must be a whole number"),
        ({"seconds": -1}, "seconds is -1; it must be a number of at least 0.001"),
        ({"seconds": float("inf")}, "seconds is inf"),
        ({"n": 5, "max_bytes": "much"}, "max_bytes is 'much'; it must be a whole number"),
    ],
)
def test_a_tape_without_an_end_is_refused(start, bounds, said):
    with pytest.raises(SettingsError, match=said):
        start().record(**bounds)


def test_nothing_is_recorded_of_a_flow_that_does_not_run(url):
    with pytest.raises(FlowError, match=r"not running.*start\(\)"):
        Flow("Push ~> double ~> Output", server=url).record(n=1)


# -- the value -----------------------------------------------------------------------------------------------


def test_a_tape_is_a_sequence_that_nothing_changes():
    tape = a_tape({"a": [1]}, {"a": [2]}, {"a": [3]}, apart=0.5)
    tape[0].payload["a"].append("spoilt")
    assert [entry.payload for entry in tape] == [{"a": [1]}, {"a": [2]}, {"a": [3]}]
    assert (tape[-1].device, tape[-1].time, tape[-1].received) == ("room1", 101.0, 201.0)
    assert [entry.payload for entry in tape[1:]] == [{"a": [2]}, {"a": [3]}]
    assert tape.seconds == 1.0
    assert tape == a_tape({"a": [1]}, {"a": [2]}, {"a": [3]}, apart=0.5)
    assert hash(tape) == hash(tape[:])
    with pytest.raises(AttributeError):
        tape.cut = "no"
    with pytest.raises(IndexError):
        tape[3]


def test_a_tape_shows_what_it_is_and_how_it_begins():
    shown = repr(a_tape(*range(9), apart=1.0))
    assert shown.startswith("Tape of 'house': 9 messages of room1 in 8 s, 9 bytes\n")
    assert shown.splitlines()[2].split() == ["0.000", "s", "room1", "0"]
    assert shown.splitlines()[-1] == "…"
    assert "<script" not in a_tape("<script>")._repr_html_()
    assert repr(a_tape()) == "<Tape of 'house': 0 messages in 0 s, 0 bytes>"


# -- its file ------------------------------------------------------------------------------------------------

payloads = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(payloads, max_size=5))
def test_a_tape_comes_back_from_its_file_as_it_was(tmp_path_factory, found):
    tape = a_tape(*found)
    path = tape.save(tmp_path_factory.mktemp("tapes") / "a.tape")
    assert Tape.load(path) == tape
    assert [entry.payload for entry in Tape.load(path)] == found


def test_a_file_is_its_owners_alone(tmp_path):
    assert a_tape(1).save(str(tmp_path / "a.tape")).stat().st_mode & 0o777 == 0o600


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(SettingsError, match=r"no\.tape can't be read: No such file"):
        Tape.load(tmp_path / "no.tape")
    with pytest.raises(
        SettingsError, match=r"can't be written to /nonexist/x: No such file.*a folder that is there"
    ):
        a_tape(1).save("/nonexist/x")


def test_what_is_no_path_and_what_is_no_tape_are_told(start):
    for use in (Tape.load, a_tape(1).save):
        with pytest.raises(SettingsError, match="path is 3; it must be a path"):
            use(3)
    with pytest.raises(SettingsError, match=r"Tape\(\['a'\]\): a tape is made by flow\.record"):
        Tape(["a"])
    flow = start()
    for use in (flow.replay, flow.shadow):
        with pytest.raises(SettingsError, match=r"\(\[1\]\): it takes a Tape, as flow\.record"):
            use([1])


MAGIC = b"PNB-tape-1\n"


def _packed(**changed):
    columns = {
        "flow": "house", "cut": "", "devices": ["a"], "who": [0], "times": [1.0], "received": [1.0],
        "payloads": [b"\x01"],
    } | changed  # fmt: skip
    return MAGIC + lz4.frame.compress(msgspec.msgpack.encode(columns))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is no tape"),
        (b"hello", "is no tape"),
        (MAGIC, "damaged"),
        (MAGIC + b"hello", "damaged"),
        (_packed()[:-9], "damaged"),
        (_packed(who=[0, 0]), "not equally long"),
        (_packed(who=[1]), "of no device"),
        (_packed(who=[-1]), "of no device"),
        (_packed(times=[float("inf")]), "infinite"),
        (_packed(times=["now"]), "damaged"),
        (_packed(devices=["../../etc"]), "can't name a device"),
        (_packed(more=1), "damaged"),
    ],
)
def test_a_file_that_is_no_good_is_refused(tmp_path, data, said):
    (tmp_path / "a.tape").write_bytes(data)
    with pytest.raises(FrameError, match=said):
        Tape.load(tmp_path / "a.tape")


def test_a_payload_that_is_no_good_is_told_when_it_is_looked_at(tmp_path):
    (tmp_path / "a.tape").write_bytes(_packed(payloads=[b"\xc1"]))
    with pytest.raises(FrameError, match="a payload on the tape is damaged"):
        Tape.load(tmp_path / "a.tape")[0]


@given(st.binary(max_size=200))
def test_no_bytes_end_in_anything_but_an_error_of_ours(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("tapes") / "a.tape"
    for content in (data, MAGIC + data, MAGIC + lz4.frame.compress(data)):
        path.write_bytes(content)
        with pytest.raises(PratipadError):
            Tape.load(path)


# -- replaying -----------------------------------------------------------------------------------------------


def test_a_tape_is_replayed_as_messages_of_its_devices_with_their_times(start):
    flow = start("Push ~> Late ~> Output")
    tape = recorded(flow, [1, 2, 3], ("room1", "room2"), n=6)
    flow.settled()
    before = flow.take(6)
    assert flow.replay(tape, speed="max") == 6
    after = flow.take(6)
    assert [m.payload for m in after] == [m.payload for m in before]
    assert [m.device for m in after] == [m.device for m in before]
    assert {m.id for m in after}.isdisjoint(m.id for m in before)


def test_what_devices_send_meanwhile_is_undisturbed(home):
    with (
        Flow("Push ~> double ~> Output", name="mixed", home=home) as flow,
        Device("room1").connect(flow) as device,
    ):
        device.push(1).wait(10)
        tape = a_tape(*range(5000))
        stop = threading.Event()
        sent = [1]

        def push():
            while not stop.is_set():
                sent.append(len(sent))
                device.push(sent[-1])
            device.flush()

        pusher = threading.Thread(target=push)
        pusher.start()
        for _ in range(10):  # more often than a device's epochs are remembered in a large flow
            flow.replay(tape, speed=None)
        stop.set()
        pusher.join()
        flow.settled()
        stats = flow.stats()
        assert (stats.received, stats.delivered) == (len(sent), len(sent) + 50_000)
        assert (stats.repeats, stats.dead, stats.in_flight, stats.devices["room1"].gaps) == (0, 0, 0, 0)
        found = flow.take(len(sent) + 50_000)
        epochs = {}
        for message in found:
            epochs.setdefault(message.id.split("-")[1], []).append(message.payload // 2)
        assert len(epochs) == 11
        assert sent in epochs.values()
        assert sum(numbers == list(range(5000)) for numbers in epochs.values()) == 10
        flow.stop()
        flow.start()
        device.push(77).wait(20)
        assert flow.take(1)[0].payload == 154
        assert flow.stats().repeats == 0


def test_the_pace_is_the_tapes_own_or_a_multiple_of_it(start):
    flow = start()
    an_hour = a_tape(*range(11), apart=360)
    for tape, speed, seconds in (
        (a_tape(*range(11), apart=0.05), 1.0, 0.5),
        (an_hour, 18_000, 0.2),
        (an_hour, "max", 0.0),
    ):
        began = time.monotonic()
        flow.replay(tape, speed)
        assert time.monotonic() - began >= seconds
    assert [m.payload for m in flow.take(33)] == [2 * n for n in range(11)] * 3


@pytest.mark.parametrize("speed", [0, -1, "fast", float("inf"), True, float("nan")])
def test_a_pace_that_is_none_is_refused(start, speed):
    with pytest.raises(SettingsError, match=r"speed is .*; it is 1.0 for the tape's own pace"):
        start().replay(a_tape(1), speed)


def test_processors_slow_a_replay_down_and_it_stays_bounded(start):
    flow = start("Push ~> Slow ~> Output")
    most = []
    flow.replay(a_tape(*range(300)), "max")
    most.append(flow.stats().in_flight)
    flow.settled()
    assert flow.stats().delivered == 300
    assert flow.stats().in_flight == 0


def test_a_paused_flow_pauses_the_replay(start, until):
    flow = start()
    flow.pause()
    replaying = threading.Thread(target=flow.replay, args=(a_tape(1, 2), "max"))
    replaying.start()
    replaying.join(0.3)
    assert replaying.is_alive()
    assert flow.stats().delivered == 0
    flow.resume()
    replaying.join(10)
    assert [m.payload for m in flow.take(2)] == [2, 4]


def test_what_processors_answer_to_a_tape_reaches_no_device(start, until):
    flow = start("Push <~> Answers <~> Output")
    orders = []
    with Device("room1", receive=orders.append).connect(flow) as device:
        device.push("live").wait(10)
        until(lambda: orders)
        flow.replay(a_tape("then", "then"), "max")
        device.push("again").wait(10)
        until(lambda: len(orders) == 2)
        flow.settled()
    assert orders == [{"led": "live"}, {"led": "again"}]
    assert len(flow.take(4)) == 4


def test_a_message_of_a_tape_that_fails_is_dead_lettered_and_retried_like_any_other(start):
    flow = start("Push ~> fails ~> Output")
    flow.replay(a_tape(12, 13, 14), "max")
    flow.settled()
    assert [letter.payload for letter in flow.dead_letters()] == [13]
    flow.update("Push ~> fails ~> Output", {"fails": double})
    assert flow.stats().dead == 1
    assert flow.retry_dead_letters() == 1
    flow.settled()
    assert flow.stats().dead == 0
    assert sorted(m.payload for m in flow.take(3)) == [12, 14, 26]


def test_a_swap_in_the_middle_of_a_replay_loses_and_doubles_nothing(start):
    flow = start("Push ~> double ~> Output")
    count = 20_000
    replaying = threading.Thread(target=flow.replay, args=(a_tape(*range(count)), "max"))
    replaying.start()
    receipts = []
    while replaying.is_alive():
        receipts.append(flow.update("Push ~> double ~> Output", {"double": lambda payload: payload * 2}))
    replaying.join()
    flow.settled()
    assert receipts
    assert {(receipt.lost, receipt.doubled) for receipt in receipts} == {(0, 0)}
    assert [m.payload for m in flow.take(count)] == [2 * n for n in range(count)]
    assert flow.stats().in_flight == 0


def test_a_stop_in_the_middle_of_a_replay_ends_it_with_a_word(start):
    flow = start()
    stopper = threading.Timer(0.2, flow.stop)
    stopper.start()
    with pytest.raises(FlowError, match=r"stopped|not running"):
        flow.replay(a_tape(*range(100), apart=1.0))
    stopper.join()


def test_a_tape_fits_every_input(start):
    flow = start("Pull <~> double <~> Output")
    assert flow.replay(a_tape(1), "max") == 1
    assert flow.take(1)[0].payload == 2


def test_a_flow_in_partitions_is_recorded_replayed_and_looked_into_as_one(home):
    names = [f"room{n}" for n in range(6)]
    with Flow("Push ~> double ~> Output", name="parts", home=home, options=FlowOptions(partitions=3)) as flow:
        tape = recorded(flow, range(5), names, n=30, seconds=20)
        flow.settled()
        assert len(edges_of(flow)) == 3
        assert flow.replay(tape, "max") == len(tape) == 30
        flow.settled()
        messages = flow.take(60)
        for name in names:
            assert [m.payload for m in messages if m.device == name] == [0, 2, 4, 6, 8] * 2
        samples = flow["double"].samples(100)
        assert len(samples) == 60
        assert flow.trace(messages[0])["double"].results == (messages[0].payload,)
        assert flow.shadow(tape, {"double": fails}).differing == 24


def test_a_fast_flow_replays_too(start):
    flow = start("Push ~> double ~> Output", delivery="fast")
    flow.replay(a_tape(1, 2), "max")
    assert [m.payload for m in flow.take(2)] == [2, 4]
