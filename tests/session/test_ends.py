"""What a handle can't do from inside its flow, without a run, or longer than one."""

import asyncio
import threading

import pytest

from pratipad_nb import AsyncDevice, AsyncFlow, Device, Flow, FlowOptions, Processor
from pratipad_nb.errors import FlowError, TransportError, WaitTimeout


def same(payload):
    return payload


VERBS = ("stop", "forget", "forget_state", "start", "update")
ARGUMENTS = {"update": ("Push ~> same ~> Output", {"same": same})}


def asking(flows, verb, *, on_loop):
    """Return a processor that calls `verb` of the flow that it runs in."""

    def plain(payload):
        getattr(flows[0], verb)(*ARGUMENTS.get(verb, ()))
        return payload

    async def coroutine(payload):
        getattr(flows[0], verb)(*ARGUMENTS.get(verb, ()))
        return payload

    return coroutine if on_loop else plain


@pytest.mark.parametrize("on_loop", [True, False])
@pytest.mark.parametrize("verb", VERBS)
def test_a_processor_that_would_wait_for_its_own_end_is_refused_and_the_flow_goes_on(url, verb, on_loop):
    flows = []
    names = {"asks": asking(flows, verb, on_loop=on_loop), "same": same}
    with Flow("Push ~> asks ~> Output", name="house", server=url, namespace=names) as flow:
        flows.append(flow)
        with Device("room1").connect(flow) as device:
            device.push(1).wait(10)
            flow.settled()
            (letter,) = flow.dead_letters()
            assert f"flow.{verb}() was called inside flow 'house'" in letter.error
            assert "flow.request_stop()" in letter.error
            assert flow.state == "running"
            flow.update("Push ~> same ~> Output", names)
            device.push(2).wait(10)
            assert flow.take(1)[0].payload == 2


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_set_up_by_a_change_is_inside_too(url, verb):
    flows = []

    class Asks(Processor):
        def setup(self):
            with pytest.raises(FlowError, match="was called inside flow"):
                getattr(flows[0], verb)(*ARGUMENTS.get(verb, ()))

        def process(self, payload):
            return payload

    with Flow("Push ~> same ~> Output", server=url) as flow:
        flows.append(flow)
        flow.update("Push ~> [same, Asks] ~> Output")
        assert flow.state == "running"


def test_a_processor_may_ask_for_a_stop(url, until):
    flows = []

    def asks(payload):
        flows[0].request_stop()
        return payload

    flow = Flow("Push ~> asks ~> Output", server=url, namespace={"asks": asks}).start()
    flows.append(flow)
    with Device("room1").connect(flow) as device:
        device.push(1).wait(10)
        until(lambda: flow.state == "stopped")
    assert flow.stats().delivered == 1


async def test_the_asynchronous_twin_refuses_it_too_and_can_be_asked_to_stop(url):
    flows, refused = [], []

    async def asks(payload):
        try:
            await flows[0].stop()
        except FlowError as error:
            refused.append(str(error))
            flows[0].request_stop()
        return payload

    flow = AsyncFlow("Push ~> asks ~> Output", server=url, namespace={"asks": asks})
    flows.append(flow)
    async with await AsyncDevice("room1").connect(await flow.start()) as device:
        await (await device.push(1))
        while flow.state != "stopped":
            await asyncio.sleep(0.005)
    assert len(refused) == 1
    assert flow.stats().delivered == 1
    flow.request_stop()
    await flow.stop()


async def test_who_has_started_a_flow_is_not_inside_it(url):
    """The asynchronous twin starts in its caller's own task."""
    flow = AsyncFlow("Push ~> same ~> Output", server=url)
    await flow.start()
    await flow.stop()
    assert flow.state == "stopped"


