"""The BME280's arithmetic, against the data sheet's worked example and two independent libraries."""

from __future__ import annotations

import random
import warnings
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.errors import DeviceError
from pratipad_nb.hardware import bme280_compensation as compensation
from pratipad_nb.hardware.bme280 import BME280
from pratipad_nb.hardware.bme280_compensation import Calibration, RawMeasurement
from pratipad_nb.hardware.climate import Climate
from pratipad_nb.hardware.clock import ManualClock
from pratipad_nb.hardware.simulated_bme280 import EXAMPLE_CALIBRATION, raw_measurement
from pratipad_nb.hardware.simulated_bus import RegisterChip, SimulatedBus

with warnings.catch_warnings():
    # Their docstrings and clocks warn on newer Pythons; what is compared is their arithmetic.
    warnings.simplefilter("ignore")
    import bme280 as rpi_bme280
    from bme280pi import readout as bme280pi

# The data sheet's resolutions (tables 2 to 4): 0.008 %, 0.18 Pa, 0.01 °C.
RESOLUTION = {"temperature_c": 0.01, "pressure_hpa": 0.0018, "humidity_percent": 0.008}
CONTENTS = 10_000

words = {name: st.integers(-(1 << 15), (1 << 15) - 1) for name in ("t2", "t3", "h2")}
words |= {f"p{n}": st.integers(-(1 << 15), (1 << 15) - 1) for n in range(2, 10)}
calibrations = st.builds(
    Calibration,
    t1=st.integers(0, (1 << 16) - 1),
    p1=st.integers(0, (1 << 16) - 1),
    h1=st.integers(0, 255),
    h3=st.integers(0, 255),
    h4=st.integers(-2048, 2047),
    h5=st.integers(-2048, 2047),
    h6=st.integers(-128, 127),
    **words,
)


