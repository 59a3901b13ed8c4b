"""Stages: every row's results, failures and replies, in order, however a processor is slowed."""

from __future__ import annotations

import asyncio


async def test_results_keep_their_order_and_failures_are_told_with_what_came_in(at_work, batch_of, halve):
    async with at_work("Push ~> halve ~> Output", halve=halve) as run:
        assert await run(batch_of(range(6))) == [0, 1, 2]
        assert run.dead == [("halve", 2, 1), ("halve", 4, 3), ("halve", 6, 5)]
        assert [origin for batch in run.out for origin in batch.origins] == [0, 2, 4]
        assert run.is_whole(6)


async def test_a_slow_processors_first_results_go_on_before_its_last(at_work, batch_of):
    async def slow(payload):
        await asyncio.sleep(0.004)
        return payload

    async with at_work("Push ~> slow ~> Output", slice_seconds=0.01, slow=slow) as run:
        assert await run(batch_of(range(20))) == list(range(20))
        assert len(run.out) > 2
        assert run.is_whole(20)


async def test_a_message_with_several_results_is_complete_only_with_its_last(at_work, batch_of):
    def twice(payload):
        yield payload
        yield -payload

    async with at_work("Push ~> twice ~> Output", twice=twice) as run:
        assert await run(batch_of([1, 2])) == [1, -1, 2, -2]
        assert run.is_whole(2)


async def test_what_enters_behind_a_stage_passes_it(at_work, batch_of, halve):
    async with at_work("Push ~> halve ~> Output", halve=halve) as run:
        assert await run(batch_of([1, 3], stage=1)) == [1, 3]
