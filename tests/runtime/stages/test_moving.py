"""State on its way to other instances: by key, by number, converted, or refused."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from types import SimpleNamespace

import pytest
from patience import eventually

from pratipad_nb import Keyed, Window
from pratipad_nb.dataflow import resolve
from pratipad_nb.errors import ProcessorError
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.stages.moving import StateMove, together
from pratipad_nb.runtime.stages.shards import instance_of
from pratipad_nb.settings import FlowOptions
from pratipad_nb.transport.codec import encode_payload

DEVICES = [f"room{n}" for n in range(12)]


def counting(instances, **attributes):
    """Return a class of so many instances that counts messages by device; `attributes` replace its own."""

    class P:
        concurrency = instances

        def __init__(self):
            self.counts = {}

        def process(self, payload):
            self.counts[payload] = self.counts.get(payload, 0) + 1
            return self.counts[payload]

        def snapshot(self):
            return Keyed(self.counts)

        def restore(self, state):
            self.counts = dict(state)

    for name, value in attributes.items():
        setattr(P, name, value)
    return P


def plain(self):
    return self.counts


def dataflow(kind):
    return resolve("Push ~> P ~> Output", {"P": kind})


@pytest.fixture
async def line():
    """Open a line of one processor, and put all devices through it."""
    lines = []

    async def open_line(kind, states=None):
        line = Line(dataflow(kind), FlowOptions(hang_seconds=0.1, slice_seconds=0.05))
        await line.open(states or {})
        lines.append(line)
        return line

    yield open_line
    for each in lines:
        await each.close()


async def push(line):
    runners = line.runners_of("P")
    for device in DEVICES:
        runner = runners[instance_of(device, "device", len(runners))]
        await runner.run([device], lambda row: None)


async def changed(line, kind):
    """Change `line` to `kind`, as a change that drains does; return the new line and the receipt's part."""
    new = await line.prepare(dataflow(kind), [])
    (move,) = await line.carry_over(new)
    await line.close_all_but(new)
    line.stages = new.stages
    line.dataflow = new.dataflow
    return move


def held(line):
    """Return all counts of all instances; each key is in one instance alone."""
    counts = [runner.adapted.instance.counts for runner in line.runners_of("P")]
    whole = Counter()
    for number, each in enumerate(counts):
        assert all(instance_of(key, "device", len(counts)) == number for key in each)
        whole.update(each)
    return whole


async def test_keyed_state_is_divided_anew_and_the_receipt_says_over_how_many(line):
    running = await line(counting(2))
    for times, instances in enumerate((5, 1, 3, 2), start=1):
        await push(running)
        move = await changed(running, counting(instances))
        assert str(move) == f"state of P: 12 keys over {instances} instance{'s' if instances > 1 else ''}"
        assert held(running) == dict.fromkeys(DEVICES, times)


async def test_a_plain_state_goes_to_the_instance_of_its_number_where_all_have_one(line):
    running = await line(counting(3, snapshot=plain))
    await push(running)
    move = await changed(running, counting(3, snapshot=plain))
    assert (move.keys, str(move)) == (None, "")
    assert held(running) == dict.fromkeys(DEVICES, 1)


async def test_a_snapshot_that_raises_refuses_another_number_and_is_told_at_the_same_number(line, caplog):
    def fails(self):
        raise KeyError("state")

    running = await line(counting(2, snapshot=fails))
    await push(running)
    with pytest.raises(ProcessorError, match="can't go to 3 instances: P: snapshot failed with KeyError"):
        await running.prepare(dataflow(counting(3)), [])
    move = await changed(running, counting(2))
    assert "state of P not carried over: P: snapshot failed with KeyError" in str(move)
    assert "state of P is not carried over" in caplog.text


async def test_of_an_instance_that_hangs_the_last_known_state_is_divided(line):
    stuck = threading.Event()

    def process(self, payload):
        self.counts[payload] = self.counts.get(payload, 0) + 1
        if payload == "stuck":
            stuck.wait(10)
        return payload

    running = await line(counting(2, process=process))
    await push(running)
    await running.snapshot()
    runner = running.runners_of("P")[instance_of("stuck", "device", 2)]
    call = asyncio.create_task(runner.run(["stuck"], lambda row: None))
    await eventually(lambda: runner.hangs)
    call.cancel()
    try:
        assert (await changed(running, counting(5))).keys == 12
        assert held(running) == dict.fromkeys(DEVICES, 1)
    finally:
        stuck.set()


async def test_a_class_that_takes_no_state_begins_without_and_the_receipt_says_so(line):
    running = await line(counting(2, snapshot=plain))
    await push(running)
    move = await changed(running, counting(3, restore=None))
    assert str(move) == "state of P not carried over: the new class has no `restore`"


