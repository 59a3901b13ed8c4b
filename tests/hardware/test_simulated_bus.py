"""The simulated bus behaves as Linux's does, faults included."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import smbus2

from pratipad_nb.errors import SettingsError
from pratipad_nb.hardware.bus import EREMOTEIO
from pratipad_nb.hardware.simulated_bus import RegisterChip, SimulatedBus


@pytest.fixture
def bus() -> SimulatedBus:
    bus = SimulatedBus()
    bus.attach(0x20, RegisterChip({0x10: b"\x01\x02\x03", 0xFF: 0xAA}))
    return bus


def test_registers_are_read_and_written_by_every_call_that_smbus2_has_for_it(bus: SimulatedBus) -> None:
    assert bus.read_byte_data(0x20, 0x11) == 2
    assert bus.read_word_data(0x20, 0x10) == 0x0201
    assert bus.read_i2c_block_data(0x20, 0x10, 3) == [1, 2, 3]
    bus.write_byte_data(0x20, 0x30, 7)
    bus.write_word_data(0x20, 0x31, 0x0908)
    bus.write_i2c_block_data(0x20, 0x33, [10, 11])
    bus.write_byte(0x20, 0x30)
    assert [bus.read_byte(0x20) for _ in range(5)] == [7, 8, 9, 10, 11]
    answer = smbus2.i2c_msg.read(0x20, 2)
    bus.i2c_rdwr(smbus2.i2c_msg.write(0x20, [0x10]), answer)
    assert list(answer) == [1, 2]
    bus.close()


def test_its_calls_have_the_names_and_parameters_of_smbus2() -> None:
    import inspect

    for name in (
        "read_byte",
        "read_byte_data",
        "read_word_data",
        "write_byte",
        "write_byte_data",
        "write_word_data",
    ):
        ours = list(inspect.signature(getattr(SimulatedBus, name)).parameters)
        theirs = list(inspect.signature(getattr(smbus2.SMBus, name)).parameters)
        assert ours == [p for p in theirs if p != "force"], name


def test_the_register_pointer_wraps_around(bus: SimulatedBus) -> None:
    assert bus.read_i2c_block_data(0x20, 0xFF, 2) == [0xAA, 0x00]


def test_an_empty_address_is_not_acknowledged(bus: SimulatedBus) -> None:
    with pytest.raises(OSError, match="Remote I/O error") as caught:
        bus.read_byte_data(0x21, 0)
    assert caught.value.errno == EREMOTEIO


@pytest.mark.parametrize(("fault", "number"), [("nak", EREMOTEIO), ("timeout", errno.ETIMEDOUT)])
def test_an_injected_fault_hits_as_many_transfers_as_told(bus: SimulatedBus, fault: str, number: int) -> None:
    bus.inject(0x20, fault, times=2)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            bus.read_byte_data(0x20, 0x10)
        assert caught.value.errno == number
    assert bus.read_byte_data(0x20, 0x10) == 1


def test_a_flip_inverts_exactly_the_bit_that_was_named(bus: SimulatedBus) -> None:
    bus.inject(0x20, "flip", bit=0)
    assert bus.read_byte_data(0x20, 0x10) == 0x81
    bus.inject(0x20, "flip", bit=15)
    assert bus.read_i2c_block_data(0x20, 0x10, 2) == [1, 3]
    assert bus.read_i2c_block_data(0x20, 0x10, 2) == [1, 2]


def test_an_unnamed_flip_is_one_bit_and_the_same_for_the_same_seed() -> None:
    def flipped(seed: int) -> int:
        bus = SimulatedBus(seed=seed)
        bus.attach(0x20, RegisterChip())
        bus.inject(0x20, "flip")
        return int.from_bytes(bytes(bus.read_i2c_block_data(0x20, 0, 8)), "big")

    assert all(flipped(seed).bit_count() == 1 for seed in range(20))
    assert flipped(3) == flipped(3)
    assert len({flipped(seed) for seed in range(20)}) > 5


def test_a_chip_that_was_put_back_begins_as_after_a_power_up(bus: SimulatedBus) -> None:
    bus.write_byte_data(0x20, 0x10, 99)
    bus.unplug(0x20)
    assert bus.scan() == []
    with pytest.raises(OSError):
        bus.read_byte_data(0x20, 0x10)
    bus.plug(0x20)
    assert bus.scan() == [0x20]
    assert bus.read_byte_data(0x20, 0x10) == 1


def test_the_trace_shows_what_was_on_the_wires(bus: SimulatedBus) -> None:
    bus.read_i2c_block_data(0x20, 0x10, 2)
    with pytest.raises(OSError):
        bus.write_byte(0x44, 0)
    assert [str(transfer) for transfer in bus.trace] == [
        "0x20 write   10",
        "0x20 read    01 02",
        "0x44 refused",
    ]


def test_a_taken_or_impossible_address_is_refused(bus: SimulatedBus) -> None:
    with pytest.raises(SettingsError, match="0x20 on bus simulated is taken"):
        bus.attach(0x20, RegisterChip())
    with pytest.raises(SettingsError, match="from 0x08 to 0x77"):
        bus.attach(0x78, RegisterChip())
    bus.detach(0x20)
    bus.attach(0x20, RegisterChip())


def test_a_fault_for_nobody_or_of_no_kind_is_refused(bus: SimulatedBus) -> None:
    with pytest.raises(SettingsError, match="no chip at 0x33 on bus simulated; attached: 0x20"):
        bus.inject(0x33, "nak")
    with pytest.raises(SettingsError, match="it can be 'nak', 'timeout', 'flip'"):
        bus.inject(0x20, "fire")  # type: ignore[arg-type]


def test_contents_beyond_the_last_register_are_refused() -> None:
    with pytest.raises(SettingsError, match="beyond 0xFF"):
        RegisterChip({0xFF: b"\x01\x02"})


@pytest.mark.parametrize("what", [{"times": -3}, {"times": 0}, {"times": 1.5}, {"bit": -1}, {"bit": "x"}])
def test_a_fault_with_a_number_that_is_none_is_refused(what: Any) -> None:
    bus = SimulatedBus()
    bus.attach(0x40, RegisterChip())
    with pytest.raises(SettingsError, match="must be a whole number of"):
        bus.inject(0x40, "nak", **what)
