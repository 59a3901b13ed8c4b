"""The I²C bus: the protocol that drivers need, and a bus's failures as errors that name the next step.

Owns that protocol, which ``smbus2.SMBus`` fulfils as it is, the opening of a real bus (the only place that
imports ``smbus2``, and only when ``smbus2`` is used), and `I2CPort`, one sensor's address on a bus. Knows no
sensor.

Every transfer is one ``i2c_rdwr``: it carries the address in the message and takes one system call, so that
two drivers on the same bus can be used from two threads. The byte-wise SMBus calls first set the address by a
system call of its own, and a second thread can come between.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import re
import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pratipad_nb.errors import DeviceError, SettingsError
from pratipad_nb.hardware.clock import Clock

__all__ = ["EREMOTEIO", "READ_FLAG", "I2CBus", "I2CPort", "bus_name", "open_bus"]

#: ``I2C_M_RD`` of Linux's ``i2c.h``: this message reads.
READ_FLAG = 0x0001

#: The error of most Linux bus drivers, the Raspberry Pi's among them, when no chip acknowledges. It is
#: written as a number, since `errno` has the name on Linux only.
EREMOTEIO = 121

_NOBODY = {EREMOTEIO, errno.ENXIO, errno.EIO}


@runtime_checkable
class I2CBus(Protocol):
    """A bus, as the drivers use it. ``smbus2.SMBus`` and `SimulatedBus` fulfil this protocol."""

    def i2c_rdwr(self, *i2c_msgs: Any) -> None:
        """Carry out the ``smbus2.i2c_msg`` values as one transaction; raise `OSError` when it fails."""
        ...


def open_bus(bus: int | str = 1) -> I2CBus:
    """Open a real I²C bus by ``smbus2``.

    Parameters
    ----------
    bus
        The bus's number, or a path such as ``/dev/i2c-1``. 1 is the bus on a Raspberry Pi's pins 3 and 5.

    Raises
    ------
    SettingsError
        If `bus` is neither a number nor a path.
    DeviceError
        If ``smbus2`` isn't installed, or the bus is not there or not permitted.
    """
    number = isinstance(bus, int) and not isinstance(bus, bool) and bus >= 0
    if not number and not (isinstance(bus, str) and bus):
        raise SettingsError(
            f"the I²C bus is {bus!r}; it is a bus's number, such as 1, or its path, such as '/dev/i2c-1'."
        )
    try:
        from smbus2 import SMBus
    except ImportError as error:
        raise DeviceError(
            f"I²C bus {bus!r} can't be opened: smbus2 can't be imported ({error}). Install it with "
            "`pip install pratipad-nb[device]` (Linux only), or use a `SimulatedBus`."
        ) from error
    path = f"/dev/i2c-{bus}" if isinstance(bus, int) else bus
    try:
        opened: I2CBus = SMBus(bus)
    except FileNotFoundError as error:
        there = ", ".join(sorted(map(str, Path("/dev").glob("i2c-*")))) or "none"
        raise DeviceError(
            f"There is no I²C bus {path} (there are: {there}). Switch I²C on (Raspberry Pi: "
            "`sudo raspi-config nonint do_i2c 0`; elsewhere: `modprobe i2c-dev`), or use a `SimulatedBus`."
        ) from error
    except OSError as error:
        raise DeviceError(
            f"I²C bus {path} can't be opened: {error}. For a missing permission, join its group "
            "(`sudo adduser $USER i2c`) and log in again."
        ) from error
    return opened


def bus_name(bus: object) -> str:
    """Return the name of `bus` for an error: its ``name``, its device file, or its type."""
    name = getattr(bus, "name", None)
    if isinstance(name, str):
        return name
    descriptor = getattr(bus, "fd", None)
    if isinstance(descriptor, int):
        try:
            return str(Path(f"/proc/self/fd/{descriptor}").readlink())
        except OSError:
            pass
    return type(bus).__name__


class I2CPort:
    """One sensor's address on a bus: its errors name sensor, bus, address, register and next step.

    Parameters
    ----------
    bus
        A ``smbus2.SMBus`` or a `SimulatedBus`.
    address
        The sensor's address, 7 bits: 0x08 to 0x77 (the rest is reserved by the I²C specification, UM10204
        table 4).
    device
        The sensor's name in errors.

    Attributes
    ----------
    clock
        The bus's own clock if it has one (a `SimulatedBus` does), else the `time` module.

    Raises
    ------
    SettingsError
        If `bus` is no bus or `address` is out of range.
    """

    def __init__(self, bus: I2CBus, address: int, device: str) -> None:
        if not isinstance(bus, I2CBus):
            raise SettingsError(
                f"{device}: {bus!r} is no I²C bus; give it `open_bus(1)`, an `smbus2.SMBus` or a "
                "`SimulatedBus`."
            )
        if isinstance(address, bool) or not isinstance(address, int) or not 0x08 <= address <= 0x77:
            shown = f"0x{address:02X}" if isinstance(address, int) else repr(address)
            raise SettingsError(
                f"{device}: address is {shown}; an I²C address is a number from 0x08 to 0x77."
            )
        self.address = address
        self.device = device
        self.clock: Clock = getattr(bus, "clock", time)
        self._bus = bus

    def read(self, register: int, count: int, what: str = "") -> bytes:
        """Return `count` bytes from `register` on, in one transaction with a repeated start.

        Raises
        ------
        DeviceError
            If the transfer fails; the error names the register by `what`.
        """
        answer = _messages().read(self.address, count)
        self._transfer(_where(register, what), _messages().write(self.address, [register]), answer)
        return bytes(answer)

    def write(self, register: int, value: int, what: str = "") -> None:
        """Write one byte to `register`.

        Raises
        ------
        DeviceError
            If the transfer fails.
        """
        self._transfer(_where(register, what), _messages().write(self.address, [register, value]))

    def send(self, data: bytes, what: str) -> None:
        """Send bytes that are a command rather than a register.

        Raises
        ------
        DeviceError
            If the transfer fails.
        """
        self._transfer(what, _messages().write(self.address, data))

    def receive(self, count: int, what: str) -> bytes:
        """Return `count` bytes, the answer to the bytes sent last.

        Raises
        ------
        DeviceError
            If the transfer fails.
        """
        answer = _messages().read(self.address, count)
        self._transfer(what, answer)
        return bytes(answer)

    def error(self, where: str, happened: str, next_step: str) -> DeviceError:
        """Return the error that says `happened`, and names the sensor, the bus, the address and `where`."""
        place = f"{self.device} on bus {bus_name(self._bus)}, address 0x{self.address:02X}, {where}"
        return DeviceError(f"{place}: {happened}. {next_step}")

    def _transfer(self, where: str, *messages: Any) -> None:
        if getattr(self._bus, "fd", 0) is None:
            raise self.error(
                where, "the bus is closed", "Open it again with `open_bus` and make the driver anew."
            )
        try:
            self._bus.i2c_rdwr(*messages)
        except OSError as error:
            raise self.error(where, *self._meaning(error)) from error

    def _meaning(self, error: OSError) -> tuple[str, str]:
        if error.errno in _NOBODY:
            number = re.search(r"\d+$", bus_name(self._bus))
            look = f": `i2cdetect -y {number[0]}` shows which chips answer" if number else ""
            return (
                f"nobody acknowledged ({error})",
                f"Check its power, that SDA and SCL aren't swapped, and the address{look}.",
            )
        if error.errno == errno.ETIMEDOUT:
            return (
                f"the transfer timed out ({error}): something holds the clock or data line low",
                (
                    "Power-cycle the sensor; if the error comes again, shorten the wires, strengthen the "
                    "pull-ups or slow the bus down."
                ),
            )
        return f"the transfer failed ({error})", "Check the wiring and the kernel's log (`dmesg`)."


def _where(register: int, what: str) -> str:
    return f"register 0x{register:02X}" + (f" ({what})" if what else "")


@functools.cache
def _messages() -> Any:
    try:
        from smbus2 import i2c_msg
    except ImportError:
        # Off Linux there's no smbus2, and no bus but a `SimulatedBus`, which takes any object with a
        # `_Message`'s attributes.
        return _Message
    return i2c_msg


class _Message:
    """A message as the simulated bus reads it: the attributes of ``smbus2.i2c_msg``."""

    def __init__(self, addr: int, flags: int, data: bytes) -> None:
        self.addr = addr
        self.flags = flags
        self.len = len(data)
        self.buf = (ctypes.c_char * len(data)).from_buffer_copy(data)

    @classmethod
    def read(cls, address: int, length: int) -> _Message:
        return cls(address, READ_FLAG, bytes(length))

    @classmethod
    def write(cls, address: int, data: bytes | list[int]) -> _Message:
        return cls(address, 0, bytes(data))

    def __bytes__(self) -> bytes:
        return bytes(self.buf.raw)
