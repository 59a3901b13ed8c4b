"""`AsyncDevice` and an edge over the in-memory transport: credit, receipts, faults, taking over, closing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from patience import eventually

from pratipad_nb.device import greeter
from pratipad_nb.device.client import AsyncDevice
from pratipad_nb.device.outbox import MAX_HELD
from pratipad_nb.errors import DeviceError, NotInvited, PayloadError, SettingsError, WaitTimeout
from pratipad_nb.settings import Endpoint
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import CreditFrame
from pratipad_nb.transport.memory import MemoryConnection


async def connected(edge: Any, name: str = "room1", **what: Any) -> AsyncDevice:
    return await AsyncDevice(name, **what).connect(edge.endpoint)


# -- sending and receipts ------------------------------------------------------------------------------------


async def test_a_pushed_message_arrives_once_and_its_receipt_tells(edge: Any) -> None:
    async with await connected(edge) as device:
        receipt = await device.push({"t": 21.5})
        await receipt
        assert receipt.done
        await eventually(lambda: edge.frames)
        assert edge.payloads == [{"t": 21.5}]
        assert (edge.frames[0].first, edge.frames[0].device) == (1, "room1")
        assert repr(device) == "<AsyncDevice 'room1' of 'house': connected, 1 sent, 0 waiting>"


async def test_what_is_pushed_while_a_frame_is_in_flight_travels_in_the_next_one(edge: Any) -> None:
    async with await connected(edge) as device:
        await device.push(0)
        await device.flush()
        for number in range(1, 5001):
            await device.push(number)
        await device.flush()
        await eventually(lambda: len(edge.payloads) == 5001)
        assert edge.payloads == list(range(5001))
        assert edge.numbers == list(range(1, 5002))
        assert len(edge.frames) < 10


async def test_changing_a_payload_after_the_push_changes_nothing(edge: Any) -> None:
    async with await connected(edge) as device:
        payload = {"n": 1}
        receipt = await device.push(payload)
        payload["n"] = 2
        await receipt
        await eventually(lambda: edge.frames)
        assert edge.payloads == [{"n": 1}]


async def test_a_payload_that_can_not_travel_fails_at_the_push(edge: Any) -> None:
    async with await connected(edge) as device:
        with pytest.raises(PayloadError, match="object"):
            await device.push({"what": object()})
        with pytest.raises(PayloadError, match="20000005 bytes; at most 83"):
            await device.push(b"x" * 20_000_000)
        with pytest.raises(PayloadError, match="receiver's memory"):
            await device.push([[]] * 1_200_000)
        await (await device.push("fine"))


async def test_push_waits_while_the_buffer_is_full(edge: Any) -> None:
    edge.auto = ("demand", 0, "durable")
    device = await connected(edge)
    for number in range(MAX_HELD):
        await device.push(number)
    waiting = asyncio.ensure_future(device.push("one more"))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await edge.grant(MAX_HELD + 1)
    await (await waiting)
    await device.close()


async def test_fast_delivery_hands_frames_over_without_a_log(edge: Any) -> None:
    await edge.link.delete_log(edge.subjects.input_stream)
    await edge.link.subscribe(edge.subjects.up_all, edge.take)
    edge.auto = ("push", -1, "fast")
    async with await connected(edge) as device:
        for number in range(100):
            await device.push(number)
        await device.flush()
        await eventually(lambda: len(edge.payloads) == 100)
        assert edge.payloads == list(range(100))


# -- faults --------------------------------------------------------------------------------------------------


async def test_an_append_without_an_answer_is_repeated_with_the_same_numbers(edge: Any) -> None:
    device = await connected(edge)
    await device.flush()
    await eventually(lambda: device.mode == "push")
    edge.broker.lose_answers(edge.identity(), 1)
    await (await device.push("a"))
    await (await device.push("b"))
    await eventually(lambda: len(edge.frames) == 3)
    assert edge.numbers == [1, 1, 2]
    assert edge.payloads == ["a", "a", "b"]
    await device.close()


async def test_a_full_log_makes_the_device_wait_and_lose_nothing(edge: Any) -> None:
    await edge.stop()
    edge.link = await _another_link(edge)
    await edge.link.subscribe(edge.subjects.hello_all, edge._on_hello)
    await edge.open_log(max_bytes=2048, read=False)
    async with await connected(edge) as device:
        for number in range(20):
            await device.push(b"x" * 500 + bytes([number]))
            await asyncio.sleep(0)
        with pytest.raises(WaitTimeout, match=r"messages of device 'room1' are not safe after 0\.1 s"):
            await device.flush(0.1)
        await edge.open_log(max_bytes=2048)
        await device.flush()
        await eventually(lambda: len(edge.payloads) == 20)
        assert [payload[-1] for payload in edge.payloads] == list(range(20))


async def _another_link(edge: Any) -> Any:
    return MemoryConnection(edge.broker, identity="edge", name="edge")


async def test_a_device_that_starts_before_its_flow_goes_on_trying(edge: Any) -> None:
    await edge.link.delete_log(edge.subjects.input_stream)
    async with await connected(edge) as device:
        receipt = await device.push("early")
        await eventually(lambda: device.mode == "push")
        assert not receipt.done
        await edge.open_log()
        await receipt
        await eventually(lambda: edge.payloads == ["early"])


async def test_a_link_that_was_down_costs_nothing_and_is_greeted_when_it_is_back(edge: Any) -> None:
    async with await connected(edge) as device:
        await (await device.push(1))
        edge.broker.cut(edge.identity())
        assert device.state == "link down"
        receipt = await device.push(2)
        greeted = len(edge.hellos)
        await asyncio.sleep(0.3)
        edge.broker.heal(edge.identity())
        await receipt
        await eventually(lambda: len(edge.hellos) > greeted)
        await eventually(lambda: edge.payloads == [1, 2])


async def test_a_device_that_may_not_send_fails_and_says_why(
    edge: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(*_: object, **__: object) -> int:
        raise NotInvited("permissions don't let you")

    device = await connected(edge)
    await eventually(lambda: device.mode == "push")
    monkeypatch.setattr(MemoryConnection, "append", refuse)
    receipt = await device.push(1)
    with pytest.raises(NotInvited, match="permissions"):
        await receipt
    with pytest.raises(NotInvited, match="permissions"):
        await device.push(2)
    assert device.state.startswith("failed: permissions")
    with pytest.raises(DeviceError, match="1 messages"):
        await device.close()
    assert "room1 stopped" in caplog.text


# -- credit --------------------------------------------------------------------------------------------------


async def test_nothing_is_sent_before_an_edge_has_granted_anything(edge: Any) -> None:
    edge.auto = None
    device = await connected(edge)
    await device.push(1)
    await eventually(lambda: edge.hellos and edge.hello.waiting == 1)  # it knows what it could send
    assert edge.frames == []
    with pytest.raises(DeviceError, match=r"1 messages of device 'room1'.*no running flow has answered"):
        await device.close(timeout=0.05)


async def test_in_demand_mode_exactly_what_was_granted_is_sent(edge: Any) -> None:
    edge.auto = ("demand", 0, "durable")
    device = await connected(edge)
    for number in range(1, 11):
        await device.push(number)
    await edge.grant(3)
    await edge.grant(3)
    await eventually(lambda: len(edge.payloads) == 3)
    await edge.grant(7)
    await eventually(lambda: len(edge.payloads) == 7)
    await eventually(lambda: edge.hello.waiting == 3)
    assert edge.payloads == [1, 2, 3, 4, 5, 6, 7]
    await edge.grant(10)
    await device.flush()
    await device.close()


async def test_the_edge_is_told_when_something_begins_to_wait(edge: Any) -> None:
    edge.auto = ("demand", 0, "durable")
    async with await connected(edge) as device:
        await eventually(lambda: device.mode == "demand")
        edge.auto = None
        assert edge.hello.waiting == 0
        await device.push(1)
        await eventually(lambda: edge.hello.waiting == 1)
        await edge.grant(1)
        await device.flush()


async def test_a_later_edge_may_grant_less_and_is_obeyed(edge: Any) -> None:
    edge.auto = ("push", -1, "durable")
    device = await connected(edge)
    await (await device.push(1))
    edge.auto, edge.owner = None, 2
    await edge.grant(1, mode="demand")
    await eventually(lambda: device.mode == "demand")
    await device.push(2)
    await eventually(lambda: edge.hello.waiting == 1)
    assert edge.payloads == [1]
    with pytest.raises(DeviceError, match="hasn't asked for them"):
        await device.close(timeout=0.05)


async def test_signals_that_are_no_frames_are_counted_and_ignored(edge: Any) -> None:
    async with await connected(edge) as device:
        await eventually(lambda: device.mode == "push")
        for junk in (
            b"",
            b"+ACK",
            b"PNB\x00\xff",
            b'{"stream":"UP_house","seq":1}',
            encode(CreditFrame("x", 1, 1, 1)),
        ):
            await edge.link.publish(edge.subjects.credit("room1"), junk)
            await edge.link.publish(edge.subjects.down("room1"), junk)
        engine = device._engine
        assert engine is not None
        await eventually(lambda: engine.rejected == 10)
        await (await device.push("alive"))


async def test_a_device_that_holds_messages_while_another_of_its_name_is_granted_says_hello_no_less_often(
    edge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greeter, "HELLO_SECONDS", 0.05)
    edge.auto = ("demand", 0, "durable")
    device = await connected(edge)
    await device.push("held")
    for count in range(1, 12):  # at pauses that double, the last hello would be said after a minute
        await eventually(lambda count=count: len(edge.hellos) > count)
        await edge.grant(100, epoch=999)
    await edge.grant(1)
    await eventually(lambda: edge.payloads == ["held"])
    await device.close()


async def test_hello_is_said_until_an_edge_answers(edge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeter, "HELLO_SECONDS", 0.02)
    edge.auto = None
    async with await connected(edge) as device:
        await eventually(lambda: len(edge.hellos) > 3)
        await edge.grant(-1, mode="push")
        await eventually(lambda: device.mode == "push")
        await edge.link.flush()
        answered = len(edge.hellos)
        await asyncio.sleep(0.1)
        assert len(edge.hellos) == answered


async def test_every_device_greets_an_edge_that_has_started(edge: Any) -> None:
    async with await connected(edge) as device:
        await eventually(lambda: device.mode == "push")
        greeted = len(edge.hellos)
        await edge.link.publish(edge.subjects.credit_all, encode(CreditFrame("push", 2, -1, 0)))
        await eventually(lambda: len(edge.hellos) > greeted)


# -- life ----------------------------------------------------------------------------------------------------


async def test_closing_sends_what_is_held_and_says_farewell(edge: Any) -> None:
    device = await connected(edge)
    for number in range(1000):
        await device.push(number)
    await device.close()
    await device.close()
    await eventually(lambda: len(edge.payloads) == 1000 and edge.hello.leaving)
    assert edge.hello.sent == 1000
    assert device.state == "closed"
    with pytest.raises(DeviceError, match=r"'room1' is closed"):
        await device.push(1)
    with pytest.raises(DeviceError, match="Make a new Device"):
        await device.connect(edge.endpoint)


async def test_nothing_of_a_closed_device_remains(edge: Any) -> None:
    await asyncio.sleep(0)
    before = asyncio.all_tasks()
    device = await connected(edge, read=lambda: 1, every=0.01, receive=print)
    await eventually(lambda: len(edge.payloads) > 2)
    await device.close()
    await asyncio.sleep(0.01)
    assert {
        task
        for task in asyncio.all_tasks() - before
        if "hello" in task.get_name() or "room1" in task.get_name()
    } == set()
    assert edge.link.broker.connections() == {edge.link.identity: 1}
    assert edge.endpoint.url not in str(AsyncDevice._holders._holders)


async def test_a_second_device_of_the_name_takes_over_and_nothing_is_lost(edge: Any) -> None:
    first = await connected(edge)
    await first.push("first")
    second = await connected(edge)
    assert first.state == "closed: a newer device of that name took over"
    with pytest.raises(DeviceError, match="a newer device"):
        await first.push("late")
    await (await second.push("second"))
    await eventually(lambda: edge.payloads == ["first", "second"])
    assert edge.frames[0].epoch != edge.frames[1].epoch
    await first.close()
    await second.close()


async def test_connecting_the_same_device_again_to_the_same_flow_changes_nothing(edge: Any) -> None:
    async with await connected(edge) as device:
        assert await device.connect(edge.endpoint) is device
        with pytest.raises(DeviceError, match="connects once only"):
            await device.connect(Endpoint("memory://elsewhere", "house"))
        await (await device.push(1))


async def test_a_flow_invites_the_device_that_connects_to_it(edge: Any) -> None:
    class Flow:
        def endpoint_for(self, role: str, name: str) -> Endpoint:
            asked.append((role, name))
            return edge.endpoint

    class AsyncFlow:
        async def endpoint_for(self, role: str, name: str) -> Endpoint:
            asked.append((role, name))
            return edge.endpoint

    class WithEndpoint:
        endpoint = edge.endpoint

    asked: list[tuple[str, str]] = []
    for name, target in (("a", Flow()), ("b", AsyncFlow()), ("c", WithEndpoint())):
        async with await AsyncDevice(name).connect(target) as device:
            assert device.flow == "house"
    assert asked == [("device", "a"), ("device", "b")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nats://host:4222", {"flow": "house"}), "no connection without TLS"),
        (("tls://host:4222", {"flow": "house"}), "certs=FOLDER"),
        (("tls://host:4222", {}), "flow's name"),
        ((42, {}), "nothing to connect to"),
        ((Endpoint("memory://x", "house"), {"flow": "house"}), "go with a URL alone"),
    ],
)
async def test_what_can_not_be_connected_to_says_what_can(arguments: Any, words: str) -> None:
    target, options = arguments
    with pytest.raises(SettingsError, match=words):
        await AsyncDevice("room1").connect(target, **options)


def test_arguments_are_checked_in_the_line_that_has_them() -> None:
    for wrong in ({"read": 3}, {"read": "text"}, {"receive": 3}, {"read": print, "every": 0}, {"every": 1.0}):
        with pytest.raises(DeviceError):
            AsyncDevice("room1", **wrong)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="room_1"):
        AsyncDevice("room 1")


async def test_after_a_broken_link_no_more_is_sent_until_the_edge_has_said_what_still_holds(
    edge: Any,
) -> None:
    edge.auto = ("pull", 0, "durable")
    async with await AsyncDevice("room1").connect(edge.endpoint) as device:
        await eventually(lambda: device.mode == "pull")
        edge.auto = None
        edge.broker.cut(edge.identity())
        await eventually(lambda: not device.connected)
        for number in range(3):
            await device.push(number)
        for _ in range(10):  # the uplink has seen that there is no credit
            await asyncio.sleep(0)
        device._credit.total = 3  # an edge has granted it three, and has asked another since
        greeted = len(edge.hellos)
        edge.broker.heal(edge.identity())
        await eventually(lambda: len(edge.hellos) > greeted)
        assert (edge.payloads, device.waiting) == ([], 3)
        edge.owner += 1
        await edge.grant(1, mode="pull")
        await eventually(lambda: edge.payloads == [0])
        await eventually(lambda: edge.hello.owner == edge.owner)
        assert (edge.hello.sent, edge.hello.waiting) == (1, 2)
        await edge.grant(3, mode="pull")
        await eventually(lambda: edge.payloads == [0, 1, 2])


async def test_a_device_whose_grant_is_taken_back_says_at_once_what_it_has_sent(edge: Any) -> None:
    edge.auto = ("pull", 5, "durable")
    async with await AsyncDevice("room1").connect(edge.endpoint) as device:
        await (await device.push(1))
        edge.auto = None
        edge.owner += 1
        await edge.grant(0, mode="pull")
        await eventually(lambda: edge.hello.owner == edge.owner)
        assert (edge.hello.sent, edge.hello.waiting) == (1, 0)
        await device.push(2)
        await eventually(lambda: edge.hello.waiting == 1)
        assert edge.payloads == [1]
        await edge.grant(2, mode="pull")
        await eventually(lambda: edge.payloads == [1, 2])
