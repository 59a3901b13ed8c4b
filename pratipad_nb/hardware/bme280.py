"""The BME280, Bosch's sensor of temperature, pressure and humidity, as a callable that returns a reading.

Owns the conversation with the chip: identity, reset, calibration, modes, waiting for a measurement. The
arithmetic is in `bme280_compensation`, the bus in `bus`. Register numbers, times and limits are those of the
data sheet BST-BME280-DS002 (revision 1.6).

The chip has **no checksum**. A bit that flips on the wires is therefore found only by its effect. The
calibration is read until two readings of it agree (a flipped bit there would spoil every measurement from
then on), and a value outside of the chip's range is refused. A flip that gives a plausible value goes unseen;
where that matters, put a `Deadband` or a `Filter` behind the device.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Literal, get_args

from pratipad_nb.errors import DeviceError, SettingsError
from pratipad_nb.hardware import bme280_compensation as compensation
from pratipad_nb.hardware.bme280_compensation import SKIPPED_16, SKIPPED_20, Calibration, RawMeasurement
from pratipad_nb.hardware.bus import I2CBus, I2CPort

__all__ = ["BME280", "CHIP_ID", "STANDBY_CODES", "Mode", "maximum_measuring_time"]

Mode = Literal["forced", "normal"]

CHIP_ID = 0x60

_CALIBRATION_LOW, _CALIBRATION_HIGH = 0x88, 0xE1
_ID, _RESET, _CTRL_HUM, _STATUS, _CTRL_MEAS, _CONFIG, _DATA = 0xD0, 0xE0, 0xF2, 0xF3, 0xF4, 0xF5, 0xF7
_RESET_WORD = 0xB6
_MEASURING, _COPYING = 0x08, 0x01
_STARTUP_SECONDS = 0.002  # table 1: start-up time

_FORCED = 0b01
#: The chip's mode between two calls.
_RESTING_MODES: dict[Mode, int] = {"forced": 0b00, "normal": 0b11}
_EMPTY = RawMeasurement(SKIPPED_20, SKIPPED_20, SKIPPED_16)

_OVERSAMPLING_CODES = {0: 0, 1: 1, 2: 2, 4: 3, 8: 4, 16: 5}
_FILTER_CODES = {0: 0, 2: 1, 4: 2, 8: 3, 16: 4}
#: Pause between two measurements in normal mode, in seconds, and its code (section 5.4.6).
STANDBY_CODES = {0.0005: 0, 0.0625: 1, 0.125: 2, 0.25: 3, 0.5: 4, 1.0: 5, 0.01: 6, 0.02: 7}

_QUANTITIES = ("temperature", "pressure", "humidity")
_OTHER_CHIPS = {0x55: "a BMP180", 0x56: "a BMP280", 0x57: "a BMP280", 0x58: "a BMP280", 0x61: "a BME680"}
# The chip's ranges (tables 1 to 4).
_RANGES = {
    "temperature_c": (-40.0, 85.0),
    "pressure_hpa": (300.0, 1100.0),
    "humidity_percent": (0.0, 100.0),
}
# The chip's resolution is 0.01 °C, 0.18 Pa and 0.008 %: three decimals keep all of it.
_DECIMALS = 3
_POLL_SECONDS = 0.001
_CALIBRATION_ATTEMPTS = 4

_log = logging.getLogger(__name__)


def maximum_measuring_time(temperature: int, pressure: int, humidity: int) -> float:
    """Return the longest time of one measurement with these oversamplings, in seconds (section 9.1)."""
    milliseconds = 1.25 + 2.3 * temperature
    milliseconds += 2.3 * pressure + 0.575 if pressure else 0.0
    milliseconds += 2.3 * humidity + 0.575 if humidity else 0.0
    return milliseconds / 1000.0


class BME280:
    """A BME280 on a bus; calling it measures and returns a reading.

    A reading is a dictionary with ``"temperature_c"``, ``"pressure_hpa"`` and ``"humidity_percent"``.

    Nothing is sent before the first call, so that a device can start before its sensor is there. After an
    error the next call begins anew with identity, reset and calibration: a chip that was unplugged works
    again once it is back. The sensor can be called from any thread; one call at a time goes to the chip.

    Parameters
    ----------
    bus
        `open_bus(1)`, an ``smbus2.SMBus`` or a `SimulatedBus`.
    address
        0x76 (SDO to ground, as most boards have it) or 0x77 (SDO to supply).
    mode
        ``"forced"``: a call starts a measurement, waits for it (about 10 ms) and lets the chip sleep again,
        which heats the chip least and gives the present value. ``"normal"``: the chip measures by itself
        every `standby` seconds, a steady pace that `filter` needs, and a call returns the latest measurement.
    oversampling
        Samples per measurement: 1, 2, 4, 8 or 16, for all or by name, as in ``{"pressure": 16}``; 0 leaves
        pressure or humidity out of the reading. More means less noise and a longer measurement. Default 1,
        Bosch's "weather monitoring" (section 3.5.1).
    filter
        Coefficient of the chip's own low-pass filter on temperature and pressure: 0 (off), 2, 4, 8 or 16.
    standby
        Pause between measurements in normal mode, in seconds: one of `STANDBY_CODES`.

    Raises
    ------
    SettingsError
        If an argument has a value that is not allowed.
    """

    def __init__(
        self,
        bus: I2CBus,
        address: int = 0x76,
        *,
        mode: Mode = "forced",
        oversampling: int | Mapping[str, int] = 1,
        filter: int = 0,  # noqa: A002 - the data sheet's word
        standby: float = 0.5,
    ) -> None:
        _one_of("mode", mode, get_args(Mode))
        _one_of("filter", filter, _FILTER_CODES)
        _one_of("standby", standby, STANDBY_CODES)
        self._samples = _oversampling(oversampling)
        self._mode: Mode = mode
        self._config = STANDBY_CODES[standby] << 5 | _FILTER_CODES[filter] << 2
        codes = {name: _OVERSAMPLING_CODES[samples] for name, samples in self._samples.items()}
        self._ctrl_hum = codes["humidity"]
        self._ctrl_meas = codes["temperature"] << 5 | codes["pressure"] << 2
        self._measuring_time = maximum_measuring_time(**self._samples)
        self._port = I2CPort(bus, address, "BME280")
        self._calibration: Calibration | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"BME280(address=0x{self._port.address:02X}, mode={self._mode!r})"

    def __call__(self) -> dict[str, float]:
        """Return a reading.

        Raises
        ------
        DeviceError
            If the chip doesn't answer, is of another kind, doesn't finish in time or returns a value outside
            of its range.
        """
        with self._lock:
            try:
                calibration = self._known_calibration() or self._set_up()
                if self._mode == "forced":
                    self._measure()
                return self._reading(calibration, self._read_data())
            except DeviceError:
                self._calibration = None
                raise

    def read_calibration(self) -> Calibration:
        """Return the chip's calibration once two readings of the calibration agree.

        Raises
        ------
        DeviceError
            If no two readings agree, or the calibration is blank.
        """
        seen: list[tuple[bytes, bytes]] = []
        for _ in range(_CALIBRATION_ATTEMPTS):
            low = self._port.read(_CALIBRATION_LOW, 26, "calibration")
            high = self._port.read(_CALIBRATION_HIGH, 7, "calibration")
            if (low, high) in seen:
                break
            seen.append((low, high))
        else:
            raise self._port.error(
                _register(_CALIBRATION_LOW, "calibration"),
                f"no two of {_CALIBRATION_ATTEMPTS} readings agree",
                "Bits flip on the wires: shorten them, strengthen the pull-ups or slow the bus down.",
            )
        if low.strip(b"\x00") == b"" or low.strip(b"\xff") == b"":
            raise self._port.error(
                _register(_CALIBRATION_LOW, "calibration"),
                f"it is blank, every byte 0x{low[0]:02X}",
                "Check the data line's pull-up; if that is right, the chip is damaged: replace it.",
            )
        return Calibration.from_registers(low, high)

    def _set_up(self) -> Calibration:
        self._check_identity()
        self._port.write(_RESET, _RESET_WORD, "reset")
        self._port.clock.sleep(_STARTUP_SECONDS)
        self._wait_until_clear(_COPYING, _STARTUP_SECONDS, "its calibration is still being copied")
        calibration = self.read_calibration()
        self._configure()
        if self._mode == "normal":
            self._await_first()
        self._calibration = calibration
        return calibration

    def _check_identity(self) -> None:
        # The id is read twice, since a bit may have flipped on the wires.
        first, identity = (self._port.read(_ID, 1, "chip id")[0] for _ in range(2))
        if CHIP_ID in (first, identity):
            return
        if first != identity:
            raise self._port.error(
                _register(_ID, "chip id"),
                f"the chip id is 0x{first:02X} at first and then 0x{identity:02X}",
                "Bits flip on the wires: shorten them, strengthen the pull-ups or slow the bus down.",
            )
        known = f", {_OTHER_CHIPS[identity]}'s" if identity in _OTHER_CHIPS else ""
        raise self._port.error(
            _register(_ID, "chip id"),
            f"the chip id is 0x{identity:02X}{known}; a BME280's is 0x{CHIP_ID:02X}",
            "Use that chip's driver, or the address of the BME280 (0x76 or 0x77).",
        )

    def _known_calibration(self) -> Calibration | None:
        # None at the first call, and after a reset of the chip: it lost its power, or was exchanged.
        if self._calibration is None:
            return None
        if self._port.read(_CTRL_MEAS, 1, "ctrl_meas")[0] == self._ctrl_meas | _RESTING_MODES[self._mode]:
            return self._calibration
        _log.warning("%r has lost its settings, as after a loss of power; setting it up again.", self)
        return None

    def _configure(self) -> None:
        # In this order: the chip may ignore `config` outside of sleep mode, and takes `ctrl_hum` over only
        # when `ctrl_meas` is written after it (sections 5.4.3 and 5.4.6).
        self._port.write(_CONFIG, self._config, "config")
        self._port.write(_CTRL_HUM, self._ctrl_hum, "ctrl_hum")
        self._port.write(_CTRL_MEAS, self._ctrl_meas | _RESTING_MODES[self._mode], "ctrl_meas")

    def _measure(self) -> None:
        self._port.write(_CTRL_MEAS, self._ctrl_meas | _FORCED, "ctrl_meas")
        self._port.clock.sleep(self._measuring_time)
        self._wait_until_clear(_MEASURING, self._measuring_time, "it is still measuring")

    def _await_first(self) -> None:
        # Only after a reset: later on, the content of an empty register can be a measured value.
        self._port.clock.sleep(self._measuring_time)
        deadline = self._deadline(self._measuring_time)
        while self._read_data() == _EMPTY:
            if self._port.clock.monotonic() > deadline:
                raise self._late("no first measurement has arrived in normal mode")
            self._port.clock.sleep(_POLL_SECONDS)

    def _read_data(self) -> RawMeasurement:
        # One burst, so that all eight bytes belong to the same measurement (section 4).
        return RawMeasurement.from_registers(self._port.read(_DATA, 8, "data"))

    def _wait_until_clear(self, bit: int, usual: float, otherwise: str) -> None:
        deadline = self._deadline(usual)
        while self._port.read(_STATUS, 1, "status")[0] & bit:
            if self._port.clock.monotonic() > deadline:
                raise self._late(otherwise)
            self._port.clock.sleep(_POLL_SECONDS)

    def _deadline(self, usual: float) -> float:
        # Twice the longest time of the data sheet, and 50 ms for the kernel to run this thread again.
        return self._port.clock.monotonic() + 2 * usual + 0.05

    def _late(self, happened: str) -> DeviceError:
        return self._port.error(
            _register(_STATUS, "status"),
            f"{happened} after twice its longest time",
            "The next call resets it; if that doesn't help, power-cycle it.",
        )

    def _reading(self, calibration: Calibration, raw: RawMeasurement) -> dict[str, float]:
        fine = compensation.fine_temperature(calibration, raw.temperature)
        values = {"temperature_c": compensation.temperature_c(fine)}
        if self._samples["pressure"]:
            values["pressure_hpa"] = compensation.pressure_pa(calibration, raw.pressure, fine) / 100.0
        if self._samples["humidity"]:
            values["humidity_percent"] = compensation.humidity_percent(calibration, raw.humidity, fine)
        for name, value in values.items():
            lowest, highest = _RANGES[name]
            if not lowest <= value <= highest:
                raise self._port.error(
                    _register(_DATA, "data"),
                    f"{name} is {value:.2f}, and the chip measures {lowest:g} to {highest:g} ({raw})",
                    "Bits flip on the wires, or the chip isn't what it says. The next call reads its "
                    "calibration anew; if it comes again, shorten the wires or slow the bus down.",
                )
        return {name: round(value, _DECIMALS) for name, value in values.items()}


def _oversampling(given: int | Mapping[str, int]) -> dict[str, int]:
    by_name = dict(given) if isinstance(given, Mapping) else dict.fromkeys(_QUANTITIES, given)
    for name, samples in by_name.items():
        _one_of("a quantity in oversampling", name, _QUANTITIES)
        # Without temperature the other two can't be compensated.
        _one_of(
            f"oversampling of {name}", samples, [s for s in _OVERSAMPLING_CODES if s or name != "temperature"]
        )
    return dict.fromkeys(_QUANTITIES, 1) | by_name


def _one_of(what: str, value: object, allowed: object) -> None:
    choices = list(allowed)  # type: ignore[call-overload]
    if isinstance(value, bool) or value not in choices:
        raise SettingsError(f"BME280: {what} is {value!r}; it can be {', '.join(map(repr, choices))}.")


def _register(number: int, name: str) -> str:
    return f"register 0x{number:02X} ({name})"
