"""Inputs: a durable input holds what is worked on; a fast input is bounded, and keeps to its partition."""

from __future__ import annotations

import asyncio
from typing import Any

from pratipad_nb.runtime.positions.inputs import DurableInput, FastInput
from pratipad_nb.runtime.positions.lineage import Lineage
from pratipad_nb.transport.protocol import ConsumerSpec, LogSpec, Signal


async def test_a_durable_inputs_deliveries_do_not_come_again_while_they_are_held(memory: Any) -> None:
    connection = await memory.connection()
    stream = memory.subjects.input_stream
    spec = LogSpec(stream, memory.subjects.streams[stream], 1 << 20, "log")
    log = await connection.open_log(spec)
    spec = ConsumerSpec("edge-0-1", "each", ack_wait=0.2)
    held = DurableInput(await log.consumer(spec), log, spec, Lineage(connection))
    for number in (1, 2):
        await connection.append(memory.subjects.up("room1"), str(number).encode())
    arrived = []
    while len(arrived) < 2:
        arrived += await held.get()
    held.acknowledge(arrived[0])
    again = asyncio.create_task(held.get())
    for _ in range(12):
        await asyncio.sleep(0.05)  # in all, three times as long as the log waits
        held.hold()
    assert not again.done()
    assert [delivery.data for delivery in await again] == [b"2"]  # held no more


async def test_a_fast_inputs_buffer_is_bounded_and_the_oldest_go():
    fast = FastInput()
    for number in range(300):
        fast.on_signal(Signal("pratipad.house.up.room1", str(number).encode()))
    assert await fast.waiting() == 256
    deliveries = await fast.get()
    assert [int(d.data) for d in deliveries] == list(range(44, 300))
    assert await fast.waiting() == 0


async def test_a_fast_inputs_buffer_is_bounded_in_bytes_too():
    fast = FastInput()
    for _ in range(2):  # what was taken counts no more
        for number in range(100):
            fast.on_signal(Signal("pratipad.house.up.room1", bytes([number]) * (1 << 20)))
        assert [d.data[0] for d in await fast.get()] == list(range(36, 100))


async def test_a_fast_input_takes_its_own_partitions_devices_alone():
    fast = FastInput(lambda subject: subject.endswith("room1"))
    fast.on_signal(Signal("pratipad.house.up.room2", b"2"))
    fast.on_signal(Signal("pratipad.house.up.room1", b"1"))
    assert [d.data for d in await fast.get()] == [b"1"]
