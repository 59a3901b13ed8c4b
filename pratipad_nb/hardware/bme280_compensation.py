"""The arithmetic of the BME280: calibration, raw measurements, and the data sheet's compensation formulas.

Owns no bus. The source of every constant and shift is the data sheet BST-BME280-DS002 (revision 1.6): section
4.2.2 for the calibration's layout, 4.2.3 for the integer formulas, appendix 8.1 for the formulas in double
precision and 8.2 for pressure in 32 bits.

The driver uses double precision, which on a host with floating point is the simplest and the finest. The
integer formulas are for comparing with a microcontroller, which would compute by them. Their temperature has
steps of 0.0025 °C, which costs their pressure up to 0.5 Pa, and pressure in 32 bits is up to 6 Pa off (both
measured over 10,000 random contents). In the integer formulas ``>>`` rounds down as in C on the compilers
that the data sheet has in mind, and no value of a real chip exceeds their width, so that Python's unbounded
integers give the same results.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = [
    "SKIPPED_16",
    "SKIPPED_20",
    "Calibration",
    "RawMeasurement",
    "fine_temperature",
    "fine_temperature_int32",
    "humidity_percent",
    "humidity_percent_int32",
    "pressure_pa",
    "pressure_pa_int32",
    "pressure_pa_int64",
    "temperature_c",
    "temperature_c_int32",
]

#: Contents of the data registers when a measurement was skipped, or before the first one after a reset
#: (section 5.4.7).
SKIPPED_20 = 0x80000
SKIPPED_16 = 0x8000


@dataclass(frozen=True, slots=True)
class Calibration:
    """The trimming values burnt into one chip, named as in the data sheet (``dig_T1`` is `t1`)."""

    t1: int
    t2: int
    t3: int
    p1: int
    p2: int
    p3: int
    p4: int
    p5: int
    p6: int
    p7: int
    p8: int
    p9: int
    h1: int
    h2: int
    h3: int
    h4: int
    h5: int
    h6: int

    @classmethod
    def from_registers(cls, low: bytes, high: bytes) -> Calibration:
        """Return the calibration held by the registers `low` and `high`.

        `low` are the registers 0x88 to 0xA1, 26 bytes, and `high` 0xE1 to 0xE7, 7 bytes. `h4` and `h5` have
        12 bits and share the byte 0xE5; 0xA0 is unused.
        """
        first: tuple[int, ...] = struct.unpack("<HhhHhhhhhhhhxB", low)
        h2, h3, e4, e5, e6, h6 = struct.unpack("<hBbBbb", high)
        rest: tuple[int, ...] = (h2, h3, (e4 << 4) | (e5 & 0x0F), (e6 << 4) | (e5 >> 4), h6)
        return cls(*first, *rest)

    def to_registers(self) -> tuple[bytes, bytes]:
        """Return the bytes that `from_registers` reads, as a simulated chip holds them."""
        t_and_p = (self.t1, self.t2, self.t3, self.p1, self.p2, self.p3, self.p4, self.p5, self.p6, self.p7)
        low = struct.pack("<HhhHhhhhhhhhxB", *t_and_p, self.p8, self.p9, self.h1)
        shared = (self.h4 & 0x0F) | ((self.h5 & 0x0F) << 4)
        high = struct.pack("<hBbBbb", self.h2, self.h3, self.h4 >> 4, shared, self.h5 >> 4, self.h6)
        return low, high


@dataclass(frozen=True, slots=True)
class RawMeasurement:
    """The converter's values: 20 bits each of temperature and pressure, 16 bits of humidity."""

    temperature: int
    pressure: int
    humidity: int

    @classmethod
    def from_registers(cls, data: bytes) -> RawMeasurement:
        """Return the measurement in registers 0xF7 to 0xFE (8 bytes: pressure, temperature, humidity)."""
        return cls(
            temperature=int.from_bytes(data[3:6], "big") >> 4,
            pressure=int.from_bytes(data[0:3], "big") >> 4,
            humidity=int.from_bytes(data[6:8], "big"),
        )

    def to_registers(self) -> bytes:
        """Return the bytes that `from_registers` reads."""
        wide = (self.pressure << 4).to_bytes(3, "big") + (self.temperature << 4).to_bytes(3, "big")
        return wide + self.humidity.to_bytes(2, "big")


def fine_temperature(c: Calibration, raw: int) -> float:
    """Return ``t_fine``, the temperature in 1/5120 °C, on which pressure's and humidity's formulas build."""
    first = (raw / 16384.0 - c.t1 / 1024.0) * c.t2
    offset = raw / 131072.0 - c.t1 / 8192.0
    return first + offset * offset * c.t3


def temperature_c(fine: float) -> float:
    """Return degrees Celsius."""
    return fine / 5120.0


