"""Sensors described by a table."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.errors import DeviceError, SettingsError
from pratipad_nb.hardware.registers import Register, RegisterSensor, RegisterValue
from pratipad_nb.hardware.simulated_bus import RegisterChip, SimulatedBus


def a_sensor(
    contents: dict[int, int | bytes], *values: RegisterValue, **options: object
) -> tuple[RegisterSensor, SimulatedBus]:
    bus = SimulatedBus()
    bus.attach(0x48, RegisterChip(contents))
    return RegisterSensor(bus, 0x48, values, **options), bus  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "celsius"),
    [(b"\x7f\xf0", 127.9375), (b"\x19\x00", 25.0), (b"\x00\x00", 0.0), (b"\xe7\x00", -25.0)],
)
def test_a_tmp102_shows_the_temperatures_of_its_data_sheet(data: bytes, celsius: float) -> None:
    row = RegisterValue("temperature_c", 0x00, signed=True, shift=4, scale=0.0625)
    sensor, _ = a_sensor({0x00: data}, row)
    assert sensor() == {"temperature_c": celsius}


def test_a_row_takes_its_bits_out_of_the_middle() -> None:
    row = RegisterValue("n", 0x10, size=3, byteorder="little", shift=4, bits=12, scale=2, offset=1)
    sensor, _ = a_sensor({0x10: (0xABCDE5).to_bytes(3, "little")}, row)
    assert sensor() == {"n": 0xCDE * 2 + 1}


@given(
    value=st.integers(-(1 << 15), (1 << 15) - 1),
    byteorder=st.sampled_from(["big", "little"]),
)
def test_any_signed_value_comes_back(value: int, byteorder: str) -> None:
    row = RegisterValue("n", 0, signed=True, byteorder=byteorder)  # type: ignore[arg-type]
    assert row.decode(value.to_bytes(2, byteorder, signed=True)) == value  # type: ignore[arg-type]


def test_setup_is_written_before_the_first_reading_and_after_each_fault() -> None:
    sensor, bus = a_sensor({}, RegisterValue("n", 0x01, size=1), setup=[Register(0x01, 9)])
    assert sensor() == {"n": 9}
    bus.unplug(0x48)
    with pytest.raises(DeviceError, match="address 0x48, register 0x01"):
        sensor()
    bus.plug(0x48)
    assert sensor() == {"n": 9}


def test_setup_is_not_repeated_while_all_is_well() -> None:
    sensor, bus = a_sensor({}, RegisterValue("n", 0x01, size=1), setup=[Register(0x02, 9)])
    sensor()
    bus.trace.clear()
    sensor()
    assert [str(t) for t in bus.trace] == ["0x48 write   01", "0x48 read    00"]


def test_another_chip_is_refused() -> None:
    options = {"identity": Register(0x0F, 0x33), "name": "LIS3DH"}
    sensor, _ = a_sensor({0x0F: 0x44}, RegisterValue("n", 0x01), **options)
    with pytest.raises(DeviceError, match=r"LIS3DH on bus .* register 0x0F \(identity\): it holds 0x44"):
        sensor()
    sensor, _ = a_sensor({0x0F: 0x33}, RegisterValue("n", 0x01), **options)
    assert sensor() == {"n": 0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"register": 256},
        {"size": 0},
        {"size": 9},
        {"shift": 16},
        {"bits": 17},
        {"bits": 13, "shift": 4},
        {"byteorder": 1},
    ],
)
def test_a_row_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=f"n: {next(iter(wrong))} is"):
        RegisterValue(**({"name": "n", "register": 0} | wrong))  # type: ignore[arg-type]


def test_a_table_without_rows_or_with_a_name_twice_is_refused() -> None:
    for rows in ([], [RegisterValue("n", 0), RegisterValue("n", 2)]):
        with pytest.raises(SettingsError, match="each once"):
            RegisterSensor(SimulatedBus(), 0x48, rows)


def test_a_setup_byte_out_of_range_is_refused() -> None:
    with pytest.raises(SettingsError, match="value is 256"):
        Register(0, 256)


@pytest.mark.parametrize("table", [[("t", 0)], "t", None, 3])
def test_a_table_of_something_else_is_refused(table: Any) -> None:
    with pytest.raises(SettingsError, match="it is made of RegisterValue objects, such as"):
        RegisterSensor(SimulatedBus(), 0x48, table)


@pytest.mark.parametrize("what", [{"setup": [(1, 2)]}, {"identity": 0x60}])
def test_a_setup_or_identity_of_something_else_is_refused(what: Any) -> None:
    with pytest.raises(SettingsError, match="it is made of Register objects, such as"):
        RegisterSensor(SimulatedBus(), 0x48, [RegisterValue("t", 0)], **what)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"scale": "a"}, "scale is 'a'; it must be a finite number"),
        ({"offset": float("nan")}, "offset is nan; it must be a finite number"),
        ({"digits": -1}, "digits is -1; it must be a whole number"),
        ({"signed": "yes"}, "signed is 'yes'; it can be True or False"),
        ({"name": 3}, "name is 3; it is the key in the reading"),
    ],
)
def test_a_row_that_is_none_is_refused(what: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        RegisterValue(**{"name": "t", "register": 0} | what)