def reference_double(raw: RawMeasurement, parameters: object) -> tuple[float, float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        reading = rpi_bme280.compensated_readings(raw, parameters)
    return reading.temperature, reading.pressure, reading.humidity


def reference_mixed(low: bytes, high: bytes, data: bytes, fine: float) -> tuple[float, float, float]:
    """The other library's in °C, hPa and per cent.

    It computes the temperature in integers, whose coarse ``t_fine`` (up to 15/5120 °C off) would cost up to
    0.5 Pa: more than the resolution. So pressure and humidity are computed from `fine`.
    """
    raw_pressure, raw_temperature, raw_humidity = bme280pi.extract_raw_values(list(data))
    dig_t, dig_p, dig_h = bme280pi.process_calibration_data([list(low[:24]), [low[25]], list(high)])
    hundredths, _ = bme280pi.improve_temperature_measurement(raw_temperature, dig_t)
    pressure = bme280pi.improve_pressure_measurement(raw_pressure, dig_p, fine)
    return hundredths / 100, pressure / 100, bme280pi.improve_humidity_measurement(raw_humidity, dig_h, fine)


def random_chip(rng: random.Random) -> tuple[Calibration, RawMeasurement]:
    """A calibration within a fifth of a real one's, as chips vary, and raw values near those of a climate."""
    near = {
        name: round(getattr(EXAMPLE_CALIBRATION, name) * rng.uniform(0.8, 1.2))
        for name in EXAMPLE_CALIBRATION.__slots__
    }
    # Zero in the example, yet free in a chip.
    near["h3"] = rng.randrange(0, 128)
    near["t1"] = round(EXAMPLE_CALIBRATION.t1 * rng.uniform(0.97, 1.03))
    raw = RawMeasurement(
        rng.randrange(380_000, 700_000), rng.randrange(250_000, 900_000), rng.randrange(1 << 16)
    )
    return Calibration(**near), raw


def test_the_data_sheets_worked_example_is_reproduced() -> None:
    fine = compensation.fine_temperature(EXAMPLE_CALIBRATION, 519_888)
    assert compensation.temperature_c(fine) == pytest.approx(25.08, abs=0.005)
    assert compensation.pressure_pa(EXAMPLE_CALIBRATION, 415_148, fine) == pytest.approx(
        100_653.27, abs=0.005
    )


def test_the_data_sheets_worked_example_is_reproduced_in_integers() -> None:
    fine = compensation.fine_temperature_int32(EXAMPLE_CALIBRATION, 519_888)
    assert fine == 128_422
    assert compensation.temperature_c_int32(fine) == 25.08
    assert compensation.pressure_pa_int64(EXAMPLE_CALIBRATION, 415_148, fine) == pytest.approx(
        100_653.25, abs=0.005
    )
    assert compensation.pressure_pa_int32(EXAMPLE_CALIBRATION, 415_148, fine) == pytest.approx(100_653, abs=4)


def test_the_driver_agrees_with_two_libraries_over_ten_thousand_random_register_contents() -> None:
    rng = random.Random(280)
    clock = ManualClock()
    bus = SimulatedBus(clock=clock)
    chip = bus.attach(0x76, RegisterChip({0xD0: 0x60}))
    compared = 0
    for _ in range(CONTENTS):
        calibration, raw = random_chip(rng)
        low, high = calibration.to_registers()
        data = raw.to_registers()
        chip.registers[0x88 : 0x88 + 26], chip.registers[0xE1 : 0xE1 + 7] = low, high
        chip.registers[0xF7 : 0xF7 + 8] = data
        expected = reference_double(raw, rpi_bme280.load_calibration_params(bus, 0x76))
        in_range = -40 <= expected[0] <= 85 and 300 <= expected[1] <= 1100
        if not in_range:
            with pytest.raises(DeviceError, match="the chip measures"):
                BME280(bus)()
            continue
        reading = BME280(bus)()
        for reference in (expected, reference_mixed(low, high, data, expected[0] * 5120)):
            for (name, value), other in zip(reading.items(), reference, strict=True):
                assert abs(value - other) <= RESOLUTION[name], (name, value, other, calibration, raw)
        compared += 1
    assert compared > CONTENTS / 2


def test_the_formulas_agree_with_a_library_over_ten_thousand_contents_of_any_bytes() -> None:
    rng = random.Random(281)
    for _ in range(CONTENTS):
        low, high, data = rng.randbytes(26), bytearray(rng.randbytes(7)), rng.randbytes(8)
        # The library takes dig_H3 for signed, the data sheet for unsigned: up to 127 it's the same.
        high[2] &= 0x7F
        calibration, raw = Calibration.from_registers(low, bytes(high)), RawMeasurement.from_registers(data)
        names = {f"dig_{n.upper()}": getattr(calibration, n) for n in Calibration.__slots__}
        expected = reference_double(raw, SimpleNamespace(**names))
        fine = compensation.fine_temperature(calibration, raw.temperature)
        found = (
            compensation.temperature_c(fine),
            compensation.pressure_pa(calibration, raw.pressure, fine) / 100,
            compensation.humidity_percent(calibration, raw.humidity, fine),
        )
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_any_calibration_bytes_mean_the_same_to_two_libraries() -> None:
    rng = random.Random(282)
    bus = SimulatedBus()
    chip = bus.attach(0x76, RegisterChip())
    for _ in range(500):
        low, high = rng.randbytes(26), rng.randbytes(7)
        chip.registers[0x88 : 0x88 + 26], chip.registers[0xE1 : 0xE1 + 7] = low, high
        ours = Calibration.from_registers(low, high)
        theirs = rpi_bme280.load_calibration_params(bus, 0x76)
        assert {n: getattr(ours, n) for n in Calibration.__slots__ if n != "h3"} == {
            k.removeprefix("dig_").lower(): v for k, v in theirs.items() if k != "dig_H3"
        }
        dig_h = bme280pi.process_calibration_data([list(low[:24]), [low[25]], list(high)])[2]
        assert [ours.h1, ours.h2, ours.h3, ours.h4, ours.h5, ours.h6] == dig_h


@given(calibrations)
def test_a_calibration_survives_its_registers(calibration: Calibration) -> None:
    assert Calibration.from_registers(*calibration.to_registers()) == calibration


@given(st.binary(min_size=8, max_size=8))
def test_a_raw_measurement_survives_its_registers(data: bytes) -> None:
    raw = RawMeasurement.from_registers(data)
    assert RawMeasurement.from_registers(raw.to_registers()) == raw


def test_integer_formulas_agree_with_double_precision() -> None:
    rng = random.Random(283)
    for _ in range(2_000):
        climate = Climate(rng.uniform(-20, 60), rng.uniform(5, 95), rng.uniform(700, 1090))
        raw = raw_measurement(EXAMPLE_CALIBRATION, climate)
        fine = compensation.fine_temperature(EXAMPLE_CALIBRATION, raw.temperature)
        whole = compensation.fine_temperature_int32(EXAMPLE_CALIBRATION, raw.temperature)
        assert compensation.temperature_c_int32(whole) == pytest.approx(
            compensation.temperature_c(fine), abs=0.01
        )
        # From the same temperature on; the integers' coarser one costs another 0.5 Pa.
        pressure = compensation.pressure_pa(EXAMPLE_CALIBRATION, raw.pressure, whole)
        pressure_64 = compensation.pressure_pa_int64(EXAMPLE_CALIBRATION, raw.pressure, whole)
        assert pressure_64 == pytest.approx(pressure, abs=0.02)
        # 32 bits cost up to 6 Pa here; the data sheet's own example is off by nearly 3.
        pressure_32 = compensation.pressure_pa_int32(EXAMPLE_CALIBRATION, raw.pressure, whole)
        assert pressure_32 == pytest.approx(pressure, abs=8)
        humidity = compensation.humidity_percent(EXAMPLE_CALIBRATION, raw.humidity, whole)
        humidity_32 = compensation.humidity_percent_int32(EXAMPLE_CALIBRATION, raw.humidity, whole)
        assert humidity_32 == pytest.approx(humidity, abs=0.01)


def test_a_calibration_that_would_divide_by_zero_gives_no_pressure() -> None:
    nothing = Calibration(**dict.fromkeys(Calibration.__slots__, 0))
    assert compensation.pressure_pa(nothing, 1, 0.0) == 0.0
    assert compensation.pressure_pa_int64(nothing, 1, 0) == 0.0
    assert compensation.pressure_pa_int32(nothing, 1, 0) == 0.0
