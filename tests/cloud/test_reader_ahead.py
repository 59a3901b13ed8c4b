"""A reader that is ahead of a log that went back: nothing unread is acknowledged, nothing comes twice."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import eventually

from pratipad_nb.cloud.log_source import Patience
from pratipad_nb.errors import TakenOver, WaitTimeout
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import OutputFrame, Segment, StoredRead
from pratipad_nb.transport.origin import Origin
from pratipad_nb.transport.readers import prepare_reader


def payloads(messages):
    return [message.payload for message in messages]


async def nothing_more(reader):
    with pytest.raises(WaitTimeout):
        await reader.take(1, timeout=0.05)


async def test_a_reader_ahead_of_a_restored_log_goes_on_with_what_it_has_not_read(world, caplog):
    await world.append(2, 2)
    backup = world.broker.copied_store()
    await world.append(2, 2, 2)
    reader = await world.reader()
    assert payloads(await reader.take(10)) == list(range(1, 11))
    world.broker.restart(backup)
    await world.append(1)
    assert payloads(await reader.take(1)) == [11]
    assert await world.floor() == 3
    assert "log OUT_house went back" in caplog.text
    assert "reader cloud had read it up to frame 5, and goes on at frame 3 of now 3" in caplog.text
    await nothing_more(reader)


@pytest.mark.parametrize("grown", [1, 3, 4, 40], ids=lambda grown: f"{grown} frames grown")
async def test_a_log_that_grew_past_the_readers_number_before_the_link_came_back_is_recognised(world, grown):
    await world.append(2, 2)
    backup = world.broker.copied_store()
    await world.append(2, 2, 2)
    reader = await world.reader(window=16)
    assert payloads(await reader.take(10)) == list(range(1, 11))
    world.broker.cut("cloud")
    world.broker.restart(backup)
    await world.append(*[1] * grown)
    world.broker.heal("cloud")
    assert payloads(await reader.take(grown)) == list(range(11, 11 + grown))
    await nothing_more(reader)
    assert await world.floor() == 2 + grown


@pytest.mark.parametrize("grown", [0, 1, 40], ids=lambda grown: f"{grown} frames grown")
async def test_frames_that_no_reader_has_read_are_not_acknowledged(world, grown):
    await world.append(1)
    backup = world.broker.copied_store()
    await world.append(*[1] * 20)
    reader = await world.reader()
    await reader.take(11)
    world.broker.cut("cloud")
    world.broker.restart(backup)
    await world.append(*[1] * grown)
    world.broker.heal("cloud")
    # The other frames had arrived before the log lost them.
    assert payloads(await reader.take(10)) == list(range(12, 22))
    assert await world.floor() <= 1
    if grown:
        assert payloads(await reader.take(grown)) == list(range(22, 22 + grown))
        assert await world.floor() == 1 + grown


async def test_results_that_are_made_again_are_left_out_for_a_reader_that_has_them(world):
    await world.append(3)
    backup = world.broker.copied_store()
    await world.append(3, 3)
    reader = await world.reader()
    assert payloads(await reader.take(7)) == list(range(1, 8))
    world.broker.restart(backup)
    again = [
        Segment("room2", 5, 1, 2.0, [1.0], ["new"]),
        Segment("room1", 7, 6, 2.0, [1.0] * 6, [6, 7, 8, 9, 10, 11]),
    ]
    covers = [("room2", 5, 1), ("room1", 7, 11)]
    for frame in (
        OutputFrame("next", 1, [("room1", 7, 5)], [Segment("room1", 7, 4, 2.0, [1.0] * 2, [4, 5])]),
        OutputFrame("next", 2, covers, again),
    ):
        await world.edge.append(world.subjects.out(0), encode(frame))
    assert payloads(await reader.take(2)) == [8, 9]
    assert payloads(await reader.take(2)) == ["new", 10]
    await world.kill(reader)
    assert payloads(await (await world.reader()).take(1)) == [11]


async def test_retried_dead_letters_and_foreign_messages_are_never_taken_for_repeats(world):
    await world.append(1)
    backup = world.broker.copied_store()
    await world.append(3)
    lost = OutputFrame("edge", 9, [("mqtt", 0, 7)], [Segment("mqtt", 0, 7, 2.0, [1.0], ["lost"])])
    await world.edge.append(world.subjects.out(0), encode(lost))
    reader = await world.reader()
    await reader.take(5)
    world.broker.restart(backup)
    segments = [
        Segment("room1", 7, 2, 2.0, [1.0], ["retried"], retry=3),
        Segment("mqtt", 0, 6, 2.0, [1.0], ["foreign"]),
    ]
    await world.edge.append(world.subjects.out(0), encode(OutputFrame("next", 1, [], segments)))
    assert payloads(await reader.take(2)) == ["retried", "foreign"]


async def test_a_reader_started_afterwards_goes_on_from_the_position_that_came_back_with_the_log(world):
    await world.append(2)
    first = await world.reader()
    assert payloads(await first.take(1)) == [1]
    backup = world.broker.copied_store()
    await world.append(2)
    assert payloads(await first.take(3)) == [2, 3, 4]
    await world.kill(first)
    world.broker.restart(backup)
    await world.append(1)
    second = await world.reader()
    assert payloads(await second.take(2)) == [2, 5]


@pytest.mark.parametrize("grown", [1, 2, 9], ids=lambda grown: f"{grown} frames grown")
async def test_a_log_that_lost_its_end_under_a_stored_position_is_read_from_its_new_frames_on(
    world, grown, caplog
):
    await world.append(2, 2)
    backup = world.broker.copied_store()
    await world.append(2, 2)
    first = await world.reader()
    assert payloads(await first.take(8)) == list(range(1, 9))
    await world.kill(first)
    kept = world.broker.copied_store()[world.subjects.position_stream("cloud")]
    world.broker.restart({**backup, world.subjects.position_stream("cloud"): kept})
    await world.append(*[1] * grown)
    second = await world.reader()
    assert payloads(await second.take(grown)) == list(range(9, 9 + grown))
    assert "reader cloud had read it up to frame 4, and goes on at frame 3" in caplog.text
    await nothing_more(second)


async def test_a_position_that_went_back_alone_is_stored_anew(world):
    await world.append(2)
    await prepare_reader(world.edge, "house", "cloud")
    backup = world.broker.copied_store()
    reader = await world.reader()
    await world.append(2)
    assert payloads(await reader.take(3)) == [1, 2, 3]
    stream = world.subjects.position_stream("cloud")
    world.broker.restart({**world.broker.copied_store(), stream: backup[stream]})
    assert payloads(await reader.take(1)) == [4]
    await world.append(1)
    await world.kill(reader)
    assert payloads(await (await world.reader()).take(1)) == [5]


async def test_an_idle_reader_stores_its_place_in_a_log_that_went_back(world):
    await world.append(2, 2)
    reader = await world.reader()
    backup = world.broker.copied_store()
    await world.append(2)
    assert payloads(await reader.take(6)) == list(range(1, 7))
    world.broker.restart(backup)
    await nothing_more(reader)
    await world.kill(reader)
    await world.append(1)
    assert payloads(await (await world.reader()).take(1)) == [7]


async def test_a_save_that_waited_for_the_link_moves_no_position_beyond_what_was_read(world):
    await world.append(2, 2)
    backup = world.broker.copied_store()
    await world.append(2)
    reader = await world.reader(patience=Patience(store=30, sure=30))
    assert payloads(await reader.take(4)) == [1, 2, 3, 4]
    iterating = aiter(reader)
    assert (await anext(iterating)).payload == 5
    world.broker.stop()
    assert (await anext(iterating)).payload == 6
    world.broker.restart(backup)
    await world.append(1)
    assert (await anext(iterating)).payload == 7
    await reader.close()
    assert await world.floor() == 3


async def test_a_log_that_vanished_and_was_made_anew_is_read_from_its_start(world):
    await world.append(2, 2, 2)
    reader = await world.reader()
    assert payloads(await reader.take(6)) == list(range(1, 7))
    world.broker.restart({})
    await world.open()
    await world.append(1, 1)
    assert payloads(await reader.take(2)) == [7, 8]

    async def acknowledged():
        return await world.floor() == 2

    await eventually(acknowledged)


async def test_the_stored_position_names_the_time_of_the_frame_read_last(world):
    await world.append(2, 2)
    reader = await world.reader()
    await reader.take(2)
    frames = [record async for record in world.output.read(1)]
    positions = await world.positions()

    async def seen():
        return decode((await positions.latest(world.subjects.read("cloud"))).data, StoredRead).seen

    assert await seen() == frames[0].time
    await reader.take(1)
    assert await seen() == frames[1].time


@pytest.mark.parametrize("host", ["", "far"], ids=["a holder of this process", "a holder elsewhere"])
async def test_a_reader_does_not_lose_its_name_to_the_holder_in_a_restored_position(world, host):
    older = await world.reader(patience=Patience(handover=0.1))
    if host:
        older._source._position._origin = Origin("older", host, 7, 1.0)
    await world.append(2, 2)
    assert payloads(await older.take(1)) == [1]
    backup = world.broker.copied_store()
    newer = await world.reader(patience=Patience(handover=0.1))
    assert payloads(await newer.take(3)) == [2, 3, 4]
    world.broker.restart(backup)
    await world.append(1)
    assert payloads(await newer.take(1)) == [5]
    with pytest.raises(TakenOver):
        await older.take(1)
    assert payloads([await world_next(world, newer)]) == [6]


async def world_next(world, reader):
    await world.append(1)
    return await anext(reader)


async def test_a_newer_handle_that_came_after_the_restoring_is_not_taken_from(world):
    older = await world.reader(patience=Patience(handover=0.1))
    older._source._position._origin = Origin("older", "far", 7, 1.0)
    await world.append(2, 2)
    assert payloads(await older.take(1)) == [1]
    backup = world.broker.copied_store()
    assert payloads(await older.take(1)) == [2]
    world.broker.restart(backup)
    newer = await world.reader(patience=Patience(handover=0.1))
    again = payloads(await newer.take(1))
    assert again in ([2], [3])  # the older handle was first, or the newer
    with pytest.raises(TakenOver):
        await older.take(1)
    assert payloads(await newer.take(1)) == [again[0] + 1]


STEPS = st.one_of(
    st.tuples(st.just("append"), st.lists(st.integers(0, 3), max_size=5)),
    st.tuples(st.just("take"), st.integers(1, 8)),
    st.tuples(st.sampled_from(["back up", "restore", "restart", "cut", "heal"]), st.none()),
)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS, min_size=4, max_size=16), window=st.sampled_from([1, 3, 64]))
def test_whatever_is_restored_when_no_message_comes_twice_and_all_that_the_log_has_come(
    make_world, steps, window
):
    async def history():
        world = await make_world()
        try:
            # A backup from before the reader was let in has no log of its position: the reader begins anew.
            await prepare_reader(world.edge, "house", "cloud")
            await run(world, await world.reader(window=window, patience=Patience(silence=0.1)), steps)
        finally:
            await world.close()

    asyncio.run(history())


async def run(world, reader, steps):
    taken, backup = [], world.broker.copied_store()
    for step, value in [*steps, ("heal", None)]:
        if step == "append":
            await world.append(*value)
        elif step == "take":
            with contextlib.suppress(WaitTimeout):
                for _ in range(value):
                    taken += payloads(await reader.take(1, timeout=0.01))
        elif step == "back up":
            backup = world.broker.copied_store()
        elif step == "restore":
            world.broker.restart(backup)
        elif step == "restart":
            world.broker.restart()
        else:
            (world.broker.cut if step == "cut" else world.broker.heal)("cloud")
    await world.append(1)
    while not taken or taken[-1] != world.number:
        taken += payloads(await reader.take(1, timeout=20))
    assert taken == sorted(set(taken))
    stored = [decode(record.data, OutputFrame) async for record in world.output.read(1)]
    assert {n for frame in stored for each in frame.segments for n in each.payloads} <= set(taken)
