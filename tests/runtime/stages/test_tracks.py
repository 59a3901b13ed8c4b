"""Tracks: several instances at work on one batch, its results in order, however they are slowed."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest

from pratipad_nb.runtime.stages.shards import shard_of
from pratipad_nb.runtime.values.batch import Batch


async def test_members_of_braces_each_see_every_message_as_it_came_in_and_it_goes_on_unchanged(
    at_work, batch_of
):
    seen = defaultdict(list)

    def spoils(payload):
        seen["spoils"].append(payload["n"])
        payload["n"] = "spoilt"
        return "dropped"

    async def watches(payload):
        await asyncio.sleep(0)
        seen["watches"].append(payload["n"])

    async with at_work("Push ~> {spoils, watches} ~> Output", spoils=spoils, watches=watches) as run:
        assert await run(batch_of([{"n": n} for n in range(4)])) == [{"n": n} for n in range(4)]
        assert seen == {"spoils": [0, 1, 2, 3], "watches": [0, 1, 2, 3]}


async def test_if_one_member_fails_the_others_finish_and_the_message_is_dead_lettered_for_that_one(
    at_work, batch_of, halve
):
    seen = []
    async with at_work("Push ~> {halve, seen} ~> Output", halve=halve, seen=lambda p: seen.append(p)) as run:
        assert await run(batch_of(range(4))) == [0, 2]
        assert seen == [0, 1, 2, 3]
        assert run.dead == [("halve", 2, 1), ("halve", 4, 3)]


async def test_a_retried_message_is_seen_by_the_member_that_failed_alone(at_work, batch_of, halve):
    seen = []
    async with at_work("Push ~> {halve, seen} ~> Output", halve=halve, seen=lambda p: seen.append(p)) as run:
        assert await run(batch_of([4], only=frozenset({"halve"}))) == [4]
        assert seen == []


@pytest.mark.parametrize("by", ["device", "room"])
async def test_braces_with_several_instances_keep_the_order_of_a_key_in_each(at_work, batch_of, by):
    seen = defaultdict(list)

    class Watch:
        concurrency, partition_by = 4, by

        async def process(self, payload, message):
            await asyncio.sleep(0.0005 * (payload["n"] % 3))
            seen[message.device if by == "device" else payload["room"]].append(payload["n"])

    payloads = [{"n": n, "room": n % 7} for n in range(40)]
    async with at_work("Push ~> {Watch, Watch} ~> Output", Watch=Watch) as run:
        assert await run(batch_of(payloads, *[4] * 10)) == payloads
    for numbers in seen.values():
        each = sorted(set(numbers))
        assert len(numbers) == 2 * len(each)
        assert _is_merge_of_two(numbers, each)


def _is_merge_of_two(numbers, each):
    """Whether `numbers` is `each`, twice, one shuffled into the other with the order of both kept."""
    first, second = iter(each), iter(each)
    heads = [next(first), next(second)]
    for number in numbers:
        which = heads.index(number)
        heads[which] = next((first, second)[which], None)
    return heads == [None, None]


async def test_eight_instances_keep_the_order_of_a_key_of_the_payload_and_all_stays_in_place(
    at_work, batch_of
):
    running, most, seen = 0, 0, defaultdict(list)

    class Slow:
        concurrency, partition_by = 8, "room"

        async def process(self, payload):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.0003 * (payload["n"] % 5))
            running -= 1
            seen[payload["room"]].append(payload["n"])
            return payload["n"]

    payloads = [{"n": n, "room": n % 20} for n in range(200)]
    async with at_work("Push ~> Slow ~> Output", Slow=Slow) as run:
        assert await run(batch_of(payloads)) == list(range(200))
        assert run.is_whole(200)
    assert 1 < most <= 8
    assert all(numbers == sorted(numbers) for numbers in seen.values())


async def test_what_a_member_of_braces_does_to_its_messages_payload_is_seen_by_nobody(at_work, batch_of):
    def spoils(payload, message):
        message.payload["n"] = "spoilt"

    async with at_work("Push ~> {spoils, spoils} ~> Output", spoils=spoils) as run:
        assert await run(batch_of([{"n": 1}])) == [{"n": 1}]


async def test_of_a_message_with_several_rows_at_several_instances_nothing_goes_on_before_all_is_done(
    at_work, source
):
    gate = asyncio.Event()

    class Slow:
        concurrency, partition_by = 4, "n"

        async def process(self, payload):
            if payload["n"] == 1:
                await gate.wait()
            return payload["n"]

    # Each at an instance of its own; the second message's last row is held up.
    batch = Batch(source(2), [{"n": n} for n in (0, 4, 5, 1)], [0, 0, 1, 1], 2)
    assert len({shard_of(n, 4) for n in (0, 4, 5, 1)}) == 4
    async with at_work("Push ~> Slow ~> Output", Slow=Slow) as run:
        working = asyncio.create_task(run(batch))
        while not run.out:
            await asyncio.sleep(0.001)
        assert [payload for each in run.out for payload in each.payloads] == [0, 4]
        gate.set()
        assert await working == [0, 4, 5, 1]
