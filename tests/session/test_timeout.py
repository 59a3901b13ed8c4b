"""`Processor.timeout`: a call that takes longer is a failure of its message, and of nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pratipad_nb import Device, Flow, FlowOptions, Processor, every, reply
from pratipad_nb.errors import ProcessorError
from pratipad_nb.testing import memory_server

SOON = 15


class Calls:
    """What a processor of a test was called for, and the gate that it hangs at until the test ends."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.made: list[Any] = []
        self.late: list[Any] = []

    def hang(self, payload: Any) -> Any:
        self.open.wait(60)
        self.late.append(payload)
        return "too late"

    async def hang_soon(self, payload: Any) -> Any:
        await asyncio.sleep(600)
        return "too late"

    async def swallow(self, payload: Any) -> Any:
        while not self.open.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        self.late.append(payload)
        return "too late"


@pytest.fixture
def calls() -> Iterator[Calls]:
    calls = Calls()
    yield calls
    calls.open.set()


@pytest.fixture
def start() -> Iterator[Callable[..., Flow]]:
    flows: list[Flow] = []
    with memory_server() as url:

        def make(notation: str, **names: Any) -> Flow:
            options = FlowOptions(drain_seconds=2, checkpoint_seconds=0.05, slice_seconds=5)
            flows.append(Flow(notation, server=url, namespace=names, options=options).start())
            return flows[-1]

        yield make
        for flow in flows:
            flow.stop()


def counting(calls: Calls, kind: str, **attributes: Any) -> type:
    """Return a processor that numbers its messages and hangs on "hang"; `kind` says how."""

    class Counts(Processor):
        timeout = 0.2
        batch_size = 1

        def __init__(self) -> None:
            self.count = 0
            self.hung = False
            calls.made.append(self)

        def seen(self, payload: Any) -> Any:
            assert not self.hung, "an instance that was left behind was called again"
            self.count += 1
            return f"{payload} {self.count}"

        def snapshot(self) -> Any:
            return self.count

        def restore(self, state: Any) -> None:
            self.count = state

    def plain(self: Any, payload: Any) -> Any:
        if payload == "hang":
            self.hung = True
            return calls.hang(payload)
        return self.seen(payload)

    async def coroutine(self: Any, payload: Any) -> Any:
        if payload == "hang":
            if kind == "swallows":
                self.hung = True
                return await calls.swallow(payload)
            return await calls.hang_soon(payload)
        return self.seen(payload)

    def generator(self: Any, payload: Any) -> Any:
        yield plain(self, payload)

    async def async_generator(self: Any, payload: Any) -> Any:
        yield await coroutine(self, payload)

    def batch(self: Any, payloads: Any) -> Any:
        return [plain(self, payload) for payload in payloads]

    async def async_batch(self: Any, payloads: Any) -> Any:
        return [await coroutine(self, payload) for payload in payloads]

    def batch_generator(self: Any, payloads: Any) -> Any:
        return (plain(self, payload) for payload in payloads)

    async def async_batch_generator(self: Any, payloads: Any) -> Any:
        for payload in payloads:
            yield await coroutine(self, payload)

    forms = {
        "def": ("process", plain),
        "async def": ("process", coroutine),
        "swallows": ("process", coroutine),
        "generator": ("process", generator),
        "async generator": ("process", async_generator),
        "batch": ("process_batch", batch),
        "async batch": ("process_batch", async_batch),
        "batch generator": ("process_batch", batch_generator),
        "async batch generator": ("process_batch", async_batch_generator),
    }
    name, form = forms[kind]
    setattr(Counts, name, form)
    for attribute, value in attributes.items():
        setattr(Counts, attribute, value)
    return Counts


KINDS = [
    "def",
    "async def",
    "swallows",
    "generator",
    "async generator",
    "batch",
    "async batch",
    "batch generator",
    "async batch generator",
]
ON_LOOP = {"async def", "async generator", "async batch", "async batch generator"}


def taken(flow: Flow, n: int) -> list[Any]:
    return [message.payload for message in flow.take(n, timeout=SOON)]


def frame(device: Device, *payloads: Any) -> None:
    """Push so that the payloads come in few frames, and so in one batch."""
    for payload in payloads:
        device.push(payload)
    device.flush()


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_takes_longer_is_its_message_s_dead_letter_and_all_else_goes_on(
    start: Callable[..., Flow], calls: Calls, kind: str, retries: int, until: Callable[..., None]
) -> None:
    flow = start("Push ~> P ~> Output", P=counting(calls, kind, retries=retries))
    with Device("room1").connect(flow) as device:
        device.push("first").wait(5)
        assert taken(flow, 1) == ["first 1"]
        (runner,) = flow._flow._edge.lines[0].runners_of("P")
        until(lambda: runner.last_state is not None and runner.last_state.value == 1)
        frame(device, "a", "hang", "b", "c")
        payloads = taken(flow, 3)
        assert [payload.split()[0] for payload in payloads] == ["a", "b", "c"]
        (letter,) = flow.dead_letters()
        assert letter.payload == "hang"
        assert "processor P took more than 0.2 s for a call (timeout = 0.2)" in letter.error
        assert "swallow" in letter.traceback or "hang" in letter.traceback.replace("'hang'", "")
        stats = flow.stats().processors["P"]
        assert (stats.failed, stats.retried) == (1, 0)
        if kind in ON_LOOP:  # the same instance goes on
            assert payloads == ["a 2", "b 3", "c 4"]
            assert (stats.left_behind, len(calls.made)) == (0, 1)
        else:
            assert (stats.left_behind, len(calls.made)) == (1, 2)
            # The new one has the state of the last checkpoint.
            assert payloads[1] in ("b 2", "b 3")
            calls.open.set()
            until(lambda: calls.late == ["hang"] and flow.stats().processors["P"].left_behind == 0)
        flow.settled()
    assert flow.stats().delivered == 4
    assert flow.stats().dead == 1


