"""The output chain: nothing lost, nothing doubled, in order, one owner, whatever is killed when."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pratipad_nb.errors import Fenced, PayloadError
from pratipad_nb.runtime.positions.chain import OutputChain
from pratipad_nb.runtime.positions.positions import Admission
from pratipad_nb.runtime.values.plan import EdgeSettings, log_specs
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import MarkFrame, OutputFrame, Segment
from pratipad_nb.transport.memory import MemoryConnection
from pratipad_nb.transport.memory_broker import Broker
from pratipad_nb.transport.subjects import Subjects


def segment(*payloads, device="room1", first=1):
    return Segment(device, 7, first, 0.0, [0.0] * len(payloads), list(payloads))


async def stored(chain):
    """Return all payloads at Output, in order."""
    frames = [decode(record.data, OutputFrame) async for record in chain._output.read(0)]
    return [payload for frame in frames for part in frame.segments for payload in part.payloads]


def interrupt(chain, step, action):
    """Have `action` done before the call number `step` that the chain makes to its logs."""
    calls = itertools.count()

    def interrupted(method):
        async def call(*arguments, **named):
            if next(calls) == step:
                await action()
            return await method(*arguments, **named)

        return call

    for part, name in ((chain._output, "latest"), (chain._output, "state"), (chain._marks, "latest")):
        setattr(part, name, interrupted(getattr(part, name)))
    chain._connection.append = interrupted(chain._connection.append)


class TestChain:
    async def test_a_restart_forgets_the_same_epochs_as_the_edge_before_it_would_have(self, memory):
        first = await memory.chain()
        await first.open()
        await first.append([("room1", epoch, 1) for epoch in range(1024, 0, -1)], [])
        await first.append([("room1", 1024, 2)], [])
        await first.checkpoint({})
        await first.append([("room1", 1023, 2)], [])
        again = await memory.chain()
        await again.open()
        for chain in (first, again):
            chain.positions.advance([("room1", 5000 + epoch, 1) for epoch in range(3)])
            assert chain.positions.forget_unused() == [("room1", epoch, 1) for epoch in (1022, 1021, 1020)]

    async def test_a_checkpoint_of_an_earlier_version_is_read(self, memory):
        chain = await memory.chain()
        by_clock = [("room1", 1_790_000_000_000 + start, 5) for start in range(8)]
        frame = encode(MarkFrame(0, by_clock, {"Window/0": b"kept"}, "before"))
        await chain._connection.append(memory.subjects.mark("partition-0"), frame)
        await chain.open()
        assert chain.positions.all() == by_clock
        assert chain.states == {"Window/0": b"kept"}

    async def test_a_restart_knows_what_is_at_output_from_its_tail_alone(self, place):
        first = await place.chain()
        await first.open()
        await first.append([("room1", 7, 3)], [segment(1, 2, 3)])
        again = await place.chain()
        await again.open()
        assert again.positions == first.positions

    async def test_a_restart_goes_on_from_the_checkpoint_when_older_frames_are_purged(self, place):
        first = await place.chain()
        await first.open()
        await first.append([("room1", 7, 3)], [segment(1, 2, 3)])
        await first.append([("room2", 1, 1)], [segment(4, device="room2")])
        await first.checkpoint({"Window/0": b"kept"})
        await first._output.purge(first.last)
        await first.append([("room1", 7, 4)], [segment(5, first=4)])
        again = await place.chain()
        await again.open()
        assert sorted(again.positions.all()) == [("room1", 7, 4), ("room2", 1, 1)]
        assert again.states == {"Window/0": b"kept"}

    async def test_an_owner_that_was_replaced_is_fenced_and_stores_nothing_more(self, place):
        old, new = await place.chain(), await place.chain()
        await old.open()
        await old.append([("room1", 7, 1)], [segment("old")])
        await new.open()
        for _ in range(2):
            with pytest.raises(Fenced):
                await old.append([("room1", 7, 2)], [segment("frozen", first=2)])
        await new.append([("room1", 7, 2)], [segment("new", first=2)])
        assert await stored(new) == ["old", "new"]
        assert old.positions.number("room1", 7) == 1

    async def test_of_two_that_take_over_at_once_one_is_left(self, place):
        chains = [await place.chain() for _ in range(3)]
        await asyncio.gather(*(chain.open() for chain in chains))
        wrote = await asyncio.gather(
            *(chain.append([("room1", 7, 1)], [segment(at)]) for at, chain in enumerate(chains)),
            return_exceptions=True,
        )
        assert sorted(isinstance(result, Fenced) for result in wrote) == [False, True, True]
        assert len(await stored(chains[0])) == 1

    @pytest.mark.parametrize("step", range(8))
    async def test_a_last_checkpoint_that_is_stored_while_another_takes_over_is_read_or_refused(
        self, memory, step
    ):
        old, new = await memory.chain(), await memory.chain()
        await old.open()
        await old.checkpoint({"Tally/0": b"none"}, floor=0)
        await old.append([("room1", 7, 71)], [segment(*range(71))])
        stored = []

        async def last_checkpoint():
            stored.append(False)
            with contextlib.suppress(Fenced):
                await old.checkpoint({"Tally/0": b"71"}, floor=5)
                stored[:] = [True]

        interrupt(new, step, last_checkpoint)
        await new.open()
        if not stored:  # opening took fewer steps
            await last_checkpoint()
        if stored == [False]:
            assert (new.states, new.floor, new.behind) == ({"Tally/0": b"none"}, 0, {("room1", 7): 0})
        else:
            assert (new.states, new.floor, new.behind) == ({"Tally/0": b"71"}, 5, {})
        assert new.positions.all() == [("room1", 7, 71)]

    async def test_an_append_whose_answer_is_lost_is_stored_once_and_the_chain_goes_on(self, memory):
        chain = await memory.chain()
        await chain.open()
        memory.broker.lose_answers(chain._connection.identity, 1)
        await chain.append([("room1", 7, 1)], [segment("a")])
        await chain.append([("room1", 7, 2)], [segment("b", first=2)])
        assert await stored(chain) == ["a", "b"]

    async def test_killed_between_output_and_acknowledgement_the_next_owner_skips_what_is_stored(self, place):
        chain = await place.chain()
        await chain.open()
        await chain.append([("room1", 7, 50)], [segment(*range(1, 51))])
        # Killed here: the input log still has the frame, and delivers it to whoever comes next.
        again = await place.chain()
        await again.open()
        assert again.positions.admit("room1", 7, 1, 50) == Admission(skip=50, missing=0)

    async def test_however_long_it_was_away_its_first_append_is_refused_after_another_wrote(self, memory):
        away, other = await memory.chain(), await memory.chain()
        await away.open()
        await away.append([("room1", 7, 1)], [segment(1)])
        await other.open()
        for number in range(2, 2000):  # far beyond any window of remembered ids
            await other.append([("room1", 7, number)], [])
        memory.broker.restart()
        with pytest.raises(Fenced):
            await away.append([("room1", 7, 2)], [segment("again", first=2)])
        assert await stored(other) == [1]

    async def test_a_full_log_is_waited_for_and_said(self, memory, small):
        chain = await memory.chain(keep=small["keep"])
        await chain.open()
        for number in range(1, 9):
            await chain.append([("room1", 7, number)], [segment(secrets.token_hex(60_000), first=number)])
        more = chain.append([("room1", 7, 9)], [segment(secrets.token_hex(60_000), first=9)])
        waiting = asyncio.create_task(more)
        await asyncio.wait_for(chain.full.wait(), 5)
        assert not waiting.done()
        await chain._output.purge(chain.last)
        await asyncio.wait_for(waiting, 5)
        assert not chain.full.is_set()
        assert chain.positions.number("room1", 7) == 9

    async def test_what_fills_the_log_is_in_a_checkpoint_so_that_it_can_be_purged(self, memory, small):
        chain = await memory.chain(keep=small["keep"])
        await chain.open()
        number, opened = 0, chain.checkpointed
        while chain.checkpointed == opened:  # nobody else makes one: the pipeline's stands behind what waits
            number += 1
            more = chain.append([("room1", 7, number)], [segment(secrets.token_hex(60_000), first=number)])
            waiting = asyncio.create_task(more)
            await asyncio.wait({waiting}, timeout=1)
        assert not waiting.done()
        assert chain.checkpointed == chain.last
        await chain._output.purge(chain.checkpointed)
        await asyncio.wait_for(waiting, 5)

    async def test_a_frame_that_the_log_has_no_room_for_even_when_it_is_cut_is_refused(self, memory, small):
        chain = await memory.chain(keep=small["keep"])
        await chain.open()
        with pytest.raises(PayloadError, match="at most 131072 are taken"):
            await chain.append([("room1", 7, 1)], [segment(secrets.token_hex(400_000))])

    async def test_a_frame_that_is_too_large_is_refused_before_anything_is_stored(self, memory):
        chain = await memory.chain()
        await chain.open()
        with pytest.raises(PayloadError, match="at most 8388608 are taken"):
            await chain.append([("room1", 7, 1)], [segment(secrets.token_hex(5 << 20))])
        assert chain.positions.number("room1", 7) == 0
        await chain.append([("room1", 7, 1)], [segment("small")])
        assert await stored(chain) == ["small"]

    async def test_an_owner_that_was_replaced_cannot_put_its_old_checkpoint_over_the_new_ones(self, place):
        old, new = await place.chain(), await place.chain()
        await old.open()
        await old.append([("room1", 7, 1)], [segment(1)])
        await new.open()
        await new.append([("room1", 7, 2)], [segment(2, first=2)])
        with pytest.raises(Fenced):
            await old.checkpoint({})
        await new.checkpoint({})
        await new._output.purge(new.checkpointed)
        again = await place.chain()
        await again.open()
        assert again.positions.number("room1", 7) == 2

    async def test_a_checkpoint_whose_answer_is_lost_fences_nobody(self, memory):
        chain = await memory.chain()
        await chain.open()
        await chain.append([("room1", 7, 1)], [segment(1)])
        memory.broker.lose_answers(chain._connection.identity, 1)
        await chain.checkpoint({})
        await chain.append([("room1", 7, 2)], [segment(2, first=2)])
        await chain.checkpoint({})
        assert chain.checkpointed == chain.last

    async def test_frames_of_somebody_else_in_the_log_are_passed_over(self, memory):
        connection = await memory.connection()
        chain = await memory.chain(connection)
        await chain.open()
        await connection.append(memory.subjects.out(0), b"{}")
        again = await memory.chain()
        await again.open()
        await again.append([("room1", 7, 1)], [])
        assert again.positions.number("room1", 7) == 1

    async def test_a_checkpoint_of_a_log_that_was_deleted_since_does_not_skip_the_new_ones_frames(
        self, memory
    ):
        connection = await memory.connection()
        chain = await memory.chain(connection)
        await chain.open()
        for number in range(1, 20):
            await chain.append([("room1", 7, number)], [])
        await chain.checkpoint({})
        await connection.delete_log(memory.subjects.output_stream)
        again = await memory.chain()
        await again.open()
        await again.append([("room1", 7, 20)], [segment("new", first=20)])
        third = await memory.chain()
        await third.open()
        assert third.positions.number("room1", 7) == 20


class Crashes(RuleBasedStateMachine):
    """Frames come in, are stored and acknowledged by an edge that is killed at any moment, or thawed after
    another has begun: every message is at Output once and in order.
    """

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.broker = Broker("crashes")
        self.input = []  # (first, count): what is sent and not acknowledged
        self.sent = 0

    def teardown(self):
        self.runner.close()

    def do(self, coroutine):
        return self.runner.run(coroutine)

    async def opened(self):
        subjects = Subjects("house")
        connection = MemoryConnection(self.broker, identity="edge", name="edge")
        logs = {
            name: await connection.open_log(spec) for name, spec in log_specs(EdgeSettings("house")).items()
        }
        chain = OutputChain(
            connection,
            logs[subjects.output_stream],
            logs[subjects.mark_stream],
            out_subject=subjects.out(0),
            mark_subject=subjects.mark("partition-0"),
        )
        await chain.open()
        return chain

    @initialize()
    def start(self):
        self.chain = self.do(self.opened())
        self.frozen = []

    @rule(count=st.integers(1, 5), repeated=st.booleans())
    def send(self, count, repeated):
        frame = (self.sent + 1, count)
        self.sent += count
        self.input += [frame, frame] if repeated else [frame]  # a device that missed a receipt sends again

    @rule(acknowledge=st.booleans(), answer_lost=st.booleans())
    def work(self, acknowledge, answer_lost):
        if not self.input:
            return
        self.do(self.store(self.chain, answer_lost))
        if acknowledge:
            self.input.pop(0)

    async def store(self, chain, answer_lost=False):
        first, count = self.input[0]
        admission = chain.positions.admit("room1", 7, first, count)
        assert admission.missing == 0
        if admission.skip == count:
            return
        if answer_lost:
            self.broker.lose_answers("edge", 1)
        new = range(first + admission.skip, first + count)
        await chain.append([("room1", 7, first + count - 1)], [segment(*new, first=new[0])])

    @rule()
    def checkpoint(self):
        self.do(self.chain.checkpoint({}))

    @rule()
    def purge(self):
        self.do(self.chain._output.purge(min(self.chain.checkpointed, self.chain.last)))

    @rule(restart_server=st.booleans())
    def killed_and_started_again(self, restart_server):
        if restart_server:
            self.broker.restart()
        self.frozen.append(self.chain)
        self.chain = self.do(self.opened())

    @rule()
    def an_old_edge_thaws(self):
        if not self.frozen or not self.input:
            return
        first, count = self.input[0]
        old = self.frozen.pop()
        if old.positions.admit("room1", 7, first, count).skip < count:
            with pytest.raises(Fenced):
                self.do(old.append([("room1", 7, first + count - 1)], [segment("doubled")]))

    @invariant()
    def every_message_is_there_once_and_in_order(self):
        if not hasattr(self, "chain"):
            return
        payloads = self.do(stored(self.chain))
        number = self.chain.positions.number("room1", 7)
        assert payloads == list(range(number - len(payloads) + 1, number + 1))
        assert number <= self.sent


def test_whatever_is_killed_and_whenever_every_message_is_at_output_once_and_in_order():
    run_state_machine_as_test(
        Crashes, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )
