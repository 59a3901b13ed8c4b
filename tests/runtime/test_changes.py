"""Changing what one edge runs: what doesn't change is left alone."""

from __future__ import annotations

import asyncio

import pytest

from pratipad_nb import every
from pratipad_nb.dataflow import resolve
from pratipad_nb.errors import ProcessorError
from pratipad_nb.runtime.stage import lane_of


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


async def test_a_timer_is_not_called_while_its_processor_is_taken_out(edges, caplog):
    class Beats:
        def process(self, payload):
            return payload

        @every(0.001)
        def beat(self):
            pass

    edge = await edges.running("Push ~> Beats ~> Output", {"Beats": Beats})
    for notation in ("Push ~> same ~> Output", "Push ~> Beats ~> Output") * 5:
        await edge.swap(resolve(notation, {"Beats": Beats, "same": lambda payload: payload}))
    assert "failed" not in caplog.text


def counting(restore):
    """Return a processor that counts what it sees, in two instances, and takes a state over as `restore` does."""

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
    devices = {lane_of(f"room{n}", 2): f"room{n}" for n in range(10)}  # one for each instance
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
