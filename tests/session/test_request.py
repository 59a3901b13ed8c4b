"""Waiting for readings that were asked for, and giving up on them."""

import asyncio
import threading

import pytest

from pratipad_nb import AsyncCloud, AsyncDevice, AsyncFlow, Cloud, Device, Flow
from pratipad_nb.errors import DeviceError, FlowError, SettingsError, WaitTimeout
from pratipad_nb.session import AsyncRequest, Request


def same(payload):
    return payload


def public(value):
    return {name for name in dir(value) if not name.startswith("_")}


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
        until(lambda: request._twin._asked._request.done._waiters)
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


@pytest.fixture(params=["flow", "cloud"])
def puller(request, flow):
    """What pulls readings: the flow's own handle, or a cloud's, which asks the edge from outside."""
    if request.param == "flow":
        yield flow
        return
    with Cloud(flow) as cloud:
        yield cloud


def test_every_handle_returns_the_same_request(flow):
    with Cloud(flow) as cloud:
        requests = [flow.pull(1), cloud.pull(1)]
    assert [type(request) for request in requests] == [Request, Request]
    assert len({request.id for request in requests}) == 2


async def test_every_asynchronous_handle_returns_the_same_request_which_can_be_awaited(url):
    async with (
        AsyncFlow("Pull <~> same <~> Output", name="meter", server=url) as flow,
        await AsyncDevice("room1", read=lambda: 1).connect(flow),
        AsyncCloud(flow) as cloud,
    ):
        requests = [await flow.pull(2), await cloud.pull(3)]
        assert [type(request) for request in requests] == [AsyncRequest, AsyncRequest]
        for request in requests:
            await request
            assert (request.done, request.left, request.silent, request.state) == (True, 0, (), "done")


async def test_the_asynchronous_request_has_what_the_other_has(url):
    async with AsyncFlow("Pull <~> same <~> Output", name="meter", server=url) as flow:
        request = await flow.pull(1)
        assert public(request) == public(Request)


def test_a_request_tells_how_far_it_is_and_who_is_silent(puller, flow):
    with Device("room1", read=lambda: 1).connect(flow):
        request = puller.pull(3)
        assert (request.n, request.id[-2:]) == (3, "-1")
        request.wait(10)
        assert (request.done, request.left, request.silent) == (True, 0, ())
    with Device("mute").connect(flow):
        request = puller.pull(2, device="mute")
        with pytest.raises(
            WaitTimeout, match=r"2 of 2 readings have not come in 0\.1 s; silent: mute\. See .*cancel"
        ):
            request.wait(0.1)
    assert (request.done, request.left, request.silent) == (False, 2, ("mute",))
    assert repr(request) == "<Request to 'meter': 2 of 2 readings left>"


def test_a_request_can_be_cancelled_from_every_handle_and_then_nobody_waits_for_it(puller):
    request = puller.pull(5)
    request.cancel()
    request.cancel()
    assert request.state == "5 of 5 readings left, cancelled"
    with pytest.raises(FlowError, match=r"cancelled before 5 of 5 readings had come\. Pull again"):
        request.wait(10)


def test_a_request_that_nobody_can_answer_says_so(puller):
    with pytest.raises(WaitTimeout, match="silent: no device is connected that could be asked"):
        puller.pull(2).wait(0.05)


@pytest.mark.parametrize("timeout", ["x", -1, float("nan"), True])
def test_a_wait_that_can_not_be_is_refused_by_every_handle(puller, timeout):
    with pytest.raises(SettingsError, match=r"wait: timeout is .*; it must be seconds"):
        puller.pull(1).wait(timeout)


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ((0,), SettingsError, r"pull: n is 0; it must be a whole number from 1 to 1,000,000\."),
        ((1_000_001,), SettingsError, r"pull: n is 1000001; .* to 1,000,000\."),
        ((1, "two words"), SettingsError, "can't name a device"),
        ((1, "nobody"), DeviceError, r"no device 'nobody' has connected to this flow\. Known: none yet"),
    ],
)
def test_every_handle_refuses_the_same_in_the_same_words(puller, arguments, kind, said):
    with pytest.raises(kind, match=said):
        puller.pull(*arguments)


def test_requests_that_nobody_answers_come_to_a_bound_which_the_error_names(puller):
    requests = [puller.pull(1) for _ in range(1000)]
    with pytest.raises(
        FlowError, match=r"1,000 requests of this flow are open, and 1,000 may be\. Wait for some"
    ):
        puller.pull(1)
    requests[0].cancel()
    puller.pull(1)


def test_a_flow_that_begins_with_another_word_from_now_on_ends_its_requests(puller, flow):
    request = puller.pull(5)
    flow.update("Push <~> same <~> Output", namespace={"same": same})
    with pytest.raises(
        FlowError, match=r"ended before 5 of 5 readings had come: the flow begins with Push now\."
    ):
        request.wait(10)
    assert request.state == "5 of 5 readings left, the flow begins with Push now"
    with Device("room1").connect(flow) as device:
        for number in range(20):
            device.push(number)
        assert [message.payload for message in flow.take(20)] == list(range(20))


def test_a_cloud_that_asks_about_a_request_of_an_earlier_run_is_told(flow):
    with Cloud(flow) as cloud:
        request = cloud.pull(5)
        flow.stop()
        flow.start()
        with pytest.raises(FlowError, match=r"request .*-1 is not known: the flow was started anew since"):
            request.wait(10)
        assert request.state == "5 of 5 readings left, the edge doesn't know it any more"
        with pytest.raises(
            FlowError, match="ended before 5 of 5 readings had come: the edge doesn't know it"
        ):
            request.wait(10)
