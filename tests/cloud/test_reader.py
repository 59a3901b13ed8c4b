"""The reader: exactly-once taking, iterating, what is skipped, and what a kill leaves."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import eventually

from pratipad_nb.cloud.position import Patience
from pratipad_nb.errors import SettingsError, TransportClosed, WaitTimeout
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import OutputFrame, ReadFrame, Segment
from pratipad_nb.transport.readers import prepare_reader, reader_consumer


def payloads(messages):
    return [message.payload for message in messages]


async def test_take_returns_the_next_messages_whatever_frames_they_came_in(world):
    await world.append(3, 1, 4)
    reader = await world.reader()
    assert payloads(await reader.take(2)) == [1, 2]
    assert payloads(await reader.take(5)) == [3, 4, 5, 6, 7]
    message = (await reader.take(1))[0]
    assert (message.payload, message.id, message.device) == (8, "room1-7-8", "room1")
    assert (message.time, message.received, message.flow) == (1.0, 2.0, "house")


async def test_a_reader_that_is_killed_in_mid_frame_goes_on_at_the_next_message(world):
    await world.append(5, 5)
    first = await world.reader()
    assert payloads(await first.take(3)) == [1, 2, 3]
    await world.kill(first)
    second = await world.reader()
    assert payloads(await second.take(7)) == [4, 5, 6, 7, 8, 9, 10]


async def test_a_timed_out_take_says_what_was_there_and_the_next_one_returns_it(world):
    await world.append(2)
    reader = await world.reader()
    with pytest.raises(
        WaitTimeout, match=r"got 2 of 3 messages of 'house' in 0\.1 s; they wait for the next take"
    ):
        await reader.take(3, timeout=0.1)
    assert reader.position == ReadFrame(1, 0)
    await world.append(1)
    assert payloads(await reader.take(3)) == [1, 2, 3]


async def test_a_take_waits_for_messages_that_come_later(world):
    reader = await world.reader()
    taking = asyncio.create_task(reader.take(2))
    await world.append(1)
    await world.append(1)
    assert payloads(await taking) == [1, 2]


async def test_what_comes_again_after_a_restart_of_the_server_is_taken_once(world):
    await world.append(2, 2, 2)
    reader = await world.reader()
    assert payloads(await reader.take(3)) == [1, 2, 3]
    world.broker.restart()
    await world.append(1)
    assert payloads(await reader.take(4)) == [4, 5, 6, 7]
    with pytest.raises(WaitTimeout):
        await reader.take(1, timeout=0.05)


async def test_the_edge_sees_as_done_what_is_taken_and_no_more(world):
    await world.append(2, 2, 2)
    reader = await world.reader()
    await reader.take(3)
    assert await world.floor() == 1
    await reader.take(1)
    assert await world.floor() == 2


async def test_frames_without_messages_do_not_hold_the_flow(world):
    await world.append(*[0] * 8, 1)
    reader = await world.reader(window=8)
    assert payloads(await reader.take(1)) == [1]
    await world.append(*[0] * 40)
    with pytest.raises(WaitTimeout):
        await reader.take(1, timeout=0.2)
    assert await world.floor() >= 45
    await world.append(1)
    assert payloads(await reader.take(1)) == [2]


async def test_what_was_purged_before_it_was_read_is_counted_and_the_reader_goes_on(world):
    await world.append(2, 2, 2, 2)
    first = await world.reader()
    await first.take(1)
    await world.kill(first)
    await world.output.purge(4)
    second = await world.reader()
    assert payloads(await second.take(2)) == [7, 8]
    assert second.skipped_frames == 3


async def test_a_new_reader_begins_with_the_oldest_that_is_kept_and_has_skipped_nothing(world):
    await world.append(2, 2)
    await world.output.purge(2)
    reader = await world.reader()
    assert payloads(await reader.take(2)) == [3, 4]
    assert reader.skipped_frames == 0


async def test_a_take_may_be_longer_than_what_is_prefetched(world):
    await world.append(*[1] * 50)
    reader = await world.reader(window=4)
    taking = asyncio.create_task(reader.take(60))
    await world.append(*[1] * 10)
    assert payloads(await taking) == list(range(1, 61))
    await world.append(1)
    assert payloads(await reader.take(1)) == [61]
    assert await world.floor() >= 4


async def test_a_reader_may_start_before_the_flow_was_ever_started(world):
    await world.edge.delete_log(world.subjects.output_stream)
    reader = await world.reader()
    with pytest.raises(WaitTimeout):  # it has looked, and there was no log
        await reader.take(1, timeout=0.05)
    taking = asyncio.create_task(reader.take(1))
    await world.open()
    await world.append(1)
    assert payloads(await taking) == [1]


async def test_a_flow_that_was_forgotten_and_begun_anew_is_read_from_its_start(world):
    await world.append(2, 2)
    reader = await world.reader()
    await reader.take(4)
    for name in (world.subjects.output_stream, world.subjects.position_stream("cloud")):
        await world.edge.delete_log(name)
    await world.open()
    await world.append(1)
    assert payloads(await reader.take(1)) == [5]


async def test_two_readers_of_two_names_get_everything_each(world):
    await world.append(3)
    one, two = await world.reader("one"), await world.reader("two")
    assert payloads(await one.take(3)) == payloads(await two.take(3)) == [1, 2, 3]


async def test_takes_on_one_reader_are_served_one_after_another(world):
    reader = await world.reader()
    takes = [asyncio.create_task(reader.take(3)) for _ in range(4)]
    await world.append(5, 5, 2)
    assert [payloads(await take) for take in takes] == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]


async def test_a_take_behind_a_waiting_loop_ends_at_its_time_out(world):
    reader = await world.reader()
    waiting = asyncio.create_task(anext(reader))
    await asyncio.sleep(0)
    with pytest.raises(WaitTimeout, match="another take or loop"):
        await reader.take(1, timeout=0.05)
    await world.append(1)
    assert (await waiting).payload == 1


async def test_an_answer_that_was_lost_stores_the_position_once(world):
    await world.append(4)
    reader = await world.reader()
    await reader.take(1)
    world.broker.lose_answers("cloud")
    assert payloads(await reader.take(1)) == [2]
    await world.kill(reader)
    assert payloads(await (await world.reader()).take(2)) == [3, 4]


async def test_a_loop_goes_on_where_a_take_ended_and_stores_its_position_at_close(world):
    await world.append(2, 3)
    reader = await world.reader()
    await reader.take(1)
    seen = []
    async for message in reader:
        seen.append(message.payload)
        if len(seen) == 2:
            break
    assert seen == [2, 3]
    await reader.close()
    assert payloads(await (await world.reader()).take(2)) == [4, 5]


async def test_a_loop_stores_its_position_before_it_waits(world):
    await world.append(2)
    reader = await world.reader()
    assert [(await anext(reader)).payload, (await anext(reader)).payload] == [1, 2]
    waiting = asyncio.create_task(anext(reader))

    async def stored():
        return await world.floor() == 1

    await eventually(stored)
    await world.append(1)
    assert (await waiting).payload == 3


async def test_closing_ends_a_waiting_take_and_a_waiting_loop(world):
    reader = await world.reader()
    taking = asyncio.create_task(reader.take(1))
    await asyncio.sleep(0.01)
    await reader.close()
    with pytest.raises(TransportClosed, match="closed"):
        await taking
    assert [message async for message in reader] == []


@pytest.mark.parametrize("n", [0, -1, True, 1.5, "3"])
async def test_a_take_of_no_whole_number_is_refused(world, n):
    reader = await world.reader()
    with pytest.raises(SettingsError, match="n is"):
        await reader.take(n)


@pytest.mark.parametrize("timeout", [-1, "1", True, float("nan")])
async def test_a_take_with_a_time_out_that_is_none_is_refused(world, timeout):
    reader = await world.reader()
    with pytest.raises(SettingsError, match="timeout is"):
        await reader.take(1, timeout=timeout)


async def test_pending_counts_the_frames_with_messages_to_take(world):
    await world.append(2, 2, 2)
    reader = await world.reader()
    assert await reader.pending() == 3
    await reader.take(3)
    assert await reader.pending() == 2


async def test_seeking_moves_to_either_end(world):
    await world.append(2, 2)
    reader = await world.reader()
    await reader.take(3)
    await reader.seek("oldest")
    assert payloads(await reader.take(1)) == [1]
    await reader.seek("newest")
    await world.append(1)
    assert payloads(await reader.take(1)) == [5]
    with pytest.raises(SettingsError, match="middle"):
        await reader.seek("middle")


async def test_a_damaged_frame_is_counted_and_skipped(world):
    await world.append(1)
    await world.edge.append(world.subjects.out(0), b"PNB\x00nonsense")
    await world.append(1)
    reader = await world.reader()
    assert payloads(await reader.take(2)) == [1, 2]
    assert reader.skipped_frames == 1


async def test_a_fast_reader_gets_what_comes_while_it_listens(world):
    await world.edge.delete_log(world.subjects.output_stream)
    reader = await world.reader(delivery="fast")
    await world.signal(2)
    await reader.open()
    await world.signal(2, 1)
    assert payloads(await reader.take(3)) == [3, 4, 5]
    assert reader.skipped_frames == 0


async def test_a_fast_readers_full_buffer_drops_the_oldest_and_counts_them(world):
    await world.edge.delete_log(world.subjects.output_stream)
    reader = await world.reader(delivery="fast", buffer=5)
    await reader.open()
    await world.signal(2, 2, 2, 1)

    async def arrived():
        return reader.skipped_frames == 1 and await reader.pending() == 3

    await eventually(arrived)
    assert payloads(await reader.take(5)) == [3, 4, 5, 6, 7]


async def test_a_fast_readers_buffer_is_bounded_in_memory_too(world, monkeypatch):
    monkeypatch.setattr("pratipad_nb.cloud.signal_source._MEMORY", 1 << 20)
    await world.edge.delete_log(world.subjects.output_stream)
    reader = await world.reader(delivery="fast")
    await reader.open()

    async def send(count, payload):
        for _ in range(count):
            segment = Segment("room1", 7, 1, 2.0, [1.0], [payload])
            world.frames += 1
            frame = OutputFrame("edge", world.frames, [], [segment])
            await world.edge.publish(world.subjects.out(0), encode(frame))

    await send(40, "x" * 20_000)  # as objects little more than on the wire
    await eventually(lambda: reader._source.held.count == 40)
    assert reader.skipped_frames == 0
    await send(8, [[]] * 2_000)
    await eventually(lambda: reader.skipped_frames + reader._source.held.count == 48)
    assert 30 < reader.skipped_frames < 44


async def test_a_reader_decodes_no_more_at_a_time_than_memory_goes(world, monkeypatch):
    monkeypatch.setattr("pratipad_nb.cloud.log_source._MEMORY", 1 << 20)
    for number in range(40):
        segment = Segment("room1", 7, number + 1, 2.0, [1.0], [[number, *[[]] * 5_000]])
        frame = OutputFrame("edge", number + 1, [("room1", 7, number + 1)], [segment])
        await world.edge.append(world.subjects.out(0), encode(frame))
    reader = await world.reader()
    taken = [message.payload[0] for message in await reader.take(1)]
    assert reader._source.held.count < 5
    reads = []
    real = world.output.read
    monkeypatch.setattr(reader._source._open.output, "read", lambda *a: reads.append(a) or real(*a))
    taken += [message.payload[0] for message in await reader.take(20)]
    assert reader._source.held.count < 5
    taken += [message.payload[0] for message in await reader.take(19)]
    assert taken == list(range(40))
    assert reads == []  # what has arrived is not read from the log again


async def test_a_take_longer_than_a_fast_readers_buffer_makes_room_for_itself(world):
    await world.edge.delete_log(world.subjects.output_stream)
    reader = await world.reader(delivery="fast", buffer=2)
    await reader.open()
    taking = asyncio.create_task(reader.take(6))
    await asyncio.sleep(0)
    await world.signal(2, 2, 2)
    assert payloads(await taking) == [1, 2, 3, 4, 5, 6]


async def test_a_gap_in_what_a_fast_flow_numbered_is_counted(world):
    await world.edge.delete_log(world.subjects.output_stream)
    reader = await world.reader(delivery="fast")
    await reader.open()
    await world.signal(1)
    world.frames += 3
    await world.signal(1)
    assert payloads(await reader.take(2)) == [1, 2]
    assert reader.skipped_frames == 3


async def lose_a_delivery(world, reader):
    """Let the reader's consumer deliver a frame to nobody, as when another process of its name has got it."""
    await world.append(1)
    assert len(await reader._source._open.consumer.get()) == 1