def pressure_pa(c: Calibration, raw: int, fine: float) -> float:
    """Return pascals; 0 where the calibration would lead to a division by zero, as the data sheet has it."""
    var1 = fine / 2.0 - 64000.0
    var2 = var1 * var1 * c.p6 / 32768.0 + var1 * c.p5 * 2.0
    var2 = var2 / 4.0 + c.p4 * 65536.0
    var1 = (c.p3 * var1 * var1 / 524288.0 + c.p2 * var1) / 524288.0
    var1 = (1.0 + var1 / 32768.0) * c.p1
    if var1 == 0.0:
        return 0.0
    pressure = (1048576.0 - raw - var2 / 4096.0) * 6250.0 / var1
    var1 = c.p9 * pressure * pressure / 2147483648.0
    var2 = pressure * c.p8 / 32768.0
    return pressure + (var1 + var2 + c.p7) / 16.0


def humidity_percent(c: Calibration, raw: int, fine: float) -> float:
    """Return per cent of relative humidity, held to 0 to 100 as the data sheet does."""
    offset = fine - 76800.0
    slope = 1.0 + c.h6 / 67108864.0 * offset * (1.0 + c.h3 / 67108864.0 * offset)
    humidity = (raw - (c.h4 * 64.0 + c.h5 / 16384.0 * offset)) * (c.h2 / 65536.0 * slope)
    humidity *= 1.0 - c.h1 * humidity / 524288.0
    return min(max(humidity, 0.0), 100.0)


def fine_temperature_int32(c: Calibration, raw: int) -> int:
    """Return ``t_fine`` in 32-bit integers."""
    first = (((raw >> 3) - (c.t1 << 1)) * c.t2) >> 11
    offset = (raw >> 4) - c.t1
    return first + ((((offset * offset) >> 12) * c.t3) >> 14)


def temperature_c_int32(fine: int) -> float:
    """Return degrees Celsius, a whole number of hundredths."""
    return ((fine * 5 + 128) >> 8) / 100.0


def pressure_pa_int64(c: Calibration, raw: int, fine: int) -> float:
    """Return pascals, a whole number of 1/256, computed in 64-bit integers."""
    var1 = fine - 128000
    var2 = var1 * var1 * c.p6 + ((var1 * c.p5) << 17) + (c.p4 << 35)
    var1 = ((var1 * var1 * c.p3) >> 8) + ((var1 * c.p2) << 12)
    var1 = (((1 << 47) + var1) * c.p1) >> 33
    if var1 == 0:
        return 0.0
    pressure = _quotient((((1048576 - raw) << 31) - var2) * 3125, var1)
    var1 = (c.p9 * (pressure >> 13) * (pressure >> 13)) >> 25
    var2 = (c.p8 * pressure) >> 19
    return (((pressure + var1 + var2) >> 8) + (c.p7 << 4)) / 256.0


def pressure_pa_int32(c: Calibration, raw: int, fine: int) -> float:
    """Return whole pascals, computed in 32-bit integers: the coarsest of the three formulas."""
    var1 = (fine >> 1) - 64000
    square = (var1 >> 2) * (var1 >> 2)
    var2 = (square >> 11) * c.p6 + ((var1 * c.p5) << 1)
    var2 = (var2 >> 2) + (c.p4 << 16)
    var1 = (((c.p3 * (square >> 13)) >> 3) + ((c.p2 * var1) >> 1)) >> 18
    var1 = ((32768 + var1) * c.p1) >> 15
    if var1 == 0:
        return 0.0
    pressure = (1048576 - raw - (var2 >> 12)) * 3125
    # The order of doubling and dividing is the data sheet's, whose unsigned 32 bits would overflow otherwise.
    pressure = _quotient(pressure << 1, var1) if pressure < 0x80000000 else _quotient(pressure, var1) * 2
    var1 = (c.p9 * (((pressure >> 3) * (pressure >> 3)) >> 13)) >> 12
    var2 = ((pressure >> 2) * c.p8) >> 13
    return float(pressure + ((var1 + var2 + c.p7) >> 4))


def humidity_percent_int32(c: Calibration, raw: int, fine: int) -> float:
    """Return per cent of relative humidity, a whole number of 1/1024, computed in 32-bit integers."""
    offset = fine - 76800
    sensed = ((raw << 14) - (c.h4 << 20) - c.h5 * offset + 16384) >> 15
    slope = (((offset * c.h6) >> 10) * (((offset * c.h3) >> 11) + 32768)) >> 10
    value = sensed * (((slope + 2097152) * c.h2 + 8192) >> 14)
    value -= ((((value >> 15) * (value >> 15)) >> 7) * c.h1) >> 4
    return (min(max(value, 0), 419430400) >> 12) / 1024.0


def _quotient(dividend: int, divisor: int) -> int:
    """Divide as C does, towards zero; Python's ``//`` rounds down."""
    quotient = abs(dividend) // abs(divisor)
    return quotient if (dividend < 0) == (divisor < 0) else -quotient
