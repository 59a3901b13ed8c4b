"""State is exact after a crash at any moment, as positions are: in memory, in many lives of an edge."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets
from typing import ClassVar

import pytest
from patience import eventually, patient

from pratipad_nb.cloud.backlog import messages_of
from pratipad_nb.dataflow import resolve
from pratipad_nb.errors import Fenced, FrameError, LogFull
from pratipad_nb.runtime.edge.edge import Edge
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.settings import FlowOptions
from pratipad_nb.transport.codec import MAGIC, decode, encode
from pratipad_nb.transport.frames import OutputFrame, UplinkFrame
from pratipad_nb.transport.memory import MemoryConnection
from pratipad_nb.transport.parties import Party

FLOW = "house"
#: Checkpoints come so often that lives end before, after and between them.
OPTIONS = FlowOptions(checkpoint_seconds=0.003, slice_seconds=0.001, batch_messages=8)


class Mortal(MemoryConnection):
    """A connection whose process is killed at one of its appends, which is stored or not."""

    def __init__(self, broker, *, dies_at=0, stored=True):
        super().__init__(broker, identity=Party(FLOW, "edge").identity, name="edge")
        self.died = asyncio.Event()
        self.frozen = False
        self._left, self._stored = dies_at, stored

    @property
    def connected(self):
        return not self.died.is_set() and not self.frozen and super().connected

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


class SlowSums(Sums):
    """Takes so long that lives end amid a rebuild, and behind checkpoints that are made amid one."""

    async def process(self, payload, message):
        await asyncio.sleep(0.0005)
        return super().process(payload, message)


class Stumbling(Sums):
    """Fails on some numbers, having changed nothing."""

    def process(self, payload, message):
        if payload % 5 == 0:
            raise ValueError(payload)
        return super().process(payload, message)


class Lengths(Sums):
    """Counts messages, and lets none through."""

    def process(self, payload):
        self.sums["count"] = self.sums.get("count", 0) + 1
        yield from ()


async def spread(payload):
    await asyncio.sleep(0)
    return payload


class Spread:
    concurrency = 3

    def process(self, payload):
        return payload


NAMES = {
    each.__name__: each
    for each in (Sums, SumsInTwo, SumsByBatch, SumsOfThree, SlowSums, Stumbling, Lengths, Spread, spread)
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
    "Push ~> SlowSums ~> Output",
]


class World:
    """One flow whose edge is killed and started again, and devices that know nothing of it."""

    def __init__(self, place, notation, seed, *, options=OPTIONS):
        self.place, self.notation, self.options = place, notation, options
        self.names = NAMES
        self.random = random.Random(seed)
        self.sent: dict[str, list[int]] = {}
        self.epoch = {}
        self.malformed = 0
        self.frames = []
        self.edge = self.connection = None
        self._task = None

    async def starts(self, *, dies_at=0, stored=True):
        self.connection = Mortal(self.place.broker, dies_at=dies_at, stored=stored)
        settings = EdgeSettings(FLOW, options=self.options)
        opening = asyncio.create_task(
            Edge.open(self.connection, resolve(self.notation, self.names), settings), name="open"
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
            device = self.random.choice(["d1", "d2", "d3", "plain"])
            if device == "plain":
                await self._foreign(connection)
                continue
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

    async def _foreign(self, connection):
        """Let a foreign client send plain JSON, or a frame that is no frame."""
        if self.random.random() < 0.2:
            await connection.append(self.place.subjects.up("plain"), MAGIC + b"no frame")
            self.malformed += 1
            return
        number = self.random.randrange(1, 100)
        self.sent.setdefault("plain", []).append(number)
        await connection.append(self.place.subjects.up("plain"), b"%d" % number)

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
    letters = [letter for letter in await world.edge.dead_letters() if letter.processor == "Push"]
    assert len(letters) == world.malformed
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


class Moody(Sums):
    """Fails as the weather is: what failed may pass when it comes again, and what passed always passes."""

    weather = random.Random(1)
    bad = 0.0
    passed: ClassVar[set[str]] = set()

    def process(self, payload, message):
        if message.id not in self.passed and self.weather.random() < self.bad:
            raise ValueError(payload)
        self.passed.add(message.id)
        return super().process(payload, message)


@pytest.mark.parametrize(
    "notation", ["Push ~> spread ~> Moody ~> Output", "Push ~> {spread, Moody} ~> Output"]
)
@pytest.mark.parametrize("seed", range(4))
async def test_dead_letters_that_are_retried_between_crashes_are_in_the_state_once(memory, notation, seed):
    world = World(memory, notation, f"{notation} {seed}")
    moody = type("Moody", (Moody,), {"weather": world.random, "passed": set()})
    world.names = NAMES | {"Moody": moody}
    connection = await memory.connection()
    await memory.logs(connection, options=OPTIONS)
    for _ in range(6):
        moody.bad = world.random.choice([0.0, 0.2, 0.2, 0.8])
        await world.starts(dies_at=world.random.randrange(5, 60), stored=world.random.random() < 0.5)
        await world.come(world.random.randrange(1, 20))
        if world.edge is not None:
            moody.bad = world.random.choice([0.0, 0.2])
            retrying = asyncio.create_task(world.edge.retry_dead_letters())
            dying = asyncio.create_task(world.connection.died.wait())
            await asyncio.wait({retrying, dying}, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
            for task in (retrying, dying):
                task.cancel()
            await asyncio.gather(retrying, dying, return_exceptions=True)
        await world.is_killed()
    moody.bad = 0.0
    await world.starts()
    await world.settled()
    await world.edge.retry_dead_letters()
    await world.settled()
    assert world.state == {device: sum(sent) for device, sent in world.sent.items()}
    results = await world.results()
    assert {device: len(rows) for device, rows in results.items()} == {
        device: len(sent) for device, sent in world.sent.items()
    }
    await world.ends()


#: Checkpoints are made where a change or a retry asks for one alone.
SELDOM = FlowOptions(checkpoint_seconds=60.0)


class Lives(World):
    """A flow whose edge is killed where a test says so, and whose devices send what a test says."""

    def __init__(self, place, notation, *, options=SELDOM, names=None):
        super().__init__(place, notation, 0, options=options)
        self.names = NAMES | (names or {})
        self._first = {}

    async def sends(self, *numbers, device="d1"):
        connection = await self.place.connection()
        first = self._first.get(device, 1)
        self._first[device] = first + len(numbers)
        frame = UplinkFrame(FLOW, device, 1, first, [1.0] * len(numbers), list(numbers))
        await connection.append(self.place.subjects.up(device), encode(frame))
        await connection.close()

    async def restarts(self):
        await self.is_killed()
        await self.starts()
        await self.settled()

    async def kept(self):
        """Return how many entries the input log has."""
        log = await self.connection.find_log(self.place.subjects.input_stream)
        return (await log.state()).messages


async def test_what_rebuilds_a_state_counts_nowhere(memory, caplog):
    caplog.set_level("INFO")
    lives = Lives(memory, "Push ~> Sums ~> Output")
    await lives.starts()
    await lives.sends(1, 2, 3)
    await lives.settled()
    await lives.restarts()
    stats = lives.edge.snapshot()
    assert (stats.received, stats.delivered, stats.repeats, stats.in_flight) == (0, 0, 0, 0)
    processor = stats.processors["Sums"]
    assert (processor.received, processor.emitted, processor.failed) == (0, 0, 0)
    assert lives.state == {"d1": 6}
    assert "3 messages have rebuilt the state" in caplog.text
    assert len((await lives.results())["d1"]) == 3
    await lives.ends()


async def test_a_flow_without_state_keeps_no_input_and_passes_nothing_twice(memory):
    lives = Lives(memory, "Push ~> spread ~> Output", options=FlowOptions(checkpoint_seconds=0.01))
    await lives.starts()
    await lives.sends(1, 2, 3)
    await lives.settled()
    await eventually(lambda: _is(lives.kept, 0))
    await lives.restarts()
    assert lives.edge.parts.gate.repeats == 0
    await lives.ends()


async def _is(count, wanted):
    return await count() == wanted


async def test_the_input_is_kept_until_a_checkpoint_has_it(memory):
    lives = Lives(memory, "Push ~> Sums ~> Output")
    await lives.starts()
    await lives.sends(1, 2, 3)
    await lives.settled()
    assert await lives.kept() == 1
    await lives.edge.parts.upkeep.covered(lambda: None)
    await eventually(lambda: _is(lives.kept, 0))
    await lives.restarts()
    assert lives.state == {"d1": 6}
    await lives.ends()


async def test_what_is_malformed_or_comes_twice_does_not_fill_the_input(memory):
    for notation in ("Push ~> spread ~> Output", "Push ~> Sums ~> Output"):
        lives = Lives(memory, notation, options=FlowOptions(checkpoint_seconds=0.01))
        await lives.starts()
        connection = await memory.connection()
        for _ in range(5):
            await connection.append(memory.subjects.up("d1"), MAGIC + b"no frame")
        await lives.settled()
        await eventually(lambda lives=lives: _is(lives.kept, 0))
        await lives.ends()


@pytest.mark.parametrize("notation", ["Push ~> Lengths ~> Output", "Push ~> spread ~> Output"])
async def test_a_small_input_takes_many_times_its_size_without_a_stall(memory, notation):
    options = FlowOptions(input_bytes=1 << 20, checkpoint_seconds=60.0)
    lives = Lives(memory, notation, options=options)
    await lives.starts()
    connection = await memory.connection()
    async with asyncio.timeout(patient(20)):
        for first in range(1, 1001):
            frame = encode(UplinkFrame(FLOW, "d1", 1, first, [1.0], [{"n": secrets.token_hex(5_000)}]))
            while True:
                try:
                    await connection.append(memory.subjects.up("d1"), frame)
                    break
                except LogFull:
                    await asyncio.sleep(0.001)
    await lives.settled()
    assert await lives.kept() < 200  # of the thousand, ten times what the log can hold
    if "Lengths" in notation:
        await lives.restarts()
        assert lives.state == {"count": 1000}
    await lives.ends()


async def test_dead_letters_that_were_retried_since_the_checkpoint_are_in_the_state_too(memory):
    mended = asyncio.Event()

    class Mended(Sums):
        def process(self, payload, message):
            if payload % 5 == 0 and not mended.is_set():
                raise ValueError(payload)
            return super().process(payload, message)

    lives = Lives(memory, "Push ~> Mended ~> Output", names={"Mended": Mended})
    await lives.starts()
    await lives.sends(1, 5, 2, 10)
    await lives.settled()
    mended.set()

    async def never(check):
        await asyncio.Event().wait()

    lives.edge.parts.upkeep.covered = (
        never  # killed before the checkpoint that the letters are deleted behind
    )
    retrying = asyncio.create_task(lives.edge.retry_dead_letters())
    await eventually(lambda: lives.state == {"d1": 18})
    await lives.settled()
    retrying.cancel()
    await lives.is_killed()
    await lives.starts()  # what failed the first time passes no further than then
    await lives.settled()
    await eventually(lambda: lives.state == {"d1": 18})
    assert await lives.edge.retry_dead_letters() == 0
    assert await lives.edge.dead_letters() == []
    await lives.restarts()
    assert lives.state == {"d1": 18}
    assert len((await lives.results())["d1"]) == 4
    await lives.ends()


async def test_what_fails_as_it_rebuilds_a_state_is_told_and_stored_nowhere(memory, caplog):
    lives = Lives(memory, "Push ~> Sums ~> Output")
    await lives.starts()
    await lives.sends(1, 2, 3)
    await lives.settled()
    await lives.is_killed()

    class Failing(Sums):
        def process(self, payload, message):
            if payload == 2:
                raise ValueError("the database is away")
            return super().process(payload, message)

    lives.names["Sums"] = Failing
    await lives.starts()
    await lives.settled()
    assert lives.state == {"d1": 4}
    assert "1 message of house failed on Sums while rebuilding the state" in caplog.text
    assert "the database is away" in caplog.text
    assert await lives.edge.dead_letters() == []
    await lives.ends()


async def test_a_processor_that_a_change_adds_sees_nothing_of_before_after_a_crash(memory):
    lives = Lives(memory, "Push ~> spread ~> Output")
    await lives.starts()
    await lives.sends(1, 2)
    await lives.settled()
    lives.notation = "Push ~> spread ~> Sums ~> Output"
    await lives.edge.swap(resolve(lives.notation, NAMES))
    await lives.sends(3, 4)
    await lives.settled()
    assert lives.state == {"d1": 7}
    await lives.restarts()
    assert lives.state == {"d1": 7}
    await lives.ends()


async def test_a_processor_that_begins_to_keep_state_in_its_place_sees_nothing_of_before(memory):
    class Total:
        def process(self, payload):
            return payload

    lives = Lives(memory, "Push ~> Total ~> Output", names={"Total": Total})
    await lives.starts()
    await lives.sends(1, 2)
    await lives.settled()
    lives.names["Total"] = type("Total", (Sums,), {})
    await lives.edge.swap(resolve(lives.notation, lives.names))
    await lives.sends(3, 4)
    await lives.settled()
    await lives.restarts()
    assert lives.state == {"d1": 7}
    await lives.ends()


async def test_a_change_of_code_is_at_one_point_for_the_state_after_a_crash(memory):
    class Total(Sums):
        """Doubles from its second version on."""

    class Doubled(Sums):
        def process(self, payload, message):
            return super().process(2 * payload, message)

    lives = Lives(memory, "Push ~> Total ~> Output", names={"Total": Total})
    await lives.starts()
    await lives.sends(1, 2)
    await lives.settled()
    lives.names["Total"] = Doubled
    await lives.edge.swap(resolve(lives.notation, lives.names))
    await lives.sends(3, 4)
    await lives.settled()
    assert lives.state == {"d1": 17}
    await lives.restarts()
    assert lives.state == {"d1": 17}
    await lives.ends()


async def test_state_that_was_not_kept_for_a_while_is_rebuilt_of_nothing(memory):
    lives = Lives(memory, "Push ~> Sums ~> Output")
    await lives.starts()
    await lives.sends(1, 2)
    await lives.settled()
    await lives.is_killed()
    lives.notation = "Push ~> spread ~> Output"
    await lives.starts()
    await lives.sends(3)
    await lives.settled()
    await lives.is_killed()
    lives.notation = "Push ~> Sums ~> Output"
    await lives.starts()
    await lives.sends(4)
    await lives.settled()
    await lives.restarts()
    assert lives.state == {"d1": 4}
    await lives.ends()


async def test_a_full_output_puts_no_old_state_with_new_positions(memory):
    lives = Lives(memory, "Push ~> Sums ~> Output")
    await lives.starts()
    await lives.sends(1, 2)
    await lives.settled()
    chain = lives.edge.parts.writer._chain
    append, refused = lives.connection.append, []

    async def full(subject, data, **more):
        if subject == memory.subjects.out(0) and len(refused) < 3:
            refused.append(subject)
            raise LogFull("full")
        return await append(subject, data, **more)

    lives.connection.append = full
    await lives.sends(3)
    await eventually(lambda: len(refused) == 3 and chain.checkpointed > 1)
    await lives.settled()
    await lives.restarts()
    assert lives.state == {"d1": 6}
    await lives.ends()


async def test_an_edge_that_thaws_takes_nothing_from_the_state_of_its_successor(memory):
    old = Lives(memory, "Push ~> Sums ~> Output")
    await old.starts()
    await old.sends(1, 2)
    await old.sends(4, device="d2")
    await old.settled()
    new = Lives(memory, "Push ~> Sums ~> Output", names={"Sums": SlowSums})
    old.connection.frozen = True
    await new.starts()
    old.connection.frozen = False
    memory.broker.tick()
    await old.sends(8)
    await new.settled()
    assert new.state == {"d1": 11, "d2": 4}
    with pytest.raises((BaseExceptionGroup, Fenced)):
        await old._task
    await old.is_killed()
    await new.restarts()
    assert new.state == {"d1": 11, "d2": 4}
    await new.ends()