async def test_a_delivery_that_got_lost_is_read_from_the_log_when_a_newer_one_comes(world):
    await world.append(1)
    reader = await world.reader()
    await reader.take(1)
    await lose_a_delivery(world, reader)
    await world.append(1)
    assert payloads(await reader.take(2)) == [2, 3]
    assert reader.skipped_frames == 0


async def test_a_delivery_that_got_lost_is_looked_for_when_nothing_comes(world):
    await world.append(1)
    reader = await world.reader(patience=Patience(silence=0.02))
    await reader.take(1)
    await lose_a_delivery(world, reader)
    assert payloads(await reader.take(1)) == [2]


async def test_a_cancelled_take_loses_nothing(world):
    await world.append(2)
    reader = await world.reader()
    for _ in range(20):
        taking = asyncio.create_task(reader.take(3))
        await asyncio.sleep(0)
        taking.cancel()
        await asyncio.wait({taking})
    await world.append(1)
    assert payloads(await reader.take(3)) == [1, 2, 3]


async def test_a_position_that_can_not_be_stored_leaves_the_messages_where_they_are(world):
    await world.append(2)
    reader = await world.reader(patience=Patience(store=0.1))
    with pytest.raises(WaitTimeout):
        await reader.take(3, timeout=0.05)
    world.broker.cut("cloud")
    with pytest.raises(WaitTimeout):
        await reader.take(2, timeout=0.1)
    world.broker.heal("cloud")
    assert payloads(await reader.take(2)) == [1, 2]


