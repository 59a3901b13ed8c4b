"""Dead letters: stored first, retried from where they failed, in braces by the failed member alone."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tracemalloc
from collections import Counter

import pytest

from pratipad_nb import AsyncDevice, AsyncFlow
from pratipad_nb.errors import FlowError, TransportError
from pratipad_nb.runtime.positions.dead_letters import ORDER_STEP, DeadLetters
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.settings import FlowOptions
from pratipad_nb.testing import memory_server
from pratipad_nb.transport.frames import DeadEntry, FailureNote
from tests.patience import eventually, patient


def entry(number, *steps, payload=None, device="room1", part=0):
    notes = [FailureNote(step, "ValueError: no", "Traceback …") for step in steps or ("P1",)]
    return DeadEntry(device, 7, number, part, 1.0, 2.0, payload or {"n": number}, notes)


@pytest.fixture
async def letters(memory):
    connection = await memory.connection()
    logs = await memory.logs(connection)
    return DeadLetters(connection, logs[memory.subjects.dead_stream], memory.subjects)


async def retried(letters, positions=None):
    return [letter.batch async for letter in letters.retries(positions or Positions())]


async def test_a_letter_says_what_failed_where_and_how(letters):
    await letters.store([("P1", entry(3))])
    (letter,) = await letters.list()
    assert (letter.id, letter.device, letter.processor) == ("room1-7-3", "room1", "P1")
    assert (letter.payload, letter.error, letter.traceback) == ({"n": 3}, "ValueError: no", "Traceback …")


async def test_a_message_that_failed_in_several_members_of_braces_is_there_once_for_each(letters):
    await letters.store([("P1", entry(3, "P1", "P2"))])
    assert [letter.processor for letter in await letters.list()] == ["P1", "P2"]


async def test_what_was_stored_twice_around_a_crash_is_listed_once(letters):
    for _ in range(2):
        await letters.store([("P1", entry(3))])
    assert len(await letters.list()) == 1


async def test_many_go_into_several_frames_and_all_are_listed(letters):
    await letters.store([("P1", entry(number)) for number in range(1, 301)])
    assert [letter.payload["n"] for letter in await letters.list()] == list(range(1, 301))
    assert letters.count == 300


async def test_a_payload_that_cannot_travel_is_stored_as_its_text(letters):
    await letters.store([("P1", entry(1, payload={"socket": object()})), ("P1", entry(2))])
    first, second = await letters.list()
    assert first.payload.startswith("{'socket': <object")
    assert second.payload == {"n": 2}


async def test_a_payload_whose_repr_raises_is_stored_as_what_it_is(letters):
    class Shy:
        def __repr__(self):
            raise OSError("not now")

    await letters.store([("P1", entry(1, payload=Shy()))])
    (letter,) = await letters.list()
    assert letter.payload == "<Shy, whose repr raised OSError>"


async def test_large_letters_go_into_as_many_frames_as_they_need_and_one_that_fits_none_is_its_text(letters):
    most = letters._connection.max_frame_bytes
    noise = random.Random(1).randbytes(most // 3)  # which no compression makes smaller
    await letters.store([("P1", entry(number, payload=noise)) for number in range(1, 8)])
    await letters.store([("P1", entry(9, payload=noise * 4))])
    assert [letter.payload for letter in await letters.list()] == [noise] * 7 + [repr(noise)[:1000]]


async def test_what_was_stored_twice_around_a_crash_is_retried_once_and_both_are_deleted(letters):
    for _ in range(2):
        await letters.store([("P1", entry(3)), ("P1", entry(4))])
    batches = await retried(letters)
    assert [batch.payloads for batch in batches] == [[], [], [{"n": 3}], [{"n": 4}]]
    positions = Positions()
    for batch in batches:
        covers = []
        batch.source.advance(batch.done, covers, [])
        positions.advance(covers)
    await letters.sweep(positions)
    assert await letters.list() == []


async def test_what_fails_while_a_retry_goes_on_is_left_to_the_next_one(letters):
    await letters.store([("P1", entry(1)), ("P1", entry(2))])
    seen = []
    async for letter in letters.retries(Positions()):
        seen += letter.batch.payloads
        await letters.store([("P1", entry(2 + len(seen)))])
    assert seen == [{"n": 1}, {"n": 2}]


async def test_what_fails_before_a_retry_has_read_the_log_twice_is_left_to_the_next_one(letters, monkeypatch):
    await letters.store([("P1", entry(1))])
    read = letters._frames

    async def frames():
        async for each in read():
            yield each
        await letters.store([("P1", entry(2))])

    monkeypatch.setattr(letters, "_frames", frames)
    assert [batch.payloads for batch in await retried(letters)] == [[{"n": 1}]]


async def test_a_retry_begins_at_the_processor_that_failed_with_the_members_that_did(letters):
    await letters.store([("P2", entry(3, "P2", "P3"))])
    (letter,) = [each async for each in letters.retries(Positions())]
    assert (letter.step, letter.batch.payloads) == ("P2", [{"n": 3}])
    assert letter.batch.only == frozenset({"P2", "P3"})


async def test_what_was_retried_before_a_crash_is_not_retried_again(letters):
    await letters.store([("P1", entry(number)) for number in (1, 2, 3)])
    first, *_ = await retried(letters)
    positions = Positions([first.source.frames[0].position(1)])
    assert [batch.payloads[0]["n"] for batch in await retried(letters, positions)] == [2, 3]


async def test_a_frame_is_deleted_once_all_in_it_is_retried(letters):
    await letters.store([("P1", entry(1)), ("P1", entry(2)), ("P2", entry(3))])
    batches = await retried(letters)
    positions = Positions(batch.source.frames[0].position(1) for batch in batches[:2])
    await letters.sweep(positions)
    assert [letter.payload["n"] for letter in await letters.list()] == [3]
    assert positions.all() == []


async def test_those_of_a_processor_that_is_no_longer_there_stay():
    def fails(payload):
        raise ValueError(payload)

    names = {"fails": fails, "same": lambda payload: payload}
    with memory_server() as url:
        async with AsyncFlow("Push ~> fails ~> Output", name="house", server=url, namespace=names) as flow:
            async with await AsyncDevice("room1").connect(flow) as device:
                await device.push(1)
            await flow.settled(10)
            await flow.update("Push ~> same ~> Output", names)
            assert await flow.retry_dead_letters() == 0
            assert [letter.payload for letter in await flow.dead_letters()] == [1]
            assert flow.stats().dead == 1


async def test_what_an_earlier_run_has_left_of_its_own_devices_is_counted(letters):
    await letters.store([("P1", entry(1)), ("P1", entry(2)), ("P2", entry(3))])
    later = DeadLetters(letters._connection, letters._log, letters._subjects)
    await later.find(lambda device: device == "room1")
    assert later.count == 3
    await later.find(lambda device: device != "room1")
    assert later.count == 0


def order_entry(number, *to):
    return DeadEntry("", 7, number, 0, 1.0, 1.0, "on", [FailureNote("P1", "ValueError: no", "")], to=list(to))


async def test_an_order_is_counted_and_retried_where_the_devices_are_that_it_was_for(letters):
    await letters.store([("P1" + ORDER_STEP, order_entry(1, "room7.lamp", "room8"))])
    for here, expected in ((("", "room1"), 0), (("room7.lamp", "room8"), 1)):
        edge = DeadLetters(letters._connection, letters._log, letters._subjects)
        await edge.find(here.__contains__)
        assert edge.count == expected
        assert len([each async for each in edge.orders(here.__contains__)]) == expected
        assert edge.count == 0


async def test_an_order_whose_retry_fails_is_still_counted_and_those_before_it_are_not(letters):
    for number in (1, 2, 3):
        await letters.store([("P1" + ORDER_STEP, order_entry(number, "room1"))])
    async for failed in letters.orders():
        if failed.number == 2:  # what raises in the midst of it goes no further, either
            break
    assert (letters.count, len(await letters.list())) == (2, 2)


async def test_what_was_retried_before_a_crash_is_no_longer_counted_once_its_frame_is_deleted(letters):
    await letters.store([("P1", entry(number)) for number in (1, 2, 3)])
    batches = await retried(letters)
    later = DeadLetters(letters._connection, letters._log, letters._subjects)
    await later.find(lambda _: True)
    positions = Positions([batches[0].source.frames[0].position(1)])
    positions.advance([batch.source.frames[0].position(1) for batch in await retried(later, positions)])
    await later.sweep(positions)
    assert (later.count, await later.list()) == (0, [])


async def test_what_another_edge_has_cleared_is_not_counted_after_the_next_retry(letters):
    await letters.store([("P1", entry(1))])
    await DeadLetters(letters._connection, letters._log, letters._subjects).clear()
    await letters.store([("P1", entry(2))])
    await letters.sweep(Positions())
    assert letters.count == 1


async def test_clearing_deletes_all_and_says_how_many(letters):
    await letters.store([("P1", entry(1)), ("P2", entry(2))])
    assert await letters.clear() == 2
    assert (await letters.list(), letters.count) == ([], 0)


SMALL = FlowOptions(dead_letter_bytes=1 << 20)
SOON = patient(20)


def large(number):
    return entry(number, payload=random.Random(number).randbytes(100_000))


async def small_letters(place):
    connection = await place.connection()
    logs = await place.logs(connection, options=SMALL)
    letters = DeadLetters(connection, logs[place.subjects.dead_stream], place.subjects)
    await letters.find(lambda _: True)
    return letters


async def test_letters_of_messages_in_flight_are_stored_beyond_the_bound_and_a_start_keeps_them(place):
    letters = await small_letters(place)
    async with asyncio.timeout(SOON):
        for number in range(15):
            await letters.store([("P1", large(number))])
    assert letters.count == 15
    later = await small_letters(place)
    assert (later.count, len(await later.list())) == (15, 15)
    assert not later.room.free.is_set()


async def test_full_letters_are_counted_and_named_until_they_are_cleared(place):
    letters = await small_letters(place)
    await letters.store([("P1", large(number)) for number in range(8)])
    assert letters.blocked_by == ()
    await letters.store([("P2", large(number)) for number in range(8, 10)])
    (reason,) = letters.blocked_by
    assert "KiB of 1 MiB; 8 of P1, 2 of P2" in reason
    assert await letters.clear() == 10
    assert letters.blocked_by == ()


async def test_room_that_another_edge_makes_is_found(place):
    letters = await small_letters(place)
    await letters.store([("P1", large(number)) for number in range(10)])
    other = await small_letters(place)
    await other.clear()
    assert letters.blocked_by
    await letters.look()
    assert letters.blocked_by == ()


async def test_where_the_server_gives_no_more_storing_waits_and_says_so(memory, monkeypatch):
    letters = await small_letters(memory)
    await letters.store([("P1", large(number)) for number in range(10)])

    async def refused(_):
        raise TransportError("the account is at its limit")

    monkeypatch.setattr(letters._connection, "open_log", refused)
    storing = asyncio.create_task(letters.store([("P1", large(10))]))
    await eventually(lambda: letters.room.refusal)
    assert "the account is at its limit" in letters.blocked_by[0]
    await letters.clear()
    await storing
    assert (letters.count, letters.room.refusal, letters.blocked_by) == (1, "", ())


class Faulty:
    """Processors of which one fails on odd numbers until it is mended."""

    def __init__(self):
        self.mended = False
        self.seen = Counter()

    def before(self, payload):
        self.seen["before", payload] += 1
        return payload

    def odd(self, payload):
        self.seen["odd", payload] += 1
        if payload % 2 and not self.mended:
            raise ValueError("odd")
        return payload

    def even(self, payload):
        self.seen["even", payload] += 1
        return payload

    @property
    def names(self):
        return {"before": self.before, "odd": self.odd, "even": self.even}


async def running(notation, faulty, url):
    flow = await AsyncFlow(notation, name="house", namespace=faulty.names, server=url).start()
    device = await AsyncDevice("room1").connect(flow)
    for number in range(6):
        await device.push(number)
    await device.flush()
    await flow.settled()
    return flow, device


@pytest.mark.parametrize(
    "notation", ["Push ~> before ~> odd ~> Output", "Push ~> before ~> {odd, even} ~> Output"]
)
async def test_mended_they_pass_from_where_they_failed_and_nothing_else_runs_again(notation):
    faulty = Faulty()
    with memory_server() as url:
        flow, device = await running(notation, faulty, url)
        assert [m.payload for m in await flow.take(3)] == [0, 2, 4]
        faulty.mended = True
        assert await flow.retry_dead_letters() == 3
        assert [m.payload for m in await flow.take(3)] == [1, 3, 5]
        assert await flow.dead_letters() == []
        assert {n for (name, _), n in faulty.seen.items() if name != "odd"} == {1}
        await device.close()
        await flow.stop()


async def test_two_retries_at_once_run_every_letter_once_and_both_end():
    faulty = Faulty()
    with memory_server() as url:
        flow, device = await running("Push ~> odd ~> Output", faulty, url)
        faulty.mended = True
        async with asyncio.timeout(5):
            counts = await asyncio.gather(flow.retry_dead_letters(), flow.retry_dead_letters())
        assert sorted(counts) == [0, 3]
        await flow.settled()
        assert flow.stats().delivered == 6
        await device.close()
        await flow.stop()


async def test_those_that_fail_again_are_there_again_once():
    with memory_server() as url:
        flow, device = await running("Push ~> odd ~> Output", Faulty(), url)
        assert await flow.retry_dead_letters() == 3
        assert sorted(letter.payload for letter in await flow.dead_letters()) == [1, 3, 5]
        await device.close()
        await flow.stop()


class Full:
    """A flow whose processor failed until the dead letters were full, and more messages wait."""

    def __init__(self):
        self.mended = False
        self.seen = Counter()
        self.gate = asyncio.Event()
        self.gate.set()
        self.number = 0

    async def fails(self, payload):
        await self.gate.wait()
        number, _ = payload
        self.seen[number] += 1
        if not self.mended:
            raise ValueError(number)
        return number

    async def push(self, device, count, size=50_000):
        for _ in range(count):
            self.number += 1
            noise = random.Random(self.number).randbytes(size)
            await device.push((self.number, noise))

    @contextlib.asynccontextmanager
    async def running(self, url, count=40, size=50_000):
        names = {"fails": self.fails}
        flow = AsyncFlow("Push ~> fails ~> Output", name="house", server=url, namespace=names, options=SMALL)
        async with flow, await AsyncDevice("room1").connect(flow) as device:
            await self.push(device, count, size)
            await device.flush()
            await eventually(lambda: any("dead letters are full" in each for each in flow.stats().blocked_by))
            await eventually(lambda: not flow.stats().in_flight)
            yield flow, device


@pytest.fixture
def url():
    with memory_server() as url:
        yield url


async def test_a_retry_of_full_letters_ends_when_every_one_fails_again(url):
    full = Full()
    async with full.running(url) as (flow, _):
        dead = await flow.dead_letters()
        async with asyncio.timeout(SOON):
            assert await flow.retry_dead_letters() == len(dead)
        again = await flow.dead_letters()
        assert sorted(letter.id for letter in again) == sorted(letter.id for letter in dead)
        assert {full.seen[letter.payload[0]] for letter in again} == {2}
        await flow.clear_dead_letters()
        full.mended = True


async def test_a_retry_of_full_letters_that_were_mended_ends_and_what_waited_flows_on(url):
    full = Full()
    async with full.running(url) as (flow, _):
        full.mended = True
        async with asyncio.timeout(SOON):
            assert await flow.retry_dead_letters() > 10
            assert sorted([m.payload for m in await flow.take(40)]) == list(range(1, 41))
        assert await flow.dead_letters() == []
        assert flow.stats().blocked_by == ()


async def test_a_retry_of_full_letters_ends_while_new_messages_fail(url):
    full = Full()
    async with full.running(url) as (flow, device):
        more = asyncio.create_task(full.push(device, 60))
        async with asyncio.timeout(SOON):
            for _ in range(3):
                assert await flow.retry_dead_letters() > 10
            full.mended = True
            while full.seen.total() < 100 or flow.stats().dead:
                await flow.retry_dead_letters()
            await more
            assert sorted([m.payload for m in await flow.take(100)]) == list(range(1, 101))


async def test_a_retry_that_was_cancelled_is_gone_on_with_and_runs_no_letter_twice(url):
    full = Full()
    async with full.running(url) as (flow, _):
        dead = len(await flow.dead_letters())
        full.mended = True
        full.gate.clear()
        for _ in range(2):
            retry = asyncio.create_task(flow.retry_dead_letters())
            await eventually(lambda: flow.stats().in_flight)
            retry.cancel()
            await asyncio.gather(retry, return_exceptions=True)
        full.gate.set()
        async with asyncio.timeout(SOON):
            await flow.retry_dead_letters()
            assert sorted([m.payload for m in await flow.take(40)]) == list(range(1, 41))
        assert await flow.dead_letters() == []
        assert {n for number, n in full.seen.items() if number <= dead} == {2}


async def test_letters_of_a_cancelled_retry_leave_room_by_themselves(url):
    full = Full()
    async with full.running(url, count=1, size=950_000) as (flow, _):
        full.mended = True
        full.gate.clear()
        retry = asyncio.create_task(flow.retry_dead_letters())
        await eventually(lambda: flow.stats().in_flight)
        retry.cancel()
        await asyncio.gather(retry, return_exceptions=True)
        full.gate.set()
        await eventually(lambda: not flow.stats().blocked_by)


async def test_a_retry_while_the_flow_or_the_processor_is_paused_says_so_and_keeps_the_letters(url):
    full = Full()
    async with full.running(url) as (flow, _):
        dead = len(await flow.dead_letters())
        for processor, named in ((None, "flow is paused"), ("fails", "processor fails is paused")):
            await flow.pause(processor)
            async with asyncio.timeout(SOON):
                with pytest.raises(FlowError, match=named):
                    await flow.retry_dead_letters()
            assert len(await flow.dead_letters()) == dead
            await flow.resume(processor)
        full.mended = True
        assert await flow.retry_dead_letters() == dead


async def test_a_retry_of_full_letters_ends_with_a_flow_that_stops(url):
    full = Full()
    async with full.running(url) as (flow, _):
        full.gate.clear()
        retry = asyncio.create_task(flow.retry_dead_letters())
        await eventually(lambda: flow.stats().in_flight)
        stop = asyncio.create_task(flow.stop())
        full.gate.set()
        async with asyncio.timeout(SOON):
            await asyncio.gather(stop, retry, return_exceptions=True)
        assert retry.exception() is None or isinstance(retry.exception(), FlowError)


async def taken_over(place, before=None):
    """Return the dead letters and the chain of a run that takes the flow over."""
    connection = await place.connection()
    letters = DeadLetters(
        connection, (await place.logs(connection))[place.subjects.dead_stream], place.subjects
    )
    chain = await place.chain(connection)
    await chain.open()
    await letters.find(lambda _: True, chain.before)
    return letters, chain


async def test_a_letter_is_void_if_its_run_ended_before_its_message_was_completed(place):
    letters, chain = await taken_over(place)
    await letters.store([("P1", entry(1))], chain.next)
    await chain.append([("room1", 7, 1)], [])
    await letters.store([("P1", entry(2))], chain.next)  # and its message comes again, in the next run
    later, _ = await taken_over(place)
    assert ([letter.payload["n"] for letter in await later.list()], later.count) == ([1], 1)
    await later.store([("P1", entry(2))])
    assert [letter.payload["n"] for letter in await later.list()] == [1, 2]


async def test_a_letter_that_a_frozen_run_stores_after_the_next_has_begun_is_void(place):
    letters, chain = await taken_over(place)
    later, _ = await taken_over(place)
    await letters.store([("P1", entry(1))], chain.next)
    assert await retried(later) == []
    await later.sweep(Positions())
    assert await letters.list() == []


async def test_letters_that_no_result_completes_are_never_void(place):
    letters, chain = await taken_over(place)
    await chain.append([], [])
    await letters.store([("P1", entry(1)), ("P1" + ORDER_STEP, order_entry(2, "room1"))])
    later, _ = await taken_over(place)
    assert later.count == 2


async def test_a_list_shows_no_more_payloads_than_memory_may_hold_and_names_every_letter(
    letters, monkeypatch
):
    monkeypatch.setattr("pratipad_nb.runtime.positions.dead_letters._LISTED_BYTES", 1 << 20)
    dense = [[]] * 10_000
    for number in (1, 2, 3):
        await letters.store([("P1", entry(number, payload=dense))])
    first, *others = await letters.list()
    assert first.payload == dense
    assert ["not shown" in str(letter.payload) for letter in others] == [True, True]
    assert [letter.error for letter in others] == ["ValueError: no"] * 2
    assert [batch.payloads for batch in await retried(letters)] == [[dense]] * 3
    assert await letters.clear() == 3


async def test_letters_that_nobody_looks_into_are_not_decoded(letters):
    for number in (1, 2, 3):
        await letters.store([("P1", entry(number, payload=[[]] * 300_000))])
    tracemalloc.start()
    try:
        again = DeadLetters(letters._connection, letters._log, letters._subjects)
        await again.find(lambda _: True)
        await again.sweep(Positions())
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()
    assert again.count == 3
