"""A simulated BME280: the chip on the other end of the wires, down to its registers.

Owns the chip's behaviour as the data sheet (BST-BME280-DS002, revision 1.6) tells it: reset, calibration, the
sleep, forced and normal modes with their times, skipped measurements, resolution by oversampling, the filter.
The measured values come from a climate, by the inverse of the compensation formulas.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pratipad_nb.hardware import bme280_compensation as compensation
from pratipad_nb.hardware.bme280 import CHIP_ID, STANDBY_CODES, maximum_measuring_time
from pratipad_nb.hardware.bme280_compensation import SKIPPED_16, SKIPPED_20, Calibration, RawMeasurement
from pratipad_nb.hardware.climate import Climate
from pratipad_nb.hardware.clock import Clock
from pratipad_nb.hardware.simulated_bus import RegisterChip

__all__ = ["EXAMPLE_CALIBRATION", "SimulatedBME280", "raw_measurement"]

#: Temperature and pressure: the worked example of the BMP280's data sheet (BST-BMP280-DS001, section 3.12),
#: which has the same formulas. Humidity: made up, in the range of real chips.
EXAMPLE_CALIBRATION = Calibration(
    t1=27504, t2=26435, t3=-1000,
    p1=36477, p2=-10685, p3=3024, p4=2855, p5=140, p6=-7, p7=15500, p8=-14600, p9=6000,
    h1=75, h2=362, h3=0, h4=325, h5=50, h6=30,
)  # fmt: skip

_CTRL_HUM, _STATUS, _CTRL_MEAS, _CONFIG, _DATA = 0xF2, 0xF3, 0xF4, 0xF5, 0xF7
_WRITABLE = {_CTRL_HUM, _CTRL_MEAS, _CONFIG}
_COPYING_SECONDS = 0.002
_FILTERS = (1, 2, 4, 8, 16)
_SAMPLES = (0, 1, 2, 4, 8, 16, 16, 16)  # the codes 5, 6 and 7 all mean 16
_STANDBY = {code: seconds for seconds, code in STANDBY_CODES.items()}


def raw_measurement(calibration: Calibration, climate: Climate) -> RawMeasurement:
    """Return the converter's values in a chip with this calibration and in this climate.

    The compensation formulas are monotonic in the raw value for any calibration of a real chip, so the
    nearest raw value is found by bisection: exact to its last bit, with no formula derived by hand that could
    be wrong the same way twice.
    """
    c = calibration
    raw_t = _nearest(20, climate.temperature_c, lambda raw: compensation.fine_temperature(c, raw) / 5120.0)
    fine = compensation.fine_temperature(c, raw_t)
    raw_p = _nearest(20, climate.pressure_hpa * 100.0, lambda raw: compensation.pressure_pa(c, raw, fine))
    raw_h = _nearest(16, climate.humidity_percent, lambda raw: compensation.humidity_percent(c, raw, fine))
    return RawMeasurement(raw_t, raw_p, raw_h)


def _nearest(bits: int, wanted: float, formula: Callable[[int], float]) -> int:
    low, high = 0, (1 << bits) - 1
    rising = formula(low) < formula(high)
    while high - low > 1:
        middle = (low + high) // 2
        if (formula(middle) < wanted) == rising:
            low = middle
        else:
            high = middle
    return min(low, high, key=lambda raw: abs(formula(raw) - wanted))


class SimulatedBME280(RegisterChip):
    """A BME280 for a `SimulatedBus`.

    Parameters
    ----------
    climate
        A callable that returns the present air: a `SimulatedRoom`, or ``lambda: Climate(…)``.
    calibration
        The calibration burnt into the chip. Default: `EXAMPLE_CALIBRATION`.
    clock
        The chip's clock: the bus's.

    Attributes
    ----------
    stuck
        Whether the chip never finishes a measurement: a fault that real chips have under low voltage.
    """

    def __init__(
        self,
        climate: Callable[[], Climate],
        *,
        calibration: Calibration = EXAMPLE_CALIBRATION,
        clock: Clock = time,
    ) -> None:
        self.stuck = False
        self._climate = climate
        self._calibration = calibration
        self._clock = clock
        low, high = calibration.to_registers()
        empty = RawMeasurement(SKIPPED_20, SKIPPED_20, SKIPPED_16).to_registers()
        super().__init__({0x88: low, 0xE1: high, 0xD0: CHIP_ID, _DATA: empty})

    def __repr__(self) -> str:
        return "SimulatedBME280()"

    def power_up(self) -> None:
        """Forget settings and measurements; the calibration is copied again, which takes 2 ms."""
        super().power_up()
        self._copied_at = self._clock.monotonic() + _COPYING_SECONDS
        self._humidity_samples = 0
        self._due: float | None = None
        self._filtered: tuple[float, float] | None = None

    def write(self, data: bytes, /) -> None:
        """Take pairs of register and value (section 6.2.1); a single byte sets the pointer."""
        if len(data) == 1:
            self._pointer = data[0]
        for register, value in zip(data[::2], data[1::2], strict=False):
            if register == 0xE0 and value == 0xB6:
                self.power_up()
            elif register in _WRITABLE:
                self._run()
                self.registers[register] = value
                if register == _CTRL_MEAS:
                    self._begin()

    def read(self, count: int, /) -> bytes:
        """Return the present contents of `count` registers from the pointer on."""
        self._run()
        measuring = self._due is not None and (
            self._mode != 3 or self._clock.monotonic() >= self._due - self._duration
        )
        copying = self._clock.monotonic() < self._copied_at
        self.registers[_STATUS] = (0x08 if measuring else 0) | (0x01 if copying else 0)
        return super().read(count)

    @property
    def _mode(self) -> int:
        return self.registers[_CTRL_MEAS] & 0b11

    @property
    def _duration(self) -> float:
        return 0.9 * maximum_measuring_time(*self._oversampling())

    def _oversampling(self) -> tuple[int, int, int]:
        control = self.registers[_CTRL_MEAS]
        return _SAMPLES[control >> 5], _SAMPLES[control >> 2 & 7], self._humidity_samples

    def _begin(self) -> None:
        # The setting for humidity counts from the next write to `ctrl_meas` on (section 5.4.3).
        self._humidity_samples = _SAMPLES[self.registers[_CTRL_HUM] & 7]
        self._due = self._clock.monotonic() + self._duration if self._mode else None

    def _run(self) -> None:
        now = self._clock.monotonic()
        if self._due is None or self.stuck or now < self._due:
            return
        self._store()
        if self._mode == 3:
            period = self._duration + _STANDBY[self.registers[_CONFIG] >> 5]
            self._due += period * (1 + (now - self._due) // period)
        else:
            self.registers[_CTRL_MEAS] &= 0b11111100
            self._due = None

    def _store(self) -> None:
        samples_t, samples_p, samples_h = self._oversampling()
        raw = raw_measurement(self._calibration, self._climate())
        pressure, temperature = self._filter(raw.pressure, raw.temperature)
        stored = RawMeasurement(
            temperature=self._resolved(temperature, samples_t),
            pressure=self._resolved(pressure, samples_p),
            humidity=raw.humidity if samples_h else SKIPPED_16,
        )
        self.registers[_DATA : _DATA + 8] = stored.to_registers()

    def _coefficient(self) -> int:
        return _FILTERS[min(self.registers[_CONFIG] >> 2 & 7, 4)]

    def _filter(self, pressure: int, temperature: int) -> tuple[int, int]:
        """Apply the low-pass filter (section 3.4.4); the first measurement passes unchanged."""
        c = self._coefficient()
        old_p, old_t = self._filtered or (float(pressure), float(temperature))
        self._filtered = (old_p * (c - 1) + pressure) / c, (old_t * (c - 1) + temperature) / c
        return round(self._filtered[0]), round(self._filtered[1])

    def _resolved(self, raw: int, samples: int) -> int:
        """Round to 16 bits and one for each doubling of samples; to 20 with the filter on (section 3.4)."""
        if not samples:
            return SKIPPED_20
        if self._coefficient() > 1:
            return raw
        unused = 4 - (samples.bit_length() - 1)
        step = 1 << unused
        return min((raw + step // 2) // step * step, (1 << 20) - step)
