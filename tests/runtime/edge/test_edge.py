"""One edge's run, from its logs to its tasks: a full output log, a restart, another edge beside it."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time

import msgspec
import pytest

from pratipad_nb import AsyncDevice, AsyncFlow, Processor
from pratipad_nb.errors import FlowError
from pratipad_nb.runtime.positions.chain import OutputChain
from pratipad_nb.runtime.stages.states import State
from pratipad_nb.settings import FlowOptions, Keep
from pratipad_nb.testing import memory_server
from pratipad_nb.transport.memory import connect_memory


def same(payload):
    return payload


class Counter(Processor):
    def __init__(self):
        self.count = 0

    def process(self, payload):
        self.count += 1
        return self.count

    def snapshot(self):
        return self.count

    def restore(self, state):
        self.count = state


@pytest.fixture
def url():
    with memory_server() as found:
        yield found


async def started(url, notation="Push ~> same ~> Output", name="house", **more):
    names = {"same": same, "Counter": Counter} | more.pop("namespace", {})
    return await AsyncFlow(notation, name=name, namespace=names, server=url, **more).start()


async def push(flow, payloads):
    device = await AsyncDevice("room1").connect(flow)
    for payload in payloads:
        await device.push(payload)
    await device.flush()
    await device.close()


async def test_several_times_what_the_output_keeps_flows_through_when_nobody_reads(url):
    flow = await started(url, keep=Keep(bytes=1 << 20))
    async with asyncio.timeout(15):
        await push(flow, (secrets.token_hex(2000) for _ in range(1000)))
        await flow.settled()
    assert flow.stats().delivered == 1000
    assert flow.stats().blocked_by == ()
    await flow.stop()


async def test_state_that_a_processor_keeps_survives_a_restart_of_the_flow(url):
    for last in (3, 6):
        flow = await started(url, "Push ~> Counter ~> Output")
        await push(flow, "abc")
        await flow.settled()
        assert [message.payload for message in await flow.take(3)] == [last - 2, last - 1, last]
        await flow.stop()


async def test_a_snapshot_that_fails_does_not_end_the_flow(url):
    class Odd(Counter):
        def snapshot(self):
            raise KeyError("state")

    options = FlowOptions(checkpoint_seconds=0.02)
    flow = await started(url, "Push ~> Odd ~> Output", namespace={"Odd": Odd}, options=options)
    await push(flow, "abc")
    while "snapshot failed" not in flow.stats().processors["Odd"].last_error:
        await asyncio.sleep(0.01)
    await push(flow, "d")
    await flow.settled()
    assert flow.stats().delivered == 4
    await flow.stop()


async def test_a_second_edge_of_the_flow_is_refused_and_the_first_goes_on(url):
    flow = await started(url)
    other = AsyncFlow("Push ~> same ~> Output", name="house", namespace={"same": same}, server=url)
    with pytest.raises(FlowError, match="runs already"):
        await other.start()
    await push(flow, "abc")
    await flow.settled()
    assert flow.stats().delivered == 3
    await flow.stop()


async def test_fast_delivery_is_refused_while_durable_messages_are_stored(url):
    flow = await started(url)
    await flow.stop()
    with pytest.raises(FlowError, match=r"has run with delivery='durable'.*Forget them first"):
        await started(url, delivery="fast")


async def test_another_number_of_partitions_than_what_is_stored_has_is_refused(url):
    flow = await started(url)
    await flow.stop()
    with pytest.raises(FlowError, match="has run in 1 partitions, and 3 are given"):
        await started(url, options=FlowOptions(partitions=3))


async def test_what_is_no_frame_becomes_a_dead_letter_and_the_rest_flows(url):
    flow = await started(url)
    stranger = await connect_memory(url, name="stranger")
    await stranger.append("pratipad.house.up.room9", b"PNB\x00\xc1")
    await push(flow, "abc")
    async with asyncio.timeout(5):
        while not (letters := await flow.dead_letters()):
            await asyncio.sleep(0.01)
    assert letters[0].error.startswith("FrameError")
    await flow.settled()
    assert flow.stats().delivered == 3
    await stranger.close()
    await flow.stop()


async def test_what_is_no_frame_is_listed_each_in_fast_delivery_too(url):
    flow = await started(url, delivery="fast")
    stranger = await connect_memory(url, name="stranger")
    for end in (b"\xc1", b"\xc2", b"\xc3"):
        await stranger.publish("pratipad.house.up.room9", b"PNB\x00" + end)
    async with asyncio.timeout(5):
        while flow.stats().dead < 3:
            await asyncio.sleep(0.01)
    letters = await flow.dead_letters()
    assert sorted(letter.payload[-5:] for letter in letters) == ["\\xc1'", "\\xc2'", "\\xc3'"]
    await stranger.close()
    await flow.stop()


class Holds:
    """A processor that holds messages until it is opened."""

    def __init__(self):
        self.open = asyncio.Event()

    async def process(self, payload):
        await self.open.wait()
        return payload


async def changing(url):
    """Return a flow that waits with a change until `open` is set on what holds its messages."""
    holds = Holds()
    names = {"holds": holds.process}
    flow = await started(url, "Push ~> holds ~> Output", namespace=names)
    await push(flow, "abc")
    while not flow.stats().in_flight:
        await asyncio.sleep(0.005)
    other = AsyncFlow(
        "Push ~> holds ~> same ~> Output", name="house", namespace=names | {"same": same}, server=url
    )
    return flow, holds, other


async def test_two_changes_at_once_are_made_one_after_the_other(url):
    flow, holds, other = await changing(url)
    edge = flow._edge
    changes = [asyncio.create_task(edge.swap(other.dataflow)) for _ in range(2)]
    await asyncio.sleep(0)
    holds.open.set()
    async with asyncio.timeout(5):
        receipts = await asyncio.gather(*changes)
    assert [receipt is None for receipt in receipts] == [False, True]
    await flow.settled()
    assert flow.stats().delivered == 3
    await flow.stop()


async def test_a_flow_that_is_stopped_while_it_is_being_changed_ends(url):
    flow, holds, other = await changing(url)
    change = asyncio.create_task(flow._edge.swap(other.dataflow))
    await asyncio.sleep(0.01)
    stop = asyncio.create_task(flow.stop())
    await asyncio.sleep(0.01)
    holds.open.set()
    async with asyncio.timeout(5):
        await stop
        await change
    assert flow.stats().delivered == 3


@pytest.mark.parametrize("instances", [1, 2])
async def test_the_state_in_a_checkpoint_is_that_of_exactly_what_is_stored(
    edges, push, until, monkeypatch, instances
):
    class Count:
        count = 0

        def process(self, payload):
            self.count += 1
            return payload

        def snapshot(self):
            return self.count

        def restore(self, count):
            self.count = count

    class Slow:
        concurrency = instances

        def process(self, payload):
            time.sleep(0.002)
            return payload

    found = []
    checkpoint = OutputChain.checkpoint

    async def noted(self, states, floor=None):
        if states:
            stored = sum(number for _, _, number in self.positions.all())
            (state,) = states.values()
            found.append((msgspec.msgpack.decode(state, type=State).value, stored))
        await checkpoint(self, states, floor)

    monkeypatch.setattr(OutputChain, "checkpoint", noted)
    names = {"Count": Count, "Slow": Slow}
    options = FlowOptions(checkpoint_seconds=0.02)
    edge = await edges.running("Push ~> Count ~> Slow ~> Output", names, options=options)
    for device in ("a", "b"):
        for begin in range(0, 100, 5):
            await push(*range(5), device=device, first=begin + 1)
    await edge.settled(10)
    await until(lambda: (200, 200) in found)
    assert [(state, stored) for state, stored in found if state != stored] == []


async def test_what_waits_before_instances_with_devices_of_their_own_is_counted(edges, push, until):
    begun, go = threading.Event(), threading.Event()

    class Slow:
        concurrency = 2

        def process(self, payload):
            begun.set()
            go.wait(5)
            return payload

    edge = await edges.running("Push ~> Slow ~> Output", {"Slow": Slow})
    await push(*range(10))
    await until(begun.is_set)
    for begin in range(10, 100, 10):
        await push(*range(10), first=begin + 1)
    await until(lambda: edge.snapshot().processors["Slow"].waiting == 90)
    go.set()


async def test_several_results_of_one_message_have_ids_of_their_own_in_the_processors_behind(edges, push):
    seen = []

    def twice(payload):
        yield payload
        yield payload

    def look(payload, message):
        seen.append(message.id)
        return payload

    edge = await edges.running("Push ~> twice ~> look ~> Output", {"twice": twice, "look": look})
    await push(1, 2)
    await edge.settled(5)
    assert seen == ["room1-1-1", "room1-1-1-1", "room1-1-2", "room1-1-2-1"]
