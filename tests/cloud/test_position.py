"""One handle at a time reads under a name: the newer takes the name over, and the older is told."""

import asyncio
import os
import socket
import subprocess
import sys

import pytest
from patience import eventually, patient

from pratipad_nb import AsyncCloud, Endpoint, TakenOver
from pratipad_nb.cloud.position import Patience
from pratipad_nb.errors import PratipadError
from pratipad_nb.transport.codec import decode
from pratipad_nb.transport.frames import StoredRead
from pratipad_nb.transport.origin import Origin
from pratipad_nb.transport.readers import forget_reader

pytestmark = pytest.mark.timeout(60)
QUICK = Patience(silence=0.1, sure=0.05, handover=0.3)


def payloads(messages):
    return [message.payload for message in messages]


async def handle(world, host="", **options):
    """Return a reader, as another computer has it if `host` is given."""
    reader = await world.reader(patience=options.pop("patience", QUICK), **options)
    if host:
        reader._source._position._origin = Origin(f"handle on {host}", host, 7, 1795873051.0)
    return reader


async def stored(world):
    positions = await world.positions()
    return decode((await positions.latest(world.subjects.read("cloud"))).data, StoredRead)


def heir_waits(world):
    async def waits():
        return (await stored(world)).heir is not None

    return waits


@pytest.mark.parametrize("host", ["", "far"])
async def test_of_two_handles_of_one_name_the_newer_gets_the_rest_and_the_older_is_told(world, host):
    await world.append(*[1] * 10)
    older, newer = await handle(world, host), await handle(world, "near")
    assert payloads(await older.take(4)) == [1, 2, 3, 4]
    assert payloads(await newer.take(3)) == [5, 6, 7]
    for _ in range(2):
        with pytest.raises(TakenOver, match=r"process 7 on near, since 2026.* reads 'house'") as told:
            await older.take(1)
    assert isinstance(told.value, PratipadError)
    assert (told.value.reader, told.value.host, told.value.pid) == ("cloud", "near", 7)
    with pytest.raises(TakenOver):
        await anext(older)
    with pytest.raises(TakenOver):
        await older.look(10)
    with pytest.raises(TakenOver):
        await older.seek("oldest")
    await older.close()
    assert payloads(await newer.take(3)) == [8, 9, 10]


async def test_a_handle_that_waits_for_messages_is_told_and_takes_none_from_the_newer(world):
    older, newer = await handle(world, "far"), await handle(world)
    waiting = asyncio.create_task(older.take(1))
    await eventually(lambda: older._source._open)
    opened = asyncio.create_task(newer.take(3))
    with pytest.raises(TakenOver):
        await waiting
    await world.append(1, 1, 1)
    assert payloads(await opened) == [1, 2, 3]


async def test_a_loop_hands_over_behind_the_last_message_that_it_has_handed_out(world):
    await world.append(3, 3, 3, 3, 3)
    older = await handle(world, "far")
    newer = await handle(world, patience=Patience(handover=30.0))
    seen = [(await anext(older)).payload for _ in range(4)]
    taking = asyncio.create_task(newer.take(1))

    async def loop():
        while True:
            seen.append((await anext(older)).payload)
            await asyncio.sleep(0.02)

    with pytest.raises(TakenOver):
        await loop()
    assert seen == list(range(1, len(seen) + 1))
    assert payloads(await taking) == [len(seen) + 1]


async def test_a_holder_that_does_not_answer_loses_the_name_and_moves_the_position_no_more(world):
    """As a process does that is frozen, with messages fetched ahead and some handed out."""
    await world.append(5, 5)
    older, newer = await handle(world, "far"), await handle(world)
    assert [(await anext(older)).payload for _ in range(3)] == [1, 2, 3]
    assert payloads(await newer.take(6)) == [1, 2, 3, 4, 5, 6]  # a loop is at least once
    before = await stored(world)
    with pytest.raises(TakenOver):
        await anext(older)
    await older.close()
    assert await stored(world) == before
    assert payloads(await newer.take(4)) == [7, 8, 9, 10]


async def test_a_loop_that_thaws_hands_out_nothing_though_messages_are_there(world):
    await world.append(9)
    older, newer = await handle(world, "far"), await handle(world)
    assert (await anext(older)).payload == 1
    assert older._source.held.count == 8
    await newer.take(2)
    with pytest.raises(TakenOver):
        await anext(older)


