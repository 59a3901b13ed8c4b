"""The cloud client against an edge that answers as the flow's runtime does."""

from __future__ import annotations

import threading

import pytest

from pratipad_nb.cloud.client import AsyncCloud, Cloud
from pratipad_nb.errors import (
    DeviceError,
    FlowError,
    OneWayError,
    SettingsError,
    TransportClosed,
    WaitTimeout,
)
from pratipad_nb.settings import Endpoint
from pratipad_nb.transport.codec import decode
from pratipad_nb.transport.frames import OrderFrame


@pytest.fixture
async def cloud(world):
    async with AsyncCloud("house", endpoint=Endpoint(world.url, "house")) as made:
        yield made


async def orders(world):
    log = await world.edge.find_log(world.subjects.order_stream)
    return [order async for record in log.read(1) for order in decode(record.data, OrderFrame).orders]


async def test_it_takes_and_loops_over_what_reaches_output(world, edge, cloud):
    await world.append(3, 2)
    assert [m.payload for m in await cloud.take(2)] == [1, 2]
    assert (await anext(cloud)).payload == 3


async def test_what_is_stored_can_be_taken_while_the_edge_is_away(world, cloud):
    await world.append(1)
    assert [m.payload for m in await cloud.take(1, timeout=5)] == [1]


async def test_a_flow_that_was_never_started_is_named(world, cloud):
    await world.edge.delete_log(world.subjects.output_stream)
    with pytest.raises(WaitTimeout, match=r"the flow 'house' was not started within 0\.2 s"):
        await cloud.take(1, timeout=0.2)


async def test_the_edge_says_that_a_flow_is_fast(world, edge, cloud):
    edge.answers["describe"] = edge.description | {"delivery": "fast"}
    await world.edge.delete_log(world.subjects.output_stream)
    reader = await cloud.opened_reader()
    await world.signal(2)
    assert reader.delivery == "fast"
    assert [m.payload for m in await cloud.take(2)] == [1, 2]


async def test_an_order_is_stored_with_its_id_payload_and_devices(world, edge, cloud):
    ids = [await cloud.send({"led": "on"}, to="room1"), await cloud.send(2, to=["room1", "room2"])]
    ids.append(await cloud.send("all"))
    stored = await orders(world)
    assert [order.id for order in stored] == ids
    assert [order.to for order in stored] == [["room1"], ["room1", "room2"], None]
    assert stored[0].payload == {"led": "on"}


async def test_an_order_whose_answer_was_lost_is_stored_once(world, edge, cloud):
    world.broker.lose_answers("urn:pratipad:house:reader:cloud")
    await cloud.send(1)
    assert len(await orders(world)) == 1


async def test_an_order_that_cannot_pass_is_refused_with_the_hop_shown(world, edge, cloud):
    edge.answers["describe"] = edge.description | {
        "notation": "Push <~> A ~> Output",
        "cloud_reaches_devices": False,
        "text": "an order can't pass arrow 2",
    }
    with pytest.raises(OneWayError, match="can't pass arrow 2"):
        await cloud.send({"led": "on"})
    assert await orders(world) == []


async def test_an_order_to_a_flow_that_is_not_running_says_so(world, cloud):
    with pytest.raises(WaitTimeout, match=r"the flow 'house' does not answer .*flow\.start"):
        await cloud.send(1)


@pytest.mark.parametrize("to", [[], "", "two words", ["room1", 3]])
async def test_an_order_to_what_can_be_no_device_is_refused(world, edge, cloud, to):
    with pytest.raises(SettingsError):
        await cloud.send(1, to=to)


async def test_a_pull_is_done_when_its_readings_have_left_the_pipeline(world, edge, cloud):
    edge.answers |= {
        "pull": {"request": "r1"},
        "request": [{"left": 2, "silent": ["room2"]}, {"left": 0}],
    }
    request = await cloud.pull(3, device="room1")
    assert (request.id, request.left, request.done) == ("r1", 3, False)
    await request.wait(timeout=5)
    assert request.done
    assert ("pull", {"n": 3, "device": "room1"}) in edge.asked


async def test_a_pull_that_is_not_answered_names_the_silent_devices(world, edge, cloud):
    edge.answers |= {"pull": {"request": "r1"}, "request": {"left": 2, "silent": ["a", "b"]}}
    request = await cloud.pull(3)
    with pytest.raises(WaitTimeout, match=r"2 of 3 readings .* silent: a, b"):
        await request.wait(timeout=0.1)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("FlowError", FlowError),
        ("DeviceError", DeviceError),
        ("OneWayError", OneWayError),
        ("Exception", FlowError),
    ],
)
async def test_an_error_of_the_edge_is_raised_as_the_same_class(world, edge, cloud, kind, expected):
    edge.answers["pull"] = {"kind": kind, "text": "Push flows pull nothing"}
    with pytest.raises(FlowError if kind != "DeviceError" else DeviceError, match="pull nothing") as caught:
        await cloud.pull(1)
    assert type(caught.value) is expected


@pytest.mark.parametrize("n", [0, True, "2"])
async def test_a_pull_of_no_whole_number_is_refused(cloud, n):
    with pytest.raises(SettingsError, match="n is"):
        await cloud.pull(n)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reader": "notebook", "server": "tls://x:1"}, "flow's own handle"),
        ({"reader": "two words", "server": "tls://x:1"}, "can't name a reader"),
        ({}, "isn't said where"),
        ({"endpoint": Endpoint("memory://x", "other")}, "of the flow 'other'"),
        ({"endpoint": Endpoint("memory://x", "house"), "server": "tls://x:1"}, "leave out server"),
        ({"server": "tls://x:1", "certs": "/nowhere"}, "no certificate folder"),
    ],
)
def test_what_it_is_made_with_is_checked_at_once(options, said):
    with pytest.raises(SettingsError, match=said):
        Cloud("house", **options)


async def test_a_closed_client_says_so(world, edge, cloud):
    await cloud.close()
    await cloud.close()
    with pytest.raises(TransportClosed, match="closed"):
        await cloud.take(1)


@pytest.fixture
def house(elsewhere):
    with Cloud("house", endpoint=Endpoint(elsewhere.url, "house")) as made:
        yield made


def test_the_synchronous_client_takes_sends_and_pulls(elsewhere, house):
    elsewhere.append(3)
    assert [m.payload for m in house.take(3)] == [1, 2, 3]
    assert house.send({"led": "on"}, to="room1").startswith("cloud-")
    elsewhere.edge.answers |= {"pull": {"request": "r1"}, "request": {"left": 0}}
    request = house.pull(2)
    request.wait(timeout=5)
    assert (request.id, request.done, request.left, request.silent) == ("r1", True, 0, ())


def test_a_loop_that_is_left_goes_on_where_it_was_with_take_and_with_another_loop(elsewhere, house):
    elsewhere.append(4, 4)
    seen = []
    for message in house:
        seen.append(message.payload)
        if message.payload == 2:
            seen += [m.payload for m in house.take(2)]
        if message.payload == 6:
            break
    seen += [next(iter(house)).payload]
    house.close()
    with Cloud("house", endpoint=Endpoint(elsewhere.url, "house")) as again:
        seen += [m.payload for m in again.take(1)]
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]


def test_closing_ends_a_loop_that_waits_in_another_thread(elsewhere, house):
    elsewhere.append(1)
    seen, first = [], threading.Event()

    def loop():
        for message in house:
            seen.append(message.payload)
            first.set()

    thread = threading.Thread(target=loop)
    thread.start()
    assert first.wait(5)
    house.close()
    house.close()
    thread.join(5)
    assert not thread.is_alive()
    assert seen == [1]
    with pytest.raises(TransportClosed):
        house.take(1)


def test_a_take_behind_another_threads_loop_ends_at_its_time_out(elsewhere, house):
    waiting = threading.Thread(target=lambda: list(house))
    waiting.start()
    while not house._messages._turn.locked():
        pass
    with pytest.raises(WaitTimeout, match="another thread"):
        house.take(1, timeout=0.05)
    house.close()
    waiting.join(5)
    assert not waiting.is_alive()


def interrupt_next_call_at_its_end(cloud, monkeypatch):
    """Have the next call into the event loop end in Ctrl-C, which comes when its work is done."""
    run = cloud._portal.run

    def interrupted(work, *arguments, **options):
        monkeypatch.undo()
        run(work, *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(cloud._portal, "run", interrupted)


def test_a_take_interrupted_when_its_messages_are_there_leaves_them_to_the_next(
    elsewhere, house, monkeypatch
):
    elsewhere.append(3, 3)
    assert [m.payload for m in house.take(1)] == [1]
    interrupt_next_call_at_its_end(house, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        house.take(3)
    with Cloud("house", endpoint=Endpoint(elsewhere.url, "house")) as other:
        assert [m.payload for m in other.take(2)] == [2, 3]
    assert [m.payload for m in house.take(3)] == [4, 5, 6]


def test_a_loop_interrupted_when_its_messages_are_there_leaves_them_to_the_next(
    elsewhere, house, monkeypatch
):
    elsewhere.append(3, 3)
    assert next(iter(house)).payload == 1
    assert [m.payload for m in house.take(1)] == [2]
    interrupt_next_call_at_its_end(house, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        next(iter(house))
    loop = iter(house)
    assert [next(loop).payload for _ in range(2)] == [3, 4]
    assert [m.payload for m in house.take(2)] == [5, 6]


def test_a_list_that_a_take_returned_is_its_callers(elsewhere, house):
    elsewhere.append(3)
    house.take(2).clear()
    assert [m.payload for m in house.take(1)] == [3]


def test_what_the_synchronous_client_has_its_twin_has_too():
    assert {name for name in dir(Cloud) if not name.startswith("_")} <= set(dir(AsyncCloud))