def test_another_flow_may_be_stopped_from_inside_one(url, until):
    other = Flow("Push ~> same ~> Output", name="other", server=url).start()

    def stops(payload):
        other.stop()
        return payload

    with (
        Flow("Push ~> stops ~> Output", server=url, namespace={"stops": stops}) as flow,
        Device("d").connect(flow) as device,
    ):
        device.push(1).wait(10)
        assert flow.take(1)[0].payload == 1
    assert other.state == "stopped"


@pytest.mark.parametrize(
    ("verb", "call"),
    [
        ("take", lambda flow: flow.take(1)),
        ("take", lambda flow: next(iter(flow))),
        ("send", lambda flow: flow.send(1)),
        ("settled", lambda flow: flow.settled()),
        ("seek", lambda flow: flow.seek("newest")),
        ("pause", lambda flow: flow.pause()),
    ],
)
def test_what_would_wait_on_the_flows_own_loop_is_told_by_its_name_and_what_to_write(url, verb, call):
    said = []

    async def asks(payload):
        try:
            call(flows[0])
        except FlowError as error:
            said.append(str(error))
        return payload

    with Flow("Push <~> asks <~> Output", server=url, namespace={"asks": asks}) as flow:
        flows = [flow]
        with Device("d").connect(flow) as device:
            device.push(1).wait(10)
            flow.take(1)
    assert said[0].startswith(f"flow.{verb}() was called on the event loop that has to run it")
    assert f"`await asyncio.to_thread(flow.{verb}, …)`" in said[0]


def test_what_changes_at_once_may_be_set_on_the_flows_own_loop(url):
    async def sets(payload):
        flows[0].rate = payload
        flows[0].demand(payload * 2)
        return payload

    with Flow("Push ~> sets ~> Output", server=url, namespace={"sets": sets}) as flow:
        flows = [flow]
        with Device("d").connect(flow) as device:
            device.push(7).wait(10)
            flow.take(1)
        assert (flow.rate, flow.max_demand, flow.min_demand) == (7.0, 14, 7)


def test_what_waits_while_the_flow_is_stopped_says_so(url):
    hold, raised = threading.Event(), []

    def holds(payload):
        hold.wait(20)
        return payload

    flow = Flow("Push ~> holds ~> Output", name="house", server=url, namespace={"holds": holds}).start()
    with Device("d").connect(flow) as device:
        device.push(1).wait(10)

    def record():
        try:
            flow.settled(None)
        except FlowError as error:
            raised.append(str(error))

    waiting = threading.Thread(target=record)
    waiting.start()
    threading.Timer(0.2, hold.set).start()
    flow.stop()
    waiting.join(10)
    assert not waiting.is_alive()
    # Drained in time, it was settled before its end.
    assert all(text.startswith("flow 'house' ended while ") for text in raised)


def test_what_is_not_settled_in_one_of_several_partitions_is_one_error(home):
    options = FlowOptions(partitions=2)
    with Flow("Push ~> same ~> Output", name="parts2", home=home, options=options) as flow:
        flow.pause()
        for name in ("a", "b", "c", "d"):
            with Device(name).connect(flow) as device:
                device.push(1).wait(10)
        with pytest.raises(WaitTimeout, match=r"is not settled after 0\.2 s") as caught:
            flow.settled(0.2)
        assert not isinstance(caught.value.__context__, ExceptionGroup)
        flow.resume()
        flow.settled()


def test_a_flow_that_failed_says_why_it_is_not_running(url, until):
    flow = Flow("Push ~> same ~> Output", name="house", server=url).start()

    async def fail():
        flow._flow._edge.drain()
        raise_in(flow._flow._edge)

    def raise_in(edge):
        async def fails(line):
            raise TransportError("no space is left")

        edge.parts.upkeep.last_checkpoint = fails

    flow._portal.run(fail())
    until(lambda: flow.state == "failed")
    for ask in (flow.take, flow.settled, lambda: flow.record(n=1), flow.pause):
        with pytest.raises(
            FlowError, match=r"'house' is not running\. It failed: no space is left\. Start it"
        ):
            ask()
    flow.start()
    assert flow.state == "running"
    flow.stop()
