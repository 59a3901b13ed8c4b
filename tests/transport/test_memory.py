"""The in-memory transport beyond the contract: faults, a clock of one's own, several loops at once."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import threading

import pytest

from pratipad_nb.errors import SettingsError, TransportClosed, TransportError, WaitTimeout
from pratipad_nb.transport import memory
from pratipad_nb.transport.memory import MemoryConnection, connect_memory
from pratipad_nb.transport.memory_broker import Broker
from pratipad_nb.transport.protocol import ConsumerSpec, LogSpec

WORK = LogSpec("IN", ("up.*",), 1 << 20, "work")
EACH = ConsumerSpec("edge", "each", ack_wait=30.0)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def broker() -> Broker:
    return Broker("test")


@pytest.fixture
async def edge(broker):
    connection = MemoryConnection(broker, identity="edge", name="edge")
    yield connection
    await connection.close()


@pytest.fixture
async def device(broker):
    connection = MemoryConnection(broker, identity="device", name="device")
    yield connection
    await connection.close()


def data_of(deliveries) -> list[bytes]:
    return [delivery.data for delivery in deliveries]


async def soon(awaitable):
    return await asyncio.wait_for(awaitable, 5)


# Names


async def test_who_connects_to_one_name_meets():
    one, two, apart = [await connect_memory(f"memory://{name}", name="x") for name in ("a", "a", "b")]
    try:
        assert one.broker is two.broker is Broker.named("a")
        assert apart.broker is not one.broker
    finally:
        for connection in (one, two, apart):
            await connection.close()
        Broker.forget("a")
        Broker.forget("b")
    assert Broker.named("a") is not one.broker
    Broker.forget("a")


async def test_a_broker_with_a_clock_of_its_own_can_be_given_a_name():
    made = Broker.install(Broker("clocked", clock=Clock()))
    assert Broker.named("clocked") is made
    Broker.forget("clocked")


@pytest.mark.parametrize("url", ["memory://", "memory:x", "tls://host:4222", ""])
async def test_another_url_is_refused(url):
    with pytest.raises(SettingsError, match="memory://NAME"):
        await connect_memory(url)


# Faults


async def test_a_cut_link_is_told_and_what_waits_goes_on_once_it_is_healed(broker, edge, device):
    log = await edge.open_log(WORK)
    broker.cut("device")
    assert not device.connected
    assert edge.connected
    appending = asyncio.create_task(device.append("up.room1", b"late"))
    await asyncio.sleep(0)
    assert (await log.state()).messages == 0
    broker.heal("device")
    assert await soon(appending) == 1
    assert device.connected


async def test_an_append_over_a_cut_link_ends_after_its_timeout_and_is_not_stored(broker, edge, device):
    log = await edge.open_log(WORK)
    broker.cut("device")
    with pytest.raises(WaitTimeout, match="'device' is down"):
        await device.append("up.room1", b"", timeout=0.02)
    assert (await log.state()).messages == 0


async def test_closing_ends_an_append_that_waits_for_its_link(broker, edge, device):
    await edge.open_log(WORK)
    broker.cut("device")
    appending = asyncio.create_task(device.append("up.room1", b""))
    await asyncio.sleep(0)
    await device.close()
    with pytest.raises(TransportClosed):
        await soon(appending)


async def test_who_is_cut_off_neither_hears_nor_is_heard_nor_counts_as_connected(broker, edge, device):
    heard = []
    await device.subscribe("*", heard.append)
    await edge.subscribe("*", heard.append)
    broker.cut("device")
    await device.publish("a", b"from the device")
    await edge.publish("a", b"from the edge")
    await asyncio.sleep(0)
    assert [signal.data for signal in heard] == [b"from the edge"]
    assert broker.connections() == {edge.identity: 1}


async def test_a_consumer_gets_nothing_while_cut_off_and_all_unacknowledged_in_order_afterwards(
    broker, edge, device
):
    consumer = await (await edge.open_log(WORK)).consumer(EACH)
    await device.append("up.room1", b"1")
    (first,) = await consumer.get()
    broker.cut("edge")
    consumer.acknowledge(first)
    waiting = asyncio.create_task(consumer.get())
    await device.append("up.room1", b"2")
    await asyncio.sleep(0)
    assert not waiting.done()
    broker.heal("edge")
    assert data_of(await soon(waiting)) == [b"1", b"2"]


async def test_a_lost_answer_leaves_the_entry_stored(broker, edge, device):
    log = await edge.open_log(WORK)
    broker.lose_answers("device")
    with pytest.raises(WaitTimeout, match="may or may not be stored"):
        await device.append("up.room1", b"1")
    assert (await log.state()).messages == 1
    assert await device.append("up.room1", b"2") == 2


async def test_after_a_restart_what_is_unacknowledged_comes_again(broker, edge, device):
    consumer = await (await edge.open_log(WORK)).consumer(EACH)
    for data in (b"1", b"2", b"3"):
        await device.append("up.room1", data)
    got = await consumer.get()
    consumer.acknowledge(got[1])
    broker.restart()
    again = await consumer.get()
    assert data_of(again) == [b"1", b"3"]
    assert all(delivery.redelivered for delivery in again)


async def test_a_restart_loses_signals_and_message_ids(broker, edge, device):
    log = await edge.open_log(dataclasses.replace(WORK, message_ids=True))
    heard = []
    await edge.subscribe("stats", heard.append)
    sending = asyncio.create_task(device.publish("stats", b"lost"))
    await device.append("up.room1", b"1", message_id="1")
    broker.restart()
    await device.append("up.room1", b"1", message_id="1")
    await device.publish("stats", b"heard")
    await sending
    await asyncio.sleep(0)
    assert [signal.data for signal in heard] == [b"heard"]
    assert (await log.state()).messages == 2


async def test_nobody_is_connected_while_the_broker_is_stopped(broker, edge, device):
    await edge.open_log(WORK)
    broker.stop()
    assert not edge.connected
    appending = asyncio.create_task(device.append("up.room1", b""))
    await asyncio.sleep(0)
    assert not appending.done()
    broker.start()
    assert await soon(appending) == 1


# Time


async def test_nothing_comes_again_until_the_clock_is_moved():
    clock = Clock()
    broker = Broker(clock=clock)
    edge = MemoryConnection(broker, identity="edge")
    consumer = await (await edge.open_log(WORK)).consumer(EACH)
    await edge.append("up.room1", b"1")
    (first,) = await consumer.get()
    assert first.time == clock.now
    waiting = asyncio.create_task(consumer.get())
    clock.now += 29
    broker.tick()
    await asyncio.sleep(0.01)
    assert not waiting.done()
    consumer.hold([first])
    clock.now += 29
    broker.tick()
    await asyncio.sleep(0.01)
    assert not waiting.done()
    clock.now += 1
    broker.tick()
    (again,) = await soon(waiting)
    assert again.redelivered
    await edge.close()


async def test_entries_age_by_the_brokers_clock():
    clock = Clock()
    edge = MemoryConnection(Broker(clock=clock))
    log = await edge.open_log(LogSpec("ORDER", ("order",), 1 << 20, "log", max_age=60))
    await edge.append("order", b"1")
    clock.now += 30
    await edge.append("order", b"2")
    clock.now += 30
    assert [record.data async for record in log.read(0)] == [b"2"]
    await edge.close()


# Bounds


async def test_a_subscription_that_is_not_served_drops_and_counts(broker, edge, device, monkeypatch):
    monkeypatch.setattr(memory, "SIGNALS_HELD", 3)
    heard = []
    subscription = await edge.subscribe("stats", heard.append)
    for n in range(5):
        # Straight into the broker, for a publish lets the loop serve the subscription.
        broker.publish(memory.Signal("stats", str(n).encode()))
    await device.publish("other", b"")
    assert [signal.data for signal in heard] == [b"0", b"1", b"2"]
    assert subscription.dropped == 2


async def test_a_loop_of_appends_lets_others_run(edge):
    await edge.open_log(WORK)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    for _ in range(50):
        await edge.append("up.room1", b"")
    ticking.cancel()
    assert ticks >= 50


async def test_a_busy_consumer_lets_others_run(edge):
    consumer = await (await edge.open_log(WORK)).consumer(ConsumerSpec("edge", "each", max_pending=1))
    for _ in range(50):
        await edge.append("up.room1", b"")
    others = asyncio.create_task(asyncio.sleep(0))
    for _ in range(50):
        consumer.acknowledge((await consumer.get())[0])
        if others.done():
            return
    pytest.fail("fifty deliveries kept a task that was ready from running")


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        (LogSpec("OTHER", ("up.room1",), 1 << 20, "log"), "log 'IN' takes 'up.\\*'"),
        (LogSpec("IN", ("up.*",), 1 << 20, "log"), "can't become 'log'"),
    ],
)
async def test_logs_that_contradict_each_other_are_refused(edge, changed, match):
    await edge.open_log(WORK)
    with pytest.raises(TransportError, match=match):
        await edge.open_log(changed)


async def test_a_pattern_may_end_in_all_that_follows(edge):
    heard = []
    await edge.subscribe("a.>", heard.append)
    for subject in ("a", "b.c", "a.b", "a.b.c"):
        await edge.publish(subject, b"")
    await asyncio.sleep(0)
    assert [signal.subject for signal in heard] == ["a.b", "a.b.c"]


# Several loops at once


def test_connections_on_loops_of_several_threads_meet(broker):
    """Three devices on loops of their own, an edge on another: all arrives in order, on the edge's thread."""
    count, rooms = 200, ("room1", "room2", "room3")
    opened = threading.Event()

    async def device(room: str) -> None:
        connection = MemoryConnection(broker, identity=room)
        for n in range(count):
            await connection.append(f"up.{room}", str(n).encode())
        answer = await connection.request("control", room.encode(), 5)
        assert answer == b"hello " + room.encode()
        await connection.close()

    async def edge() -> dict[str, list[int]]:
        connection = MemoryConnection(broker, identity="edge")
        consumer = await (await connection.open_log(WORK)).consumer(EACH)
        home, answers = threading.get_ident(), []

        def answer(signal) -> None:
            assert threading.get_ident() == home
            answers.append(asyncio.ensure_future(connection.publish(signal.reply, b"hello " + signal.data)))

        await connection.subscribe("control", answer)
        opened.set()
        got: dict[str, list[int]] = {room: [] for room in rooms}
        while sum(map(len, got.values())) < count * len(rooms):
            # Nothing else runs on this loop: only the other threads' appends can wake it.
            for delivery in await soon(consumer.get()):
                got[delivery.subject.removeprefix("up.")].append(int(delivery.data))
                consumer.acknowledge(delivery)
        while len(answers) < len(rooms):
            await asyncio.sleep(0.001)
        await asyncio.gather(*answers)
        await connection.close()
        return got

    def run_device(room: str) -> None:
        opened.wait(5)
        asyncio.run(device(room))

    threads = [threading.Thread(target=run_device, args=(room,)) for room in rooms]
    for thread in threads:
        thread.start()
    got = asyncio.run(asyncio.wait_for(edge(), 30))
    for thread in threads:
        thread.join(5)
    assert got == {room: list(range(count)) for room in rooms}
    assert not broker.connections()


