"""Results on their way out: the order of safety, and results that don't fit or can't travel."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from pratipad_nb.cloud.backlog import messages_of
from pratipad_nb.errors import PayloadError
from pratipad_nb.message import Message
from pratipad_nb.runtime.positions.outputs import Writer
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.runtime.values.batch import Barrier, Batch, InputFrame, Source
from pratipad_nb.runtime.values.metrics import InFlight
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import DeadEntry, FailureNote, OutputFrame


class Record:
    """A chain, and everything else that a writer is given, which note in which order they are called."""

    def __init__(self, most=1 << 20):
        self.positions, self.frames, self.trace, self.most = Positions(), [], [], most
        self.dead = []
        self.told = Positions()
        self.in_flight = InFlight()
        self.writer = Writer(
            self,
            self.in_flight,
            store_dead=self._dead,
            send_replies=self._replies,
            on_stored=self._stored,
            on_rebuilt=self._rebuilt,
            on_barrier=self._barrier,
        )

    async def append(self, covers, segments):
        data = encode(OutputFrame("w", 1, covers, segments))
        if len(data) > self.most:
            raise PayloadError(f"{len(data)} bytes")
        self.frames.append(decode(data, OutputFrame))
        self.positions.advance(covers)
        self.trace.append("append")
        return len(self.frames)

    async def _dead(self, entries):
        self.dead += entries
        self.trace.append("dead")

    async def _replies(self, replies):
        self.trace.append("replies")

    def _stored(self, positions):
        self.trace.append("stored")
        self.told.advance(positions)

    def _rebuilt(self, positions):
        self.trace.append(f"rebuilt {positions}")

    async def _barrier(self, barrier):
        self.trace.append("barrier")

    async def write(self, *items):
        queue = asyncio.Queue()
        for item in (*items, None):
            queue.put_nowait(item)
        await self.writer.run(queue)
        return [(m.id, m.payload) for frame in self.frames for m in messages_of(frame, "house")]

    def batch(self, payloads, origins=None, *, count=None, done=None, device="room1", **more):
        count = count if count is not None else len(payloads)
        frame = InputFrame(
            device, 7, 1, 2.0, [1.0] * count, on_safe=lambda: self.trace.append(f"acknowledge {device}")
        )
        origins = range(len(payloads)) if origins is None else origins
        return Batch(
            Source("house", [frame]), list(payloads), origins, count if done is None else done, **more
        )


NOTE = FailureNote("P1", "ValueError: no", "")
LETTER = ("P1", DeadEntry("room1", 7, 2, 0, 1.0, 2.0, "x", [NOTE]))
REPLY = ("on", Message(payload=1, id="room1-7-1", device="room1", time=1.0, received=2.0, flow="house"))


async def test_dead_letters_and_replies_are_safe_before_results_and_those_before_the_acknowledgement():
    record = Record()
    await record.write(record.batch([1, 3], [0, 2], count=3, dead=[LETTER], replies=[REPLY]))
    assert record.trace == ["dead", "replies", "append", "acknowledge room1", "stored"]


async def test_a_message_that_failed_or_was_filtered_completes_its_position_too():
    record = Record()
    await record.write(record.batch([], [], count=5))
    assert record.positions.number("room1", 7) == 5
    assert record.in_flight.completed == 5
    assert record.writer.delivered == 0


@pytest.mark.parametrize("most", [1 << 20, 500])
async def test_it_is_told_which_positions_are_stored_also_where_they_took_several_frames(most):
    record = Record()
    record.most = most
    batches = [record.batch([secrets.token_hex(50)] * 3, device=f"room{n}") for n in range(5)]
    await record.write(*batches, record.batch([], [], count=4, device="filtered"))
    assert (len(record.frames) > 1) == (most == 500)
    assert record.told == record.positions
    assert record.told.number("filtered", 7) == 4


async def test_a_frame_is_acknowledged_only_once_all_of_it_is_stored():
    record = Record()
    whole = record.batch([1, 2, 3, 4])
    source = whole.source
    await record.write(Batch(source, [1, 2], range(2), 2))
    assert record.trace == ["append", "stored"]
    assert record.positions.number("room1", 7) == 2
    await record.write(Batch(source, [3, 4], range(2, 4), 4))
    assert record.trace[2:] == ["append", "acknowledge room1", "stored"]


async def test_what_waits_is_gathered_into_one_frame():
    record = Record()
    await record.write(*(record.batch([n], device=f"room{n}") for n in range(1, 6)))
    assert len(record.frames) == 1
    assert record.writer.delivered == 5


async def test_a_barrier_comes_after_all_before_it_is_stored():
    record = Record()
    await record.write(record.batch([1]), Barrier(), record.batch([2], device="room2"))
    assert [step for step in record.trace if step in ("append", "barrier")] == ["append", "barrier", "append"]


async def test_several_results_of_one_message_have_ids_of_their_own():
    record = Record()
    found = await record.write(record.batch(["a", "b", "c"], [0, 0, 2], count=3))
    assert found == [("room1-7-1", "a"), ("room1-7-1-1", "b"), ("room1-7-3", "c")]


async def test_a_result_that_cannot_travel_becomes_a_dead_letter_and_the_others_go():
    record = Record()
    found = await record.write(record.batch([1, object(), 3]))
    assert found == [("room1-7-1", 1), ("room1-7-3", 3)]
    ((key, letter),) = record.dead
    assert (key, letter.number, letter.failures[0].processor) == ("Output", 2, "Output")
    assert letter.payload.startswith("<object")
    assert record.trace[-2:] == ["acknowledge room1", "stored"]


async def test_what_is_too_much_for_one_frame_goes_into_several_in_order():
    record = Record(most=2_000)
    payloads = [secrets.token_hex(100) for _ in range(50)]
    found = await record.write(record.batch(payloads))
    assert [payload for _, payload in found] == payloads
    assert len(record.frames) > 1
    assert record.positions.number("room1", 7) == 50
    assert record.writer.delivered == 50


@pytest.mark.parametrize("fan_out", [1, 3])
async def test_results_of_one_message_are_never_split_over_two_frames(fan_out):
    record = Record(most=3_000)
    origins = [n for n in range(30) for _ in range(fan_out)]
    await record.write(record.batch([secrets.token_hex(100) for _ in origins], origins, count=30))
    ends = [m.id for frame in record.frames for m in messages_of(frame, "house")]
    assert len(ends) == len(origins)
    for frame in record.frames:
        last = {message.id.split("-")[2] for message in messages_of(frame, "house")}
        for other in record.frames:
            if other is not frame:
                assert not last & {message.id.split("-")[2] for message in messages_of(other, "house")}


async def test_one_result_that_is_too_large_alone_becomes_a_dead_letter_and_the_others_go():
    record = Record(most=2_000)
    found = await record.write(record.batch(["a", secrets.token_hex(5_000), "c"]))
    assert [payload for _, payload in found] == ["a", "c"]
    ((_, letter),) = record.dead
    assert letter.number == 2
    assert "bytes" in letter.failures[0].error


async def test_what_rebuilds_a_state_is_acknowledged_and_leaves_nothing_else():
    record = Record()
    batch = record.batch(["x", "y"], dead=[LETTER], replies=[("r", None)])
    batch.source.kind = "rebuild"
    record.in_flight.taken = 4
    assert await record.write(batch, record.batch(["z"], device="room2"), Barrier()) == [("room2-7-1", "z")]
    assert record.trace[:2] == ["rebuilt [('room1', 7, 2)]", "acknowledge room1"]
    assert not {"dead", "replies"} & set(record.trace)
    assert record.positions.all() == [("room2", 7, 1)]
    assert (record.in_flight.count, record.writer.delivered) == (1, 1)


async def test_what_a_tape_brings_answers_no_device():
    record = Record()
    batch = record.batch([1], replies=[REPLY])
    batch.source.kind = "replay"
    await record.write(batch)
    assert "replies" not in record.trace


async def test_a_message_that_has_most_of_the_results_stays_whole_when_a_frame_is_split():
    record = Record(most=1_500)
    await record.write(record.batch([secrets.token_hex(200) for _ in range(4)], [0, 0, 0, 1], count=2))
    assert [len(segment.payloads) for frame in record.frames for segment in frame.segments] == [3, 1]
