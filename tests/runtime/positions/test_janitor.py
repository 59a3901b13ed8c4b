"""The janitor: what is old or too much goes, but nothing that a named reader or the next start needs."""

from __future__ import annotations

import secrets

import pytest

from pratipad_nb.hardware.clock import ManualClock
from pratipad_nb.runtime.positions import janitor as module
from pratipad_nb.runtime.positions.janitor import HANDLE, Janitor
from pratipad_nb.settings import FlowOptions, Keep
from pratipad_nb.transport.protocol import ConsumerSpec


class Clock(ManualClock):
    """Stands in for the `time` module: it goes on when told to."""

    def time(self):
        return 1_000_000.0 + self.monotonic()

    def time_ns(self):
        return int(self.time() * 1e9)


class Kept:
    """An output log of 1 MiB, and the janitor that looks after it."""

    def __init__(self, connection, log, subject, clock):
        self.connection, self.log, self.subject, self.clock = connection, log, subject, clock
        self.checkpointed = 1 << 40
        self.waiting: set[str] = set()  # readers that were let in and have not come yet

    def janitor(self, seconds=60.0, **options):
        async def checkpointed():
            return self.checkpointed

        async def claimed(reader):
            return reader not in self.waiting

        return Janitor(self.log, checkpointed, Keep(seconds, 1 << 20), FlowOptions(**options), claimed)

    async def fill(self, frames, size=1000):
        for _ in range(frames):
            await self.connection.append(self.subject, secrets.token_bytes(size))

    async def reader(self, name, read=0):
        consumer = await self.log.consumer(ConsumerSpec(name, "all", max_pending=1000))
        taken = []
        while len(taken) < read:
            taken += await consumer.get()
        if read:
            consumer.acknowledge(taken[read - 1])
        await consumer.close()

    async def first(self):
        return (await self.log.state()).first


@pytest.fixture
async def kept(memory, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(memory.broker, "_clock", clock.time)
    connection = await memory.connection()
    logs = await memory.logs(connection, keep=Keep(bytes=1 << 20))
    return Kept(connection, logs[memory.subjects.output_stream], memory.subjects.out(0), clock)


async def test_what_is_young_and_little_stays(kept):
    await kept.fill(200)
    await kept.janitor().sweep()
    assert await kept.first() == 1


async def test_what_is_older_than_kept_goes_to_the_first_that_is_young_enough(kept):
    await kept.fill(100)
    kept.clock.advance(50)
    await kept.fill(100)
    kept.clock.advance(20)
    await kept.janitor().sweep()
    assert await kept.first() == 101


async def test_of_a_log_that_is_all_old_the_newest_frames_stay(kept):
    await kept.fill(200)
    kept.clock.advance(1000)
    await kept.janitor().sweep()
    assert await kept.first() == 200 - 64


async def test_at_80_percent_the_oldest_go_a_little_at_a_time(kept):
    await kept.fill(880)
    await kept.janitor().sweep()
    state = await kept.log.state()
    assert 0.77 < state.bytes / (1 << 20) <= 0.80
    assert state.first > 1


async def test_a_log_of_few_large_frames_can_be_cut_too(kept):
    await kept.fill(8, size=120_000)
    await kept.janitor().sweep()
    assert await kept.first() > 1


async def test_what_a_named_reader_has_not_read_stays_however_old(kept):
    await kept.fill(200)
    await kept.reader("archive", read=30)
    kept.clock.advance(1000)
    await kept.janitor().sweep()
    assert await kept.first() == 31


async def test_of_several_readers_the_slowest_holds(kept):
    await kept.fill(200)
    await kept.reader("quick", read=100)
    await kept.reader("slow", read=20)
    kept.clock.advance(1000)
    await kept.janitor().sweep()
    assert await kept.first() == 21


async def test_the_notebooks_own_handle_holds_nothing_back(kept):
    await kept.fill(200)
    await kept.reader(HANDLE, read=10)
    kept.clock.advance(1000)
    janitor = kept.janitor()
    await janitor.sweep()
    assert await kept.first() == 200 - 64
    assert janitor.readers == {}


async def test_a_full_log_names_the_reader_that_it_waits_for(kept):
    await kept.fill(880)
    await kept.reader("archive")
    await kept.reader("quick", read=800)
    janitor = kept.janitor()
    await janitor.sweep()
    assert await kept.first() == 1
    (reason,) = janitor.blocked_by
    assert "reader 'archive' is 880 frames behind" in reason
    assert "forget_reader('archive')" in reason


async def test_while_there_is_room_a_reader_that_is_behind_blocks_nothing(kept):
    await kept.fill(200)
    await kept.reader("archive")
    kept.clock.advance(1000)
    janitor = kept.janitor()
    await janitor.sweep()
    assert janitor.readers["archive"].pending == 200
    assert janitor.blocked_by == ()


async def test_on_lag_discard_cuts_past_a_reader_once_the_log_is_full_and_not_before(kept):
    await kept.fill(200)
    await kept.reader("archive")
    kept.clock.advance(1000)
    janitor = kept.janitor(on_lag="discard")
    await janitor.sweep()
    assert await kept.first() == 1
    await kept.fill(680)
    await janitor.sweep()
    assert await kept.first() > 1
    assert janitor.blocked_by == ()


async def test_a_reader_that_has_been_away_for_longer_than_allowed_holds_nothing_back(kept):
    await kept.fill(200)
    await kept.reader("archive")
    kept.clock.advance(1000)
    await kept.janitor(reader_expiry=2000.0).sweep()
    assert await kept.first() == 1
    await kept.janitor(reader_expiry=500.0).sweep()
    assert await kept.first() == 200 - 64


async def test_a_reader_that_was_let_in_and_never_came_holds_nothing_back_until_it_comes(kept):
    kept.waiting.add("archive")
    await kept.reader("archive")
    await kept.fill(900)
    janitor = kept.janitor()
    await janitor.sweep()
    first = await kept.first()
    assert first > 1
    assert (janitor.readers["archive"].pending, janitor.blocked_by) == (900, ())
    kept.waiting.clear()
    await kept.fill(100)
    await janitor.sweep()
    assert await kept.first() == first


async def test_what_no_checkpoint_holds_stays_for_the_next_start(kept):
    await kept.fill(200)
    kept.clock.advance(1000)
    kept.checkpointed = 50
    await kept.janitor().sweep()
    assert await kept.first() == 50
