"""The portal: work on an event loop of its own, from anywhere, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from pratipad_nb.errors import FlowError, WaitTimeout
from pratipad_nb.portal import Portal, PortalClosed, shared_portal


@pytest.fixture
def portal() -> Iterator[Portal]:
    with Portal("test-portal") as portal:
        yield portal


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


class Endless:
    """A coroutine that waits for ever, and says when it started and when it was cancelled."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.cancelled = threading.Event()

    async def __call__(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def test_work_runs_in_the_portals_thread_and_returns_its_result(portal: Portal) -> None:
    async def where() -> str:
        return threading.current_thread().name

    assert portal.run(double(21)) == 42
    assert portal.run(where()) == "test-portal"


async def test_it_works_in_a_thread_whose_own_loop_runs(portal: Portal) -> None:
    assert portal.run(double(2)) == 4


def test_an_error_of_the_work_reaches_the_caller(portal: Portal) -> None:
    async def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own") as caught:
        portal.run(fail(), timeout=5)
    assert not isinstance(caught.value, WaitTimeout)


def test_work_that_takes_too_long_is_cancelled(portal: Portal) -> None:
    endless = Endless()
    with pytest.raises(WaitTimeout, match=r"longer than 0\.05 s"):
        portal.run(endless(), timeout=0.05)
    assert endless.cancelled.wait(5)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Let SIGINT raise `KeyboardInterrupt`, whatever a test before has made of the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_cancels_the_work_and_goes_on(portal: Portal) -> None:
    endless = Endless()
    interrupt_when(endless.started, endless.cancelled)
    with pytest.raises(KeyboardInterrupt):
        portal.run(endless())
    assert endless.cancelled.wait(5)
    assert portal.run(double(1)) == 2


def interrupt_when(started: threading.Event, noticed: threading.Event) -> None:
    """Have Ctrl-C come to the main thread, once `started` is set and it waits for the portal's answer.

    A signal that comes between Python's look for one and the system's wait wakes nobody: another signal
    follows until the interrupt is `noticed`.
    """
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        started.wait(5)
        while sys._current_frames()[main].f_code.co_name != "wait":
            time.sleep(0.001)
        while not noticed.is_set():
            signal.pthread_kill(main, signal.SIGINT)
            noticed.wait(1.0)

    threading.Thread(target=interrupt).start()


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_waits_for_what_the_work_does_about_its_cancellation(portal: Portal) -> None:
    started, noticed, done = threading.Event(), threading.Event(), []

    async def puts_back() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            noticed.set()
            await asyncio.sleep(0.1)
            done.append("put back")

    interrupt_when(started, noticed)
    with pytest.raises(KeyboardInterrupt):
        portal.run(puts_back())
    assert done == ["put back"]


def test_an_interrupt_before_the_work_is_scheduled_leaves_nothing(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(portal, "_scheduled", interrupted)
    endless = Endless()
    with pytest.raises(KeyboardInterrupt):
        portal.run(endless())
    assert not endless.started.is_set()
    assert portal.run(double(1)) == 2


def test_waiting_on_the_portals_own_loop_is_refused_and_not_a_deadlock(portal: Portal) -> None:
    async def wait_inside() -> None:
        portal.run(double(1))

    with pytest.raises(FlowError, match="asynchronous twin") as caught:
        portal.run(wait_inside(), timeout=5)
    assert str(caught.value).startswith("double() was called on the event loop that has to run it")

    async def wait_by_its_name() -> None:
        portal.run(double(1), called="flow.send")

    with pytest.raises(FlowError, match=r"Write `await asyncio\.to_thread\(flow\.send, …\)`"):
        portal.run(wait_by_its_name(), timeout=5)


def test_what_is_waited_for_when_the_portal_closes_is_an_error_that_says_so() -> None:
    endless, raised = Endless(), []
    portal = Portal("closing-portal")

    def wait() -> None:
        try:
            portal.run(endless(), called="flow.settled")
        except PortalClosed as error:
            raised.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    endless.started.wait(5)
    portal.close()
    waiting.join(5)
    (text,) = raised
    assert text.startswith("flow.settled() was cut off before its end: 'closing-portal'")


def test_closing_cancels_what_is_left_and_ends_the_thread() -> None:
    endless = Endless()
    portal = Portal("closing-portal")
    future = portal.submit(endless())
    assert endless.started.wait(5)
    portal.close()
    portal.close()
    assert endless.cancelled.is_set()
    assert future.cancelled()
    assert portal.loop.is_closed()
    assert "closing-portal" not in threads()


def test_a_closed_portal_refuses_work_and_leaves_no_coroutine_unawaited() -> None:
    portal = Portal("closed-portal")
    portal.close()
    with pytest.raises(FlowError, match="'closed-portal' is closed"):
        portal.run(double(1))


def test_a_portal_may_be_closed_from_its_own_thread() -> None:
    portal = Portal("suicidal-portal")

    async def close() -> None:
        portal.close()

    portal.run(close())
    portal.close()
    assert "suicidal-portal" not in threads()


def test_a_task_that_swallows_its_cancellation_is_named_and_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pratipad_nb.portal._PATIENCE", 0.2)
    portal, enough = Portal("stuck-portal"), threading.Event()

    async def stubborn() -> None:
        while not enough.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    async def begin() -> None:
        begun.append(asyncio.create_task(stubborn(), name="stubborn one"))

    begun: list[asyncio.Task[None]] = []
    portal.run(begin())
    portal.close()
    assert "stuck-portal is left behind: cancelling did not end stubborn one" in caplog.text
    enough.set()
    portal.close()
    assert "stuck-portal" not in threads()


def test_the_shared_portal_is_one_and_ends_with_its_last_lease() -> None:
    first, second = shared_portal(), shared_portal()
    assert first.portal is second.portal
    first.release()
    first.release()
    assert second.portal.run(double(4)) == 8
    second.release()
    assert "pratipad-portal" not in threads()
    with shared_portal() as portal:
        assert portal.run(double(5)) == 10
    assert "pratipad-portal" not in threads()
