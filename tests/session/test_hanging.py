"""A processor that hangs holds nobody up: changes, stops, checkpoints and retries name it and go on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from patience import patient

from pratipad_nb import Device, Flow, FlowOptions, every
from pratipad_nb.errors import FlowError, ProcessorError
from pratipad_nb.runtime.stages.shards import shard_of
from pratipad_nb.testing import memory_server

#: Nothing here may take longer, in seconds: a call hangs for ever.
SOON = 15
OPTIONS = FlowOptions(hang_seconds=0.2, setup_seconds=1.0, drain_seconds=1.0, checkpoint_seconds=0.05)


class Gate:
    """What functions of a test hang at, until the test ends."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        self.calls: list[Any] = []

    def hang(self, payload: Any = None) -> None:
        self.calls.append(payload)
        self.begun.set()
        self.open.wait(60)

    async def hang_soon(self, payload: Any = None) -> None:
        self.calls.append(payload)
        self.begun.set()
        await asyncio.sleep(600)

    async def swallow(self, payload: Any = None) -> None:
        """Hang, whoever cancels."""
        self.calls.append(payload)
        self.begun.set()
        while not self.open.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture
def start() -> Iterator[Callable[..., Flow]]:
    flows: list[Flow] = []
    with memory_server() as url:

        def make(notation: str, options: FlowOptions = OPTIONS, **names: Any) -> Flow:
            flows.append(Flow(notation, server=url, namespace=names, options=options).start())
            return flows[-1]

        yield make
        for flow in flows:
            flow.stop()


def hanging(gate: Gate, kind: str, on: Any = "hang") -> type:
    """Return a processor that hangs on one payload, and counts the others."""

    class Hanging:
        def __init__(self) -> None:
            self.count = 0

        def seen(self, payload: Any) -> Any:
            self.count += 1
            return f"{payload} {self.count}"

        def snapshot(self) -> Any:
            return self.count

        def restore(self, state: Any) -> None:
            self.count = state

    def plain(self: Any, payload: Any) -> Any:
        if payload == on:
            gate.hang(payload)
            return "too late"
        return self.seen(payload)

    async def coroutine(self: Any, payload: Any) -> Any:
        if payload == on:
            await (gate.swallow(payload) if kind == "swallows" else gate.hang_soon(payload))
            return "too late"
        return self.seen(payload)

    def batch(self: Any, payloads: Any) -> Any:
        return [plain(self, payload) for payload in payloads]

    Hanging.batch_size = 1  # type: ignore[attr-defined]
    name = "process_batch" if kind == "batch" else "process"
    setattr(Hanging, name, {"def": plain, "batch": batch}.get(kind, coroutine))
    return Hanging


def mended(payload: Any) -> Any:
    return f"mended {payload}"


def pushed(flow: Flow, *payloads: Any) -> Device:
    device = Device("room1").connect(flow)
    for payload in payloads:
        device.push(payload)
    device.flush()
    return device


def taken(flow: Flow, n: int) -> list[Any]:
    return [message.payload for message in flow.take(n, timeout=SOON)]


KINDS = pytest.mark.parametrize("kind", ["def", "async def", "swallows", "batch"])


# -- changes -------------------------------------------------------------------------------------------------


@KINDS
def test_a_class_that_hangs_can_be_mended_and_its_message_goes_to_the_new_one(
    start: Callable[..., Flow], gate: Gate, kind: str
) -> None:
    flow = start("Push ~> P ~> Output", P=hanging(gate, kind))
    with pushed(flow, "a", "hang", "b"):
        assert gate.begun.wait(5)
        began = time.monotonic()
        receipt = flow.update(flow.notation, {"P": mended})
        assert time.monotonic() - began < SOON
        assert receipt is not None
        assert (receipt.lost, receipt.doubled) == (0, 0)
        assert sorted(taken(flow, 3)) in (
            ["a 1", "mended b", "mended hang"],
            ["mended a", "mended b", "mended hang"],  # all in one slice: it is begun anew
        )
        assert flow.stats().processors["P"].left_behind == (0 if kind == "async def" else 1)
        gate.open.set()
        flow.settled()
    assert gate.calls == ["hang"]
    assert flow.stats().delivered == 3