STEPS = st.one_of(
    st.tuples(st.just("append"), st.lists(st.integers(0, 4), max_size=6)),
    st.tuples(st.just("take"), st.integers(1, 9)),
    st.tuples(st.just("loop"), st.integers(1, 9)),
    st.tuples(st.sampled_from(["close", "kill", "server", "other"]), st.none()),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=14), window=st.sampled_from([1, 3, 64]))
def test_every_message_is_read_once_and_in_order_whatever_happens_in_between(make_world, steps, window):
    """A kill in mid-loop may repeat what the loop saw since the position was stored; nothing else repeats."""

    async def history():
        world = await make_world()
        try:
            await run(world, steps, window)
        finally:
            await world.close()

    asyncio.run(history())


async def run(world, steps, window):
    reader = await world.reader(window=window)
    seen, looped = 0, 0  # messages seen; those of them since whose loop the position may not be stored
    for step, value in [*steps, ("take", 1)]:
        if step == "append":
            await world.append(*value)
        elif step == "server":
            world.broker.restart()
        elif step == "take":
            n = min(value, world.number - seen)
            if n:
                assert payloads(await reader.take(n, timeout=5)) == list(range(seen + 1, seen + n + 1))
                seen, looped = seen + n, 0
        elif step == "loop":
            for _ in range(min(value, world.number - seen)):
                assert (await anext(reader)).payload == seen + 1
                seen, looped = seen + 1, looped + 1
        elif step == "other":
            other = await world.reader("other", window=window)
            if world.number:
                await other.take(1, timeout=5)
            await other.close()
            await other._source._connection.close()
        else:
            if step == "close":
                await reader.close()
                looped = 0
            await world.kill(reader)
            reader = await world.reader(window=window)
            if looped:  # at least once: it goes on somewhere within what the loop saw
                again = (await anext(reader)).payload if world.number > seen - looped else seen + 1
                assert seen - looped < again <= seen + 1
                seen, looped = again, 1


