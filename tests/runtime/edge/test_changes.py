"""Changing what one edge runs: what doesn't change is left alone."""

from __future__ import annotations

import asyncio

import pytest

from pratipad_nb import every
from pratipad_nb.dataflow import resolve
from pratipad_nb.errors import FlowError, ProcessorError
from pratipad_nb.runtime.stages.shards import shard_of


async def test_a_change_of_one_processor_leaves_the_timers_of_the_others_alone(edges, until):
    begun, ended = [], []

    class Beats:
        def process(self, payload):
            return payload

        @every(0.01)
        async def beat(self):
            begun.append(True)
            try:
                await asyncio.sleep(0.2)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            ended.append("whole")

    names = {"Beats": Beats, "P": lambda payload: payload}
    edge = await edges.running("Push ~> Beats ~> P ~> Output", names)
    await until(lambda: begun)
    await edge.swap(resolve("Push ~> Beats ~> P ~> Output", names | {"P": lambda payload: [payload]}))
    await edge.swap(
        resolve("Push ~> Beats ~> P ~> same ~> Output", names | {"same": lambda payload: payload})
    )
    await until(lambda: ended)
    assert ended[0] == "whole"
    await until(lambda: len(ended) > 1)


async def test_a_timer_is_not_called_while_its_processor_is_taken_out(edges, until, caplog):
    beats = []

    class Beats:
        in_the_flow = False

        def setup(self):
            self.in_the_flow = True

        def teardown(self):
            self.in_the_flow = False

        def process(self, payload):
            return payload

        @every(0.001)
        def beat(self):
            beats.append(self.in_the_flow)

    edge = await edges.running("Push ~> Beats ~> Output", {"Beats": Beats})
    for _ in range(5):
        earlier = len(beats)
        await until(lambda earlier=earlier: len(beats) > earlier + 2)
        for notation in ("Push ~> same ~> Output", "Push ~> Beats ~> Output"):
            await edge.swap(resolve(notation, {"Beats": Beats, "same": lambda payload: payload}))
    assert set(beats) == {True}
    assert "failed" not in caplog.text


def counting(restore):
    """Return a processor that counts its calls, in two instances, and takes a state over by `restore`."""

    class Count:
        concurrency = 2

        def __init__(self):
            self.count = 0

        def process(self, payload):
            self.count += 1
            return self.count

        def snapshot(self):
            return self.count

        def restore(self, state):
            restore(self, state)

    return Count


async def test_where_one_instance_cannot_take_the_state_over_all_of_them_stay_as_they_were(edges, push):
    def take(self, count):
        self.count = count

    def refuse(self, count):
        if count > 1:
            raise ValueError("no such form")
        self.count = 1000

    edge = await edges.running("Push ~> Count ~> Output", {"Count": counting(take)})
    devices = {shard_of(f"room{n}", 2): f"room{n}" for n in range(10)}  # one for each instance
    await push(0, device=devices[0])
    await push(0, 0, device=devices[1])
    await edge.settled(5)
    with pytest.raises(ProcessorError, match="restore failed with ValueError: no such form"):
        await edge.swap(resolve("Push ~> Count ~> Output", {"Count": counting(refuse)}))
    assert edge.line.meters["Count"].version == 0
    await push(0, device=devices[0], first=2)
    await push(0, device=devices[1], first=3)
    await edge.settled(5)
    assert [runner.adapted.snapshot() for runner in edge.line.runners_of("Count")] == [2, 3]


class Teardown:
    """A `teardown` that has begun, and ends when told to."""

    def __init__(self):
        self.began, self.ends = asyncio.Event(), asyncio.Event()

    async def __call__(self):
        self.began.set()
        await self.ends.wait()


def leaving(teardown):
    """Return a processor that is torn down as `teardown` does it."""

    class Leaves:
        def process(self, payload):
            return payload

        def backward(self, payload):
            return [payload]

        async def teardown(self):
            await teardown()

    return Leaves


WITHOUT = resolve("Push <~> same <~> Output", {"same": lambda payload: payload})


async def test_an_order_passes_while_a_processor_that_was_taken_out_is_torn_down(edges, until):
    teardown = Teardown()
    edge = await edges.running("Push <~> Leaves <~> Output", {"Leaves": leaving(teardown)})
    change = asyncio.create_task(edge.swap(WITHOUT))
    await teardown.began.wait()
    await edge.order("on", to="room1")
    await until(lambda: edge.parts.backward.stats().waiting == 1)
    teardown.ends.set()
    assert (await change).removed == ("Leaves",)
    assert edge.state == "running"


async def test_who_asked_for_a_change_is_told_when_the_run_ends_in_the_midst_of_it(edges):
    teardown = Teardown()
    edge = await edges.opened("Push <~> Leaves <~> Output", {"Leaves": leaving(teardown)})
    running = asyncio.create_task(edge.run())
    await asyncio.sleep(0)
    change = asyncio.create_task(edge.swap(WITHOUT))
    await teardown.began.wait()
    running.cancel()
    teardown.ends.set()
    with pytest.raises(FlowError, match="has ended before it could be changed"):
        await change
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_retry_that_waits_for_room_keeps_nobody_from_changing_the_flow(edges, push, until):
    gate = asyncio.Event()
    gate.set()

    class Picky:
        async def process(self, payload):
            await gate.wait()
            raise ValueError("no")

    edge = await edges.running("Push ~> Picky ~> Output", {"Picky": Picky})
    for number in range(1, 61):
        await push(number, first=number)
    await until(lambda: edge.parts.dead_letters.count == 60)
    gate.clear()
    retry = asyncio.create_task(edge.retry_dead_letters())
    await until(lambda: edge.parts.shape.pipeline.waiting(0))
    mended = resolve("Push ~> Picky ~> Output", {"Picky": lambda payload: payload})
    async with asyncio.timeout(5):
        change = asyncio.create_task(edge.swap(mended))
        await until(lambda: edge.parts.changes._turn.locked())
        gate.set()
        await change
        assert await retry == 60
