"""A sensor described by a table, for the many chips whose registers are only read and scaled.

Owns the table's meaning: a value's register, its width, and how bits become a number. A chip with calibration
formulas, commands or checksums needs a driver of its own, as `bme280` and `scd4x` show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pratipad_nb.errors import SettingsError
from pratipad_nb.hardware.bus import I2CBus, I2CPort

__all__ = ["Register", "RegisterSensor", "RegisterValue"]


@dataclass(frozen=True, slots=True)
class RegisterValue:
    """One row of the table: a quantity and the registers that hold it.

    The value is ``raw * scale + offset``, where `raw` is the `bits` bits above the lowest `shift` of the
    `size` bytes.

    Attributes
    ----------
    name
        The key in the reading; say the unit, as in ``temperature_c``.
    register
        Number of the (first) register, 0 to 255.
    size
        How many bytes the value has, 1 to 8. Default 2.
    signed
        Whether `raw` is in two's complement. Default false.
    byteorder
        ``"big"`` (most chips, the default) or ``"little"``.
    shift
        How many of the lowest bits don't belong to the value. Default 0.
    bits
        How many bits belong to the value. Default: all above `shift`.
    scale, offset
        How a raw value becomes the unit's. Default 1 and 0.
    digits
        Decimals that are kept. Default 6.

    Raises
    ------
    SettingsError
        If an attribute has a value that is not allowed.
    """

    name: str
    register: int
    size: int = 2
    signed: bool = False
    byteorder: Literal["big", "little"] = "big"
    shift: int = 0
    bits: int | None = None
    scale: float = 1.0
    offset: float = 0.0
    digits: int = 6

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise SettingsError(
                f"RegisterValue: name is {self.name!r}; it is the key in the reading, such as "
                "'temperature_c'."
            )
        self._within("register", self.register, 0, 255)
        self._within("size", self.size, 1, 8)
        self._within("shift", self.shift, 0, 8 * self.size - 1)
        if self.bits is not None:
            self._within("bits", self.bits, 1, 8 * self.size - self.shift)
        if self.byteorder not in ("big", "little"):
            raise SettingsError(f"{self.name}: byteorder is {self.byteorder!r}; it can be 'big' or 'little'.")
        if not isinstance(self.signed, bool):
            raise SettingsError(f"{self.name}: signed is {self.signed!r}; it can be True or False.")
        self._within("digits", self.digits, 0, 15)
        for what in ("scale", "offset"):
            given = getattr(self, what)
            number = isinstance(given, (int, float)) and not isinstance(given, bool)
            if not number or not math.isfinite(given):
                raise SettingsError(f"{self.name}: {what} is {given!r}; it must be a finite number.")

    def decode(self, data: bytes) -> float:
        """Return the value in `data`, the `size` bytes read."""
        bits = 8 * self.size - self.shift if self.bits is None else self.bits
        raw = (int.from_bytes(data, self.byteorder) >> self.shift) & ((1 << bits) - 1)
        if self.signed and raw >> (bits - 1):
            raw -= 1 << bits
        return round(raw * self.scale + self.offset, self.digits)

    def _within(self, what: str, value: object, low: int, high: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise SettingsError(
                f"{self.name}: {what} is {value!r}; it must be a whole number, {low} to {high}."
            )


@dataclass(frozen=True, slots=True)
class Register:
    """A byte that a register is set to (`RegisterSensor.setup`) or must hold (`RegisterSensor.identity`)."""

    register: int
    value: int

    def __post_init__(self) -> None:
        for what in ("register", "value"):
            given = getattr(self, what)
            if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= 255:
                raise SettingsError(f"Register: {what} is {given!r}; it must be a whole number, 0 to 255.")


class RegisterSensor:
    """A sensor described by a table; calling it returns a reading with the table's names.

    A TMP102 thermometer, whose value is the upper 12 bits of two bytes, in sixteenths of a degree::

        RegisterSensor(bus, 0x48, [RegisterValue("temperature_c", 0x00, signed=True, shift=4, scale=0.0625)])

    Nothing is sent before the first call. After an error the next call sets the chip up anew.

    Parameters
    ----------
    bus
        `open_bus(1)`, an ``smbus2.SMBus`` or a `SimulatedBus`.
    address
        The chip's address.
    values
        The table; its rows are read in their order, each in one transfer.
    identity
        A register that identifies the chip, and the byte that it must hold. Default: not checked.
    setup
        Registers written before the first reading, in this order.
    name
        The sensor's name in errors.

    Raises
    ------
    SettingsError
        If the table is empty, names a quantity twice, or holds anything but `RegisterValue` objects; or if
        `identity` or an entry of `setup` is no `Register`.
    """

    def __init__(
        self,
        bus: I2CBus,
        address: int,
        values: Sequence[RegisterValue],
        *,
        identity: Register | None = None,
        setup: Sequence[Register] = (),
        name: str = "sensor",
    ) -> None:
        _check(name, "its table", values, RegisterValue)
        _check(name, "setup", setup, Register)
        _check(name, "identity", () if identity is None else (identity,), Register)
        names = [value.name for value in values]
        if not names or len(set(names)) < len(names):
            raise SettingsError(
                f"{name}: its table names {names}; it must name one quantity or more, each once."
            )
        self._values = tuple(values)
        self._identity = identity
        self._setup = tuple(setup)
        self._port = I2CPort(bus, address, name)
        self._ready = False

    def __repr__(self) -> str:
        return f"RegisterSensor({self._port.device!r}, address=0x{self._port.address:02X})"

    def __call__(self) -> dict[str, float]:
        """Return a reading.

        Raises
        ------
        DeviceError
            If the chip doesn't answer or is of another kind.
        """
        if not self._ready:
            self._set_up()
        self._ready = False
        reading = {v.name: v.decode(self._port.read(v.register, v.size, v.name)) for v in self._values}
        self._ready = True
        return reading

    def _set_up(self) -> None:
        if self._identity is not None:
            found = self._port.read(self._identity.register, 1, "identity")[0]
            if found != self._identity.value:
                raise self._port.error(
                    f"register 0x{self._identity.register:02X} (identity)",
                    f"it holds 0x{found:02X}; this sensor's is 0x{self._identity.value:02X}",
                    "Check the address, or use that chip's driver.",
                )
        for entry in self._setup:
            self._port.write(entry.register, entry.value, "setup")


def _check(name: str, what: str, given: object, kind: type) -> None:
    entries = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    for entry in entries:
        if not isinstance(entry, kind):
            example = (
                "RegisterValue('temperature_c', 0x00)" if kind is RegisterValue else "Register(0x01, 0x60)"
            )
            raise SettingsError(
                f"{name}: {what} holds {entry!r:.100}; it is made of {kind.__name__} objects, such as "
                f"{example}."
            )
