"""The way back: orders from the cloud to devices, and replies of processors. On both transports."""

from __future__ import annotations

import asyncio

import pytest
from patience import eventually

from pratipad_nb import FlowOptions, NotationError, reply
from pratipad_nb.errors import OneWayError


class Actuator:
    """What a device does with orders: notes them, while its gate is open."""

    def __init__(self):
        self.orders = []
        self.begun = 0
        self.open = asyncio.Event()
        self.open.set()

    async def receive(self, payload):
        self.begun += 1
        await self.open.wait()
        self.orders.append(payload)


def steps(*names):
    """Processors that add their name to what goes back."""

    def made(name):
        class Step:
            def process(self, payload):
                return payload

            def backward(self, payload):
                return [*payload, name]

        return Step

    return {name: made(name) for name in names}


async def known(scene, flow, *names):
    await eventually(lambda: set(names) <= set(flow.devices))


async def test_orders_come_to_each_device_in_their_order_and_once(scene):
    flow = await scene.flow("Push <~> same <~> Output")
    parts = {name: Actuator() for name in ("a", "b")}
    blocking = []
    for name, part in parts.items():
        await scene.device(flow, name, receive=part.receive)
    await scene.device(flow, "c", receive=blocking.append)
    await known(scene, flow, "a", "b", "c")
    for number in range(150):
        await flow.send(number, to=("a", "b", "c")[number % 3])
    await eventually(lambda: sum(len(part.orders) for part in parts.values()) + len(blocking) == 150)
    assert parts["a"].orders == list(range(0, 150, 3))
    assert parts["b"].orders == list(range(1, 150, 3))
    assert blocking == list(range(2, 150, 3))
    await eventually(lambda: [d.orders_run for d in flow.stats().devices.values()] == [50, 50, 50])


async def test_an_order_goes_to_one_device_to_some_or_to_all_that_are_known(scene):
    flow = await scene.flow("Push <~> same <~> Output")
    parts = {name: Actuator() for name in ("a", "b", "c")}
    for name, part in parts.items():
        await scene.device(flow, name, receive=part.receive)
    await known(scene, flow, *parts)
    await flow.send("one", to="a")
    await flow.send("two", to=["a", "b"])
    await flow.send("all")
    await eventually(lambda: all(part.orders[-1:] == ["all"] for part in parts.values()))
    assert [part.orders for part in parts.values()] == [["one", "two", "all"], ["two", "all"], ["all"]]


async def test_orders_pass_the_processors_from_the_last_to_the_first(scene):
    names = ("P1", "P2", "P3", "P4", "P5")
    flow = await scene.flow("Push <~> P1 <~> [P2, P3] <~> {P4, P5} <~> Output", namespace=steps(*names))
    part = Actuator()
    await scene.device(flow, receive=part.receive)
    await flow.send([], to="room1")
    await eventually(lambda: part.orders)
    assert part.orders == [["P5", "P4", "P3", "P2", "P1"]]


async def test_an_order_that_a_backward_fails_on_is_a_dead_letter_and_the_next_ones_pass(scene):
    class Picky:
        def process(self, payload):
            return payload

        async def backward(self, payload):
            if payload == "bad":
                raise ValueError("no such LED")
            return payload

    flow = await scene.flow("Push <~> Picky <~> Output", namespace={"Picky": Picky})
    part = Actuator()
    await scene.device(flow, receive=part.receive)
    await known(scene, flow, "room1")
    for payload in ("first", "bad", "last"):
        await flow.send(payload, to="room1")
    await eventually(lambda: len(part.orders) == 2)
    assert part.orders == ["first", "last"]
    (letter,) = await flow.dead_letters()
    assert letter.payload == "bad"
    assert "ValueError: no such LED" in str(letter)
    assert (flow.stats().backward.failed, flow.stats().dead) == (1, 1)
    await flow.update("Push <~> same <~> Output", {"same": lambda payload: payload})
    assert await flow.retry_dead_letters() == 1
    await eventually(lambda: part.orders == ["first", "last", "bad"])
    assert (await flow.dead_letters(), flow.stats().dead) == ([], 0)


