"""`AsyncFlow`: the same flow for asynchronous code, on the caller's event loop."""

import asyncio
import contextlib
import inspect

import pytest

from pratipad_nb import AsyncDevice, AsyncFlow, Flow, FlowOptions, Message
from pratipad_nb.errors import FlowError
from pratipad_nb.session import AsyncRequest, Request, Step
from pratipad_nb.session.inspection.step import AsyncStep


def same(payload):
    return payload


def public(value):
    return {name for name in dir(value) if not name.startswith("_")}


def test_it_has_the_names_of_a_flow():
    flow, twin = (kind("Push ~> same ~> Output") for kind in (Flow, AsyncFlow))
    assert public(twin) - {"edge"} == public(
        flow
    )  # the running edge: what has no thread between needs no twin


@pytest.mark.parametrize(
    ("twin", "blocking"), [(AsyncFlow, Flow), (AsyncRequest, Request), (AsyncStep, Step)]
)
def test_its_methods_take_what_a_flows_do(twin, blocking):
    methods = [name for name in public(blocking) if inspect.isfunction(getattr(blocking, name))]
    assert len(methods) >= 2
    for name in methods + ["__init__"] * (twin is AsyncFlow):
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (twin, blocking))
        assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
            (p.name, p.kind, p.default) for p in theirs.parameters.values()
        ], name


async def test_a_loop_over_it_ends_with_it(url):
    seen = []

    async def read(flow):
        async for message in flow:
            assert isinstance(message, Message)
            seen.append(message.payload)

    async with AsyncFlow("Push ~> same ~> Output", server=url) as flow:
        reading = asyncio.create_task(read(flow))
        async with await AsyncDevice("d").connect(flow) as device:
            for number in range(100):
                await device.push(number)
        while len(seen) < 100:
            await asyncio.sleep(0.005)
    await asyncio.wait_for(reading, 5)
    assert seen == list(range(100))


async def test_a_take_that_its_stop_interrupts_says_so(url):
    flow = await AsyncFlow("Push ~> same ~> Output", server=url).start()
    taking = asyncio.create_task(flow.take(1, timeout=None))
    await asyncio.sleep(0.05)
    await flow.stop()
    with pytest.raises(FlowError, match="ended while 1 messages were waited for"):
        await taking


async def test_a_take_that_is_cancelled_loses_nothing(url):
    async with AsyncFlow("Push ~> same ~> Output", server=url) as flow:
        taking = asyncio.create_task(flow.take(2))
        async with await AsyncDevice("d").connect(flow) as device:
            await (await device.push(1))
            await asyncio.sleep(0.05)
            taking.cancel()
            await asyncio.wait({taking})
            await (await device.push(2))
        assert [message.payload for message in await flow.take(2)] == [1, 2]


async def test_starts_and_stops_at_the_same_time_leave_it_as_the_last_one_says(url):
    flow = AsyncFlow("Push ~> same ~> Output", server=url)
    await asyncio.gather(flow.start(), flow.start(), flow.stop(), flow.start())
    assert flow.state == "running"
    await asyncio.gather(flow.stop(), flow.stop())
    assert flow.state == "stopped"
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_it_may_be_started_and_stopped_at_the_same_time_on_one_event_loop_after_another(url):
    flow = AsyncFlow("Push ~> same ~> Output", server=url)

    async def at_the_same_time():
        await asyncio.gather(flow.start(), flow.start(), flow.endpoint_for("device", "d"))
        assert flow.state == "running"
        await asyncio.gather(flow.stop(), flow.stop())

    asyncio.run(at_the_same_time())
    asyncio.run(at_the_same_time())
    assert flow.state == "stopped"


def test_it_can_be_started_and_stopped_though_the_event_loop_of_its_last_run_was_closed_under_it(url):
    flow = AsyncFlow("Push ~> same ~> Output", server=url)
    asyncio.run(flow.start())
    asyncio.run(flow.stop())
    asyncio.run(flow.start())

    async def again():
        async with flow:
            assert flow.state == "running"

    asyncio.run(again())
    assert flow.state == "stopped"


async def test_a_coroutine_that_a_stop_leaves_behind_ends_without_harm_to_the_next_run(url):
    enough, begun, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def swallows(payload):
        begun.set()
        while not enough.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await enough.wait()
        ended.set()
        return payload

    flow = AsyncFlow(
        "Push ~> swallows ~> Output",
        server=url,
        delivery="fast",
        namespace={"swallows": swallows},
        options=FlowOptions(drain_seconds=0.1, hang_seconds=0.1),
    )
    await flow.start()
    run = flow._running
    async with await AsyncDevice("d").connect(flow) as device:
        await device.push(1)
        await begun.wait()
    await flow.stop()
    assert run.done()
    await flow.start()
    assert not ended.is_set()
    enough.set()
    await asyncio.wait_for(ended.wait(), 10)
    assert flow.state == "running"
    await flow.settled(5)
    await flow.stop()


async def test_a_start_that_is_cancelled_leaves_nothing(url):
    async def slow_setup():
        await asyncio.sleep(30)

    class Slow:
        setup = staticmethod(slow_setup)

        def process(self, payload):
            return payload

    flow = AsyncFlow("Push ~> Slow ~> Output", server=url, namespace={"Slow": Slow})
    starting = asyncio.create_task(flow.start())
    await asyncio.sleep(0.1)
    starting.cancel()
    await asyncio.wait({starting})
    assert flow.state == "stopped"
    assert asyncio.all_tasks() == {asyncio.current_task()}
    async with AsyncFlow("Push ~> same ~> Output", server=url) as other:
        assert other.state == "running"