async def test_new_code_that_cannot_read_a_plain_state_refuses_another_number(line):
    def restore(self, state):
        raise TypeError("no such form")

    running = await line(counting(2, snapshot=plain))
    await push(running)
    with pytest.raises(ProcessorError, match=r"not Keyed, and the new code can't read it: .*no such form"):
        await running.prepare(dataflow(counting(3, restore=restore)), [])
    assert held(running) == dict.fromkeys(DEVICES, 1)


async def test_an_instance_in_the_notation_is_not_used_to_convert_a_state(line):
    running = await line(counting(2, snapshot=plain))
    await push(running)
    only = counting(1)()
    with pytest.raises(ProcessorError, match="it is not Keyed"):
        await running.prepare(dataflow(only), [])
    assert only.counts == {}


async def test_with_another_partition_by_a_plain_state_is_refused_and_a_keyed_one_by_its_keys(line):
    running = await line(counting(2, snapshot=plain))
    await push(running)
    with pytest.raises(ProcessorError, match="2 instances can't go to 2 instances: it is not Keyed"):
        await running.prepare(dataflow(counting(2, snapshot=plain, partition_by="room")), [])
    await changed(running, counting(2))
    with pytest.raises(ProcessorError, match=r"keys are of partition_by = 'device'"):
        await running.prepare(dataflow(counting(2, partition_by="room")), [])


async def test_a_state_too_large_to_be_stored_is_carried_over_a_swap_all_the_same(line):
    running = await line(counting(1))
    running.runners_of("P")[0].adapted.instance.counts["big"] = "x" * (2 << 20)
    assert await running.snapshot() == {}
    assert "or Keyed with expire=, or with a larger concurrency" in running.meters["P"].last_error
    await changed(running, counting(1))
    assert len(running.runners_of("P")[0].adapted.instance.counts["big"]) == 2 << 20


async def test_stored_states_are_divided_at_a_start(line):
    running = await line(counting(2))
    await push(running)
    states = await running.snapshot()
    assert sorted(states) == ["P/0/2", "P/1/2"]
    for instances in (5, 1, 3):
        again = await line(counting(instances), states)
        assert held(again) == dict.fromkeys(DEVICES, 1)
        states = await again.snapshot()
        assert len(states) == instances


async def test_stored_states_that_are_not_keyed_refuse_a_start_with_another_number(line):
    running = await line(counting(2, snapshot=plain))
    await push(running)
    states = await running.snapshot()
    again = await line(counting(2, snapshot=plain), states)
    assert held(again) == dict.fromkeys(DEVICES, 1)
    for instances in (1, 3):
        with pytest.raises(ProcessorError, match=f"2 instances can't go to {instances} instance"):
            await line(counting(instances, snapshot=plain), states)


async def test_states_of_version_0_1_go_on_at_the_same_number_and_are_converted_at_another(line):
    halves = [
        {device: 1 for device in DEVICES if instance_of(device, "device", 2) == number} for number in (0, 1)
    ]
    states = {f"P/{number}": encode_payload(half) for number, half in enumerate(halves)}
    for kind in (counting(2, snapshot=plain), counting(2), counting(5), counting(1)):
        assert held(await line(kind, states)) == dict.fromkeys(DEVICES, 1)
    with pytest.raises(ProcessorError, match="2 instances can't go to 3"):
        await line(counting(3, snapshot=plain), states)


async def test_windows_of_version_0_1_are_converted(line):
    class P(Window):
        concurrency = 3

        def __init__(self):
            super().__init__(count=2, aggregate="sum")

    values = {"room0": 1.0, "room1": 2.0, "room2": 3.0}
    open_ = {device: [None, 0.0, 0.0, 1, [value, 0.0]] for device, value in values.items()}
    states = {
        f"P/{number}": encode_payload(
            {
                "form": ["Window", "sum", None, None],
                "open": {d: window for d, window in open_.items() if instance_of(d, "device", 2) == number},
            }
        )
        for number in (0, 1)
    }
    running = await line(P, states)
    for device, value in values.items():
        runner = running.runners_of("P")[instance_of(device, "device", 3)]
        message = SimpleNamespace(device=device, time=1.0)
        outcome = await runner.run([10], lambda row, message=message: message)
        assert [payload["value"] for payload in outcome.payloads] == [10 + value]


def test_the_moves_of_partitions_are_told_as_one():
    moves = [StateMove("P", 3, 2), StateMove("Q", None, 1), StateMove("P", 4, 2, "why")]
    assert together(moves) == (StateMove("P", 7, 4, "why"), StateMove("Q", None, 1))