@pytest.mark.parametrize("kind", ["batch", "async batch"])
def test_of_a_batch_that_takes_longer_every_message_is_a_dead_letter(
    start: Callable[..., Flow], calls: Calls, kind: str
) -> None:
    flow = start("Push ~> P ~> Output", P=counting(calls, kind, batch_size=3, batch_timeout=0.5))
    with Device("room1").connect(flow) as device:
        frame(device, "a", "hang", "b", "c", "d", "e")
        assert [payload.split()[0] for payload in taken(flow, 3)] == ["c", "d", "e"]
        assert [letter.payload for letter in flow.dead_letters()] == ["a", "hang", "b"]
        assert flow.stats().processors["P"].failed == 3


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("notation", ["Push ~> {P, Q} ~> Output", "Push ~> P ~> Output"])
def test_in_braces_and_in_lanes_the_others_go_on(
    start: Callable[..., Flow], calls: Calls, notation: str, kind: str
) -> None:
    names = {"P": counting(calls, kind, concurrency=2), "Q": lambda payload: None}
    flow = start(notation, **names)
    with Device("room1").connect(flow) as one, Device("room2").connect(flow) as two:
        one.push("hang")
        for number in range(5):
            two.push(number).wait(5)
        assert len(taken(flow, 5)) == 5
        one.push("after")
        assert [payload.split()[0] for payload in map(str, taken(flow, 1))] == ["after"]
        assert [letter.payload for letter in flow.dead_letters()] == ["hang"]


@pytest.mark.parametrize(
    ("process", "kind"), [("def", "def"), ("def", "async def"), ("async def", "async def")]
)
def test_a_timer_that_takes_longer_is_named_and_process_goes_on(
    start: Callable[..., Flow], calls: Calls, process: str, kind: str, until: Callable[..., None]
) -> None:
    beats: list[int] = []

    def plain(self: Any) -> None:
        beats.append(1)
        calls.hang("beat")

    async def coroutine(self: Any) -> None:
        beats.append(1)
        await calls.hang_soon("beat")

    target = counting(calls, process, beat=every(0.3)(plain if kind == "def" else coroutine))
    flow = start("Push ~> P ~> Output", P=target)
    with Device("room1").connect(flow) as device:
        until(lambda: len(beats) == 2)
        assert (
            "beat: TookTooLong: processor P took more than 0.2 s" in flow.stats().processors["P"].last_error
        )
        device.push("a")
        assert taken(flow, 1)[0].startswith("a ")


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_an_order_whose_backward_takes_longer_is_a_dead_letter(
    start: Callable[..., Flow], calls: Calls, kind: str, until: Callable[..., None]
) -> None:
    def plain(self: Any, payload: Any) -> Any:
        return calls.hang(payload) if payload == "hang" else payload

    async def coroutine(self: Any, payload: Any) -> Any:
        return await calls.hang_soon(payload) if payload == "hang" else payload

    target = counting(calls, "def", backward=plain if kind == "def" else coroutine)
    flow = start("Push <~> P <~> Output", P=target)
    orders: list[Any] = []
    with Device("led", receive=orders.append).connect(flow):
        flow.send("hang", to="led")
        flow.send("on", to="led")
        until(lambda: orders == ["on"])
        (letter,) = flow.dead_letters()
        assert "processor P took more than 0.2 s" in letter.error
        calls.open.set()
        until(lambda: flow.stats().processors["P"].left_behind == 0)
        assert orders == ["on"]


def test_what_a_late_call_replies_is_dropped(start: Callable[..., Flow], calls: Calls, until: Any) -> None:
    class Replies(Processor):
        timeout = 0.2

        def process(self, payload: Any, message: Any) -> Any:
            if payload == "hang":
                calls.hang(payload)
            reply(payload, to=message)
            return payload

    flow = start("Push <~> P <~> Output", P=Replies)
    orders: list[Any] = []
    with Device("led", receive=orders.append).connect(flow) as led:
        frame(led, "a", "hang", "b")
        until(lambda: orders == ["a", "b"])
        calls.open.set()
        until(lambda: calls.late == ["hang"] and flow.stats().processors["P"].left_behind == 0)
        led.push("c")
        until(lambda: orders == ["a", "b", "c"])


