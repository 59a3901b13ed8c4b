"""State is exact after a crash at any moment, as positions are: in memory, in many lives of an edge."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random

import pytest
from patience import patient

from pratipad_nb.cloud.backlog import messages_of
from pratipad_nb.dataflow import resolve
from pratipad_nb.errors import FrameError
from pratipad_nb.runtime.edge.edge import Edge
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.settings import FlowOptions
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import OutputFrame, UplinkFrame
from pratipad_nb.transport.memory import MemoryConnection
from pratipad_nb.transport.permissions import edge_user

FLOW = "house"
#: Checkpoints come so often that lives end before, after and between them.
OPTIONS = FlowOptions(checkpoint_seconds=0.003, slice_seconds=0.001, batch_messages=8)


class Mortal(MemoryConnection):
    """A connection whose process is killed at one of its appends, which is stored or not."""

    def __init__(self, broker, *, dies_at=0, stored=True):
        super().__init__(broker, identity=edge_user(FLOW).identity, name="edge")
        self.died = asyncio.Event()
        self._left, self._stored = dies_at, stored

    @property
    def connected(self):
        return not self.died.is_set() and super().connected

    async def append(self, subject, data, **more):
        self._left -= 1
        if self._left == 0 and not self._stored:
            self.died.set()
        if not self.died.is_set():
            sequence = await super().append(subject, data, **more)
            if self._left == 0:
                self.died.set()
        if self.died.is_set():
            await asyncio.Event().wait()
        return sequence


class Sums:
    """Adds up each device's numbers, and answers with the sum so far."""

    def __init__(self):
        self.sums = {}

    def process(self, payload, message):
        self.sums[message.device] = self.sums.get(message.device, 0) + payload
        return {"device": message.device, "sum": self.sums[message.device]}

    def snapshot(self):
        return self.sums

    def restore(self, sums):
        self.sums = sums


class SumsInTwo(Sums):
    concurrency = 2


class SumsByKey(Sums):
    concurrency = 2
    partition_by = "device"

    def process(self, payload, message):
        return super().process(payload["n"], message)


class SumsByBatch(Sums):
    batch_size = 5
    batch_timeout = 0.002

    process = None

    def process_batch(self, payloads, messages):
        return [Sums.process(self, p, m) for p, m in zip(payloads, messages, strict=True)]


class SumsOfThree(Sums):
    """Answers every third message of a device alone."""

    def process(self, payload, message):
        count, total = self.sums.get(message.device, (0, 0))
        self.sums[message.device] = [count + 1, total + payload]
        if count % 3 == 2:
            yield {"device": message.device, "sum": total + payload}


class Stumbling(Sums):
    """Fails on some numbers, having changed nothing."""

    def process(self, payload, message):
        if payload % 5 == 0:
            raise ValueError(payload)
        return super().process(payload, message)


async def spread(payload):
    await asyncio.sleep(0)
    return payload


class Spread:
    concurrency = 3

    def process(self, payload):
        return payload


NAMES = {
    each.__name__: each for each in (Sums, SumsInTwo, SumsByBatch, SumsOfThree, Stumbling, Spread, spread)
}
NOTATIONS = [
    "Push ~> Sums ~> Output",
    "Push ~> SumsInTwo ~> Output",
    "Push ~> Spread ~> Sums ~> Spread ~> Output",
    "Push ~> spread ~> SumsInTwo ~> spread ~> Output",
    "Push ~> {spread, Sums} ~> Output",
    "Push ~> SumsByBatch ~> Spread ~> Output",
    "Push ~> SumsOfThree ~> Output",
    "Push ~> Stumbling ~> Output",
]


