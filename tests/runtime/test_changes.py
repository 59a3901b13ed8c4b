"""Changing what one edge runs: what doesn't change is left alone."""

from __future__ import annotations

import asyncio

from pratipad_nb import every
from pratipad_nb.dataflow import resolve


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
