"""One instance at work: where it is made and runs, what its failures become, what is counted."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest
from patience import until

from pratipad_nb.dataflow import resolve
from pratipad_nb.errors import ProcessorError
from pratipad_nb.message import Message
from pratipad_nb.processors import every
from pratipad_nb.runtime.stages.runner import Runner
from pratipad_nb.runtime.stages.states import State
from pratipad_nb.runtime.values.logs import ProcessorLog
from pratipad_nb.runtime.values.metrics import Meter

MESSAGE = Message(payload=1, id="a-1-1", device="a", time=0.0, received=0.0, flow="house")


@pytest.fixture
async def runner_of():
    made = []

    def make(target):
        (step,) = resolve("Push ~> P ~> Output", {"P": target}).steps
        made.append(Runner(step, Meter(), ProcessorLog(), discard=False, slice_seconds=0.05))
        return made[-1]

    yield make
    for runner in made:
        await runner.close()


async def results_of(runner, payloads):
    outcome = await runner.run(payloads, lambda row: MESSAGE)
    assert outcome.failures == []
    return outcome.payloads


class Everywhere:
    """Notes the thread of everything that it defines."""

    def __init__(self):
        self.threads = {}
        self.ticked = asyncio.Event()
        self.note("__init__")

    def note(self, method):
        self.threads.setdefault(method, set()).add(threading.current_thread())

    def setup(self):
        self.note("setup")

    def process(self, payload):
        self.note("process")
        return payload

    def backward(self, payload):
        self.note("backward")
        return payload

    @every(0.001)
    def beat(self):
        self.note("beat")
        self.loop.call_soon_threadsafe(self.ticked.set)

    def snapshot(self):
        self.note("snapshot")
        return 1

    def restore(self, state):
        self.note("restore")

    def teardown(self):
        self.note("teardown")


class EverywhereOnTheLoop(Everywhere):
    async def process(self, payload):
        return super().process(payload)


class TestWhere:
    @pytest.mark.parametrize("target", [Everywhere, EverywhereOnTheLoop])
    async def test_an_instance_is_made_and_works_on_one_thread(self, runner_of, target):
        target.loop = asyncio.get_running_loop()
        runner = runner_of(target)
        await runner.open(State(b"\x01"))
        instance = runner.adapted.instance
        await results_of(runner, [1])
        await runner.run_backward(1, MESSAGE)
        await runner.snapshot()
        ticking = asyncio.ensure_future(runner.tick())
        await instance.ticked.wait()
        ticking.cancel()
        await asyncio.wait([ticking])
        await runner.close()
        methods = {"__init__", "setup", "process", "backward", "beat", "snapshot", "restore", "teardown"}
        assert set(instance.threads) == methods
        (thread,) = set.union(*instance.threads.values())
        assert (thread is threading.current_thread()) == (target is EverywhereOnTheLoop)

    @pytest.mark.parametrize("kind", ["def", "async def"])
    async def test_what_is_bound_to_the_thread_that_made_it_can_be_made_in_init(self, runner_of, kind):
        class Stored:
            def __init__(self):
                self.connection = sqlite3.connect(":memory:")

            def process(self, payload):
                return self.connection.execute("select ?", [payload]).fetchone()[0]

            def teardown(self):
                self.connection.close()

        class StoredAsync(Stored):
            async def process(self, payload):
                return super().process(payload)

        runner = runner_of(Stored if kind == "def" else StoredAsync)
        await runner.open()
        assert await results_of(runner, [7]) == [7]
        await runner.close()

    async def test_a_process_that_init_sets_runs_where_its_kind_says(self, runner_of):
        class Chosen:
            def __init__(self):
                async def process(payload):
                    return threading.current_thread().name

                self.process = process

            def process(self, payload):
                raise AssertionError

        class ChosenPlain:
            def __init__(self):
                self.process = lambda payload: threading.current_thread().name

            async def process(self, payload):
                raise AssertionError

        for target, name in ((Chosen, threading.current_thread().name), (ChosenPlain, "pratipad-P")):
            runner = runner_of(target)
            await runner.open()
            assert await results_of(runner, [1]) == [name]


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError


async def cancelled_future():
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


class TestHooks:
    @pytest.mark.parametrize("hook", ["setup", "snapshot", "restore"])
    @pytest.mark.parametrize("own", [True, False], ids=["cancelled", "unprintable"])
    async def test_whatever_one_raises_is_the_processors_failure(self, runner_of, hook, own):
        async def fails(self, *_):
            if own:
                await cancelled_future()
            raise Unprintable

        target = type("Fails", (), {"process": lambda self, payload: payload, hook: fails})
        runner = runner_of(target)
        error = "CancelledError" if own else "Unprintable"

        async def call_the_hooks():
            await runner.open(State(b"\x01"))
            await runner.snapshot()

        with pytest.raises(ProcessorError, match=f"P: {hook} failed with {error}.*Mend it"):
            await call_the_hooks()

    async def test_one_that_hangs_can_be_cancelled(self, runner_of):
        begun = asyncio.Event()

        class Hangs:
            async def setup(self):
                begun.set()
                await asyncio.Event().wait()

            async def process(self, payload):
                return payload

        opening = asyncio.ensure_future(runner_of(Hangs).open())
        await begun.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    async def test_a_class_that_raises_what_can_not_be_printed_is_refused(self, runner_of):
        class Refuses:
            def __init__(self):
                raise Unprintable

            def process(self, payload): ...

        with pytest.raises(ProcessorError, match="can't be made: Unprintable"):
            await runner_of(Refuses).open()


class TestTimers:
    async def test_one_that_is_due_while_its_instance_is_torn_down_ends(self, runner_of):
        beaten = asyncio.Event()

        class Beats:
            async def process(self, payload): ...

            @every(0.001)
            async def beat(self):
                beaten.set()

        runner = runner_of(Beats)
        await runner.open()
        ticking = asyncio.ensure_future(runner.tick())
        await asyncio.wait_for(beaten.wait(), 5)
        await runner.close()
        await asyncio.wait_for(ticking, 5)

    @pytest.mark.parametrize("error", [asyncio.CancelledError, Unprintable])
    @pytest.mark.parametrize("kind", ["def", "async def"])
    async def test_one_that_raises_is_reported_and_goes_on(self, runner_of, error, kind):
        again = asyncio.Event()

        class Beats:
            beats = 0

            def process(self, payload): ...

            @every(0.001)
            async def beat(self):
                self.beats += 1
                if self.beats > 1:
                    again.set()
                if error is asyncio.CancelledError:
                    await cancelled_future()
                raise error

        class BeatsOnTheLoop(Beats):
            async def process(self, payload): ...

        runner = runner_of(Beats if kind == "def" else BeatsOnTheLoop)
        await runner.open()
        ticking = asyncio.ensure_future(runner.tick())
        await asyncio.wait_for(again.wait(), 5)
        assert runner.meter.last_error.startswith(f"beat: {error.__name__}")
        ticking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ticking


class TestBusy:
    async def test_it_is_busy_while_its_processor_is_in_a_call(self, runner_of):
        begun, enough = asyncio.Event(), asyncio.Event()

        async def waits(payload):
            begun.set()
            await enough.wait()
            return payload

        runner = runner_of(waits)
        await runner.open()
        assert not runner.busy
        working = asyncio.ensure_future(results_of(runner, [1]))
        await begun.wait()
        assert runner.busy
        enough.set()
        await working
        assert not runner.busy


class TestCounting:
    async def test_retries_count_those_of_orders_too(self, runner_of):
        class Fails:
            retries = 2

            def process(self, payload):
                raise ValueError

            backward = process

        runner = runner_of(Fails)
        await runner.open()
        await runner.run([1, 2], lambda row: MESSAGE)
        assert runner.meter.snapshot().retried == 4
        await runner.run_backward(1, MESSAGE)
        assert runner.meter.snapshot().retried == 6

    async def test_an_instance_that_was_left_behind_changes_no_order_of_the_next_one(self, runner_of):
        begun, go, seen = threading.Event(), threading.Event(), []

        class Hangs:
            def process(self, payload):
                return payload

            def backward(self, order):
                seen.append(order)
                if len(seen) == 1:
                    begun.set()
                    go.wait()
                    order["late"] = True
                return order

        runner = runner_of(Hangs)
        await runner.open()
        running = asyncio.create_task(runner.run_backward({}, MESSAGE))
        await asyncio.to_thread(begun.wait)
        runner.leave()
        outcome = await running
        go.set()
        await asyncio.to_thread(until, lambda: "late" in seen[0])
        assert (outcome.payloads, seen[1]) == ([{}], {})
        await runner.close()

    async def test_each_of_several_instances_is_a_share_of_the_processors_work(self, runner_of):
        class Several:
            concurrency = 4

            def process(self, payload):
                return payload

        runner = runner_of(Several)
        await runner.open()
        outcome = await runner.run(list(range(100)), lambda row: MESSAGE)
        assert runner.meter.busy_seconds == pytest.approx(outcome.elapsed / 4)
