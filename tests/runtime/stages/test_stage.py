"""Stages: every row's results, failures and replies, in order, however many instances work and however they are slowed."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pratipad_nb.dataflow import resolve
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.stages.shards import Splitter
from pratipad_nb.runtime.stages.stage import shard_of
from pratipad_nb.runtime.values.batch import Batch, InputFrame, Source
from pratipad_nb.settings import FlowOptions


class Run:
    """One stage at work, and what it hands on."""

    def __init__(self, notation, slice_seconds=0.05, **names):
        self.line = Line(resolve(notation, names), FlowOptions(slice_seconds=slice_seconds))
        self.out = []

    async def __aenter__(self):
        await self.line.open({})
        return self

    async def __aexit__(self, *_):
        await self.line.close()

    async def emit(self, batch):
        self.out.append(batch)

    async def __call__(self, batch, shard=0):
        await self.line.stages[0].process(batch, self.emit, shard)
        return [payload for each in self.out for payload in each.payloads]

    @property
    def dead(self):
        return [(step, entry.number, entry.payload) for each in self.out for step, entry in each.dead]


def source(*counts):
    """Return a source with a frame of so many messages for each of devices d0, d1, …"""
    return Source(
        "house", [InputFrame(f"d{at}", 7, 1, 2.0, [1.0] * count) for at, count in enumerate(counts)]
    )


def batch_of(payloads, *counts, **more):
    return Batch(
        source(*(counts or (len(payloads),))), list(payloads), range(len(payloads)), len(payloads), **more
    )


def is_whole(batches, count):
    """Whether what was handed on says how far it is without a step back, and ends at the end."""
    done = [batch.done for batch in batches]
    return done == sorted(done) and done[-1] == count


def halve(payload):
    if payload % 2:
        raise ValueError("odd")
    return payload // 2


async def test_results_keep_their_order_and_failures_are_told_with_what_came_in():
    async with Run("Push ~> halve ~> Output", halve=halve) as run:
        assert await run(batch_of(range(6))) == [0, 1, 2]
        assert run.dead == [("halve", 2, 1), ("halve", 4, 3), ("halve", 6, 5)]
        assert [origin for batch in run.out for origin in batch.origins] == [0, 2, 4]
        assert is_whole(run.out, 6)


async def test_a_slow_processors_first_results_go_on_before_its_last():
    async def slow(payload):
        await asyncio.sleep(0.004)
        return payload

    async with Run("Push ~> slow ~> Output", slice_seconds=0.01, slow=slow) as run:
        assert await run(batch_of(range(20))) == list(range(20))
        assert len(run.out) > 2
        assert is_whole(run.out, 20)


async def test_a_message_with_several_results_is_complete_only_with_its_last():
    def twice(payload):
        yield payload
        yield -payload

    async with Run("Push ~> twice ~> Output", twice=twice) as run:
        assert await run(batch_of([1, 2])) == [1, -1, 2, -2]
        assert is_whole(run.out, 2)


async def test_what_enters_behind_a_stage_passes_it():
    async with Run("Push ~> halve ~> Output", halve=halve) as run:
        assert await run(batch_of([1, 3], stage=1)) == [1, 3]


async def test_members_of_braces_each_see_every_message_as_it_came_in_and_it_goes_on_unchanged():
    seen = defaultdict(list)

    def spoils(payload):
        seen["spoils"].append(payload["n"])
        payload["n"] = "spoilt"
        return "dropped"

    async def watches(payload):
        await asyncio.sleep(0)
        seen["watches"].append(payload["n"])

    async with Run("Push ~> {spoils, watches} ~> Output", spoils=spoils, watches=watches) as run:
        assert await run(batch_of([{"n": n} for n in range(4)])) == [{"n": n} for n in range(4)]
        assert seen == {"spoils": [0, 1, 2, 3], "watches": [0, 1, 2, 3]}


async def test_if_one_member_fails_the_others_finish_and_the_message_is_dead_lettered_for_that_one():
    seen = []
    async with Run("Push ~> {halve, seen} ~> Output", halve=halve, seen=lambda p: seen.append(p)) as run:
        assert await run(batch_of(range(4))) == [0, 2]
        assert seen == [0, 1, 2, 3]
        assert run.dead == [("halve", 2, 1), ("halve", 4, 3)]


async def test_a_retried_message_is_seen_by_the_member_that_failed_alone():
    seen = []
    async with Run("Push ~> {halve, seen} ~> Output", halve=halve, seen=lambda p: seen.append(p)) as run:
        assert await run(batch_of([4], only=frozenset({"halve"}))) == [4]
        assert seen == []


@pytest.mark.parametrize("by", ["device", "room"])
async def test_braces_with_several_instances_keep_the_order_of_a_key_in_each(by):
    seen = defaultdict(list)

    class Watch:
        concurrency, partition_by = 4, by

        async def process(self, payload, message):
            await asyncio.sleep(0.0005 * (payload["n"] % 3))
            seen[message.device if by == "device" else payload["room"]].append(payload["n"])

    payloads = [{"n": n, "room": n % 7} for n in range(40)]
    async with Run("Push ~> {Watch, Watch} ~> Output", Watch=Watch) as run:
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


async def test_eight_instances_keep_the_order_of_a_key_of_the_payload_and_all_stays_in_place():
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
    async with Run("Push ~> Slow ~> Output", Slow=Slow) as run:
        assert await run(batch_of(payloads)) == list(range(200))
        assert is_whole(run.out, 200)
    assert 1 < most <= 8
    assert all(numbers == sorted(numbers) for numbers in seen.values())


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(1, 5), st.randoms())
@settings(max_examples=60, deadline=None)
def test_lanes_split_any_batches_so_that_each_row_is_in_its_devices_lane_once(counts, shards, chance):
    whole = source(*counts)
    splitter, told = Splitter(shards), defaultdict(list)
    at, ends = 0, defaultdict(int)
    while at < whole.size:  # slices of one source, as a stage before hands them on; some rows are filtered
        end = chance.randint(at + 1, whole.size)
        kept = [index for index in range(at, end) if chance.random() < 0.8]
        parts = splitter.split(Batch(whole, [("row", index) for index in kept], kept, end))
        for shard, part in enumerate(parts):
            if part is None:
                continue
            assert part.done >= ends[shard]
            ends[shard] = part.done
            for payload, origin in zip(part.payloads, part.origins, strict=True):
                device = part.source.device(origin)
                assert shard_of(device, shards) == shard
                index = payload[1]
                assert whole.device(index) == device
                assert whole.message(index, None).id == part.source.message(origin, None).id
                told[device].append(index)
        at = end
    assert sum(ends.values()) == whole.size
    assert all(indices == sorted(set(indices)) for indices in told.values())


def test_a_key_is_in_the_same_lane_in_every_run():
    assert [shard_of(f"room{n}", 8) for n in range(5)] == [4, 2, 0, 6, 5]


async def test_what_a_member_of_braces_does_to_its_messages_payload_is_seen_by_nobody():
    def spoils(payload, message):
        message.payload["n"] = "spoilt"

    async with Run("Push ~> {spoils, spoils} ~> Output", spoils=spoils) as run:
        assert await run(batch_of([{"n": 1}])) == [{"n": 1}]


async def test_of_a_message_with_several_rows_at_several_instances_nothing_goes_on_before_all_is_done():
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
    async with Run("Push ~> Slow ~> Output", Slow=Slow) as run:
        working = asyncio.create_task(run(batch))
        while not run.out:
            await asyncio.sleep(0.001)
        assert [payload for each in run.out for payload in each.payloads] == [0, 4]
        gate.set()
        assert await working == [0, 4, 5, 1]
