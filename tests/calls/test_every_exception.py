"""What a user's function raises concerns that call alone: each exception, each place, both kinds of `def`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from patience import eventually

from pratipad_nb import AsyncDevice, AsyncFlow, Device, Flow, FlowOptions, every
from pratipad_nb.errors import ProcessorError
from pratipad_nb.testing import memory_server


class Bare(BaseException):
    """A user's own exception that no `except Exception` catches."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


EXCEPTIONS = [
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    StopIteration,
    StopAsyncIteration,
    asyncio.CancelledError,
    Bare,
    Unprintable,
]

#: A coroutine can cancel the task that it runs in, and go on or return.
CANCELS, CANCELS_AND_RETURNS = "cancels its task", "cancels its task and returns"

CASES = [
    *[
        pytest.param(kind, error, id=f"{kind}-{error.__name__}")
        for kind in ("def", "async def")
        for error in EXCEPTIONS
    ],
    pytest.param("async def", CANCELS, id="async def-cancels its task"),
    pytest.param("async def", CANCELS_AND_RETURNS, id="async def-cancels its task and returns"),
]

each_case = pytest.mark.parametrize(("kind", "error"), CASES)


def name_of(error: Any) -> str:
    return "CancelledError" if isinstance(error, str) else error.__name__


def raise_it(error: Any) -> None:
    raise error


async def fail_soon(error: Any) -> None:
    """Fail, after the loop has had its turn."""
    await asyncio.sleep(0)
    if isinstance(error, str):
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if error == CANCELS:
            await asyncio.sleep(0)
        return
    raise_it(error)


def bad(payload: Any) -> bool:
    return payload in ("bad", ["bad"])


def method(kind: str, error: Any, when: Callable[..., bool] = bad) -> Callable[..., Any]:
    """Return a method that fails on what `when` is true of, and returns its argument else."""

    def plain(self: Any, *arguments: Any) -> Any:
        if when(*arguments):
            raise_it(error)
        return arguments[0] if arguments else None

    async def coroutine(self: Any, *arguments: Any) -> Any:
        if when(*arguments):
            await fail_soon(error)
        return arguments[0] if arguments else None

    return plain if kind == "def" else coroutine


def always(*_: Any) -> bool:
    return True


def passes(kind: str) -> Callable[..., Any]:
    return method(kind, None, lambda *_: False)


@pytest.fixture
def url() -> Iterator[str]:
    with memory_server() as found:
        yield found


@contextlib.asynccontextmanager
async def flow_of(url: str, target: Any) -> AsyncIterator[tuple[AsyncFlow, AsyncDevice]]:
    """Run a flow of one processor, with a device; it ends as "stopped", not as "failed"."""
    options = FlowOptions(checkpoint_seconds=0.02, drain_seconds=5)
    flow = AsyncFlow("Push <~> P <~> Output", server=url, namespace={"P": target}, options=options)
    async with asyncio.timeout(20), flow, await AsyncDevice("room1").connect(flow) as device:
        yield flow, device
    assert flow.state == "stopped"
    assert flow.stats().error == ""


async def goes_on(flow: AsyncFlow, device: AsyncDevice) -> None:
    """Show that a message that comes now is delivered, and that the flow runs."""
    await device.push("later")
    payloads = [message.payload for message in await flow.take(1, timeout=5)]
    assert payloads == ["later"]
    assert flow.state == "running"


def told(letter: Any, error: Any) -> None:
    """Check that a dead letter names the exception and has its traceback."""
    assert name_of(error) in letter.error
    assert name_of(error) in letter.traceback
    if not isinstance(error, str):
        assert "raise_it" in letter.traceback


def generator(kind: str, error: Any) -> Callable[..., Any]:
    def plain(self: Any, payload: Any) -> Any:
        if bad(payload):
            raise_it(error)
        yield payload

    async def coroutine(self: Any, payload: Any) -> Any:
        if bad(payload):
            await fail_soon(error)
        yield payload

    return plain if kind == "def" else coroutine


@each_case
@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("form", ["process", "process_batch", "generator"])
async def test_in_process_it_is_the_message_s_dead_letter(
    url: str, form: str, kind: str, error: Any, retries: int
) -> None:
    make = generator if form == "generator" else method
    name = "process_batch" if form == "process_batch" else "process"
    target = type("P", (), {name: make(kind, error), "retries": retries, "batch_size": 1})
    async with flow_of(url, target) as (flow, device):
        for payload in ("before", "bad", "after"):
            await device.push(payload)
        assert [message.payload for message in await flow.take(2, timeout=5)] == ["before", "after"]
        (letter,) = await flow.dead_letters()
        # A generator's RuntimeError stands for a StopIteration raised in it, and names it: Python's own rule.
        told(letter, error)
        assert letter.payload == "bad"
        stats = flow.stats().processors["P"]
        assert (stats.failed, stats.retried) == (1, retries)
        await goes_on(flow, device)


