"""What every transport promises; each test runs over all of them.

Nothing here sleeps for a fixed time: what takes a moment at a real server is waited for by `eventually`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Iterable
from dataclasses import replace

import pytest
from patience import eventually

from pratipad_nb.errors import Fenced, LogFull, PayloadError, TransportClosed, TransportError, WaitTimeout
from pratipad_nb.transport.partitions import partition_of
from pratipad_nb.transport.protocol import (
    Connection,
    Consumer,
    ConsumerSpec,
    Delivery,
    Log,
    LogSpec,
    Partitioning,
    Record,
    Signal,
)
from pratipad_nb.transport.subjects import Subjects

SUBJECTS = Subjects("house")
UP, OUT = SUBJECTS.up("room1"), SUBJECTS.out(0)

EACH = ConsumerSpec("edge", "each")
ALL = ConsumerSpec("cloud", "all")


@pytest.fixture
async def connection(transport) -> Connection:
    return await transport.connect()


@pytest.fixture
async def other(transport) -> Connection:
    return await transport.connect()


@pytest.fixture
async def work(connection) -> Log:
    return await connection.open_log(spec_of(SUBJECTS.input_stream, "work"))


@pytest.fixture
async def output(connection) -> Log:
    return await connection.open_log(spec_of(SUBJECTS.output_stream, "log"))


@pytest.fixture
async def identified(connection) -> Log:
    spec = spec_of(SUBJECTS.output_stream, "log")
    return await connection.open_log(dataclasses.replace(spec, message_ids=True))


@pytest.fixture
async def marks(connection) -> Log:
    return await connection.open_log(spec_of(SUBJECTS.mark_stream, "latest"))


def spec_of(stream: str, retention: str, max_bytes: int = 1 << 20, max_age: float = 0.0) -> LogSpec:
    return LogSpec(stream, SUBJECTS.streams[stream], max_bytes, retention, max_age)


async def fill(connection: Connection, subject: str, count: int, start: int = 1) -> list[int]:
    return [await connection.append(subject, str(n).encode()) for n in range(start, start + count)]


async def fill_up(connection: Connection, subject: str) -> int:
    """Append kilobytes until the log (of 4 KiB) is full; return the last sequence."""
    last = 0
    with contextlib.suppress(LogFull):
        for _ in range(10):
            last = await connection.append(subject, bytes(1000))
    return last


def texts(records: Iterable[Record]) -> list[str]:
    return [record.data.decode() for record in records]


async def collect(consumer: Consumer, count: int) -> list[Delivery]:
    """Return the next `count` deliveries."""
    got: list[Delivery] = []
    async with asyncio.timeout(10):
        while len(got) < count:
            got += await consumer.get()
    return got


async def entries(log: Log, first: int = 0, subject: str = "") -> list[Record]:
    return [record async for record in log.read(first, subject)]


class Heard:
    """A callback that keeps what it hears."""

    def __init__(self) -> None:
        self.signals: list[Signal] = []

    def __call__(self, signal: Signal) -> None:
        self.signals.append(signal)

    async def data(self, count: int) -> list[bytes]:
        async with asyncio.timeout(10):
            while len(self.signals) < count:
                await asyncio.sleep(0.001)
        return [signal.data for signal in self.signals]


# Signals


async def test_a_signal_reaches_who_listens_under_its_subject_and_nobody_else(connection, other):
    here, elsewhere = Heard(), Heard()
    await other.subscribe(SUBJECTS.down("room1"), here)
    await other.subscribe(SUBJECTS.down("room2"), elsewhere)
    await connection.publish(SUBJECTS.down("room1"), b"on")
    await connection.publish(SUBJECTS.down("room2"), b"off")
    assert await elsewhere.data(1) == [b"off"]
    assert await here.data(1) == [b"on"]
    assert here.signals[0].subject == SUBJECTS.down("room1")


async def test_a_star_in_a_subscription_stands_for_one_token(connection, other):
    heard = Heard()
    await other.subscribe(SUBJECTS.hello_all, heard)
    await connection.publish(SUBJECTS.stats, b"no")
    await connection.publish(SUBJECTS.hello("room1") + ".more", b"no")
    await connection.publish(SUBJECTS.hello("room1"), b"1")
    await connection.publish(SUBJECTS.hello("room2"), b"2")
    assert await heard.data(2) == [b"1", b"2"]


async def test_signals_of_one_sender_keep_their_order(connection, other):
    heard = Heard()
    await other.subscribe(SUBJECTS.stats, heard)
    sent = [str(n).encode() for n in range(200)]
    for data in sent:
        await connection.publish(SUBJECTS.stats, data)
    assert await heard.data(200) == sent


async def test_a_subscription_that_is_cancelled_at_any_moment_hears_nothing(connection, other):
    cut, heard = Heard(), Heard()
    for turns in range(8):
        subscribing = asyncio.create_task(other.subscribe(SUBJECTS.stats, cut))
        for _ in range(turns):
            await asyncio.sleep(0)
        if subscribing.cancel():
            await asyncio.wait({subscribing})
        else:
            await (await subscribing).close()
    await other.subscribe(SUBJECTS.stats, heard)
    await connection.publish(SUBJECTS.stats, b"once")
    assert await heard.data(1) == [b"once"]
    assert cut.signals == []


async def test_a_connection_hears_on_after_a_flush_that_was_cancelled_at_any_moment(connection, other):
    heard = Heard()
    await other.subscribe(SUBJECTS.stats, heard)
    for turns in range(8):
        flushing = asyncio.create_task(other.flush())
        for _ in range(turns):
            await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.wait({flushing})
        await connection.publish(SUBJECTS.stats, b"%d" % turns)
        await connection.flush()
    assert await heard.data(8) == [b"%d" % turns for turns in range(8)]


async def test_a_closed_subscription_hears_nothing_more(connection, other):
    closed, open_ = Heard(), Heard()
    subscription = await other.subscribe(SUBJECTS.stats, closed)
    await other.subscribe(SUBJECTS.stats, open_)
    await connection.publish(SUBJECTS.stats, b"1")
    await closed.data(1)
    await subscription.close()
    await connection.publish(SUBJECTS.stats, b"2")
    assert await open_.data(2) == [b"1", b"2"]
    assert await closed.data(1) == [b"1"]


async def test_an_exception_of_a_callback_comes_out_at_the_connection_that_has_subscribed(connection, other):
    heard = Heard()

    def callback(signal: Signal) -> None:
        heard(signal)
        if signal.data == b"bad":
            raise KeyError("x")

    await other.subscribe(SUBJECTS.stats, callback)
    waiting, elsewhere = asyncio.create_task(other.failure()), asyncio.create_task(connection.failure())
    for data in (b"good", b"bad", b"good"):
        await connection.publish(SUBJECTS.stats, data)
    assert await heard.data(3) == [b"good", b"bad", b"good"]  # the subscription goes on
    async with asyncio.timeout(10):
        with pytest.raises(KeyError, match="x"):
            await waiting
    assert not elsewhere.done()
    elsewhere.cancel()


async def test_the_first_exception_of_callbacks_stays_for_who_asks_later(connection, other):
    def callback(signal: Signal) -> None:
        raise ValueError(signal.data.decode())

    await other.subscribe(SUBJECTS.stats, callback)
    await other.subscribe(SUBJECTS.hello_all, Heard())
    for data in (b"first", b"second"):
        await connection.publish(SUBJECTS.stats, data)
    traces = []
    async with asyncio.timeout(10):
        for _ in range(3):
            with pytest.raises(ValueError, match="first") as raised:
                await other.failure()
            traces.append(len(raised.traceback))
    assert len(set(traces)) == 1  # it doesn't gather the tracebacks of all who asked


async def test_a_cancelled_wait_for_a_failure_loses_none(connection, other):
    def callback(_: Signal) -> None:
        raise KeyError("x")

    waiting = asyncio.create_task(other.failure())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    await other.subscribe(SUBJECTS.stats, callback)
    await connection.publish(SUBJECTS.stats, b"")
    async with asyncio.timeout(10):
        with pytest.raises(KeyError):
            await other.failure()


async def test_an_exception_of_what_is_called_on_a_reconnect_comes_out_as_well(transport, other):
    called = asyncio.Event()

    def callback() -> None:
        called.set()
        raise KeyError("x")

    other.on_reconnect(callback)
    other.on_reconnect(lambda: None)()
    await transport.restart()
    async with asyncio.timeout(20):
        await called.wait()
        with pytest.raises(KeyError):
            await other.failure()
        await other.flush()


async def test_a_signal_that_nobody_heard_is_forgotten(connection, other):
    witness, heard = Heard(), Heard()
    await connection.subscribe(SUBJECTS.stats, witness)
    await connection.publish(SUBJECTS.stats, b"early")
    await witness.data(1)  # the server has spread it: a flush is no proof of that
    await other.subscribe(SUBJECTS.stats, heard)
    await connection.publish(SUBJECTS.stats, b"late")
    assert await heard.data(1) == [b"late"]


async def test_what_a_foreign_client_publishes_under_a_logs_subject_is_stored(connection, work):
    await connection.publish(UP, b'{"t": 20.5}')
    assert texts(await collect(await work.consumer(EACH), 1)) == ['{"t": 20.5}']


async def test_a_request_returns_the_answer(connection, other):
    async with asyncio.TaskGroup() as answers:
        await other.subscribe(
            SUBJECTS.control("cloud"),
            lambda asked: answers.create_task(other.publish(asked.reply, b"re: " + asked.data)),
        )
        assert await connection.request(SUBJECTS.control("cloud"), b"pull", 5) == b"re: pull"


async def test_a_request_that_nobody_listens_to_ends_at_once(connection):
    began = time.monotonic()
    with pytest.raises(WaitTimeout):
        await connection.request(SUBJECTS.control("cloud"), b"", 30)
    assert time.monotonic() - began < 5


async def test_a_request_that_nobody_answers_ends_after_its_timeout(connection, other):
    await other.subscribe(SUBJECTS.control("cloud"), Heard())
    with pytest.raises(WaitTimeout):
        await connection.request(SUBJECTS.control("cloud"), b"", 0.05)


# Logs


async def test_entries_come_back_in_order_as_they_were_appended(connection, output):
    before = time.time()
    first = await connection.append(OUT, b"a")
    second = await connection.append(SUBJECTS.out(1), b"b")
    assert second == first + 1
    got = await entries(output)
    assert [(r.subject, r.data, r.sequence) for r in got] == [
        (OUT, b"a", first),
        (SUBJECTS.out(1), b"b", second),
    ]
    assert all(before - 1 < r.time < time.time() + 1 for r in got)


async def test_an_empty_log_says_so(connection, output):
    state = await output.state()
    assert (state.first, state.messages, state.bytes) == (state.last + 1, 0, 0)
    assert await entries(output) == []
    assert await output.latest(OUT) is None


async def test_a_read_begins_where_it_is_told_and_keeps_to_its_subject(connection, output):
    await fill(connection, OUT, 3)
    await fill(connection, SUBJECTS.out(1), 3, start=10)
    last = (await output.state()).last
    assert texts(await entries(output, last - 3)) == ["3", "10", "11", "12"]
    assert texts(await entries(output, 0, SUBJECTS.out(1))) == ["10", "11", "12"]
    assert texts(await entries(output, 0, SUBJECTS.out_all)) == ["1", "2", "3", "10", "11", "12"]


async def test_a_read_ends_at_what_was_last_when_it_began(connection, output):
    await fill(connection, OUT, 2)
    got = []
    async for record in output.read(0):
        got.append(record)
        await connection.append(OUT, b"later")
    assert texts(got) == ["1", "2"]


async def test_an_append_that_no_log_takes_is_an_error(connection):
    with pytest.raises(TransportError, match="no log"):
        await connection.append(OUT, b"")


async def test_expectations_chain_appends(connection, output):
    first = await connection.append(OUT, b"a", expect=0)
    await connection.append(SUBJECTS.out(1), b"other subject", expect=0)
    second = await connection.append(OUT, b"b", expect=first)
    assert second > first
    assert (await output.latest(OUT)).data == b"b"


async def test_a_second_writer_fences_off_the_first(connection, other, output):
    first = await connection.append(OUT, b"old", expect=0)
    await other.append(OUT, b"new", expect=first)
    with pytest.raises(Fenced):
        await connection.append(OUT, b"old again", expect=first)
    with pytest.raises(Fenced):
        await connection.append(OUT, b"old again", expect=0)
    assert texts(await entries(output)) == ["old", "new"]


async def test_one_reject_fails_all_that_follow_in_the_chain(connection, other, output):
    await other.append(OUT, b"new", expect=0)
    ends = await asyncio.gather(
        *(connection.append(OUT, b"old", expect=n) for n in (0, 2, 3)), return_exceptions=True
    )
    assert [type(end) for end in ends] == [Fenced] * 3


async def test_appends_made_at_once_keep_their_order(connection, output):
    sequences = await asyncio.gather(*(connection.append(OUT, str(n).encode()) for n in range(50)))
    assert sequences == sorted(sequences)
    assert texts(await entries(output)) == [str(n) for n in range(50)]


async def test_a_log_that_takes_message_ids_stores_a_repeat_once(connection, identified):
    first = await connection.append(OUT, b"a", message_id="room1-1-1")
    assert await connection.append(OUT, b"a", message_id="room1-1-1") == first
    assert await connection.append(OUT, b"b", message_id="room1-1-2") == first + 1
    assert texts(await entries(identified)) == ["a", "b"]


async def test_a_log_of_before_that_knew_message_ids_forgets_them(connection, identified):
    await connection.append(OUT, b"a", message_id="1")
    await connection.open_log(spec_of(SUBJECTS.output_stream, "log"))

    async def is_stored_again() -> bool:
        return await connection.append(OUT, b"b", message_id="1") == 2

    await eventually(is_stored_again, 5)


async def test_the_expectation_is_checked_before_the_message_id(connection, identified):
    await connection.append(OUT, b"a", expect=0, message_id="1")
    with pytest.raises(Fenced):
        await connection.append(OUT, b"a", expect=0, message_id="1")


async def test_a_full_log_refuses_and_takes_more_once_purged(connection):
    log = await connection.open_log(spec_of(SUBJECTS.output_stream, "log", max_bytes=4096))
    last = await fill_up(connection, OUT)
    assert last == 3
    assert (await log.state()).bytes <= 4096
    await log.purge(last)
    assert await connection.append(OUT, bytes(1000)) == last + 1


async def test_a_full_work_log_takes_more_once_entries_are_acknowledged(connection):
    log = await connection.open_log(spec_of(SUBJECTS.input_stream, "work", max_bytes=4096))
    consumer = await log.consumer(EACH)
    assert await fill_up(connection, UP) == 3
    consumer.acknowledge((await collect(consumer, 1))[0])
    await eventually(lambda: _has(log, 2))
    await connection.append(UP, bytes(1000))


async def _has(log: Log, messages: int) -> bool:
    return (await log.state()).messages == messages


async def test_a_latest_log_keeps_the_newest_of_each_subject(connection, marks):
    await fill(connection, SUBJECTS.mark("room1"), 3)
    await fill(connection, SUBJECTS.mark("room2"), 2, start=10)
    assert texts(await entries(marks)) == ["3", "11"]
    assert (await marks.latest(SUBJECTS.mark("room1"))).data == b"3"
    assert await marks.latest(SUBJECTS.mark("room3")) is None
    assert (await marks.state()).last == 5


async def test_a_full_latest_log_still_replaces(connection):
    log = await connection.open_log(spec_of(SUBJECTS.mark_stream, "latest", max_bytes=4096))
    for room in ("room1", "room2", "room3"):
        await connection.append(SUBJECTS.mark(room), bytes(1200))
    with pytest.raises(LogFull):
        await connection.append(SUBJECTS.mark("room4"), bytes(1200))
    await connection.append(SUBJECTS.mark("room1"), b"new")
    assert (await log.state()).messages == 3


async def test_a_purge_deletes_all_below_and_nothing_else(connection, output):
    sequences = await fill(connection, OUT, 5)
    await output.purge(sequences[2])
    assert texts(await entries(output)) == ["3", "4", "5"]
    state = await output.state()
    assert (state.first, state.last, state.messages) == (sequences[2], sequences[4], 3)
    await output.purge(sequences[0])
    assert await _has(output, 3)


async def test_purging_everything_keeps_the_numbering(connection, output):
    last = (await fill(connection, OUT, 3))[-1]
    await output.purge(last + 1)
    state = await output.state()
    assert (state.first, state.last, state.messages) == (last + 1, last, 0)
    assert await connection.append(OUT, b"4") == last + 1


async def test_one_entry_can_be_deleted_and_deleting_it_again_is_no_error(connection, output):
    sequences = await fill(connection, OUT, 3)
    await output.delete(sequences[1])
    await output.delete(sequences[1])
    await output.delete(10_000)
    assert texts(await entries(output)) == ["1", "3"]


async def test_with_the_newest_deleted_the_one_before_is_the_newest(connection, output):
    first, second = await fill(connection, OUT, 2)
    await output.delete(second)
    assert (await output.latest(OUT)).sequence == first


async def test_entries_older_than_the_age_go_by_themselves(connection):
    log = await connection.open_log(spec_of(SUBJECTS.order_stream, "log", max_age=0.2))
    await connection.append(SUBJECTS.edge_order, b"old")
    await eventually(lambda: _has(log, 0))
    assert await entries(log) == []


async def test_opening_a_log_again_changes_its_bounds_and_keeps_its_entries(connection, other):
    await connection.open_log(spec_of(SUBJECTS.output_stream, "log", max_bytes=4096))
    await connection.append(OUT, bytes(3000))
    log = await other.open_log(spec_of(SUBJECTS.output_stream, "log", max_bytes=8192))
    await connection.append(OUT, bytes(3000))
    assert log.spec.max_bytes == 8192
    assert await _has(log, 2)


async def test_a_log_is_found_by_name_as_it_was_opened(connection, other, work, marks):
    for log in (work, marks):
        assert (await other.find_log(log.spec.name)).spec == log.spec
    assert await other.find_log(SUBJECTS.dead_stream) is None


async def test_a_deleted_log_is_gone_with_all_in_it(connection, output):
    await fill(connection, OUT, 2)
    await connection.delete_log(SUBJECTS.output_stream)
    await connection.delete_log(SUBJECTS.output_stream)
    assert await connection.find_log(SUBJECTS.output_stream) is None
    with pytest.raises(TransportError):
        await output.state()


async def test_the_largest_frame_is_taken_and_a_larger_one_named(connection):
    log = await connection.open_log(spec_of(SUBJECTS.output_stream, "log", max_bytes=64 << 20))
    await connection.append(OUT, bytes(connection.max_frame_bytes))
    assert len((await log.latest(OUT)).data) == connection.max_frame_bytes
    with pytest.raises(PayloadError, match=str(connection.max_frame_bytes)):
        await connection.append(OUT, bytes(connection.max_frame_bytes + 8192))


# Consumers


async def test_a_consumer_that_waits_gets_what_is_appended(connection, other, work):
    consumer = await work.consumer(EACH)
    waiting = asyncio.create_task(consumer.get())
    sequence = await other.append(UP, b"reading")
    (delivery,) = await asyncio.wait_for(waiting, 5)
    assert (delivery.subject, delivery.data, delivery.sequence) == (UP, b"reading", sequence)
    assert not delivery.redelivered
    assert abs(delivery.time - time.time()) < 5


async def test_what_is_not_acknowledged_is_counted_delivered_or_not(connection, work):
    consumer = await work.consumer(ConsumerSpec("edge", "each", max_pending=2))
    await fill(connection, UP, 5)
    first, _ = await collect(consumer, 2)
    assert (await consumer.state()).pending == 5
    consumer.acknowledge(first)
    async with asyncio.timeout(5):
        while (await consumer.state()).pending != 4:
            await asyncio.sleep(0.01)


async def test_deliveries_come_in_order(connection, work):
    consumer = await work.consumer(EACH)
    await fill(connection, UP, 40)
    assert texts(await collect(consumer, 40)) == [str(n) for n in range(1, 41)]


async def test_no_more_are_out_than_may_be_pending(connection, work):
    await fill(connection, UP, 10)
    consumer = await work.consumer(ConsumerSpec("edge", "each", max_pending=4))
    got = await collect(consumer, 4)
    assert texts(got) == ["1", "2", "3", "4"]
    waiting = asyncio.create_task(consumer.get())
    assert not (await asyncio.wait({waiting}, timeout=0.1))[0]
    for delivery in got:
        consumer.acknowledge(delivery)
    assert texts(await asyncio.wait_for(waiting, 5))[0] == "5"


async def test_an_acknowledged_entry_of_a_work_log_goes(connection, work):
    consumer = await work.consumer(EACH)
    await fill(connection, UP, 3)
    got = await collect(consumer, 3)
    consumer.acknowledge(got[1])
    await eventually(lambda: _has(work, 2))
    assert texts(await entries(work)) == ["1", "3"]
    for delivery in got:
        consumer.acknowledge(delivery)
    await eventually(lambda: _has(work, 0))
    state = await work.state()
    assert state.first == state.last + 1


async def test_an_acknowledged_entry_of_a_kept_log_stays(connection, output):
    consumer = await output.consumer(ALL)
    await fill(connection, OUT, 3)
    got = await collect(consumer, 3)
    consumer.acknowledge(got[2])
    await eventually(lambda: _floor(output, "cloud", got[2].sequence))
    assert await _has(output, 3)


async def _floor(log: Log, name: str, floor: int) -> bool:
    return {state.name: state.floor for state in await log.consumers()}[name] == floor


async def test_what_is_not_acknowledged_in_time_comes_again_and_says_so(connection, work):
    consumer = await work.consumer(ConsumerSpec("edge", "each", ack_wait=0.3))
    await fill(connection, UP, 2)
    first, second = await collect(consumer, 2)
    consumer.acknowledge(second)
    (again,) = await collect(consumer, 1)
    assert (again.data, again.sequence) == (first.data, first.sequence)
    assert again.redelivered


async def test_what_is_held_does_not_come_again(connection, work):
    consumer = await work.consumer(ConsumerSpec("edge", "each", ack_wait=0.5))
    await fill(connection, UP, 2)
    held, left = await collect(consumer, 2)
    waiting = asyncio.create_task(consumer.get())
    while not waiting.done():
        consumer.hold([held])
        await asyncio.sleep(0.05)
    assert texts(waiting.result()) == texts([left])


async def test_after_a_rewind_all_unacknowledged_comes_again_before_what_is_newer(connection, work):
    consumer = await work.consumer(EACH)
    await fill(connection, UP, 4)
    got = await collect(consumer, 4)
    consumer.acknowledge(got[1])
    await eventually(lambda: _has(work, 3))
    await fill(connection, UP, 2, start=5)
    await consumer.rewind()
    assert texts(await collect(consumer, 5)) == ["1", "3", "4", "5", "6"]


async def test_deliveries_are_counted_and_after_a_rewind_counted_anew(connection, work):
    consumer = await work.consumer(EACH)
    await fill(connection, UP, 3)
    first = await collect(consumer, 3)
    consumer.acknowledge(first[1])
    await eventually(lambda: _has(work, 2))
    await consumer.rewind()
    await fill(connection, UP, 1, start=4)
    again = await collect(consumer, 3)
    counts = [[(each.number, each.series) for each in some] for some in (first, again)]
    assert counts == [[(1, 0), (2, 0), (3, 0)], [(1, 1), (2, 1), (3, 1)]]


async def test_after_a_restart_of_the_server_all_unacknowledged_comes_again_before_what_is_newer(
    transport, connection, other, work
):
    consumer = await work.consumer(EACH)
    await fill(connection, UP, 3)
    await collect(consumer, 3)
    back = asyncio.Event()
    other.on_reconnect(back.set)
    await transport.restart()
    async with asyncio.timeout(20):
        await back.wait()
    await eventually(lambda: _has_filled(other))
    assert texts(await collect(consumer, 4)) == ["1", "2", "3", "4"]


async def _has_filled(connection: Connection) -> bool:
    with contextlib.suppress(TransportError, WaitTimeout):
        await fill(connection, UP, 1, start=4)
        return True
    return False


async def test_a_rewind_amid_appends_lets_nothing_newer_overtake(connection, other, work):
    consumer = await work.consumer(ConsumerSpec("edge", "each", max_pending=500))
    for _ in range(5):
        appending = asyncio.gather(*(other.append(UP, b"") for _ in range(40)))
        await consumer.get()
        await consumer.rewind()
        await appending
        got = await collect(consumer, (await work.state()).messages)
        assert [delivery.sequence for delivery in got] == list(range(1, len(got) + 1))


async def test_a_rewound_delivery_can_be_acknowledged(connection, work):
    consumer = await work.consumer(EACH)
    await fill(connection, UP, 2)
    await collect(consumer, 2)
    await consumer.rewind()
    for delivery in await collect(consumer, 2):
        consumer.acknowledge(delivery)
    await eventually(lambda: _has(work, 0))


@pytest.fixture
async def kept(connection):
    """Give a log that keeps what is acknowledged, split into two partitions."""
    split = Partitioning(SUBJECTS.up_all, SUBJECTS.input_root, 2)
    return await connection.open_log(
        LogSpec(SUBJECTS.input_stream, (SUBJECTS.up_all,), 1 << 20, "log", partitioning=split)
    )


async def test_a_second_consumer_gets_what_the_first_one_has_acknowledged_from_where_it_is_told(
    connection, kept
):
    first = await kept.consumer(EACH)
    await fill(connection, UP, 6)
    deliveries = await collect(first, 6)
    for delivery in deliveries[:4]:
        first.acknowledge(delivery)
    await eventually(lambda: _floor(kept, "edge", 4))
    second = await kept.consumer(ConsumerSpec("edge-2", "each", start=3))
    assert (await second.state()).floor == 2
    again = await collect(second, 4)
    assert texts(again) == ["3", "4", "5", "6"]
    first.acknowledge(deliveries[5])  # says nothing about the second
    second.acknowledge(again[0])
    await eventually(lambda: _floor(kept, "edge-2", 3))
    await second.rewind()
    assert texts(await collect(second, 3)) == ["4", "5", "6"]


async def test_of_a_kept_log_what_is_acknowledged_behind_a_hole_comes_again(connection, kept):
    consumer = await kept.consumer(EACH)
    await fill(connection, UP, 4)
    got = await collect(consumer, 4)
    for delivery in (got[0], got[2], got[3]):
        consumer.acknowledge(delivery)
    await eventually(lambda: _floor(kept, "edge", 1))
    await consumer.rewind()
    assert texts(await collect(consumer, 3)) == ["2", "3", "4"]


async def _floor_reached(consumer: Consumer, floor: int) -> bool:
    return (await consumer.state()).floor >= floor


@pytest.mark.parametrize("start", [1, 5])
async def test_a_consumer_that_starts_with_what_is_purged_or_yet_to_come_gets_what_is_there(
    connection, kept, start
):
    await fill(connection, UP, 4)
    await kept.purge(3)
    consumer = await kept.consumer(ConsumerSpec("edge", "each", start=start))
    await fill(connection, UP, 2, start=5)
    wanted = ["3", "4", "5", "6"][0 if start == 1 else 2 :]
    assert texts(await collect(consumer, len(wanted))) == wanted
    assert (await consumer.state()).pending == len(wanted)


async def test_one_partition_is_consumed_and_purged_alone(connection, kept):
    names = [f"room{n}" for n in range(1, 9)]
    for name in names:
        await connection.append(SUBJECTS.up(name), name.encode())
    own = [name for name in names if partition_of(name, 2) == 1]
    consumer = await kept.consumer(ConsumerSpec("edge-1", "each", SUBJECTS.input_of(1)))
    for delivery in await collect(consumer, len(own)):
        consumer.acknowledge(delivery)
    last = names.index(own[-1]) + 1
    # Entries of the other partition may count as acknowledged, or not.
    await eventually(lambda: _floor_reached(consumer, last))
    second = ConsumerSpec("again-1", "each", SUBJECTS.input_of(1), start=names.index(own[1]) + 1)
    assert texts(await collect(await kept.consumer(second), len(own) - 1)) == own[1:]
    await kept.purge(last, SUBJECTS.input_of(1))
    left = [name for name in names if name not in own[:-1]]
    assert texts(await entries(kept)) == left


async def test_a_new_log_counts_from_where_it_is_told(connection):
    spec = LogSpec(SUBJECTS.input_stream, (SUBJECTS.up_all,), 1 << 20, "log", first=41)
    log = await connection.open_log(spec)
    state = await log.state()
    assert (state.first, state.last, state.messages) == (41, 40, 0)
    assert await connection.append(UP, b"1") == 41
    again = await connection.open_log(spec)  # the first sequence is of no matter to a log that exists
    assert (await again.state()).last == 41


async def test_a_log_that_is_not_split_any_more_stores_under_what_is_sent(connection, kept):
    await connection.append(UP, b"split")
    await connection.open_log(LogSpec(SUBJECTS.input_stream, (SUBJECTS.up_all,), 1 << 20, "log"))
    await connection.append(UP, b"whole")
    assert [record.subject.split(".")[2] for record in await entries(kept)] == ["in", "up"]


async def test_acknowledging_all_covers_all_before(connection, output):
    consumer = await output.consumer(ALL)
    await fill(connection, OUT, 5)
    got = await collect(consumer, 5)
    consumer.acknowledge(got[2])
    await eventually(lambda: _floor(output, "cloud", got[2].sequence))
    await consumer.rewind()
    assert texts(await collect(consumer, 2)) == ["4", "5"]


async def test_a_named_consumer_goes_on_where_it_stood_when_its_connection_ended(transport, other, work):
    first = await transport.connect()
    await fill(other, UP, 4)
    consumer = await (await first.find_log(work.spec.name)).consumer(EACH)
    got = await collect(consumer, 4)
    for delivery in got[:2]:
        consumer.acknowledge(delivery)
    await eventually(lambda: _has(work, 2))
    await first.close()
    successor = await work.consumer(EACH)
    await successor.rewind()
    assert texts(await collect(successor, 2)) == ["3", "4"]


async def test_a_consumer_without_a_name_reads_all_and_leaves_nothing(connection, output):
    await fill(connection, OUT, 3)
    consumer = await output.consumer(ConsumerSpec("", "all"))
    assert texts(await collect(consumer, 3)) == ["1", "2", "3"]
    assert await output.consumers() == []
    await consumer.close()
    again = await output.consumer(ConsumerSpec("", "all"))
    assert texts(await collect(again, 3)) == ["1", "2", "3"]


async def test_a_consumer_starts_where_it_is_told(connection, output):
    sequences = await fill(connection, OUT, 4)
    consumer = await output.consumer(ConsumerSpec("late", "all", start=sequences[2]))
    assert texts(await collect(consumer, 2)) == ["3", "4"]


async def test_a_consumer_that_starts_late_has_what_is_before_behind_it(connection, output):
    sequences = await fill(connection, OUT, 4)
    await output.consumer(ConsumerSpec("late", "all", start=sequences[2]))
    assert await _floor(output, "late", sequences[1])


async def test_a_consumer_keeps_to_its_subject(connection, output):
    consumer = await output.consumer(ConsumerSpec("one", "all", subject=SUBJECTS.out(1)))
    await connection.append(OUT, b"no")
    await connection.append(SUBJECTS.out(1), b"1")
    await connection.append(OUT, b"no")
    await connection.append(SUBJECTS.out(1), b"2")
    assert texts(await collect(consumer, 2)) == ["1", "2"]


async def test_consumers_stand_independently_of_each_other(connection, output):
    await fill(connection, OUT, 3)
    for name in ("one", "two"):
        consumer = await output.consumer(ConsumerSpec(name, "all"))
        assert texts(await collect(consumer, 3)) == ["1", "2", "3"]


async def test_the_states_of_consumers_tell_what_they_have_behind_and_before_them(connection, output):
    sequences = await fill(connection, OUT, 5)
    consumer = await output.consumer(ConsumerSpec("cloud", "all", max_pending=2))
    got = await collect(consumer, 2)
    consumer.acknowledge(got[1])
    await eventually(lambda: _floor(output, "cloud", sequences[1]))
    (state,) = await output.consumers()
    assert (state.name, state.floor, state.pending) == ("cloud", sequences[1], 3)
    assert state.active is None or 0 <= state.active < 10


async def test_a_purge_takes_from_a_consumer_what_it_has_not_got_yet(connection, output):
    sequences = await fill(connection, OUT, 5)
    await output.purge(sequences[3])
    consumer = await output.consumer(ALL)
    assert texts(await collect(consumer, 2)) == ["4", "5"]


async def test_a_forgotten_consumer_begins_anew(connection, output):
    await fill(connection, OUT, 2)
    consumer = await output.consumer(ALL)
    consumer.acknowledge((await collect(consumer, 2))[1])
    await consumer.close()
    await output.forget_consumer("cloud")
    await output.forget_consumer("cloud")
    assert await output.consumers() == []
    assert texts(await collect(await output.consumer(ALL), 2)) == ["1", "2"]


async def test_who_waits_at_a_forgotten_consumer_is_told(connection, output):
    consumer = await output.consumer(ALL)
    await fill(connection, OUT, 1)
    await collect(consumer, 1)
    waiting = asyncio.create_task(consumer.get())
    await asyncio.sleep(0)
    await output.forget_consumer("cloud")
    with pytest.raises(TransportError):
        await asyncio.wait_for(waiting, 5)


async def test_a_work_log_refuses_a_second_consumer(connection, work):
    await work.consumer(EACH)
    with pytest.raises(TransportError):
        await work.consumer(ConsumerSpec("another", "each"))


async def test_a_work_log_refuses_acknowledging_all_at_once(connection, work):
    with pytest.raises(TransportError):
        await work.consumer(ConsumerSpec("edge", "all"))


# Connections


async def test_closing_a_consumer_ends_who_waits_at_it(connection, work):
    consumer = await work.consumer(EACH)
    waiting = asyncio.create_task(consumer.get())
    await asyncio.sleep(0)
    await consumer.close()
    with pytest.raises(TransportClosed):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(TransportClosed):
        await consumer.get()


async def test_closing_the_connection_closes_its_consumers(transport, work):
    connection = await transport.connect()
    consumer = await (await connection.find_log(work.spec.name)).consumer(EACH)
    waiting = asyncio.create_task(consumer.get())
    await asyncio.sleep(0)
    await connection.close()
    with pytest.raises(TransportClosed):
        await asyncio.wait_for(waiting, 2)


async def test_a_closed_connection_refuses_everything(transport, output):
    connection = await transport.connect()
    assert connection.connected
    await connection.close()
    await connection.close()
    assert not connection.connected
    for refused in (
        connection.publish(SUBJECTS.stats, b""),
        connection.subscribe(SUBJECTS.stats, Heard()),
        connection.request(SUBJECTS.control("cloud"), b"", 1),
        connection.append(OUT, b""),
        connection.open_log(output.spec),
    ):
        with pytest.raises(TransportClosed):
            await refused


# -- partitions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [2, 3, 8])
async def test_a_partitioned_log_stores_each_device_where_partition_of_says(connection, partitions):
    split = Partitioning(SUBJECTS.up_all, SUBJECTS.input_root, partitions)
    log = await connection.open_log(
        LogSpec(SUBJECTS.input_stream, (SUBJECTS.up_all,), 1 << 20, "work", partitioning=split)
    )
    devices = [f"room{i}" for i in range(20)] + ["a", "Z-9_x"]
    for device in devices:
        await connection.append(SUBJECTS.up(device), b"x")
    found = {record.subject async for record in log.read(1)}
    assert found == {split.stored_under(SUBJECTS.up(device)) for device in devices}
    assert [SUBJECTS.device_of(subject) for subject in sorted(found)]


async def test_each_partition_of_a_work_log_has_a_consumer_of_its_own(connection):
    split = Partitioning(SUBJECTS.up_all, SUBJECTS.input_root, 2)
    log = await connection.open_log(
        LogSpec(SUBJECTS.input_stream, (SUBJECTS.up_all,), 1 << 20, "work", partitioning=split)
    )
    devices = [f"room{i}" for i in range(10)]
    for device in devices:
        await connection.append(SUBJECTS.up(device), device.encode())
    got = {}
    for partition in range(2):
        consumer = await log.consumer(ConsumerSpec(f"edge-{partition}", "each", SUBJECTS.input_of(partition)))
        wanted = [d for d in devices if partition_of(d, 2) == partition]
        arrived: list[str] = []
        while len(arrived) < len(wanted):
            arrived += [delivery.data.decode() for delivery in await consumer.get()]
        got[partition] = arrived
        assert arrived == wanted
    assert got[0]
    assert got[1]


# -- consumers that another party has made -------------------------------------------------------------------


async def test_a_consumer_that_was_not_made_is_not_found(connection, output):
    assert await output.find_consumer(ALL) is None
    assert await output.consumers() == []


async def test_a_prepared_consumer_is_found_and_delivers_all(transport, connection, output):
    await fill(connection, OUT, 3)
    await output.prepare_consumer(ALL)
    log = await (await transport.connect()).find_log(output.spec.name)
    consumer = await log.find_consumer(ConsumerSpec("cloud", "all", max_pending=2))
    deliveries = await consumer.get()
    assert texts(deliveries) == ["1", "2"]  # no more than may wait here
    consumer.acknowledge(deliveries[-1])
    assert texts(await collect(consumer, 1)) == ["3"]


@pytest.mark.parametrize(
    "before",
    [
        ConsumerSpec("cloud", "all", start=2),
        ConsumerSpec("cloud", "all", max_pending=7, ack_wait=1.0),
        ConsumerSpec("cloud", "each"),
        ConsumerSpec("cloud", "all", SUBJECTS.out(0)),
    ],
    ids=["that starts later", "with other bounds", "that acknowledges each", "with a subject"],
)
async def test_a_consumer_that_is_prepared_anew_keeps_its_position(connection, output, before):
    await fill(connection, OUT, 5)
    consumer = await output.consumer(before)
    deliveries = await collect(consumer, 3)
    for delivery in deliveries[:2]:
        consumer.acknowledge(delivery)
    done = deliveries[1].sequence
    await eventually(lambda: stands_at(output, done))
    await consumer.close()
    for _ in range(2):
        await output.prepare_consumer(ALL)
        assert await stands_at(output, done)
    again = await output.find_consumer(ALL)
    await again.reset(done + 1)
    assert texts(await collect(again, 5 - done)) == [str(n) for n in range(done + 1, 6)]
    await again.reset(1)  # also before where it once started
    assert texts(await collect(again, 5)) == ["1", "2", "3", "4", "5"]


async def stands_at(log, sequence):
    (state,) = await log.consumers()
    return state.floor == sequence


@pytest.mark.parametrize("to", [1, 2, 4, 6], ids=lambda to: f"to {to}")
async def test_a_reset_consumer_delivers_from_there_on_and_counts_what_is_before_as_acknowledged(
    connection, output, to
):
    await fill(connection, OUT, 5)
    await output.prepare_consumer(ALL)
    consumer = await output.find_consumer(ALL)
    consumer.acknowledge((await collect(consumer, 5))[2])
    await consumer.reset(to)
    assert await stands_at(output, to - 1)
    await fill(connection, OUT, 1, start=6)
    deliveries = await collect(consumer, 7 - to)
    assert texts(deliveries) == [str(n) for n in range(to, 7)]
    consumer.acknowledge(deliveries[-1])
    await eventually(lambda: stands_at(output, 6))


async def test_a_reset_drops_what_was_delivered_and_not_got(connection, output):
    await fill(connection, OUT, 4)
    await output.prepare_consumer(ALL)
    consumer = await output.find_consumer(replace(ALL, max_pending=2))
    await collect(consumer, 2)  # two more are on their way
    await consumer.reset(4)
    assert texts(await collect(consumer, 1)) == ["4"]


async def test_a_consumer_that_nobody_has_read_by_was_active_when_it_was_made(connection, output):
    await output.prepare_consumer(ALL)
    (state,) = await output.consumers()
    assert state.active is not None
    assert 0 <= state.active < 60


# -- logs by their subjects, and entries that move -----------------------------------------------------------


async def test_logs_are_found_by_the_subjects_that_they_take(connection, output, marks):
    await connection.open_log(position("one"))
    await connection.open_log(position("two"))
    assert sorted(await connection.log_names(SUBJECTS.read_all)) == ["READ_house:one", "READ_house:two"]
    assert await connection.log_names(OUT) == [output.spec.name]
    assert await connection.log_names(SUBJECTS.dead_all) == []


def position(reader, first=0):
    stream = SUBJECTS.position_stream(reader)
    return LogSpec(stream, (SUBJECTS.read(reader),), 1 << 16, "latest", first=first)


async def former_marks(connection, *readers):
    """Make a log of marks and positions as version 0.1 had it, and let it take marks alone."""
    spec = LogSpec(SUBJECTS.mark_stream, (SUBJECTS.mark_all, SUBJECTS.read_all), 1 << 20, "latest")
    await connection.open_log(spec)
    await connection.append(SUBJECTS.mark("x"), b"a mark")
    for number, reader in enumerate(readers):
        await connection.append(SUBJECTS.read(reader), b"old")
        await connection.append(SUBJECTS.read(reader), b"%d" % number)
    return await connection.open_log(replace(spec, subjects=(SUBJECTS.mark_all,)))


async def test_an_entry_moves_to_a_log_of_its_own_once(connection):
    former = await former_marks(connection, "one", "two")
    for _ in range(2):
        await connection.take_over(position("two", 1000), former.spec.name)
    taken = await connection.find_log(SUBJECTS.position_stream("two"))
    entry = await taken.latest(SUBJECTS.read("two"))
    assert (entry.subject, entry.data, entry.sequence) == (SUBJECTS.read("two"), b"1", 1000)
    assert await connection.append(SUBJECTS.read("two"), b"new", expect=1000) == 1001
    await connection.take_over(position("two", 1000), former.spec.name)
    assert (await taken.latest(SUBJECTS.read("two"))).data == b"new"
    assert (await taken.state()).messages == 1
    assert texts(await entries(former)) == ["a mark", "0", "1"]


async def test_a_log_that_has_nothing_to_take_over_is_made_all_the_same(connection):
    former = await former_marks(connection)
    await connection.take_over(position("new"), former.spec.name)
    assert await connection.append(SUBJECTS.read("new"), b"first", expect=0) == 1


async def test_several_parties_move_an_entry_at_once(transport, connection):
    former = await former_marks(connection, "one")
    parties = [await transport.connect() for _ in range(3)]
    await asyncio.gather(
        *(each.take_over(position("one", 7 + n), former.spec.name) for n, each in enumerate(parties))
    )
    taken = await connection.find_log(SUBJECTS.position_stream("one"))
    assert (await taken.latest(SUBJECTS.read("one"))).data == b"0"
    assert (await taken.state()).messages == 1
