"""Shards: each row is in its device's shard once, and every shard is told how far its part is."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from pratipad_nb.runtime.stages.shards import Splitter, shard_of
from pratipad_nb.runtime.values.batch import Batch, InputFrame, Source


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(1, 5), st.randoms())
@settings(max_examples=60, deadline=None)
def test_a_splitter_puts_each_row_of_any_batches_into_the_shard_of_its_device_once(
    source, counts, shards, chance
):
    whole = source(*counts)
    splitter, told = Splitter(shards), defaultdict(list)
    at, ends = 0, defaultdict(int)
    while at < whole.size:  # slices of one source, as a stage before hands them on; some rows are filtered
        end = chance.randint(at + 1, whole.size)
        kept = [index for index in range(at, end) if chance.random() < 0.8]
        parts = splitter.split(Batch(whole, [("row", index) for index in kept], kept, end))
        for shard, part in enumerate(parts):
            if part is None:
                continue
            assert part.done >= ends[shard]
            ends[shard] = part.done
            for payload, origin in zip(part.payloads, part.origins, strict=True):
                device = part.source.device(origin)
                assert shard_of(device, shards) == shard
                index = payload[1]
                assert whole.device(index) == device
                assert whole.message(index, None).id == part.source.message(origin, None).id
                told[device].append(index)
        at = end
    assert sum(ends.values()) == whole.size
    assert all(indices == sorted(set(indices)) for indices in told.values())


def test_a_key_is_in_the_same_shard_in_every_run():
    assert [shard_of(f"room{n}", 8) for n in range(5)] == [4, 2, 0, 6, 5]


def test_slices_of_two_sources_that_come_by_turns_complete_each_message_once():
    frames = [InputFrame(f"d{n}", 7, 1, 2.0, [1.0] * 4) for n in range(4)]
    sources = [Source("house", frames[:2]), Source("house", frames[2:])]
    splitter, covers, complete = Splitter(3), [], []
    finished = 0
    for end in range(1, 9):  # as a stage before, in shards itself, hands on results of a slow processor
        for whole in sources:
            for part in splitter.split(Batch(whole, [end], [end - 1], end)):
                if part is not None:
                    finished += part.source.advance(part.done, covers, complete)
    assert finished == 16
    assert sorted(frame.device for frame in complete) == ["d0", "d1", "d2", "d3"]
    assert len(covers) == len(set(covers)) == 16


def test_a_reply_goes_with_its_message_also_where_a_gateway_speaks_for_the_device():
    names = [f"gateway.d{n}" for n in range(8)]
    assert len({shard_of(name, 4) for name in names}) > 1
    whole = Source("house", [InputFrame("gateway", 7, 1, 2.0, [1.0] * 8, sources=names)])
    messages = [whole.message(index, None) for index in range(8)]
    parts = Splitter(4).split(Batch(whole, list(range(8)), range(8), 8, [("on", each) for each in messages]))
    assert [part.replies for part in parts if part is not None] == [[("on", each) for each in messages]]


def test_a_late_reply_to_a_message_of_a_finished_part_completes_nothing_twice():
    whole = Source("house", [InputFrame(f"d{n}", 7, 1, 2.0, [1.0] * 2) for n in (0, 1)])
    early, late = shard_of("d0", 3), shard_of("d1", 3)
    assert early != late
    reply = ("on", whole.message(0, None))
    before, after, finished = Splitter(3), Splitter(3), 0
    for slice_ in (Batch(whole, [], [], 2), Batch(whole, [], [], 4, [reply])):
        for part in before.split(slice_):
            for again in after.split(part) if part is not None else ():
                finished += again.source.advance(again.done, [], []) if again is not None else 0
    assert finished == 4


def test_what_a_splitter_knows_of_a_source_goes_with_the_source():
    splitter = Splitter(3)
    for n in range(5):
        whole = Source("house", [InputFrame(f"d{n}", 7, 1, 2.0, [1.0])])
        splitter.split(Batch(whole, [n], [0], 1))
    assert len(splitter._divisions) == 1


def test_a_tapes_messages_go_to_the_shard_that_sees_the_same_device_live():
    names = [f"gateway.d{n}" for n in range(8)]
    whole = Source("house", [InputFrame(name, 7, 1, 2.0, [1.0]) for name in names], kind="replay")
    parts = Splitter(4).split(Batch(whole, names, range(8), 8))
    assert [number for number, part in enumerate(parts) if part is not None and part.payloads] == [
        shard_of("gateway", 4)
    ]
