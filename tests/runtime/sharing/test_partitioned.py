"""Several edges of one flow on the in-memory transport: partitions move, messages don't get lost."""

import asyncio

import pytest
from patience import eventually

from pratipad_nb import AsyncDevice, AsyncFlow, FlowOptions, Processor
from pratipad_nb.errors import FlowError, ProcessorError
from pratipad_nb.runtime.edge.edge import Edge
from pratipad_nb.testing import memory_server

PARTITIONS = 4


@pytest.fixture
def url():
    with memory_server() as url:
        yield url


def work(payload):
    return payload


def flow_at(url, notation="Push <~> work <~> Output", *, namespace=None, **options):
    options = FlowOptions(partitions=PARTITIONS, checkpoint_seconds=0.05, **options)
    return AsyncFlow(notation, name="house", namespace=namespace, server=url, options=options)


async def connected(url, names):
    devices = [AsyncDevice(name, receive=lambda _: None) for name in names]
    for device in devices:
        await device.connect(url, flow="house")
    return devices


async def test_an_edge_that_is_alone_runs_all_partitions(url):
    async with flow_at(url) as flow:
        assert flow.partitions == frozenset(range(PARTITIONS))


async def test_partitions_move_between_edges_while_devices_push_and_order_holds(url):
    first, second = flow_at(url), flow_at(url)
    await first.start()
    devices = await connected(url, [f"room{i}" for i in range(8)])

    async def push(device):
        for n in range(500):
            await device.push(n)
            if n % 20 == 0:
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for device in devices:
            group.create_task(push(device))
        await second.start()
        await eventually(lambda: len(first.partitions) == len(second.partitions) == 2)
        await first.stop()
        await eventually(lambda: second.partitions == frozenset(range(PARTITIONS)))
    for device in devices:
        await device.close()
    await second.settled()
    arrived = {device.name: [] for device in devices}
    for message in await second.take(8 * 500):
        arrived[message.device].append(message.payload)
    assert arrived == {device.name: list(range(500)) for device in devices}
    await second.stop()


async def test_an_order_reaches_a_device_of_whichever_edge_and_all_devices_once(url):
    seen = []
    async with flow_at(url) as first, flow_at(url) as second:
        await eventually(lambda: len(first.partitions) == len(second.partitions) == 2)
        devices = [
            AsyncDevice(name, receive=lambda order, name=name: seen.append((name, order)))
            for name in [f"room{i}" for i in range(8)]
        ]
        for device in devices:
            await device.connect(url, flow="house")
        await first.send("one", to="room3")
        await eventually(lambda: seen == [("room3", "one")])
        await eventually(lambda: len(first.devices) + len(second.devices) == 8)
        await first.send("all")
        await eventually(lambda: len(seen) >= 9)
        assert sorted(seen[1:]) == [(f"room{i}", "all") for i in range(8)]
        for device in devices:
            await device.close()


async def test_the_number_of_partitions_of_a_flow_is_fixed(url):
    async with flow_at(url):
        pass
    other = AsyncFlow("Push ~> work ~> Output", name="house", server=url, options=FlowOptions(partitions=3))
    with pytest.raises(FlowError, match=r"has run in 4 partitions, and 3 are given.*Give 4, or forget"):
        await other.start()
    with pytest.raises(FlowError, match="has run in 4 partitions, and 1 are given"):
        await AsyncFlow("Push ~> work ~> Output", name="house", server=url).start()


async def test_a_pull_flow_runs_in_one_partition(url):
    with pytest.raises(FlowError, match="Pull flow runs in one partition"):
        await flow_at(url, "Pull <~> work <~> Output").start()


async def test_the_counters_of_all_partitions_are_shown_as_one_flows(url):
    async with flow_at(url) as flow:
        devices = await connected(url, [f"room{i}" for i in range(8)])
        for device in devices:
            await device.push(1)
        await flow.settled()
        stats = flow.stats()
        assert (stats.received, stats.delivered, stats.processors["work"].emitted) == (8, 8, 8)
        assert sorted(stats.devices) == [f"room{i}" for i in range(8)]
        for device in devices:
            await device.close()


def bounds(flow):
    return {
        number: (edge.parts.ledger.max_demand, edge.parts.ledger.min_demand)
        for number, edge in flow._edge.edges.items()
    }


