"""Requests of readers: whatever they hold, the edge answers or refuses them, and goes on."""

from __future__ import annotations

import asyncio
import math

import pytest

from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ControlFrame
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.protocol import Signal

INBOX = Party("house", "reader", "desk").inbox


@pytest.fixture
async def asked(memory, edges):
    """Give a running edge, and a function that asks it as the reader "desk" and returns the answers."""
    edge = await edges.running("Pull <~> same <~> Output")
    connection = await memory.connection()
    got: list[ControlFrame] = []
    await connection.subscribe(f"{INBOX}.*", lambda signal: got.append(decode(signal.data, ControlFrame)))

    async def ask(*requests: ControlFrame) -> list[ControlFrame]:
        for number, request in enumerate(requests):
            edge._answers.on_signal(_signal(memory, encode(request), number))
        async with asyncio.timeout(20):
            while len(got) < len(requests):
                await asyncio.sleep(0.001)
        return got

    return edge, ask


def _signal(memory, data, number=0):
    return Signal(memory.subjects.control("desk"), data, f"{INBOX}.{number}")


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("request", {"request": 5, "timeout": 1.0}),
        ("request", {"request": b"-", "timeout": 1.0}),
        ("request", {"request": ["-"], "timeout": 1.0}),
        ("request", {"request": "x", "timeout": "1"}),
        ("request", {"request": "x"}),
        ("request", {"request": "x", "timeout": None}),
        ("cancel", {"request": 2**64 - 1}),
        ("cancel", {"request": {}}),
        ("pull", {"n": 2**64 - 1}),
        ("pull", {"n": True}),
        ("pull", {"n": 1.5}),
        ("pull", {"n": "1", "device": None}),
        ("pull", {"n": 1, "device": 7}),
        ("pull", {"n": 1, "device": ["room1"]}),
        ("pull", {"n": 1, "self": 1}),
        ("stats", {"self": 1}),
        ("describe", {"": None}),
        ("reader", {"domain": 5}),
        ("reader", {"reader": "another", "domain": ""}),
        ("who", {"x": 1}),
        ("", {}),
        ("__init__", {}),
    ],
)
async def test_a_request_of_wrong_arguments_is_answered_by_what_is_wrong(asked, verb, arguments):
    edge, ask = asked
    (answer,) = await ask(ControlFrame(verb, arguments))
    assert (answer.verb, len(answer.arguments["text"]) < 1000) == ("error", True)
    assert edge.state == "running"


async def test_a_request_whose_number_is_too_long_to_be_read_is_not_known(asked):
    edge, ask = asked
    run = edge.parts.requests._run
    (answer,) = await ask(ControlFrame("cancel", {"request": f"{run}-{'9' * 3000}"}))
    assert (answer.verb, edge.state) == ("error", "running")


@pytest.mark.parametrize("timeout", [math.nan, math.inf, -math.inf, -1.0, 1e300])
async def test_a_wait_that_is_no_time_leaves_the_timers_in_order(asked, timeout):
    edge, ask = asked
    request = edge.parts.requests.pull(1, by="desk")
    asyncio.get_running_loop().call_later(0.05, request.cancel)
    await ask(*[ControlFrame("request", {"request": request.id, "timeout": timeout})] * 50)
    begun = asyncio.get_running_loop().time()
    await asyncio.gather(*(asyncio.sleep(seconds / 1000) for seconds in range(50, 0, -1)))
    assert asyncio.get_running_loop().time() - begun < 5


async def test_a_request_that_is_too_long_is_refused_and_counted(asked, memory):
    edge, ask = asked
    edge._answers.on_signal(_signal(memory, b"x" * 5000))
    (answer,) = await ask(ControlFrame("describe"))
    assert (answer.verb, edge._answers.refusals.count) == ("ok", 1)


async def test_many_requests_of_one_reader_keep_no_other_from_being_answered(asked, memory):
    edge, ask = asked
    request = edge.parts.requests.pull(1, by="hostile")
    waits = encode(ControlFrame("request", {"request": request.id, "timeout": 5.0}))
    hostile = Party("house", "reader", "hostile").inbox
    for _ in range(3000):
        edge._answers.on_signal(Signal(memory.subjects.control("hostile"), waits, f"{hostile}.1"))
    async with asyncio.timeout(4):  # less than the hostile requests wait
        (answer,) = await ask(ControlFrame("describe"))
    assert answer.verb == "ok"
    assert edge._answers.refusals.count == 3000 - 1024
    request.cancel()


async def test_many_requests_for_the_counters_share_one_look_at_all_devices(asked, monkeypatch):
    edge, ask = asked
    looks = []
    snapshot = edge.snapshot
    monkeypatch.setattr(edge, "snapshot", lambda: looks.append(1) or snapshot())
    answers = await ask(*[ControlFrame("stats")] * 200)
    assert {answer.verb for answer in answers} == {"ok"}
    assert answers[0].arguments["name"] == "house"
    assert 0 < len(looks) < 20


async def test_a_reader_can_not_cancel_the_requests_of_others(asked):
    edge, ask = asked
    own, others = edge.parts.requests.pull(1), edge.parts.requests.pull(1, by="another")
    answers = await ask(*[ControlFrame("cancel", {"request": each.id}) for each in (own, others)])
    assert [answer.verb for answer in answers] == ["error", "error"]
    assert not own.ended
    assert not others.ended