@KINDS
def test_the_state_of_an_instance_that_hangs_is_that_of_its_last_checkpoint(
    start: Callable[..., Flow], gate: Gate, kind: str, until: Callable[..., None]
) -> None:
    flow = start("Push ~> P ~> Output", P=hanging(gate, kind))
    with pushed(flow, "a", "b") as device:
        assert taken(flow, 2) == ["a 1", "b 2"]
        (runner,) = flow._flow._edge.lines[0].runners_of("P")
        until(lambda: runner.last_state is not None and runner.last_state.value == 2)
        device.push("hang")
        assert gate.begun.wait(5)
        flow.update(flow.notation, {"P": hanging(Gate(), "def", on=None)})
        assert taken(flow, 1) == ["hang 3"]


@KINDS
@pytest.mark.parametrize("notation", ["Push ~> [P, Q] ~> Output", "Push ~> Q ~> P ~> Output"])
def test_a_flow_whose_processor_hangs_gets_another_shape_with_its_class_mended(
    start: Callable[..., Flow], gate: Gate, kind: str, notation: str
) -> None:
    flow = start("Push ~> P ~> Output", P=hanging(gate, kind))
    with pushed(flow, "hang") as device:
        assert gate.begun.wait(5)
        receipt = flow.update(notation, {"P": mended, "Q": lambda payload: payload})
        assert receipt is not None
        assert (receipt.lost, receipt.doubled) == (0, 0)
        device.push("b")
        assert taken(flow, 2) == ["mended hang", "mended b"]


@pytest.mark.parametrize("notation", ["Push ~> Q ~> Output", "Push ~> [P, Q] ~> Output"])
def test_where_the_same_code_would_hang_again_or_none_is_left_the_message_is_a_dead_letter(
    start: Callable[..., Flow], gate: Gate, notation: str
) -> None:
    names = {"P": hanging(gate, "def"), "Q": lambda payload: payload}
    flow = start("Push ~> P ~> Output", **names)
    with pushed(flow, "hang") as device:
        assert gate.begun.wait(5)
        assert flow.update(notation, names) is not None
        (letter,) = flow.dead_letters()
        assert letter.payload == "hang"
        assert "processor P has been in its call since" in letter.error
        device.push("b")
        assert taken(flow, 1) == ["b 1" if "[P" in notation else "b"]


def test_an_update_that_was_interrupted_while_a_setup_hangs_makes_way_for_the_next(
    start: Callable[..., Flow], gate: Gate
) -> None:
    class Hangs:
        def setup(self) -> None:
            gate.hang()

        def process(self, payload: Any) -> Any:
            return payload

    slow = FlowOptions(hang_seconds=0.2, setup_seconds=60, drain_seconds=1)
    flow = start("Push ~> P ~> Output", slow, P=mended)
    portal = flow._portal
    assert portal is not None
    interrupted = portal.submit(flow._flow.update(flow.notation, {"P": Hangs}))
    assert gate.begun.wait(5)
    interrupted.cancel()
    began = time.monotonic()
    assert flow.update(flow.notation, {"P": lambda payload: payload}) is not None
    assert time.monotonic() - began < SOON
    with pushed(flow, "a"):
        assert taken(flow, 1) == ["a"]


@pytest.mark.parametrize(
    ("hook", "kind"),
    [("__init__", "def"), *[(hook, kind) for hook in ("setup", "restore") for kind in ("def", "async def")]],
)
def test_a_new_class_that_hangs_while_it_is_made_is_told_and_the_old_one_goes_on(
    start: Callable[..., Flow], gate: Gate, hook: str, kind: str
) -> None:
    def plain(self: Any, *_: Any) -> None:
        gate.hang()

    async def coroutine(self: Any, *_: Any) -> None:
        await gate.hang_soon()

    keeps = {
        "process": lambda self, payload: payload,
        "snapshot": lambda self: 1,
        "restore": lambda self, state: None,
    }
    new = type("P", (), {**keeps, hook: plain if kind == "def" else coroutine})
    flow = start("Push ~> P ~> Output", P=type("P", (), keeps))
    with pytest.raises(ProcessorError, match=f"P: {hook} is not over after 1.0 s"):
        flow.update(flow.notation, {"P": new})
    with pushed(flow, "a"):
        assert taken(flow, 1) == ["a"]


def test_a_class_that_hangs_while_it_is_made_fails_the_start(start: Callable[..., Flow], gate: Gate) -> None:
    class Hangs:
        def setup(self) -> None:
            gate.hang()

        def process(self, payload: Any) -> Any:
            return payload

    with pytest.raises(ProcessorError, match=r"P: setup is not over after 1\.0 s"):
        start("Push ~> P ~> Output", P=Hangs)