@each_case
@pytest.mark.parametrize("process", ["def", "async def"])
async def test_in_backward_it_is_the_order_s_dead_letter(
    url: str, process: str, kind: str, error: Any
) -> None:
    target = type("P", (), {"process": passes(process), "backward": method(kind, error)})
    async with flow_of(url, target) as (flow, _):
        run: list[Any] = []
        async with await AsyncDevice("led", receive=run.append).connect(flow) as led:
            await flow.send("bad", to="led")
            await flow.send("good", to="led")
            await eventually(lambda: run)
            (letter,) = await flow.dead_letters()
            told(letter, error)
            assert run == ["good"]
            assert name_of(error) in flow.stats().processors["P"].last_error
            await goes_on(flow, led)


@each_case
@pytest.mark.parametrize("process", ["def", "async def"])
async def test_in_a_timer_it_is_named_and_the_timer_goes_on(
    url: str, process: str, kind: str, error: Any
) -> None:
    calls: list[int] = []

    def fails(_: Any = None) -> bool:
        calls.append(1)
        return True

    beat = every(0.005)(method(kind, error, fails))
    target = type("P", (), {"process": passes(process), "beat": beat})
    async with flow_of(url, target) as (flow, device):
        await eventually(lambda: len(calls) > 2)
        assert flow.stats().processors["P"].failed_timers >= 1
        assert name_of(error) in flow.stats().processors["P"].last_error
        assert any(name_of(error) in line.text for line in flow["P"].log)
        if not isinstance(error, str):
            assert any("raise_it" in line.text for line in flow["P"].log)
        await goes_on(flow, device)