class Mended:
    concurrency = 2

    def process(self, payload: Any) -> Any:
        return f"mended {payload}"


@pytest.mark.parametrize("mended", [Mended().process, Mended], ids=["function", "more instances"])
def test_a_processor_that_hangs_for_ever_is_paused_once_too_many_are_left_behind_and_can_be_mended(
    start: Callable[..., Flow], calls: Calls, until: Callable[..., None], mended: Any
) -> None:
    flow = start("Push ~> P ~> Output", P=counting(calls, "def", timeout=0.02))
    with Device("room1").connect(flow) as device:
        frame(device, *["hang"] * 20)
        until(lambda: flow.stats().processors["P"].state == "paused", SOON)
        stats = flow.stats().processors["P"]
        assert stats.left_behind == 16
        assert "P: 16 instances are left behind in calls that hang" in stats.last_error
        assert flow.state == "running"
        assert len(calls.made) == 16
        flow.update(flow.notation, {"P": mended})
        assert taken(flow, 4) == ["mended hang"] * 4
        assert flow.stats().processors["P"].state == "running"
        assert len(flow.dead_letters()) == 16


def test_a_processor_that_is_paused_for_want_of_an_instance_can_be_taken_out(
    start: Callable[..., Flow], calls: Calls, until: Callable[..., None]
) -> None:
    def setup(self: Any) -> None:
        if len(calls.made) > 1:
            raise ConnectionError("the database is away")

    flow = start("Push ~> P ~> Output", P=counting(calls, "def", setup=setup))
    with Device("room1").connect(flow) as device:
        frame(device, "hang", "a")
        until(lambda: flow.stats().processors["P"].state == "paused", SOON)
        calls.open.set()  # no call hangs any more, and still there is no instance
        flow.update("Push ~> same ~> Output", {"same": lambda payload: payload})
        frame(device, "b")
        assert taken(flow, 1) == ["b"]
        late, stranded = (letter.error for letter in flow.dead_letters())
        assert late.startswith("TookTooLong")
        assert stranded == "ProcessorError: P has no instance to go on with, while the flow was changed."


def test_once_those_that_were_left_behind_have_ended_resume_lets_it_go_on(
    start: Callable[..., Flow], calls: Calls, until: Callable[..., None]
) -> None:
    flow = start("Push ~> P ~> Output", P=counting(calls, "def", timeout=0.02))
    with Device("room1").connect(flow) as device:
        frame(device, *["hang"] * 16, "a")
        until(lambda: flow.stats().processors["P"].state == "paused", SOON)
        calls.open.set()
        until(lambda: flow.stats().processors["P"].left_behind == 0)
        flow["P"].resume()
        assert taken(flow, 1)[0].startswith("a ")


def test_a_new_instance_whose_setup_fails_pauses_the_processor_and_says_why(
    start: Callable[..., Flow], calls: Calls, until: Callable[..., None]
) -> None:
    def setup(self: Any) -> None:
        if len(calls.made) > 1:
            raise ConnectionError("the database is away")

    flow = start("Push ~> P ~> Output", P=counting(calls, "def", setup=setup))
    with Device("room1").connect(flow) as device:
        frame(device, "hang", "a")
        until(lambda: flow.stats().processors["P"].state == "paused", SOON)
        assert "the database is away" in flow.stats().processors["P"].last_error
        flow.update(flow.notation, {"P": lambda payload: payload})
        assert taken(flow, 1) == ["a"]


def test_an_instance_that_the_notation_names_is_not_called_while_it_hangs(
    start: Callable[..., Flow], calls: Calls, until: Callable[..., None]
) -> None:
    flow = start("Push ~> P ~> Output", P=counting(calls, "def")())
    with Device("room1").connect(flow) as device:
        frame(device, "hang", "a")
        until(lambda: flow.stats().processors["P"].state == "paused", SOON)
        assert (
            "P: the instance that the notation names is left behind"
            in flow.stats().processors["P"].last_error
        )
        assert [letter.payload for letter in flow.dead_letters()] == ["hang"]
        flow.update(flow.notation, {"P": lambda payload: payload})
        assert taken(flow, 1) == ["a"]


@pytest.mark.parametrize("seconds", [0, -1, True, "1", float("inf"), float("nan")])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(start: Callable[..., Flow], seconds: Any) -> None:
    target = type("P", (Processor,), {"process": lambda self, payload: payload, "timeout": seconds})
    with pytest.raises(
        ProcessorError, match=r"P.timeout is .*; it must be a number of seconds greater than 0"
    ):
        start("Push ~> P ~> Output", P=target)


def test_many_calls_that_take_long_all_together_are_not_late(
    start: Callable[..., Flow], calls: Calls
) -> None:
    class Slow(Processor):
        timeout = 0.3

        def process(self, payload: Any) -> Any:
            time.sleep(0.02)
            return payload

    flow = start("Push ~> P ~> Output", P=Slow)
    with Device("room1").connect(flow) as device:
        frame(device, *range(40))
        assert taken(flow, 40) == list(range(40))
        assert flow.stats().dead == 0
