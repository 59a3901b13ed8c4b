"""Inputs: a fast input's buffer is bounded, and takes the devices of its own partition alone."""

from __future__ import annotations

from pratipad_nb.runtime.positions.inputs import FastInput
from pratipad_nb.transport.protocol import Signal


async def test_a_fast_inputs_buffer_is_bounded_and_the_oldest_go():
    fast = FastInput()
    for number in range(300):
        fast.on_signal(Signal("pratipad.house.up.room1", str(number).encode()))
    assert await fast.waiting() == 256
    deliveries = await fast.get()
    assert [int(d.data) for d in deliveries] == list(range(44, 300))
    assert await fast.waiting() == 0


async def test_a_fast_input_takes_its_own_partitions_devices_alone():
    fast = FastInput(lambda subject: subject.endswith("room1"))
    fast.on_signal(Signal("pratipad.house.up.room2", b"2"))
    fast.on_signal(Signal("pratipad.house.up.room1", b"1"))
    assert [d.data for d in await fast.get()] == [b"1"]
