"""Dead letters: stored first, retried from where they failed, in braces by the failed member alone."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from pratipad_nb import AsyncDevice, AsyncFlow
from pratipad_nb.errors import LogFull
from pratipad_nb.runtime.positions.dead_letters import ORDER_STEP, DeadLetters
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.testing import memory_server
from pratipad_nb.transport.frames import DeadEntry, FailureNote


def entry(number, *steps, payload=None, device="room1", part=0):
    notes = [FailureNote(step, "ValueError: no", "Traceback …") for step in steps or ("P1",)]
    return DeadEntry(device, 7, number, part, 1.0, 2.0, payload or {"n": number}, notes)


@pytest.fixture
async def letters(memory):
    connection = await memory.connection()
    logs = await memory.logs(connection)
    return DeadLetters(connection, logs[memory.subjects.dead_stream], memory.subjects)


async def retried(letters, positions=None):
    return [batch async for _, batch in letters.retries(positions or Positions())]


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
    async for _, batch in letters.retries(Positions()):
        seen += batch.payloads
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
    ((step, batch),) = [each async for each in letters.retries(Positions())]
    assert (step, batch.only, batch.payloads) == ("P2", frozenset({"P2", "P3"}), [{"n": 3}])


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


async def test_while_they_are_full_storing_waits_and_says_so(letters, monkeypatch):
    tries = 0
    append = letters._connection.append

    async def full(*arguments, **more):
        nonlocal tries
        tries += 1
        if tries < 3:
            raise LogFull("full")
        return await append(*arguments, **more)

    monkeypatch.setattr(letters._connection, "append", full)
    storing = asyncio.create_task(letters.store([("P1", entry(1))]))
    await asyncio.wait_for(letters.full.wait(), 5)
    await storing
    assert not letters.full.is_set()
    assert len(await letters.list()) == 1


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
