"""The line of processors: set up, torn down and swapped as one, never held up by an unkeepable state."""

from __future__ import annotations

import pytest

from pratipad_nb.dataflow import resolve
from pratipad_nb.errors import ProcessorError
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.settings import FlowOptions

TRACE = []


@pytest.fixture(autouse=True)
def empty_trace():
    TRACE.clear()


class A:
    def setup(self):
        TRACE.append("A up")

    def teardown(self):
        TRACE.append("A down")

    def process(self, payload):
        return payload


class Counter:
    def __init__(self):
        self.count = 0

    def process(self, payload):
        self.count += 1
        return self.count

    def snapshot(self):
        return self.count

    def restore(self, state):
        self.count = state


class Fails(A):
    def setup(self):
        TRACE.append("Fails up")
        raise OSError("no such port")


def dataflow(notation, **names):
    return resolve(notation, {"A": A, "Counter": Counter, "Fails": Fails} | names)


async def opened(notation, states=None, **names):
    line = Line(dataflow(notation, **names), FlowOptions())
    await line.open(states or {})
    return line


async def run(line, key, *payloads):
    (runner,) = line.runners_of(key)
    return (await runner.run(list(payloads), lambda row: None)).payloads


async def test_processors_are_set_up_in_order_and_torn_down_from_the_last_on():
    class B(A):
        def setup(self):
            TRACE.append("B up")

        def teardown(self):
            TRACE.append("B down")

    line = await opened("Push ~> A ~> B ~> Output", B=B)
    await line.close()
    assert TRACE == ["A up", "B up", "B down", "A down"]


async def test_if_one_cannot_be_set_up_those_before_it_are_torn_down_and_it_is_named():
    line = Line(dataflow("Push ~> A ~> Fails ~> Output"), FlowOptions())
    with pytest.raises(ProcessorError, match="Fails: setup failed with OSError: no such port"):
        await line.open({})
    assert TRACE == ["A up", "Fails up", "A down"]
    assert line.stages == []


async def test_the_state_of_every_instance_survives_a_restart():
    line = await opened("Push ~> Counter ~> Output")
    await run(line, "Counter", "x", "y")
    states = await line.snapshot()
    await line.close()
    again = await opened("Push ~> Counter ~> Output", states)
    assert await run(again, "Counter", "z") == [3]
    await again.close()


@pytest.mark.parametrize("state", [object(), "x" * (2 << 20)], ids=["unfit", "too large"])
async def test_a_state_that_cannot_be_kept_is_told_and_holds_nothing_up(state, caplog):
    class Odd(Counter):
        def snapshot(self):
            return state

    line = await opened("Push ~> Odd ~> Counter ~> Output", Odd=Odd)
    await run(line, "Counter", "x")
    assert list(await line.snapshot()) == ["Counter/0/1"]
    assert "Odd: " in caplog.text
    assert "snapshot" in line.meters["Odd"].last_error
    await line.close()


async def test_a_snapshot_that_raises_is_told_and_holds_nothing_up(caplog):
    class Odd(Counter):
        def snapshot(self):
            raise KeyError("state")

    line = await opened("Push ~> Odd ~> Output", Odd=Odd)
    assert await line.snapshot() == {}
    assert "Odd: snapshot failed with KeyError: 'state'" in caplog.text
    await line.close()


async def test_a_changed_line_keeps_the_instances_of_what_stays_and_hands_over_the_state_of_what_changes():
    class Newer(Counter):
        def process(self, payload):
            return super().process(payload) * 100

    Newer.__name__ = "Counter"
    line = await opened("Push ~> A ~> Counter ~> Output")
    await run(line, "Counter", "x", "y")
    kept = line.runners_of("A")
    changed = dataflow("Push ~> A ~> [Counter, A] ~> Output", Counter=Newer)
    new = await line.prepare(changed, line.dataflow.diff(changed).kept)
    await line.carry_over(new)
    await line.close_all_but(new)
    assert new.runners_of("A") == kept
    assert await run(new, "Counter", "z") == [300]
    assert TRACE == ["A up", "A up"]
    await new.close()
    assert TRACE[2:] == ["A down", "A down"]


async def test_when_a_new_processor_cannot_be_set_up_the_old_ones_stay_as_they_are():
    line = await opened("Push ~> A ~> Counter ~> Output")
    await run(line, "Counter", "x")
    changed = dataflow("Push ~> A ~> Counter ~> A ~> Fails ~> Output")
    with pytest.raises(ProcessorError, match="no such port"):
        await line.prepare(changed, line.dataflow.diff(changed).kept)
    assert TRACE == ["A up", "A up", "Fails up", "A down"]
    assert await run(line, "Counter", "y") == [2]
    await line.close()


async def test_what_is_taken_out_of_the_line_is_torn_down():
    line = await opened("Push ~> A ~> Counter ~> Output")
    changed = dataflow("Push ~> Counter ~> Output")
    new = await line.prepare(changed, line.dataflow.diff(changed).kept)
    await line.carry_over(new)
    await line.close_all_but(new)
    assert TRACE == ["A up", "A down"]
    await new.close()


async def test_one_processor_is_paused_and_goes_on():
    line = await opened("Push ~> A ~> Counter ~> Output")
    line.pause("Counter")
    assert line.paused == ["Counter"]
    line.resume("Counter")
    assert line.paused == []
    assert await run(line, "Counter", "x") == [1]
    await line.close()