async def test_a_reader_that_nobody_let_in_yet_says_what_is_missing_and_reads_once_it_is_there(world):
    await world.listening.close()  # as if the flow didn't run
    await world.append(2)
    reader = await world.reader()
    with pytest.raises(WaitTimeout, match=r"log of this reader's position is missing.*certs issue reader"):
        await reader.take(1, timeout=0.2)
    await prepare_reader(world.edge, "house", "cloud")
    await world.output.forget_consumer("cloud")
    with pytest.raises(WaitTimeout, match="this reader's consumer is missing"):
        await reader.take(1, timeout=0.2)
    await prepare_reader(world.edge, "house", "cloud")
    assert payloads(await reader.take(2)) == [1, 2]


async def test_a_reader_whose_consumer_is_deleted_has_the_flow_make_it_again(world):
    await world.append(1, 1)
    reader = await world.reader()
    assert payloads(await reader.take(1)) == [1]
    await world.output.forget_consumer("cloud")
    await world.append(1)
    assert payloads(await reader.take(2)) == [2, 3]
    assert await world.floor() == 3


async def test_a_reader_starts_where_its_position_is_wherever_its_consumer_stands(world):
    await world.append(1, 1, 1, 1)
    first = await world.reader()
    assert payloads(await first.take(2)) == [1, 2]
    await first.close()
    for elsewhere in (1, 5):
        consumer = await world.output.find_consumer(reader_consumer("cloud"))
        await consumer.reset(elsewhere)
        await consumer.close()
        reader = await world.reader()
        assert payloads(await reader.take(1)) == [3 if elsewhere == 1 else 4]
        await reader.close()
