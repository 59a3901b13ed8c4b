"""Changing processors while the flow runs: nothing lost, doubled or reordered, and no long pause."""

import asyncio
import threading
import time

import pytest
from patience import patient

from pratipad_nb import AsyncDevice, AsyncFlow, Device, Flow, Keyed, every
from pratipad_nb.errors import ProcessorError


def numbering(start=0, *, step=1, **attributes):
    """Return a class that numbers its messages and hands its number on."""

    class Numbers:
        def __init__(self):
            self.count = start

        def process(self, payload):
            self.count += step
            return payload | {"count": self.count, "step": step}

        def snapshot(self):
            return self.count

        def restore(self, state):
            self.count = state

    for name, value in attributes.items():
        setattr(Numbers, name, value)
    return Numbers


def counting(instances):
    """Return a class of so many instances that counts the messages of each device."""

    class Counts:
        concurrency = instances

        def __init__(self):
            self.counts = {}

        def process(self, payload, message):
            self.counts[message.device] = self.counts.get(message.device, 0) + 1
            return self.counts[message.device]

        def snapshot(self):
            return Keyed(self.counts)

        def restore(self, state):
            self.counts = state

    return Counts


def same(payload):
    return payload


@pytest.fixture
def start(url):
    opened = []

    def make(notation, names, **options):
        flow = Flow(notation, namespace=names, name="house", **({"server": url} | options)).start()
        opened.append(flow)
        return flow

    yield make
    for flow in opened:
        flow.stop()


@pytest.mark.timeout(90)
@pytest.mark.parametrize("notation", ["Push ~> [same, P] ~> Output", "Push ~> P ~> {same, same} ~> Output"])
def test_under_load_nothing_is_lost_doubled_or_reordered_and_state_goes_on(home, start, notation):
    flow = start(notation, {"P": numbering(), "same": same}, server=None, home=home)
    flow.forget()
    flow.start()
    stop, pushed = threading.Event(), 0
    with Device("room1").connect(flow) as device:

        def push():
            nonlocal pushed
            while not stop.is_set():
                device.push({"n": pushed})
                pushed += 1
            device.flush()

        pusher = threading.Thread(target=push)
        pusher.start()
        receipts = []
        for _ in range(5):
            time.sleep(0.05)
            receipts.append(flow.update(notation, {"P": numbering(10**9), "same": same}))
        stop.set()
        pusher.join()
        flow.settled(patient(30))
        assert {(r.changed, r.lost, r.doubled) for r in receipts} == {(("P",), 0, 0)}
        assert max(r.in_flight for r in receipts) > 100
        messages = flow.take(pushed, timeout=patient(30))
    assert [m.payload["n"] for m in messages] == list(range(pushed))
    assert [m.payload["count"] for m in messages] == list(range(1, pushed + 1))
    assert flow.stats().processors["P"].version == 5
    assert (flow.stats().dead, flow.stats().repeats, flow.stats().in_flight) == (0, 0, 0)


def test_a_slow_processor_is_swapped_before_it_has_done_what_waits(start):
    def slow(payload):
        time.sleep(0.05)
        return "slow"

    flow = start("Push ~> P ~> Output", {"P": slow})
    with Device("room1").connect(flow) as device:
        for _ in range(1000):  # fifty seconds' worth
            device.push(1)
        flow.take(1)
        receipt = flow.update("Push ~> P ~> Output", {"P": lambda payload: "fast"})
        assert receipt.in_flight > 10
        assert receipt.pause < receipt.in_flight * 0.05
        assert (receipt.lost, receipt.doubled) == (0, 0)
        results = [m.payload for m in flow.take(999)]
    assert results == sorted(results, reverse=True)
    assert results.count("fast") > 500


def test_of_several_instances_each_hands_its_state_to_the_one_in_its_place(start):
    flow = start("Push ~> P ~> Output", {"P": numbering(concurrency=3)})
    names = [f"room{n}" for n in range(6)]
    devices = [Device(name).connect(flow) for name in names]
    for times in (1, 2):
        for device in devices:
            for _ in range(5):
                device.push({"times": times}).wait(10)
        flow.settled()
        receipt = flow.update("Push ~> P ~> Output", {"P": numbering(10**6, concurrency=3)})
        assert (receipt.lost, receipt.doubled) == (0, 0)
    for device in devices:
        device.close()
    assert max(m.payload["count"] for m in flow.take(60)) < 61


def test_with_another_number_of_instances_the_flow_takes_on_its_new_shape(start):
    flow = start("Push ~> P ~> Output", {"P": counting(1)})
    with Device("room1").connect(flow) as device:
        for number, count in enumerate((3, 1, 2), start=1):
            receipt = flow.update("Push ~> P ~> Output", {"P": counting(count)})
            assert receipt.changed == ("P",)
            assert len(flow.lines[0].stages[0].runners) == count
            device.push({}).wait(10)
            assert [message.payload for message in flow.take(1)] == [number]


