"""Landmarks: a log that went back is told from a log that goes on, in both transports."""

from __future__ import annotations

from pratipad_nb.transport.landmarks import LATER, Landmark, first_since, holds, landmark_of
from pratipad_nb.transport.protocol import Connection, ConsumerSpec, Log, LogSpec
from pratipad_nb.transport.subjects import Subjects

SUBJECTS = Subjects("house")
OUT = SUBJECTS.out(0)


async def opened(transport) -> tuple[Connection, Log]:
    connection = await transport.connect()
    stream = SUBJECTS.output_stream
    return connection, await connection.open_log(LogSpec(stream, (SUBJECTS.out_all,), 1 << 20, "log"))


async def records(log: Log) -> list:
    return [record async for record in log.read(1)]


async def append(connection: Connection, count: int) -> None:
    for number in range(count):
        await connection.append(OUT, b"%d" % number, timeout=30)


async def test_a_log_that_went_back_is_told_by_any_entry_that_it_lost(transport):
    connection, log = await opened(transport)
    await append(connection, 2)
    restore = await transport.back_up()
    await append(connection, 3)
    before = [landmark_of(record) for record in await records(log)]
    assert [await holds(log, seen, await log.state()) for seen in before] == [True] * 5
    await restore()
    for grown in range(2, 8):
        state = await log.state()
        assert state.last == grown
        assert [await holds(log, seen, state) for seen in before] == [True] * 2 + [False] * 3
        assert await first_since(log, before[-1].time + LATER, state) == 3
        await append(connection, 1)


async def test_a_delivery_and_a_record_of_one_entry_are_the_same_landmark(transport):
    connection, log = await opened(transport)
    await append(connection, 20)
    consumer = await log.consumer(ConsumerSpec("cloud", "all"))
    delivered = []
    while len(delivered) < 20:
        delivered += await consumer.get()
    found = await records(log)
    assert all(landmark_of(one).is_of(other) for one, other in zip(delivered, found, strict=True))
    assert not any(landmark_of(one).is_of(other) for one, other in zip(delivered[1:], found, strict=False))


async def test_an_entry_that_was_purged_is_held_to_have_been_there(transport):
    connection, log = await opened(transport)
    await append(connection, 3)
    seen = landmark_of((await records(log))[0])
    await log.purge(3)
    assert await holds(log, seen, await log.state())
    assert not await holds(log, Landmark(4, seen.time), await log.state())


async def test_the_first_entry_since_a_time_is_found_among_deleted_entries_and_in_an_empty_log(transport):
    connection, log = await opened(transport)
    assert await first_since(log, 0.0, await log.state()) == 1
    await append(connection, 9)
    found = await records(log)
    for sequence in (2, 5, 6, 9):
        await log.delete(sequence)
    state = await log.state()
    assert await first_since(log, 0.0, state) == 1
    assert await first_since(log, found[3].time + LATER, state) in (5, 7)
    assert await first_since(log, found[8].time + 1, state) > found[7].sequence