class World:
    """One flow whose edge is killed and started again, and devices that know nothing of it."""

    def __init__(self, place, notation, seed, *, options=OPTIONS):
        self.place, self.notation, self.options = place, notation, options
        self.random = random.Random(seed)
        self.sent: dict[str, list[int]] = {}
        self.epoch = {}
        self.frames = []
        self.edge = self.connection = None
        self._task = None

    async def starts(self, *, dies_at=0, stored=True):
        self.connection = Mortal(self.place.broker, dies_at=dies_at, stored=stored)
        settings = EdgeSettings(FLOW, options=self.options)
        opening = asyncio.create_task(
            Edge.open(self.connection, resolve(self.notation, NAMES), settings), name="open"
        )
        self._task = opening
        if not await self._lives(opening):
            return
        self.edge = opening.result()
        self._task = asyncio.create_task(self.edge.run(), name="run")

    async def _lives(self, doing):
        dying = asyncio.create_task(self.connection.died.wait())
        async with asyncio.timeout(patient(10)):
            await asyncio.wait({doing, dying}, return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        return doing.done()

    async def is_killed(self):
        """End the edge as `kill -9` does: nothing is stored or acknowledged any more."""
        self.connection.died.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.connection.close()
        if self.edge is not None:
            with contextlib.suppress(Exception):
                await self.edge.close()
        self.edge = None

    async def ends(self):
        self.edge.drain()
        async with asyncio.timeout(patient(10)):
            await self._task
        await self.edge.close()
        await self.connection.close()

    async def come(self, frames):
        """Let devices send some frames; a receipt that was lost makes a device send a frame again."""
        connection = await self.place.connection()
        for _ in range(frames):
            device = self.random.choice(["d1", "d2", "d3"])
            if device not in self.epoch or self.random.random() < 0.05:
                self.epoch[device] = (self.random.randrange(1, 1 << 50), 1)
            epoch, first = self.epoch[device]
            numbers = [self.random.randrange(1, 100) for _ in range(self.random.randrange(1, 6))]
            frame = UplinkFrame(FLOW, device, epoch, first, [1.0] * len(numbers), numbers)
            self.epoch[device] = (epoch, first + len(numbers))
            self.sent.setdefault(device, []).extend(numbers)
            for _ in range(1 if self.random.random() < 0.9 else 2):
                await connection.append(self.place.subjects.up(device), encode(frame))
            if self.random.random() < 0.3:
                await asyncio.sleep(self.random.choice([0, 0, 0.001, 0.004]))
            else:
                await asyncio.sleep(0)
        await connection.close()

    async def settled(self):
        doing = asyncio.create_task(self.edge.settled(patient(10)))
        done, _ = await asyncio.wait({doing, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if doing in done:
            await doing
        else:
            await self._task

    @property
    def state(self):
        """All states of the processors that keep one, as one dictionary."""
        found = {}
        for stage in self.edge.line.stages:
            for runner in stage.runners:
                if runner.adapted.has_snapshot:
                    found |= runner.adapted.snapshot()
        return found

    async def results(self):
        connection = await self.place.connection()
        output = await connection.find_log(self.place.subjects.output_stream)
        found = {}
        async for record in output.read(0):
            with contextlib.suppress(FrameError):
                for message in messages_of(decode(record.data, OutputFrame), FLOW):
                    found.setdefault(message.device, []).append(message.payload)
        await connection.close()
        return found


def prefix_sums(numbers):
    return list(itertools.accumulate(numbers))


@pytest.mark.parametrize("notation", NOTATIONS)
@pytest.mark.parametrize("seed", range(4))
async def test_state_and_results_are_exact_after_a_crash_at_any_moment(memory, notation, seed):
    world = World(memory, notation, f"{notation} {seed}")
    connection = await memory.connection()
    await memory.logs(connection, options=OPTIONS)
    for _ in range(6):
        await world.starts(dies_at=world.random.randrange(1, 25), stored=world.random.random() < 0.5)
        await world.come(world.random.randrange(1, 30))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(world.random.choice([0.0, 0.01, 0.05])):
                await world.connection.died.wait()
        await world.is_killed()
    await world.starts()
    await world.settled()
    numbers = world.sent
    if "Stumbling" in notation:
        numbers = {device: [n for n in sent if n % 5] for device, sent in numbers.items()}
    found, results = world.state, await world.results()
    expected = {device: sum(sent) for device, sent in numbers.items()}
    if "OfThree" in notation:
        assert found == {device: [len(sent), sum(sent)] for device, sent in numbers.items()}
        wanted = {device: prefix_sums(sent)[2::3] for device, sent in numbers.items()}
    else:
        assert found == expected
        wanted = {device: prefix_sums(sent) for device, sent in numbers.items()}
    if "{" in notation:
        assert results == numbers
    else:
        assert {device: [r["sum"] for r in rows] for device, rows in results.items()} == {
            device: sums for device, sums in wanted.items() if sums
        }
    await world.ends()