async def test_a_handle_whose_holder_has_ended_was_killed_or_only_takes_need_not_wait(world):
    await world.append(1, 1, 1, 1, 1, 1)
    slow = Patience(handover=30.0)
    first = await handle(world, "far", patience=slow)
    assert (await anext(first)).payload == 1
    await first.close()
    assert (await stored(world)).holder is None
    second = await handle(world, patience=slow)
    assert payloads(await second.take(1, timeout=patient(5))) == [2]
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    third = await handle(world, patience=slow)
    third._source._position._origin = Origin("killed", socket.gethostname(), gone.pid, 1.0)
    assert [(await anext(third)).payload for _ in range(2)] == [3, 4]
    await world.kill(third)
    fourth = await handle(world, "near", patience=slow)
    assert payloads(await fourth.take(1, timeout=patient(5))) == [3]  # a loop is at least once
    fifth = await handle(world, patience=slow)
    assert payloads(await fifth.take(2, timeout=patient(5))) == [4, 5]


async def test_a_handle_that_loops_after_it_has_taken_is_asked_from_then_on(world):
    await world.append(3, 3)
    older = await handle(world, "far")
    assert payloads(await older.take(1)) == [1]
    assert not (await stored(world)).leads
    assert (await anext(older)).payload == 2
    assert (await stored(world)).leads
    newer = await handle(world, patience=Patience(handover=30.0))
    taking = asyncio.create_task(newer.take(3))
    await eventually(heir_waits(world))
    with pytest.raises(TakenOver):
        await older.take(1)
    assert payloads(await taking) == [3, 4, 5]


async def test_what_the_holder_reads_while_a_newer_handle_opens_is_not_read_again(world, monkeypatch):
    await world.append(1)
    older = await handle(world, "far")
    newer = await handle(world, patience=Patience(handover=30.0))
    connection = newer._source._connection
    append = connection.append
    seen = [(await anext(older)).payload]

    async def late(*arguments, **options):
        monkeypatch.setattr(connection, "append", append)
        await world.append(1, 1, 1)
        seen.extend([(await anext(older)).payload for _ in range(3)])
        return await append(*arguments, **options)

    monkeypatch.setattr(connection, "append", late)
    taking = asyncio.create_task(newer.take(1))
    await eventually(heir_waits(world))
    with pytest.raises(TakenOver):
        await anext(older)
    assert seen == [1, 2, 3, 4]
    await world.append(1)
    assert payloads(await taking) == [5]


async def test_of_three_handles_the_newest_has_the_name(world):
    await world.append(6)
    first, second, third = [await handle(world, host) for host in ("one", "two", "three")]
    assert payloads(await first.take(1)) == [1]
    heirs = [asyncio.create_task(each.take(2)) for each in (second, third)]
    outcomes = await asyncio.gather(*heirs, return_exceptions=True)
    told = [each for each in outcomes if isinstance(each, TakenOver)]
    read = [payloads(each) for each in outcomes if isinstance(each, list)]
    # The second may have been through before the third came.
    assert read in ([[2, 3]], [[2, 3], [4, 5]], [[4, 5], [2, 3]])
    assert len(told) + len(read) == 2
    newest = second if isinstance(outcomes[1], TakenOver) else third
    assert payloads(await newest.take(1))


async def test_a_handle_goes_on_where_a_newer_one_has_ended(world):
    await world.append(6)
    older, newer = await handle(world, "far"), await handle(world)
    assert payloads(await older.take(1)) == [1]
    assert payloads(await newer.take(2)) == [2, 3]
    await newer.close()
    assert payloads(await older.take(3)) == [4, 5, 6]


async def test_a_reader_that_was_forgotten_goes_on_as_a_new_one(world):
    await world.append(3)
    reader = await handle(world)
    assert payloads(await reader.take(1)) == [1]
    await forget_reader(world.edge, "house", "cloud")
    assert payloads(await reader.take(3)) == [1, 2, 3]


async def test_two_clients_of_one_name_in_one_process_are_told_apart(world, edge):
    await world.append(6)
    older = AsyncCloud("house", endpoint=Endpoint(world.url, "house"))
    newer = AsyncCloud("house", endpoint=Endpoint(world.url, "house"))
    async with older, newer:
        assert payloads(await older.take(2)) == [1, 2]
        assert payloads(await newer.take(2)) == [3, 4]
        with pytest.raises(TakenOver, match=f"process {os.getpid()} on {socket.gethostname()}"):
            await older.take(1)
        assert payloads(await newer.take(2)) == [5, 6]