def test_a_state_that_does_not_follow_keys_refuses_another_number_of_instances(start):
    flow = start("Push ~> P ~> Output", {"P": numbering(concurrency=2)})
    with Device("room1").connect(flow) as device:
        device.push({}).wait(10)
        with pytest.raises(ProcessorError, match=r"P: .* 2 instances can't go to 5 .*Keyed.*forget_state"):
            flow.update("Push ~> P ~> Output", {"P": numbering(concurrency=5)})
        assert len(flow.lines[0].stages[0].runners) == 2
        device.push({}).wait(10)
        assert [message.payload["count"] for message in flow.take(2)] == [1, 2]


def test_other_arguments_are_swapped_in_and_the_notation_says_so(start):
    class Adds:
        def __init__(self, n):
            self.n = n

        def process(self, payload):
            return payload + self.n

    flow = start("Push ~> Adds(n=1) ~> Output", {"Adds": Adds})
    with Device("room1").connect(flow) as device:
        assert flow.update("Push ~> Adds(n=2) ~> Output", {"Adds": Adds}).changed == ("Adds",)
        device.push(1).wait(10)
        assert flow.take(1)[0].payload == 3
    assert flow.notation == "Push ~> Adds(n=2) ~> Output"
    assert flow.stats().notation == flow.notation
    assert flow["Adds"].arguments == {"n": 2}


def test_one_arrow_that_changes_is_a_new_shape(start):
    flow = start("Push ~> same ~> Output", {"same": same})
    receipt = flow.update("Push <~> same <~> Output", {"same": same})
    assert (receipt.changed, receipt.kept) == ((), ("same",))
    assert flow.send("hello")


def test_a_coroutine_takes_the_place_of_a_thread_and_gives_it_back(start):
    async def waits(payload):
        await asyncio.sleep(0)
        return threading.current_thread().name

    def works(payload):
        return threading.current_thread().name

    flow = start("Push ~> P ~> Output", {"P": works})
    with Device("room1").connect(flow) as device:
        for one in (waits, works, waits):
            flow.update("Push ~> P ~> Output", {"P": one})
            device.push(1).wait(10)
            on_loop = flow.take(1)[0].payload.startswith("pratipad house")
            assert on_loop == (one is waits)
    assert sum(thread.name == "pratipad-P" for thread in threading.enumerate()) == 0


def test_the_old_instance_is_torn_down_and_its_timer_stops(start, until):
    ticks = []

    def ticking(name):
        class Ticks:
            def process(self, payload):
                return payload

            def teardown(self):
                ticks.append(f"{name} down")

            @every(0.02)
            def tick(self):
                ticks.append(name)

        return Ticks

    flow = start("Push ~> P ~> Output", {"P": ticking("old")})
    until(lambda: "old" in ticks)
    flow.update("Push ~> P ~> Output", {"P": ticking("new")})
    until(lambda: ticks.count("new") >= 3)
    after = ticks[ticks.index("old down") :]
    assert "old" not in after
    assert ticks.count("old down") == 1


def test_a_new_one_that_cannot_be_set_up_leaves_all_as_it_was(start):
    class Broken:
        def setup(self):
            raise OSError("no such sensor")

        def process(self, payload):
            return payload

    flow = start("Push ~> [P, same] ~> Output", {"P": numbering(), "same": same})
    with Device("room1").connect(flow) as device:
        device.push({}).wait(10)
        with pytest.raises(ProcessorError, match="no such sensor"):
            flow.update("Push ~> [P, same] ~> Output", {"P": Broken, "same": lambda payload: "new"})
        device.push({}).wait(10)
        assert [m.payload["count"] for m in flow.take(2)] == [1, 2]
    assert flow.stats().processors["same"].version == 0


def test_if_the_new_one_cannot_take_the_state_the_old_one_goes_on_with_it(start):
    class Picky(numbering()):
        def restore(self, state):
            raise ValueError("not that")

    flow = start("Push ~> P ~> Output", {"P": numbering()})
    with Device("room1").connect(flow) as device:
        device.push({}).wait(10)
        flow.settled()
        with pytest.raises(ProcessorError, match="P: restore failed with ValueError: not that"):
            flow.update("Push ~> P ~> Output", {"P": Picky})
        device.push({}).wait(10)
        assert [m.payload["count"] for m in flow.take(2)] == [1, 2]
    assert flow.stats().processors["P"].version == 0


async def test_a_change_whose_caller_is_interrupted_goes_on_and_the_flow_lives(url):
    def slow(payload):
        time.sleep(0.3)
        return payload

    for notation in ("Push ~> P ~> Output", "Push ~> [P, P] ~> Output"):
        async with AsyncFlow("Push ~> P ~> Output", namespace={"P": slow}, server=url) as flow:
            device = AsyncDevice("room1")
            await device.connect(flow)
            await device.push(1)
            while not flow.stats().received:
                await asyncio.sleep(0.01)
            change = asyncio.ensure_future(flow.update(notation, {"P": lambda payload: payload * 2}))
            await asyncio.sleep(0.05)
            change.cancel()
            with pytest.raises(asyncio.CancelledError):
                await change
            await device.push(2)
            assert len(await flow.take(2)) == 2
            while flow.notation != notation:
                await asyncio.sleep(0.01)
            assert flow.state == "running"
            await device.close()
            await flow.forget()