@pytest.mark.parametrize(
    ("becomes", "error"),
    [(object(), "PayloadError: a payload holds <object"), ("x" * (2 << 20), "PayloadError: an order of 2,")],
    ids=["no JSON", "too large"],
)
async def test_an_order_that_backward_makes_unfit_to_be_sent_is_a_dead_letter_and_the_flow_goes_on(
    scene, becomes, error
):
    class Spoils:
        def process(self, payload):
            return payload

        def backward(self, payload):
            return becomes if payload == "bad" else payload

    flow = await scene.flow("Push <~> Spoils <~> Output", namespace={"Spoils": Spoils})
    part = Actuator()
    await scene.device(flow, receive=part.receive)
    await known(scene, flow, "room1")
    for payload in ("bad", "good"):
        await flow.send(payload, to="room1")
    await eventually(lambda: part.orders == ["good"])
    (letter,) = await flow.dead_letters()
    assert letter.payload == "bad"
    assert error in str(letter.error)


async def test_orders_of_a_flow_that_was_forgotten_come_to_a_device_that_stayed(scene):
    flow = await scene.flow("Push <~> same <~> Output")
    part = Actuator()
    await scene.device(flow, receive=part.receive)
    await known(scene, flow, "room1")
    for number in range(5):
        await flow.send(number, to="room1")
    await eventually(lambda: len(part.orders) == 5)
    await flow.forget()
    await flow.start()
    for number in range(5, 12):
        await flow.send(number, to="room1")
    await eventually(lambda: len(part.orders) == 12)
    assert part.orders == list(range(12))


async def test_an_order_that_nothing_can_be_answered_to_says_so(scene):
    class Answers:
        def process(self, payload):
            return payload

        def backward(self, payload, message):
            reply("no", to=message)
            return payload

    flow = await scene.flow("Push <~> Answers <~> Output", namespace={"Answers": Answers})
    part = Actuator()
    await scene.device(flow, receive=part.receive)
    await known(scene, flow, "room1")
    await flow.send(1, to="room1")
    await eventually(lambda: flow.stats().dead == 1)
    (letter,) = await flow.dead_letters()
    assert "reply() was called in `backward`" in letter.error


async def test_an_order_that_comes_again_is_run_once(scene):
    flow = await scene.flow("Push <~> same <~> Output")
    part = Actuator()
    part.open.clear()
    await scene.device(flow, receive=part.receive)
    await known(scene, flow, "room1")
    for number in range(3):
        await flow.send(number, to="room1")
    await eventually(lambda: part.begun == 1)
    await flow.stop()
    await flow.start()  # nothing was confirmed, so all of them are sent again
    await known(scene, flow, "room1")
    await eventually(lambda: flow.stats().backward.sent == 3)
    part.open.set()
    await flow.send(3, to="room1")
    await eventually(lambda: len(part.orders) >= 4)
    await eventually(lambda: flow.stats().backward.waiting == 0)
    assert part.orders == [0, 1, 2, 3]


async def test_a_device_that_is_away_gets_its_orders_when_it_comes_across_a_restart_of_the_edge(scene):
    flow = await scene.flow("Push <~> same <~> Output")
    first = await scene.device(flow, receive=Actuator().receive)
    await known(scene, flow, "room1")
    await scene.kill(first)
    await eventually(lambda: not flow.devices)
    await flow.send("one", to="room1")
    await flow.stop()
    await flow.start()
    await flow.send("two", to="room1")
    part = Actuator()
    await scene.device(flow, receive=part.receive)
    await eventually(lambda: len(part.orders) == 2)
    assert part.orders == ["one", "two"]


async def test_an_order_expires(scene):
    flow = await scene.flow("Push <~> same <~> Output", options=FlowOptions(order_seconds=0.5))
    await flow.send("too late", to="room1")
    await eventually(lambda: flow.stats().backward.expired == 1)
    part = Actuator()
    await scene.device(flow, receive=part.receive)
    await known(scene, flow, "room1")
    await flow.send("in time", to="room1")
    await eventually(lambda: part.orders)
    assert part.orders == ["in time"]


async def test_a_failing_order_is_shown_and_the_next_one_is_run(scene):
    done = []

    def receive(payload):
        if payload == "bad":
            raise ValueError("no such LED")
        done.append(payload)

    flow = await scene.flow("Demand <~> same <~> Output")
    await scene.device(flow, read=iter(range(100_000)).__next__, receive=receive, every=0.01)
    await known(scene, flow, "room1")
    await flow.send("bad", to="room1")
    await eventually(lambda: "no such LED" in flow.stats().devices["room1"].error)
    await flow.take(20)  # a failed order keeps nobody from being asked for readings
    await flow.send("good", to="room1")
    await eventually(lambda: done == ["good"])


