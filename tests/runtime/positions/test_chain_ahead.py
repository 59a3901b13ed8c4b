"""A chain whose logs went back, each by itself as after a power cut, goes on behind the newest frame."""

from __future__ import annotations

import pytest

from pratipad_nb.errors import Fenced


def store_with(memory, now, *, from_backup, backup):
    return {**now, from_backup: backup[from_backup]}


@pytest.mark.parametrize("others", [0, 3], ids=["one partition", "frames of another partition behind"])
async def test_an_output_that_lost_its_end_under_a_checkpoint_takes_frames_again(memory, others, caplog):
    chain = await memory.chain()
    await chain.open()
    await chain.append([("room1", 1, 1)], [])
    connection = await memory.connection()
    for _ in range(others):
        await connection.append(memory.subjects.out(1), b"of another partition")
    backup = memory.broker.copied_store()
    for number in range(2, 9):
        await chain.append([("room1", 1, number)], [])
    await chain.checkpoint({})
    now = memory.broker.copied_store()
    memory.broker.restart(store_with(memory, now, from_backup=memory.subjects.output_stream, backup=backup))
    after = await memory.chain()
    await after.open()
    assert "log OUT_house went back" in caplog.text
    assert after.positions.number("room1", 1) == 8
    assert await after.append([("room1", 1, 9)], []) == 4 + others
    await after.checkpoint({})
    with pytest.raises(Fenced):
        await chain.append([("room1", 1, 9)], [])


async def test_a_log_of_checkpoints_that_went_back_alone_takes_the_next_checkpoint(memory):
    chain = await memory.chain()
    await chain.open()
    backup = memory.broker.copied_store()
    for number in range(1, 4):
        await chain.append([("room1", 1, number)], [])
        await chain.checkpoint({})
    now = memory.broker.copied_store()
    memory.broker.restart(store_with(memory, now, from_backup=memory.subjects.mark_stream, backup=backup))
    await chain.append([("room1", 1, 4)], [])
    await chain.checkpoint({})
    after = await memory.chain()
    await after.open()
    assert after.positions.number("room1", 1) == 4


async def test_a_checkpoint_is_not_stored_over_logs_that_went_back_together(memory):
    chain = await memory.chain()
    await chain.open()
    backup = memory.broker.copied_store()
    await chain.append([("room1", 1, 1)], [])
    await chain.checkpoint({})
    memory.broker.restart(backup)
    with pytest.raises(Fenced):
        await chain.checkpoint({})
    after = await memory.chain()
    await after.open()
    assert after.positions.number("room1", 1) == 0