def test_an_append_of_another_thread_wakes_a_loop_that_sleeps(broker):
    waits, got = threading.Event(), []

    async def edge() -> None:
        connection = MemoryConnection(broker, identity="edge")
        consumer = await (await connection.open_log(WORK)).consumer(EACH)
        asyncio.get_running_loop().call_later(0.05, waits.set)  # the last timer of this loop
        got.extend(await consumer.get())
        await connection.close()

    async def device() -> None:
        connection = MemoryConnection(broker, identity="device")
        await connection.append("up.room1", b"1")
        await connection.close()

    thread = threading.Thread(target=asyncio.run, args=(edge(),), daemon=True)
    thread.start()
    assert waits.wait(5)
    asyncio.run(device())
    thread.join(5)
    assert data_of(got) == [b"1"]


def test_a_connection_whose_loop_ended_unclosed_disturbs_nobody(broker):
    async def leave() -> None:
        connection = MemoryConnection(broker, identity="left")
        consumer = await (await connection.open_log(WORK)).consumer(EACH)
        await connection.subscribe("stats", print)
        waiting = asyncio.create_task(consumer.get())
        await asyncio.sleep(0.01)
        waiting.cancel()

    async def stay() -> None:
        connection = MemoryConnection(broker, identity="stays")
        await connection.publish("stats", b"")
        assert await connection.append("up.room1", b"") == 1
        await connection.close()

    asyncio.run(leave())
    asyncio.run(stay())


async def test_any_interleaving_of_faults_loses_nothing_and_keeps_the_order(broker, edge, device):
    """A consumer that drops repeats by sequence sees every entry once and in order, whatever fails."""
    consumer = await (await edge.open_log(WORK)).consumer(ConsumerSpec("edge", "each", max_pending=3))
    faults = itertools.cycle(
        [
            lambda: broker.cut("edge"),
            lambda: broker.heal("edge"),
            broker.restart,
            lambda: broker.cut("device"),
            lambda: broker.heal("device"),
        ]
    )

    async def send() -> None:
        for n in range(60):
            await device.append("up.room1", str(n).encode(), timeout=5)

    async def fail() -> None:
        while True:
            next(faults)()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    sending, failing = asyncio.create_task(send()), asyncio.create_task(fail())
    seen: list[int] = []
    async with asyncio.timeout(20):
        while len(seen) < 60:
            for delivery in await consumer.get():
                if int(delivery.data) == len(seen):
                    seen.append(int(delivery.data))
                assert int(delivery.data) < len(seen)
                consumer.acknowledge(delivery)
    failing.cancel()
    await sending
    assert seen == list(range(60))
