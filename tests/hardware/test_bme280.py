"""The BME280's driver against the simulated chip: modes, waiting, faults."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.errors import DeviceError, SettingsError
from pratipad_nb.hardware.bme280 import BME280
from pratipad_nb.hardware.bme280_compensation import RawMeasurement
from pratipad_nb.hardware.climate import Climate
from pratipad_nb.hardware.clock import ManualClock
from pratipad_nb.hardware.simulated_bme280 import EXAMPLE_CALIBRATION, SimulatedBME280
from pratipad_nb.hardware.simulated_bus import RegisterChip, SimulatedBus

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import bme280 as reference


class Rig:
    """A chip on a bus, with a climate and a clock that the test moves."""

    def __init__(self, **options: object) -> None:
        self.clock = ManualClock()
        self.climate = Climate(21.5, 48.0, 1002.5)
        self.bus = SimulatedBus(clock=self.clock)
        self.chip = self.bus.attach(0x76, SimulatedBME280(lambda: self.climate, clock=self.clock))
        self.sensor = BME280(self.bus, **options)  # type: ignore[arg-type]


def assert_shows(reading: dict[str, float], climate: Climate) -> None:
    assert reading["temperature_c"] == pytest.approx(climate.temperature_c, abs=0.006)
    assert reading["pressure_hpa"] == pytest.approx(climate.pressure_hpa, abs=0.03)
    assert reading["humidity_percent"] == pytest.approx(climate.humidity_percent, abs=0.02)


@pytest.mark.parametrize("mode", ["forced", "normal"])
def test_a_reading_shows_the_climate_and_follows_it(mode: str) -> None:
    rig = Rig(mode=mode)
    assert_shows(rig.sensor(), rig.climate)
    rig.climate = Climate(-12.25, 80.0, 955.0)
    rig.clock.advance(1.0)
    assert_shows(rig.sensor(), rig.climate)


@given(
    st.builds(
        Climate,
        temperature_c=st.floats(-39, 84),
        humidity_percent=st.floats(1, 99),
        pressure_hpa=st.floats(301, 1099),
    )
)
def test_any_climate_the_chip_can_measure_comes_back_within_its_resolution(climate: Climate) -> None:
    rig = Rig(oversampling=16)
    rig.climate = climate
    reading = rig.sensor()
    assert reading["temperature_c"] == pytest.approx(climate.temperature_c, abs=0.01)
    assert reading["pressure_hpa"] == pytest.approx(climate.pressure_hpa, abs=0.0018)
    assert reading["humidity_percent"] == pytest.approx(climate.humidity_percent, abs=0.008)


def test_another_library_reads_the_same_from_the_simulated_chip() -> None:
    rig = Rig()
    parameters = reference.load_calibration_params(rig.bus, 0x76)
    rig.bus.write_byte_data(0x76, 0xF2, 1)
    rig.bus.write_byte_data(0x76, 0xF4, 0b00100101)
    rig.clock.advance(0.02)
    raw = reference.uncompensated_readings(rig.bus.read_i2c_block_data(0x76, 0xF7, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        other = reference.compensated_readings(raw, parameters)
    assert rig.sensor() == pytest.approx(
        {
            "temperature_c": other.temperature,
            "pressure_hpa": other.pressure,
            "humidity_percent": other.humidity,
        },
        abs=0.001,
    )


def test_more_samples_take_longer_and_the_driver_waits_for_them() -> None:
    few, many = Rig(oversampling=1), Rig(oversampling=16)
    few.sensor()
    many.sensor()
    before_few, before_many = few.clock.monotonic(), many.clock.monotonic()
    few.sensor()
    many.sensor()
    assert few.clock.monotonic() - before_few == pytest.approx(0.0093, abs=0.001)
    assert many.clock.monotonic() - before_many == pytest.approx(0.1128, abs=0.001)


def test_a_quantity_without_samples_is_left_out_of_the_reading() -> None:
    rig = Rig(oversampling={"pressure": 0, "temperature": 2})
    assert rig.sensor().keys() == {"temperature_c", "humidity_percent"}
    assert rig.bus.read_i2c_block_data(0x76, 0xF7, 3) == [0x80, 0, 0]


def test_the_filter_smooths_a_jump() -> None:
    rig = Rig(mode="normal", filter=4, standby=0.0625)
    before = rig.sensor()["pressure_hpa"]
    rig.climate = replace(rig.climate, pressure_hpa=before + 10)
    rig.clock.advance(0.07)
    assert before + 1 < rig.sensor()["pressure_hpa"] < before + 6


def test_a_normal_mode_reading_does_not_wait_for_a_measurement() -> None:
    rig = Rig(mode="normal")
    rig.sensor()
    before = rig.clock.monotonic()
    rig.sensor()
    assert rig.clock.monotonic() == before


def test_nothing_is_sent_before_the_first_call() -> None:
    assert list(Rig().bus.trace) == []


@pytest.mark.parametrize(("identity", "name"), [(0x58, "a BMP280"), (0x61, "a BME680"), (0x00, "0x00;")])
def test_another_chip_is_refused_by_its_name(identity: int, name: str) -> None:
    bus = SimulatedBus()
    bus.attach(0x76, RegisterChip({0xD0: identity}))
    with pytest.raises(DeviceError, match=r"register 0xD0 \(chip id\)") as caught:
        BME280(bus)()
    assert name in str(caught.value)
    assert "a BME280's is 0x60" in str(caught.value)


@pytest.mark.parametrize("blank", [0x00, 0xFF])
def test_a_blank_calibration_is_refused(blank: int) -> None:
    bus = SimulatedBus(clock=ManualClock())
    bus.attach(0x76, RegisterChip({0xD0: 0x60, 0x88: bytes([blank]) * 26, 0xE1: bytes([blank]) * 7}))
    with pytest.raises(DeviceError, match=f"it is blank, every byte 0x{blank:02X}"):
        BME280(bus)()


@pytest.mark.parametrize(("fault", "said"), [("nak", "nobody acknowledged"), ("timeout", "timed out")])
def test_after_a_failed_transfer_the_next_call_works(fault: str, said: str) -> None:
    rig = Rig()
    rig.sensor()
    rig.bus.inject(0x76, fault)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match=said):
        rig.sensor()
    assert_shows(rig.sensor(), rig.climate)


@pytest.mark.parametrize("mode", ["forced", "normal"])
def test_a_chip_that_vanishes_and_comes_back_is_set_up_again(mode: str) -> None:
    rig = Rig(mode=mode)
    rig.sensor()
    rig.bus.unplug(0x76)
    for _ in range(3):
        with pytest.raises(DeviceError, match="bus simulated, address 0x76, register"):
            rig.sensor()
    rig.bus.plug(0x76)
    rig.climate = Climate(5.0, 90.0, 990.0)
    assert_shows(rig.sensor(), rig.climate)


@pytest.mark.parametrize("mode", ["forced", "normal"])
def test_a_chip_that_lost_its_power_between_two_calls_is_set_up_again(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(mode=mode, oversampling=4)
    rig.sensor()
    rig.chip.power_up()
    rig.climate = Climate(5.0, 90.0, 990.0)
    with caplog.at_level(logging.WARNING):
        assert_shows(rig.sensor(), rig.climate)
    assert "has lost its settings" in caplog.text


def test_an_exchanged_chip_is_read_with_its_own_calibration() -> None:
    rig = Rig()
    rig.sensor()
    other = SimulatedBME280(
        lambda: rig.climate,
        calibration=replace(EXAMPLE_CALIBRATION, t1=27000, p1=35000, h4=300),
        clock=rig.clock,
    )
    rig.bus.detach(0x76)
    rig.bus.attach(0x76, other)
    assert_shows(rig.sensor(), rig.climate)


def test_a_chip_that_never_finishes_is_given_up_in_bounded_time() -> None:
    rig = Rig()
    rig.sensor()
    rig.chip.stuck = True
    before = rig.clock.monotonic()
    with pytest.raises(DeviceError, match=r"register 0xF3 \(status\): it is still measuring"):
        rig.sensor()
    assert rig.clock.monotonic() - before < 0.2
    rig.chip.stuck = False
    assert_shows(rig.sensor(), rig.climate)


def test_a_chip_stuck_from_the_start_in_normal_mode_is_given_up() -> None:
    rig = Rig(mode="normal")
    rig.chip.stuck = True
    with pytest.raises(DeviceError, match="no first measurement has arrived"):
        rig.sensor()


def test_a_bit_flipped_in_the_calibration_is_noticed_and_does_no_harm() -> None:
    rig = Rig()
    original = rig.chip.read

    def flip_first_calibration_read(count: int) -> bytes:
        if count == 26:
            rig.bus.inject(0x76, "flip", bit=3)
            rig.chip.read = original  # type: ignore[method-assign]
        return original(count)

    rig.chip.read = flip_first_calibration_read  # type: ignore[method-assign]
    assert_shows(rig.sensor(), rig.climate)


def test_bits_that_keep_flipping_in_the_calibration_are_an_error() -> None:
    rig = Rig()
    rig.sensor()
    rig.bus.inject(0x76, "flip", times=8)
    with pytest.raises(DeviceError, match=r"register 0x88 \(calibration\): no two of 4 readings agree"):
        rig.sensor.read_calibration()


def test_a_flipped_bit_that_gives_an_impossible_value_is_refused() -> None:
    rig = Rig()
    rig.sensor()
    original = rig.chip.read

    def flip_the_highest_bit_of_the_temperature(count: int) -> bytes:
        data = original(count)
        return bytes([*data[:3], data[3] ^ 0x80, *data[4:]]) if count == 8 else data

    rig.chip.read = flip_the_highest_bit_of_the_temperature  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match=r"temperature_c is 1[0-9.]+, and the chip measures -40 to 85"):
        rig.sensor()


def test_after_an_impossible_value_the_calibration_is_read_anew() -> None:
    rig = Rig()
    rig.sensor()
    rig.climate = Climate(temperature_c=140.0)
    with pytest.raises(DeviceError, match="The next call reads its calibration anew"):
        rig.sensor()
    rig.climate = Climate()
    rig.bus.trace.clear()
    assert_shows(rig.sensor(), rig.climate)
    assert any(len(transfer.data) == 26 for transfer in rig.bus.trace)


def test_a_flipped_bit_that_gives_a_plausible_value_goes_unseen_for_the_chip_has_no_checksum() -> None:
    """The limit that the driver's documentation states."""
    rig = Rig()
    honest = rig.sensor()["humidity_percent"]
    original = rig.chip.read

    def flip_a_bit_of_the_humidity(count: int) -> bytes:
        data = original(count)
        return bytes([*data[:6], data[6] ^ 0x10, data[7]]) if count == 8 else data

    rig.chip.read = flip_a_bit_of_the_humidity  # type: ignore[method-assign]
    assert rig.sensor()["humidity_percent"] != pytest.approx(honest, abs=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "sleep"},
        {"oversampling": 3},
        {"oversampling": {"temperature": 0}},
        {"oversampling": {"co2": 1}},
        {"filter": 1},
        {"standby": 0.1},
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_allowed(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="it can be "):
        Rig(**wrong)


def test_settings_take_effect_in_the_order_that_the_chip_needs() -> None:
    rig = Rig(oversampling={"humidity": 0})
    rig.sensor()
    raw = RawMeasurement.from_registers(bytes(rig.bus.read_i2c_block_data(0x76, 0xF7, 8)))
    assert raw.humidity == 0x8000
    # `ctrl_hum` alone changes nothing until `ctrl_meas` is written.
    rig.bus.write_byte_data(0x76, 0xF2, 1)
    rig.bus.write_byte_data(0x76, 0xF4, 0b00100101)
    rig.clock.advance(0.02)
    assert rig.bus.read_i2c_block_data(0x76, 0xFD, 2) != [0x80, 0x00]


def test_one_flipped_bit_in_the_chips_id_is_no_other_chip() -> None:
    rig = Rig()
    rig.bus.inject(0x76, "flip", bit=0)
    assert_shows(rig.sensor(), rig.climate)


def test_a_chips_id_that_is_never_the_same_says_that_bits_flip() -> None:
    rig = Rig()
    for bit in (0, 1):
        rig.bus.inject(0x76, "flip", bit=bit)
    with pytest.raises(DeviceError, match=r"at first and then .* Bits flip on the wires"):
        rig.sensor()