async def test_a_demand_is_divided_by_all_partitions_also_those_that_run_elsewhere_and_are_taken_over_later(
    url,
):
    first, second = (flow_at(url, "Demand <~> work <~> Output") for _ in range(2))
    await first.start()
    await second.start()
    await eventually(lambda: len(first.partitions) == len(second.partitions) == 2)
    first.demand(800, 400)
    assert list(bounds(first).values()) == [(200, 100)] * 2
    first.max_demand = 80
    await second.stop()
    await eventually(lambda: len(first.partitions) == PARTITIONS)
    assert list(bounds(first).values()) == [(20, 10)] * PARTITIONS
    first.demand(1)
    assert list(bounds(first).values()) == [(1, 0)] * PARTITIONS
    await first.stop()


async def test_what_is_set_while_a_partition_is_being_taken_over_holds_in_it(url, monkeypatch):
    flow = flow_at(url, "Demand <~> work <~> Output")
    opened = Edge.open

    async def opens(*of, **how):
        edge = await opened(*of, **how)
        if flow._edge is not None:  # the start is over: this is a takeover
            flow.demand(80)
            flow.rate = 8
        return edge

    async with flow_at(url, "Demand <~> work <~> Output") as other:
        await flow.start()
        await eventually(lambda: len(flow.partitions) == len(other.partitions) == 2)
        monkeypatch.setattr(Edge, "open", opens)
    await eventually(lambda: len(flow.partitions) == PARTITIONS)
    assert list(bounds(flow).values()) == [(20, 10)] * PARTITIONS
    assert {edge.parts.limit.allowed for edge in flow._edge.edges.values()} == {2.0}
    await flow.stop()


async def test_an_order_that_failed_is_counted_by_one_partition_and_no_count_falls_below_none(url):
    refuses, passed = True, []

    class Back(Processor):
        def process(self, payload):
            return payload

        def backward(self, payload):
            if refuses:
                raise ValueError("no")
            passed.append(payload)
            return payload

    options = FlowOptions(partitions=PARTITIONS, checkpoint_seconds=0.05)
    flow = AsyncFlow(
        "Push <~> Back <~> Output", name="house", server=url, namespace={"Back": Back}, options=options
    )

    def counts():
        return sorted(edge.parts.dead_letters.count for edge in flow._edge.edges.values())

    async with flow:
        await flow.send("on", to="room7")
        await eventually(lambda: flow.stats().dead == 1)
    async with flow:
        assert counts() == [0, 0, 0, 1]
        refuses = False
        assert await flow.retry_dead_letters() == 1
        await eventually(lambda: passed == ["on"])
        assert counts() == [0, 0, 0, 0]
        refuses = True
        await flow.send("off", to="room7")
        await eventually(lambda: flow.stats().dead == 1)
        await flow.clear_dead_letters()
        assert counts() == [0, 0, 0, 0]


# -- changes -------------------------------------------------------------------------------------------------


class Version(Processor):
    number = 1

    def process(self, payload):
        return self.number

    def snapshot(self):
        return self.number

    def restore(self, state):
        pass


async def versions(flow, devices):
    """Return which version each partition runs, as its results tell."""
    for device in devices:
        await device.push(0)
    await flow.settled()
    return {message.payload for message in await flow.take(len(devices))}


def refuses_at(third, method):
    """Return a version of which the instance that is made, or takes a state over, as the `third` raises."""
    calls = []

    def refuse(self, *_):
        calls.append(1)
        if len(calls) == third:
            raise ValueError("no")

    return type("Version", (Version,), {"number": 2, method: refuse})


@pytest.mark.parametrize("method", ["setup", "restore"])
async def test_a_change_that_a_single_partition_refuses_changes_none(url, method):
    flow = flow_at(url, "Push ~> Version ~> Output", namespace={"Version": Version})
    async with flow:
        devices = await connected(url, [f"room{n}" for n in range(16)])
        with pytest.raises(ProcessorError, match="no"):
            await flow.update("Push ~> Version ~> Output", {"Version": refuses_at(3, method)})
        assert await versions(flow, devices) == {1}
        assert flow.dataflow.steps[0].target is Version
        for device in devices:
            await device.close()


async def test_a_partition_that_is_taken_over_after_a_change_runs_the_new_code(url):
    newer = type("Version", (Version,), {"number": 2})
    flow = flow_at(url, "Push ~> Version ~> Output", namespace={"Version": Version})
    other = flow_at(url, "Push ~> Version ~> Output", namespace={"Version": Version})
    async with flow:
        devices = await connected(url, [f"room{n}" for n in range(16)])
        async with other:
            await eventually(lambda: len(flow.partitions) == len(other.partitions) == 2)
            await flow.update("Push ~> Version ~> Output", {"Version": newer})
        await eventually(lambda: len(flow.partitions) == PARTITIONS)
        assert await versions(flow, devices) == {2}
        for device in devices:
            await device.close()
