"""Waiting for readings that were asked for, and giving up on them."""

import asyncio
import threading

import pytest

from pratipad_nb import AsyncFlow, Device, Flow
from pratipad_nb.errors import FlowError, SettingsError, WaitTimeout


def same(payload):
    return payload


@pytest.fixture
def flow(url):
    with Flow("Pull <~> same <~> Output", name="meter", server=url) as flow:
        yield flow


@pytest.mark.parametrize("n", [0, 2.5, True, 10**12])
def test_a_number_of_readings_that_can_not_be_is_refused(flow, n):
    with pytest.raises(
        SettingsError, match=r"pull: n is .*; it must be a whole number from 1 to 1,000,000\."
    ):
        flow.pull(n)


@pytest.mark.parametrize("timeout", ["x", -1, float("nan"), True])
def test_a_wait_that_can_not_be_is_refused(flow, timeout):
    with pytest.raises(SettingsError, match=r"wait: timeout is .*; it must be seconds"):
        flow.pull(1).wait(timeout)


def test_a_wait_ends_with_the_flow_and_says_how_far_it_came(flow, until):
    with Device("room1", read=[1, 2]).connect(flow):
        request, raised = flow.pull(5), []
        flow.take(2)

        def wait():
            try:
                request.wait(None)
            except FlowError as error:
                raised.append(str(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        until(lambda: request._request._request.done._waiters)
        flow.stop()
        waiting.join(10)
    assert raised[0].startswith("flow 'meter' ended while ")
    assert repr(request) == "<Request to 'meter': 3 of 5 readings left, the flow ended>"
    with pytest.raises(
        FlowError, match=r"ended while 3 of 5 readings were waited for\. Start it .* pull again"
    ):
        request.wait(1)


async def test_a_request_of_a_run_that_is_over_does_not_wait_at_all(url):
    flow = AsyncFlow("Pull <~> same <~> Output", name="meter", server=url)
    await flow.start()
    request = await flow.pull(3)
    await flow.stop()
    await flow.start()
    with pytest.raises(
        FlowError, match=r"ended while 3 of 3 readings were waited for\. Start it .* pull again"
    ):
        await asyncio.wait_for(request.wait(None), 5)
    await flow.stop()


def test_a_request_that_is_cancelled_asks_for_no_more_and_wakes_who_waits(flow, until):
    request = flow.pull(1_000_000)
    raised = []

    def wait():
        try:
            request.wait(None)
        except FlowError as error:
            raised.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    request.cancel()
    request.cancel()
    waiting.join(10)
    assert raised == [
        "the request was cancelled before 1000000 of 1000000 readings had come. Pull again for more."
    ]
    assert repr(request) == "<Request to 'meter': 1000000 of 1000000 readings left, cancelled>"
    read = []

    def reading():
        read.append(1)
        return 1

    with Device("room1", read=reading).connect(flow):
        flow.pull(2).wait(10)
        flow.settled()
    assert len(read) == 2
    with pytest.raises(WaitTimeout):
        flow.take(3, timeout=0.1)


def test_a_request_that_is_done_stays_so(flow):
    with Device("room1", read=[1, 2, 3]).connect(flow):
        request = flow.pull(2)
        request.wait(10)
        request.cancel()
    flow.stop()
    request.wait(0)
    assert (request.done, request.left, request.state) == (True, 0, "done")


def test_a_request_that_its_flow_has_ended_stays_as_it_is(flow):
    request = flow.pull(5)
    flow.stop()
    request.cancel()
    assert request.state == "5 of 5 readings left, the flow ended"


async def test_a_request_that_its_asynchronous_flow_has_ended_stays_as_it_is(url):
    async with AsyncFlow("Pull <~> same <~> Output", name="meter", server=url) as flow:
        request = await flow.pull(5)
    await request.cancel()
    assert request.state == "5 of 5 readings left, the flow ended"
