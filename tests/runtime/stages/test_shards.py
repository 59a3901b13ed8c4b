"""Shards: each row is in its device's shard once, and every shard is told how far its part is."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from pratipad_nb.runtime.stages.shards import Splitter, shard_of
from pratipad_nb.runtime.values.batch import Batch


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
