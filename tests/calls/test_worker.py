"""Where processors run: one at a time, in order, nothing left behind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sqlite3
import threading
import weakref

import pytest
from patience import eventually

from pratipad_nb.calls import Worker
from pratipad_nb.errors import ProcessorError


@pytest.fixture(params=["thread", "loop"])
async def either(request):
    worker = Worker("P1", on_loop=request.param == "loop")
    yield worker
    await worker.close()


@pytest.fixture
async def worker():
    worker = Worker("P1")
    yield worker
    await worker.close()


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("pratipad-")]


class TestBoth:
    async def test_a_def_runs_on_the_loop_if_that_is_said_and_else_on_a_thread(self, either):
        thread = await either.call(threading.current_thread)
        assert (thread is threading.main_thread()) == either.on_loop

    async def test_returns_what_either_kind_of_def_returns(self, either):
        async def twice(n):
            await asyncio.sleep(0)
            return 2 * n

        assert await either.call(lambda n: n + 1, 1) == 2
        assert await either.call(twice, 2) == 4

    async def test_awaits_what_a_plain_function_around_a_coroutine_returns(self, either):
        async def three():
            await asyncio.sleep(0)
            return 3

        async def leave():
            raise SystemExit

        assert await either.call(lambda: three()) == 3
        with pytest.raises(ProcessorError, match="P1 raised SystemExit"):
            await either.call(lambda: leave())

    async def test_what_would_end_the_program_is_told_even_if_it_can_not_be_printed(self, either):
        class Rude(SystemExit):
            def __str__(self):
                raise ValueError

        def leave():
            raise Rude

        with pytest.raises(ProcessorError, match="P1 raised Rude"):
            await asyncio.wait_for(either.call(leave), 5)

    async def test_raises_what_the_call_raises(self, either):
        with pytest.raises(ZeroDivisionError):
            await either.call(lambda: 1 // 0)
        assert await either.call(int) == 0

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    async def test_what_would_end_the_program_does_not(self, either, error):
        def leave():
            raise error

        with pytest.raises(ProcessorError, match=f"P1 raised {error.__name__}"):
            await either.call(leave)

    async def test_sees_the_callers_context(self, either):
        variable = contextvars.ContextVar("variable", default="none")
        variable.set("mine")
        assert await either.call(variable.get) == "mine"

    async def test_async_methods_never_overlap_with_others(self, either):
        inside, trace = 0, []

        async def method(n):
            nonlocal inside
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            trace.append(n)
            inside -= 1

        def plain(n):
            assert inside == 0
            trace.append(n)

        await asyncio.gather(*(either.call(method if n % 2 else plain, n) for n in range(8)))
        assert trace == list(range(8))

    async def test_is_busy_while_a_call_is_in_hand(self, either):
        gate = asyncio.Event()
        assert not either.busy
        call = asyncio.ensure_future(either.call(gate.wait))
        await asyncio.sleep(0)
        assert either.busy
        gate.set()
        await call
        assert not either.busy

    async def test_refuses_calls_once_closed_and_closes_twice(self, either):
        await either.call(int)
        assert await either.close()
        assert await either.close()
        with pytest.raises(ProcessorError, match="P1 is closed"):
            await either.call(int)

    async def test_closing_waits_for_the_call_in_hand(self, either):
        gate = asyncio.Event()
        call = asyncio.ensure_future(either.call(gate.wait))
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, gate.set)
        assert await either.close()
        assert call.done()
        assert await call


class TestThread:
    async def test_all_calls_run_on_one_thread_of_its_name(self, worker):
        names = {await worker.call(lambda: threading.current_thread().name) for _ in range(5)}
        assert names == {"pratipad-P1"}

    async def test_sqlite_works_over_several_calls(self, worker):
        connection = await worker.call(sqlite3.connect, ":memory:")
        await worker.call(connection.execute, "create table readings (t)")
        await worker.call(connection.close)

    async def test_a_cancelled_call_finishes_and_the_next_waits_for_it(self, worker):
        begun, gate, trace = threading.Event(), threading.Event(), []

        def first():
            begun.set()
            gate.wait(10)
            trace.append("first")

        async def coroutine():
            trace.append("coroutine")

        call = asyncio.ensure_future(worker.call(first))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        following = asyncio.gather(worker.call(coroutine), worker.call(trace.append, "third"))
        await asyncio.sleep(0)
        gate.set()
        await following
        assert trace == ["first", "coroutine", "third"]

    async def test_a_call_cancelled_before_its_turn_is_not_run(self, worker):
        begun, gate, ran = threading.Event(), threading.Event(), []
        first = asyncio.ensure_future(worker.call(lambda: (begun.set(), gate.wait(10))))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        second = asyncio.ensure_future(worker.call(ran.append, 2))
        await asyncio.sleep(0)
        second.cancel()
        gate.set()
        await first
        await asyncio.wait([second])
        await worker.call(int)
        assert ran == []

    async def test_a_stuck_thread_is_named_and_left_after_the_timeout(self, caplog):
        gate, worker = threading.Event(), Worker("Stuck")
        call = asyncio.ensure_future(worker.call(gate.wait, 10))
        await asyncio.sleep(0)
        assert await worker.close(0.02) is False
        assert "processor Stuck has been in its call since" in caplog.text
        assert await worker.close(0.0) is False
        gate.set()
        assert await worker.close()
        assert await call

    async def test_no_thread_is_left_once_closed(self):
        before = threads()
        for n in range(5):
            worker = Worker(f"P{n}")
            await worker.call(int)
            assert await worker.close()
        assert threads() == before

    async def test_a_worker_that_is_forgotten_ends_its_thread_as_well(self):
        worker = Worker("Forgotten")
        thread = await worker.call(threading.current_thread)
        del worker
        gc.collect()
        thread.join(5)
        assert not thread.is_alive()

    async def test_without_a_call_there_is_no_thread(self):
        before, worker = threads(), Worker("Idle")
        assert threads() == before
        assert await worker.close()

    def test_a_loop_that_is_closed_meanwhile_does_no_harm(self):
        gate, worker = threading.Event(), Worker("Late")

        async def leave():
            call = asyncio.ensure_future(worker.call(gate.wait, 10))
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])

        asyncio.run(leave())
        gate.set()

        async def again():
            assert await worker.call(int) == 0
            assert await worker.close()

        asyncio.run(again())

    async def test_keeps_nothing_of_a_call_that_is_over(self, worker):
        class Payload:
            pass

        payload = Payload()
        gone = weakref.ref(payload)
        await worker.call(lambda p: None, payload)
        del payload
        gc.disable()  # a reference cycle would keep the payload for as long as it likes
        try:
            await eventually(lambda: gone() is None)
        finally:
            gc.enable()
