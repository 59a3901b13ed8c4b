"""A take that is cut off at any moment: its messages come again, to this handle or the next, and once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random

import pytest
from patience import patient

from pratipad_nb import AsyncDevice, AsyncFlow
from pratipad_nb.cloud.client import AsyncCloud
from pratipad_nb.cloud.position import Patience
from pratipad_nb.cloud.reader import Reader
from pratipad_nb.errors import WaitTimeout
from pratipad_nb.settings import Endpoint
from pratipad_nb.testing import real_server
from pratipad_nb.transport.frames import ReadFrame
from pratipad_nb.transport.memory_log import MemoryConsumer

CUTS = 300


def payloads(messages):
    return [message.payload for message in messages]


class Slow:
    """Holds up the next save of a reader's position: before it reaches the server, or before its answer.

    The append by which a handle takes its name over, while the output is being opened, is no save.
    """

    def __init__(self, reader: Reader, moment: str) -> None:
        self.held = asyncio.Event()
        self._on = asyncio.Event()
        self._moment = moment
        self._source = reader._source
        self._connection = reader._source._connection
        self._append = self._connection.append
        self._connection.append = self.append

    async def append(self, *arguments, **options):
        if not self._source._begun:
            return await self._append(*arguments, **options)
        self._connection.append = self._append
        if self._moment == "before":
            await self._hold()
        stored = await self._append(*arguments, **options)
        if self._moment == "after":
            await self._hold()
        return stored

    async def _hold(self) -> None:
        self.held.set()
        await self._on.wait()

    def go_on(self) -> None:
        self._on.set()


async def cut_off(taking, slow):
    async with asyncio.timeout(patient(5)):
        await slow.held.wait()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking


moments = pytest.mark.parametrize("moment", ["before", "after"])


@moments
@pytest.mark.parametrize("n", [3, 1, 7])
async def test_a_take_cancelled_while_its_position_is_stored_returns_its_messages_next_time(world, moment, n):
    await world.append(2, 2, 2, 2)
    reader = await world.reader()
    assert payloads(await reader.take(1)) == [1]
    await cut_off(asyncio.create_task(reader.take(3)), Slow(reader, moment))
    assert payloads(await reader.take(n)) == list(range(2, n + 2))


@moments
async def test_a_take_cancelled_while_its_position_is_stored_leaves_its_messages_to_the_next_handle(
    world, moment
):
    await world.append(2, 2, 2)
    reader = await world.reader()
    await cut_off(asyncio.create_task(reader.take(3)), Slow(reader, moment))
    await world.kill(reader)
    assert payloads(await (await world.reader()).take(6)) == [1, 2, 3, 4, 5, 6]


@moments
async def test_a_loop_goes_on_with_the_messages_of_a_cancelled_take(world, moment):
    await world.append(2, 2, 2)
    reader = await world.reader()
    await cut_off(asyncio.create_task(reader.take(3)), Slow(reader, moment))
    seen = [(await anext(reader)).payload for _ in range(2)]
    await reader.close()
    assert seen + payloads(await (await world.reader()).take(4)) == [1, 2, 3, 4, 5, 6]


@moments
async def test_a_take_that_is_cancelled_twice_puts_its_position_back_at_close(world, moment):
    await world.append(4)
    reader = await world.reader()
    slow = Slow(reader, moment)
    taking = asyncio.create_task(reader.take(3))
    await asyncio.wait_for(slow.held.wait(), patient(5))
    again = Slow(reader, "before")
    taking.cancel()
    await asyncio.wait_for(again.held.wait(), patient(5))
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await reader.close()
    assert payloads(await (await world.reader()).take(4)) == [1, 2, 3, 4]


@moments
async def test_a_time_out_shorter_than_the_save_loses_nothing(world, moment):
    await world.append(5)
    reader = await world.reader()
    slow = Slow(reader, moment)

    async def bounded():
        async with asyncio.timeout(None) as bound:
            bounds.append(bound)
            await reader.take(2)

    bounds = []
    taking = asyncio.create_task(bounded())
    await asyncio.wait_for(slow.held.wait(), patient(5))
    bounds[0].reschedule(asyncio.get_running_loop().time())
    with pytest.raises(TimeoutError):
        await taking
    assert payloads(await reader.take(5)) == [1, 2, 3, 4, 5]


async def test_a_take_whose_save_got_no_answer_in_time_returns_its_messages_next_time(world):
    await world.append(5)
    reader = await world.reader(patience=Patience(store=0.0))
    assert payloads(await reader.take(1)) == [1]
    world.broker.lose_answers("cloud")
    with pytest.raises(WaitTimeout):
        await reader.take(3, timeout=0)
    assert payloads(await reader.take(4)) == [2, 3, 4, 5]


@moments
async def test_a_cancelled_takes_messages_come_though_the_output_is_opened_anew(world, moment):
    await world.append(5)
    reader = await world.reader()
    assert payloads(await reader.take(1)) == [1]
    slow = Slow(reader, moment)
    taking = asyncio.create_task(reader.take(3))
    await asyncio.wait_for(slow.held.wait(), patient(5))
    again = Slow(reader, "before")
    taking.cancel()
    await asyncio.wait_for(again.held.wait(), patient(5))
    taking.cancel()
    await asyncio.wait({taking})
    await reader._source._let_go()
    with pytest.raises(WaitTimeout):
        await reader.take(9, timeout=0.1)
    assert payloads(await reader.take(4)) == [2, 3, 4, 5]


@moments
async def test_of_two_takes_at_the_same_time_the_second_gets_what_the_first_is_cancelled_for(world, moment):
    await world.append(5)
    reader = await world.reader()
    slow = Slow(reader, moment)
    first, second = (asyncio.create_task(reader.take(2)) for _ in range(2))
    await cut_off(first, slow)
    assert payloads(await second) == [1, 2]
    assert payloads(await reader.take(3)) == [3, 4, 5]


@moments
async def test_a_loop_cancelled_while_its_position_is_stored_goes_on_at_the_next_message(world, moment):
    await world.append(2)
    reader = await world.reader()
    assert [(await anext(reader)).payload for _ in range(2)] == [1, 2]
    await cut_off(asyncio.create_task(anext(reader)), Slow(reader, moment))
    await world.append(3)
    assert (await anext(reader)).payload == 3
    assert payloads(await reader.take(2)) == [4, 5]


@moments
async def test_a_take_that_close_comes_upon_while_it_stores_its_position_returns_its_messages(world, moment):
    await world.append(4)
    reader = await world.reader()
    slow = Slow(reader, moment)
    taking = asyncio.create_task(reader.take(2))
    await asyncio.wait_for(slow.held.wait(), patient(5))
    closing = asyncio.create_task(reader.close())
    await asyncio.sleep(0)
    slow.go_on()
    await closing
    assert payloads(await taking) == [1, 2]
    assert payloads(await (await world.reader()).take(2)) == [3, 4]


@moments
async def test_a_seek_that_is_cancelled_has_moved_or_not_and_loses_nothing_behind_either(world, moment):
    await world.append(2, 2)
    reader = await world.reader()
    assert payloads(await reader.take(3)) == [1, 2, 3]
    await cut_off(asyncio.create_task(reader.seek("oldest")), Slow(reader, moment))
    await world.append(1)
    first = (await reader.take(1))[0].payload
    assert first in (1, 4)
    assert payloads(await reader.take(5 - first)) == list(range(first + 1, 6))


async def test_a_seek_that_is_cancelled_once_its_position_is_stored_has_moved(world, monkeypatch):
    await world.append(2, 2)
    reader = await world.reader()
    assert payloads(await reader.take(3)) == [1, 2, 3]
    source, held = reader._source, asyncio.Event()
    reset = MemoryConsumer.reset

    async def slow(consumer, sequence):
        if source.held.position == ReadFrame(1, 0):
            held.set()
            await asyncio.Event().wait()
        await reset(consumer, sequence)

    monkeypatch.setattr(MemoryConsumer, "reset", slow)
    seeking = asyncio.create_task(reader.seek("oldest"))
    await asyncio.wait_for(held.wait(), patient(5))
    seeking.cancel()
    await asyncio.wait({seeking})
    monkeypatch.setattr(MemoryConsumer, "reset", reset)
    assert payloads(await reader.take(4)) == [1, 2, 3, 4]


async def test_what_was_saved_while_the_output_was_being_opened_is_not_read_again(world):
    await world.append(5)
    reader = await world.reader()
    with pytest.raises(WaitTimeout):
        await reader.take(9, timeout=0.05)
    source = reader._source
    await source._let_go()
    opened = await source._opening()
    assert payloads(await reader.take(3)) == [1, 2, 3]
    source._begin(opened)
    assert [(await anext(reader)).payload for _ in range(2)] == [4, 5]


class Taker:
    """Takes from one handle after another, and cancels at random; keeps what it got."""

    def __init__(self, seed: int, make) -> None:
        self.random = random.Random(seed)
        self.make = make
        self.got: list[int] = []

    async def run(self, total: int, pause) -> None:
        handle, cuts = await self.make(), 0
        while len(self.got) < total:
            most = 1 if cuts < CUTS else 50
            n = min(self.random.randint(1, 5 * most), total - len(self.got))
            taking = asyncio.create_task(handle.take(n, timeout=20))
            if cuts < CUTS:
                await pause(self.random)
                cuts += taking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                self.got += payloads(await taking)
            if cuts < CUTS and self.random.random() < 0.05:
                await handle.close()
                handle = await self.make()
        await handle.close()


async def some_turns(rng: random.Random) -> None:
    for _ in range(rng.randint(0, 12)):
        await asyncio.sleep(0)


async def some_moments(rng: random.Random) -> None:
    await asyncio.sleep(rng.uniform(0, 0.004))


@pytest.mark.parametrize("seed", range(3))
async def test_takes_that_are_cancelled_at_random_lose_and_double_nothing(world, seed):
    await world.append(*itertools.repeat(3, 1000))
    taker = Taker(seed, world.reader)
    await taker.run(3000, some_turns)
    assert taker.got == list(range(1, 3001))


async def test_takes_of_a_cloud_that_are_cancelled_at_random_lose_and_double_nothing(world, edge):
    await world.append(*itertools.repeat(3, 1000))

    async def made():
        return AsyncCloud("house", endpoint=Endpoint(world.url, "house"))

    taker = Taker(7, made)
    await taker.run(3000, some_turns)
    assert taker.got == list(range(1, 3001))


@pytest.mark.parametrize("handle", ["flow", "cloud"])
async def test_takes_that_are_cancelled_at_random_lose_and_double_nothing_over_the_real_server(handle):
    total = 3000
    with real_server() as home:
        async with AsyncFlow(
            "Push ~> same ~> Output", home=home, namespace={"same": lambda payload: payload}
        ) as flow:
            async with await AsyncDevice("room1").connect(flow) as device:
                for number in range(total):
                    await device.push(number)
                await device.flush()

            async def made():
                return AsyncCloud(flow) if handle == "cloud" else Kept(flow)

            taker = Taker(11, made)
            async with asyncio.timeout(60):
                await taker.run(total, some_moments)
    assert taker.got == list(range(total))


class Kept:
    """A flow's own handle, of which there is one: closing it is the flow's."""

    def __init__(self, flow: AsyncFlow) -> None:
        self.take = flow.take

    async def close(self) -> None:
        pass


async def test_a_fast_flows_loop_that_is_left_leaves_the_rest_to_the_next_take(world):
    await world.edge.delete_log(world.subjects.output_stream)
    reader = await world.reader(delivery="fast")
    await reader.open()
    await world.signal(3, 2)
    while await reader.pending() < 2:
        await asyncio.sleep(0)
    lent = await reader.look(1000)
    lent.taken = 2
    assert payloads(await reader.take(3)) == [3, 4, 5]