@each_case
@pytest.mark.parametrize("process", ["def", "async def"])
async def test_in_snapshot_it_is_named_and_the_flow_goes_on(
    url: str, process: str, kind: str, error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    target = type("P", (), {"process": passes(process), "snapshot": method(kind, error, always)})
    async with flow_of(url, target) as (flow, device):
        await goes_on(flow, device)
        await eventually(lambda: name_of(error) in flow.stats().processors["P"].last_error)
        await goes_on(flow, device)
    assert "snapshot failed with" in caplog.text


@each_case
@pytest.mark.parametrize("process", ["def", "async def"])
@pytest.mark.parametrize("hook", ["setup", "restore"])
async def test_in_what_makes_an_instance_it_fails_the_change_and_the_old_one_goes_on(
    url: str, hook: str, process: str, kind: str, error: Any
) -> None:
    keeps = {"process": passes(process), "snapshot": lambda self: 1, "restore": lambda self, state: None}
    new = type("P", (), {**keeps, hook: method(kind, error, always)})
    async with flow_of(url, type("P", (), keeps)) as (flow, device):
        with pytest.raises(ProcessorError, match=name_of(error)):
            await flow.update(flow.notation, {"P": new})
        await goes_on(flow, device)


@pytest.mark.parametrize("error", EXCEPTIONS)
@pytest.mark.parametrize("process", ["def", "async def"])
async def test_in_init_it_fails_the_change_and_the_old_one_goes_on(
    url: str, process: str, error: Any
) -> None:
    new = type("P", (), {"process": passes(process), "__init__": method("def", error, always)})
    async with flow_of(url, type("P", (), {"process": passes(process)})) as (flow, device):
        with pytest.raises(ProcessorError, match=name_of(error)):
            await flow.update(flow.notation, {"P": new})
        await goes_on(flow, device)


@each_case
@pytest.mark.parametrize("process", ["def", "async def"])
async def test_in_setup_it_fails_the_start_and_a_mended_one_starts(
    url: str, process: str, kind: str, error: Any
) -> None:
    bad_one = type("P", (), {"process": passes(process), "setup": method(kind, error, always)})
    flow = AsyncFlow("Push ~> P ~> Output", server=url, namespace={"P": bad_one})
    with pytest.raises(ProcessorError, match=name_of(error)):
        await flow.start()
    assert flow.state == "stopped"
    await flow.update(flow.notation, {"P": type("P", (), {"process": passes(process)})})
    async with flow, await AsyncDevice("room1").connect(flow) as device:
        await goes_on(flow, device)


@each_case
@pytest.mark.parametrize("process", ["def", "async def"])
async def test_in_teardown_it_is_logged_and_the_change_is_made(
    url: str, process: str, kind: str, error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    old = type("P", (), {"process": passes(process), "teardown": method(kind, error, always)})
    async with flow_of(url, old) as (flow, device):
        receipt = await flow.update(flow.notation, {"P": type("P", (), {"process": passes(process)})})
        assert receipt is not None
        assert receipt.changed == ("P",)
        (line,) = [
            record.getMessage() for record in caplog.records if "teardown failed" in record.getMessage()
        ]
        assert name_of(error) in line
        await goes_on(flow, device)


# -- devices -------------------------------------------------------------------------------------------------


def read_of(kind: str, error: Any) -> Callable[[], Any]:
    """Return a `read` that fails at its second call."""
    calls: list[int] = []

    def second(_: Any = None) -> bool:
        calls.append(1)
        return len(calls) == 2

    read = method(kind, error, second)

    def plain() -> Any:
        read(None)
        return len(calls)

    async def coroutine() -> Any:
        await read(None)
        return len(calls)

    return plain if kind == "def" else coroutine


@each_case
async def test_in_read_it_is_the_device_s_error_and_readings_and_devices_go_on(
    url: str, kind: str, error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with flow_of(url, lambda payload: payload) as (flow, other):
        device = AsyncDevice("sensor", read=read_of(kind, error), every=0.05)
        async with await device.connect(flow):
            await eventually(lambda: device.failed == 1 and device.error == "")
            await other.push("other")
            taken = [message.payload for message in await flow.take(3, timeout=5)]
            assert 1 in taken
            assert "other" in taken or "other" in [m.payload for m in await flow.take(5, timeout=5)]
    assert name_of(error) in caplog.text
    if not isinstance(error, str):
        assert "in raise_it" in traceback_in(caplog)


class Failing:
    """An iterator of readings, of either kind, the second of which fails."""

    def __init__(self, error: Any) -> None:
        self.error = error
        self.count = 0

    def __next__(self) -> int:
        self.count += 1
        if self.count == 2:
            raise_it(self.error)
        return self.count

    async def __anext__(self) -> int:
        self.count += 1
        if self.count == 2:
            await fail_soon(self.error)
        return self.count


class FailingNow(Failing):
    def __iter__(self) -> FailingNow:
        return self


class FailingSoon(Failing):
    def __aiter__(self) -> FailingSoon:
        return self


#: How an iterator ends, and so no failure.
ENDS = {("def", StopIteration), ("async def", StopAsyncIteration)}


@pytest.mark.parametrize(("kind", "error"), [case for case in CASES if tuple(case.values) not in ENDS])
async def test_in_an_iterable_it_is_the_device_s_error_and_readings_go_on(
    url: str, kind: str, error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    readings = FailingNow(error) if kind == "def" else FailingSoon(error)
    async with flow_of(url, lambda payload: payload) as (flow, _):
        device = AsyncDevice("sensor", read=readings, every=0.05)
        async with await device.connect(flow):
            await eventually(lambda: device.failed == 1 and device.error == "")
            assert name_of(error) in caplog.text
            assert [m.payload for m in await flow.take(2, timeout=5)] == [1, 3]


@each_case
async def test_in_receive_it_is_the_device_s_error_and_orders_and_devices_go_on(
    url: str, kind: str, error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run: list[Any] = []
    receive = method(kind, error)

    def plain(payload: Any) -> None:
        receive(None, payload)
        run.append(payload)

    async def coroutine(payload: Any) -> None:
        await receive(None, payload)
        run.append(payload)

    async with flow_of(url, lambda payload: payload) as (flow, other):
        device = AsyncDevice("led", receive=plain if kind == "def" else coroutine)
        async with await device.connect(flow):
            await flow.send("bad", to="led")
            await eventually(lambda: name_of(error) in device.error)
            await flow.send("good", to="led")
            await eventually(lambda: "good" in run and device.error == "")
            assert device.failed == 1
            await goes_on(flow, other)
            await goes_on(flow, device)
    if not isinstance(error, str):
        assert "in raise_it" in traceback_in(caplog)


def traceback_in(caplog: pytest.LogCaptureFixture) -> str:
    return "".join(
        logging.Formatter().formatException(record.exc_info) for record in caplog.records if record.exc_info
    )


# -- what is ours --------------------------------------------------------------------------------------------


async def test_a_stop_still_cancels_a_coroutine_and_it_is_no_failure(url: str) -> None:
    begun, ended = asyncio.Event(), []

    async def hangs(payload: Any) -> Any:
        begun.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            ended.append(payload)
            raise

    options = FlowOptions(drain_seconds=0.05)
    flow = AsyncFlow("Push ~> P ~> Output", server=url, namespace={"P": hangs}, options=options)
    async with flow, await AsyncDevice("room1").connect(flow) as device:
        await device.push("kept")
        await begun.wait()
    assert ended == ["kept"]
    assert flow.stats().dead == 0


def test_a_task_of_the_user_s_that_would_end_the_program_leaves_the_portal_s_thread_at_work(url: str) -> None:
    """`process` begins a task of its own, which nobody awaits, and which calls `sys.exit()`."""
    tasks: list[Any] = []

    async def leaves(payload: Any) -> Any:
        tasks.append(asyncio.ensure_future(fail_soon(SystemExit)))
        await asyncio.sleep(0.01)
        return payload

    with Flow("Push ~> P ~> Output", server=url, namespace={"P": leaves}) as flow, Device("room1") as device:
        device.connect(flow)
        for number in range(3):
            device.push(number).wait(5)
            assert [message.payload for message in flow.take(1, timeout=5)] == [number]
        assert flow.state == "running"
        for task in tasks:
            assert isinstance(task.exception(), SystemExit)
