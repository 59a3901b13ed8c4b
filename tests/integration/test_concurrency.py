"""Concurrency in use: braces, instances by key, blocking functions, batches, ready-made processors.

Overlap is seen in recorded intervals, not in how long it took.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import defaultdict

import pytest
from patience import eventually

from pratipad_nb import Deadband, Filter, FlowOptions, Processor, Throttle, Window

#: For what is no business of the transport.
in_memory = pytest.mark.parametrize("scene", ["memory"], indirect=True)


class Intervals:
    """When each call ran, and how many ran at once."""

    def __init__(self):
        self.lock = threading.Lock()
        self.running = 0
        self.most = 0
        self.spans = defaultdict(list)

    def enter(self):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        return time.monotonic()

    def leave(self, who, began, what):
        with self.lock:
            self.running -= 1
            self.spans[who].append((began, time.monotonic(), what))


async def test_members_of_braces_are_at_work_at_the_same_time_blocking_and_async_ones_alike(scene):
    """Each waits for all four to have begun, which members one after the other would never see."""
    begun = defaultdict(set)

    def together(number):
        return len(begun[number]) == 4

    def blocking(name):
        class Blocks:
            def process(self, number):
                begun[number].add(name)
                end = time.monotonic() + 10
                while not together(number):
                    assert time.monotonic() < end
                    time.sleep(0.001)

        return Blocks

    def awaiting(name):
        async def awaits(number):
            begun[number].add(name)
            async with asyncio.timeout(10):
                while not together(number):
                    await asyncio.sleep(0.001)

        return awaits

    names = {"B1": blocking("B1"), "B2": blocking("B2"), "A1": awaiting("A1"), "A2": awaiting("A2")}
    flow = await scene.flow("Push ~> {B1, B2, A1, A2} ~> Output", namespace=names)
    device = await scene.device(flow)
    for number in range(20):
        await device.push(number)
    assert [message.payload for message in await flow.take(20)] == list(range(20))
    assert flow.stats().dead == 0


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_eight_instances_keep_the_order_of_a_key_and_are_never_more_than_eight_at_once(scene, kind):
    seen = Intervals()

    class Blocks(Processor):
        concurrency = 8

        def process(self, payload, message):
            began = seen.enter()
            time.sleep(0.002)
            seen.leave(message.device, began, payload)
            return payload

    class Awaits(Processor):
        concurrency = 8

        async def process(self, payload, message):
            began = seen.enter()
            await asyncio.sleep(0.002)
            seen.leave(message.device, began, payload)
            return payload

    flow = await scene.flow("Push ~> P ~> Output", namespace={"P": Blocks if kind == "def" else Awaits})
    devices = [await scene.device(flow, f"d{number}") for number in range(24)]
    for number in range(20):
        for device in devices:
            await device.push(number)
    taken = defaultdict(list)
    for message in await flow.take(480):
        taken[message.device].append(message.payload)
    assert all(numbers == list(range(20)) for numbers in taken.values())
    assert len(taken) == 24
    assert 4 <= seen.most <= 8
    for spans in seen.spans.values():  # one key is never at work twice at once, and in its order
        assert [span[2] for span in spans] == list(range(20))
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


async def test_a_key_of_the_payload_keeps_its_order_whatever_the_device(scene):
    seen = Intervals()

    class ByRoom(Processor):
        concurrency = 4
        partition_by = "room"

        def process(self, payload):
            began = seen.enter()
            time.sleep(0.002)
            seen.leave(payload["room"], began, payload["n"])
            return payload

    flow = await scene.flow("Push ~> ByRoom ~> Output", namespace={"ByRoom": ByRoom})
    device = await scene.device(flow)
    for number in range(160):
        await device.push({"room": number % 16, "n": number})
    taken = [message.payload for message in await flow.take(160)]
    assert 2 <= seen.most <= 4
    for room in range(16):
        numbers = list(range(room, 160, 16))
        assert [payload["n"] for payload in taken if payload["room"] == room] == numbers
        assert [span[2] for span in seen.spans[room]] == numbers


async def test_a_payload_whose_key_can_not_be_had_fails_alone_and_the_flow_goes_on(scene):
    class Reading:
        def __init__(self, n):
            self.n = n

        @property
        def room(self):
            if self.n == 3:
                raise KeyError("no room")
            return "\ud800" if self.n == 4 else "kitchen"

    class ByRoom(Processor):
        concurrency = 4
        partition_by = "room"

        def process(self, payload):
            return {"n": payload.n, "length": len(payload.room)}

    names = {"parsed": lambda n: Reading(n), "ByRoom": ByRoom}
    flow = await scene.flow("Push ~> parsed ~> ByRoom ~> Output", namespace=names)
    device = await scene.device(flow)
    for number in range(6):
        await device.push(number)
    taken = {message.payload["n"]: message.payload["length"] for message in await flow.take(5)}
    assert taken == {0: 7, 1: 7, 2: 7, 4: 1, 5: 7}
    assert flow.stats().dead == 1


async def test_a_blocking_function_stalls_neither_the_loop_nor_other_keys(scene):
    hold, held = threading.Event(), threading.Event()

    class Blocks(Processor):
        concurrency = 8

        def process(self, payload):
            if payload == "block":
                held.set()
                hold.wait(20)
            return payload

    flow = await scene.flow("Push ~> Blocks ~> Output", namespace={"Blocks": Blocks})
    stuck = await scene.device(flow, "stuck")
    others = [await scene.device(flow, f"other{number}") for number in range(16)]
    await stuck.push("block")
    await eventually(held.is_set)
    try:
        beats = 0
        for number in range(10):
            for device in others:
                await device.push(number)
            await asyncio.sleep(0.001)
            beats += 1
        # Of sixteen devices most are in other shards than the stuck one; those get through.
        taken = await flow.take(100)
        assert "stuck" not in {message.device for message in taken}
        assert beats == 10
    finally:
        hold.set()
    await flow.settled()
    assert flow.stats().delivered == 161


@in_memory
async def test_a_batch_is_what_is_there_at_most_batch_size_and_waits_for_more_as_long_as_it_is_told(scene):
    sizes = {"now": [], "later": []}

    class Now(Processor):
        batch_size = 10

        def process_batch(self, payloads):
            sizes["now"].append(len(payloads))
            return payloads

    class Later(Processor):
        batch_size = 10
        batch_timeout = 5.0

        def process_batch(self, payloads):
            sizes["later"].append(len(payloads))
            return [[payload, payload] for payload in payloads]

    flow = await scene.flow("Push ~> [Now, Later] ~> Output", namespace={"Now": Now, "Later": Later})
    device = await scene.device(flow)
    for number in range(40):
        await device.push(number)
        await device.flush(5)
    taken = [message.payload for message in await flow.take(80, timeout=4)]
    assert taken == [number for number in range(40) for _ in range(2)]
    assert max(sizes["now"]) <= 10
    assert sizes["later"] == [10, 10, 10, 10]


@in_memory
async def test_of_a_gathered_batch_that_fails_the_rows_go_on_alone_and_each_result_keeps_its_device(scene):
    class Gathers(Processor):
        batch_size = 12
        batch_timeout = 5.0

        def process_batch(self, payloads, messages):
            if 13 in payloads:
                raise ValueError("unlucky")
            return [
                [f"{message.device}:{payload}"] * (payload % 3)
                for payload, message in zip(payloads, messages, strict=True)
            ]

    flow = await scene.flow("Push ~> Gathers ~> Output", namespace={"Gathers": Gathers})
    devices = [await scene.device(flow, name) for name in ("a", "b", "c")]
    for number in range(16):
        for device in devices:
            await device.push(number)
            await device.flush(5)
    taken = [(message.device, message.payload) for message in await flow.take(14 * 3)]
    await flow.settled()
    for name in ("a", "b", "c"):
        expected = [f"{name}:{n}" for n in range(16) if n != 13 for _ in range(n % 3)]
        assert [payload for device, payload in taken if device == name] == expected
    letters = await flow.dead_letters()
    assert sorted((letter.device, letter.payload) for letter in letters) == [("a", 13), ("b", 13), ("c", 13)]


@in_memory
async def test_a_batch_that_does_not_fill_goes_when_its_time_is_up(scene):
    sizes = []

    class Waits(Processor):
        batch_size = 100
        batch_timeout = 0.3

        async def process_batch(self, payloads):
            sizes.append(len(payloads))
            return payloads

    flow = await scene.flow("Push ~> Waits ~> Output", namespace={"Waits": Waits})
    device = await scene.device(flow)
    for number in range(3):
        await device.push(number)
        await device.flush(5)
    assert [message.payload for message in await flow.take(3)] == [0, 1, 2]
    assert sizes == [3]


@in_memory
@pytest.mark.parametrize("instances", [1, 3])
async def test_a_gathering_processor_with_state_keeps_it_over_checkpoints_and_a_new_start(scene, instances):
    class Counts(Processor):
        concurrency = instances
        batch_size = 7
        batch_timeout = 0.2

        def setup(self):
            self.counts = {}

        def process_batch(self, payloads, messages):
            results = []
            for message in messages:
                self.counts[message.device] = self.counts.get(message.device, 0) + 1
                results.append(self.counts[message.device])
            return results

        def snapshot(self):
            return self.counts

        def restore(self, state):
            self.counts = state

    flow = await scene.flow(
        "Push ~> [Counts, same] ~> Output",
        namespace={"Counts": Counts},
        options=FlowOptions(checkpoint_seconds=0.02),
    )
    devices = [await scene.device(flow, f"d{number}") for number in range(5)]
    for number in range(60):
        for device in devices:
            await device.push(number)
        await asyncio.sleep(0.005)
        if number in (20, 40):
            await flow.stop()
            await flow.start()
    counts = defaultdict(list)
    for message in await flow.take(300):
        counts[message.device].append(message.payload)
    assert all(found == list(range(1, 61)) for found in counts.values())


READINGS = [{"t": t} for t in (10, 21, 21.1, 22, 30, 15, 30.1, 31)]


@pytest.mark.parametrize(
    ("step", "passes"),
    [
        ('Filter(key="t", above=20)', [READINGS[index] for index in (1, 2, 3, 4, 6, 7)]),
        ('Deadband(key="t", delta=0.5)', [READINGS[index] for index in (0, 1, 3, 4, 5, 6, 7)]),
        ("Throttle(seconds=3600)", READINGS[:1]),
        ('Window(count=4, key="t", aggregate="max")', [READINGS[3], READINGS[7]]),
    ],
)
@in_memory
async def test_the_ready_made_processors_work_in_a_flow(scene, step, passes):
    names = {"Filter": Filter, "Throttle": Throttle, "Deadband": Deadband, "Window": Window}
    flow = await scene.flow(f"Push ~> {step} ~> Output", namespace=names)
    device = await scene.device(flow)
    for reading in READINGS:
        await device.push(reading)
    await device.flush()
    await flow.settled()
    found = [message.payload for message in await flow.take(flow.stats().delivered)]
    assert [{"t": payload["t"]} for payload in found] == passes