async def test_send_is_refused_with_the_hop_that_is_one_way(scene):
    flow = await scene.flow("Push <~> same ~> gate <~> Output")
    with pytest.raises(
        OneWayError, match=r"arrow 2 of `Push <~> same ~> gate <~> Output`.*Write `<~>` there"
    ):
        await flow.send("blink", to="room1")
    cloud = await scene.cloud(flow)
    with pytest.raises(OneWayError, match="arrow 2 of"):
        await cloud.send("blink", to="room1")


def answers(payload, message):
    reply({"heard": payload}, to=message)
    return payload


async def async_answers(payload, message):
    await asyncio.sleep(0)
    reply({"heard": payload}, to=message)
    return payload


@pytest.mark.parametrize("form", [answers, async_answers])
async def test_a_processor_replies_where_the_cloud_cannot_send(scene, form):
    flow = await scene.flow("Push <~> P1 ~> Output", namespace={"P1": form})
    part = Actuator()
    device = await scene.device(flow, receive=part.receive)
    for number in range(5):
        await device.push(number)
    await eventually(lambda: len(part.orders) == 5)
    assert part.orders == [{"heard": number} for number in range(5)]
    assert flow.stats().backward.replies == 5
    with pytest.raises(OneWayError, match="arrow 2"):
        await flow.send("blink", to="room1")


@pytest.mark.parametrize(
    ("payload", "said"),
    [(object(), "PayloadError: a payload holds"), ("x" * 1_100_000, "an order of 1,100,005 bytes")],
)
async def test_a_reply_that_cannot_travel_fails_its_message_alone(scene, payload, said):
    def answer(reading, message):
        reply(payload if reading == 2 else reading, to=message)
        return reading

    flow = await scene.flow("Push <~> answer <~> Output", namespace={"answer": answer})
    part = Actuator()
    device = await scene.device(flow, receive=part.receive)
    for number in (1, 2, 3):
        await device.push(number)
    await eventually(lambda: part.orders == [1, 3])
    (letter,) = await flow.dead_letters()
    assert said in letter.error
    assert [m.payload for m in await flow.take(2)] == [1, 3]


async def test_thousands_of_replies_go_out_in_order_and_the_results_do_not_wait_long(scene):
    def answer(reading, message):
        reply(reading, to=message)
        return reading

    flow = await scene.flow("Push <~> answer <~> Output", namespace={"answer": answer})
    part = Actuator()
    device = await scene.device(flow, receive=part.receive)
    for number in range(3000):
        await device.push(number)
    await eventually(lambda: len(part.orders) == 3000, 20)
    assert part.orders == list(range(3000))
    await eventually(lambda: flow.stats().backward.waiting == 0)


@pytest.mark.parametrize("form", [answers, async_answers])
async def test_a_reply_over_a_one_way_hop_is_refused_and_the_message_is_kept(scene, form):
    flow = await scene.flow("Push <~> same ~> P1 <~> Output", namespace={"P1": form})
    part = Actuator()
    device = await scene.device(flow, receive=part.receive)
    await device.push(1)
    await eventually(lambda: flow.stats().dead == 1)
    (letter,) = await flow.dead_letters()
    assert letter.payload == 1
    assert "OneWayError: a reply can't pass arrow 2" in str(letter)
    assert "Write `<~>` there" in str(letter)
    await flow.update("Push <~> same <~> P1 ~> Output", {"same": lambda p: p, "P1": form})
    await flow.retry_dead_letters()
    await eventually(lambda: part.orders == [{"heard": 1}])


@pytest.mark.parametrize(
    ("notation", "column"), [("Pull <~> P1 ~> Output", 13), ("Pull ~> P1 <~> Output", 6)]
)
async def test_pull_over_a_one_way_hop_is_a_notation_error_under_that_arrow(scene, notation, column):
    with pytest.raises(NotationError) as caught:
        await scene.flow(notation, namespace={"P1": answers})
    lines = str(caught.value).splitlines()
    assert f"column {column}" in lines[0]
    assert lines[2].strip() == "^^"
    assert lines[2].index("^^") == lines[1].index(" ~> ") + 1