# -- the end -------------------------------------------------------------------------------------------------


@KINDS
def test_a_stop_while_a_processor_hangs_is_bounded_and_says_since_when(
    start: Callable[..., Flow],
    gate: Gate,
    kind: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pratipad_nb.portal._PATIENCE", 1.0)  # waited out where a cancellation is swallowed
    flow = start("Push ~> P ~> Output", P=hanging(gate, kind))
    with pushed(flow, "hang"):
        assert gate.begun.wait(5)
    began = time.monotonic()
    flow.stop()
    assert time.monotonic() - began < min(SOON, patient(SOON - 9.0))  # nine seconds less than with ten
    assert flow.state == "stopped"
    assert "processor P has been in its call since" in caplog.text


def test_a_stop_overrides_a_change_that_waits_for_a_setup(start: Callable[..., Flow], gate: Gate) -> None:
    class Hangs:
        def setup(self) -> None:
            gate.hang()

        def process(self, payload: Any) -> Any:
            return payload

    slow = FlowOptions(hang_seconds=0.2, setup_seconds=60, drain_seconds=1)
    flow = start("Push ~> P ~> Output", slow, P=mended)
    errors: list[BaseException] = []

    def update() -> None:
        try:
            flow.update(flow.notation, {"P": Hangs})
        except FlowError as error:
            errors.append(error)

    waiting = threading.Thread(target=update)
    waiting.start()
    assert gate.begun.wait(5)
    began = time.monotonic()
    flow.stop()
    assert time.monotonic() - began < SOON
    waiting.join(SOON)
    assert not waiting.is_alive()
    assert flow.state == "stopped"
    assert "given up" in str(errors[0])


# -- beside --------------------------------------------------------------------------------------------------


def test_a_retry_of_a_dead_letter_that_hangs_is_told_and_the_letter_kept(
    start: Callable[..., Flow], gate: Gate
) -> None:
    class Fails:
        def process(self, payload: Any) -> Any:
            raise ValueError(payload)

    flow = start("Push ~> P ~> Output", P=Fails)
    with pushed(flow, "hang"):
        flow.settled()
    flow.update(flow.notation, {"P": hanging(gate, "def")})
    with pytest.raises(FlowError, match="processor P has been in its call since"):
        flow.retry_dead_letters()
    flow.update(flow.notation, {"P": mended})
    assert taken(flow, 1) == ["mended hang"]


def test_one_lane_that_hangs_keeps_no_checkpoint_barrier_before_the_others(
    start: Callable[..., Flow], gate: Gate
) -> None:
    parallel = type("P", (hanging(gate, "def"),), {"concurrency": 4})
    flow = start("Push ~> P ~> Output", P=parallel)
    free = next(name for name in map("room{}".format, range(20)) if shard_of(name, 4) != shard_of("stuck", 4))
    with Device("stuck").connect(flow) as stuck, Device(free).connect(flow) as device:
        stuck.push("hang")
        assert gate.begun.wait(5)
        end, number = time.monotonic() + 20 * OPTIONS.checkpoint_seconds, 0
        while time.monotonic() < end:
            number += 1
            device.push(number).wait(5)
            assert taken(flow, 1) == [f"{number} {number}"]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_timer_and_an_order_that_hang_are_left_behind_too(
    start: Callable[..., Flow], gate: Gate, kind: str
) -> None:
    def plain(self: Any, payload: Any = None) -> Any:
        gate.hang()

    async def coroutine(self: Any, payload: Any = None) -> Any:
        await gate.hang_soon()

    method = plain if kind == "def" else coroutine
    process = {"process": lambda self, payload: payload}
    for name, hangs in (("beat", every(0.01)(method)), ("backward", method)):
        gate.begun.clear()
        orders: list[Any] = []
        flow = start("Push <~> P <~> Output", P=type("P", (), {**process, name: hangs}))
        with Device("led", receive=orders.append).connect(flow) as led:
            flow.send("on", to="led")
            assert gate.begun.wait(5)
            flow.update(flow.notation, {"P": type("P", (), process)})
            led.push("a").wait(5)
            assert taken(flow, 1) == ["a"]
            end = time.monotonic() + SOON
            while orders != ["on"] and time.monotonic() < end:
                time.sleep(0.01)
            assert orders == ["on"]
        flow.stop()
