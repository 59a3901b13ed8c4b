"""A simulated I²C bus: chips at addresses, and faults on demand.

Owns the wires: which chip acknowledges, and the faults (no answer, a time-out, flipped bits, a chip that is
pulled out and put back). The meaning of the bytes belongs to the chip (`simulated_bme280`, `simulated_scd4x`,
or anything of the shape of `SimulatedChip`).

`SimulatedBus` takes the same calls as ``smbus2.SMBus`` and raises the same kinds of `OSError` as Linux does,
so that any driver written for ``smbus2``, ours or another's, runs unchanged.
"""

from __future__ import annotations

import ctypes
import errno
import random
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, get_args

from pratipad_nb.errors import SettingsError
from pratipad_nb.hardware.bus import EREMOTEIO, READ_FLAG
from pratipad_nb.hardware.clock import Clock

__all__ = ["Fault", "NotAcknowledged", "RegisterChip", "SimulatedBus", "SimulatedChip", "Transfer"]

Fault = Literal["nak", "timeout", "flip"]

#: How many of the last transfers `SimulatedBus.trace` keeps.
TRACE_LENGTH = 256


class NotAcknowledged(Exception):
    """A chip does not acknowledge: it is busy, or refuses a command. The bus reports that as Linux does."""


class SimulatedChip(Protocol):
    """A chip, as the bus sees it."""

    def write(self, data: bytes, /) -> None:
        """Take the bytes of one write; raise `NotAcknowledged` to refuse."""
        ...

    def read(self, count: int, /) -> bytes:
        """Return the bytes of one read; raise `NotAcknowledged` to refuse."""
        ...

    def power_up(self) -> None:
        """Begin as after a power-up: forget everything volatile."""
        ...


@dataclass(frozen=True, slots=True)
class Transfer:
    """One message on the bus, for `SimulatedBus.trace`."""

    address: int
    kind: Literal["read", "write", "refused"]
    data: bytes

    def __str__(self) -> str:
        return f"0x{self.address:02X} {self.kind:7} {self.data.hex(' ')}".rstrip()


ChipT = TypeVar("ChipT", bound=SimulatedChip)


class SimulatedBus:
    """An I²C bus without hardware.

    Parameters
    ----------
    name
        The bus's name in errors.
    clock
        The clock of the chips and the drivers on this bus. Default: the `time` module.
    seed
        Seed that chooses the bits which `inject` flips when it is called without `bit`.

    Attributes
    ----------
    trace
        The last transfers, oldest first; a printed transfer looks as a logic analyser would show it.
    """

    def __init__(self, name: str = "simulated", *, clock: Clock = time, seed: int = 0) -> None:
        self.name = name
        self.clock = clock
        self.trace: deque[Transfer] = deque(maxlen=TRACE_LENGTH)
        self._chips: dict[int, SimulatedChip] = {}
        self._unplugged: set[int] = set()
        self._faults: dict[int, deque[tuple[Fault, int | None]]] = {}
        self._rng = random.Random(seed)  # noqa: S311 - faults, not secrets
        self._lock = threading.RLock()

    def attach(self, address: int, chip: ChipT) -> ChipT:
        """Put `chip` at `address` and return it.

        Raises
        ------
        SettingsError
            If the address is taken, or no 7-bit address of a device.
        """
        if address in self._chips:
            raise SettingsError(
                f"Address 0x{address:02X} on bus {self.name} is taken by {self._chips[address]!r}; choose "
                "another."
            )
        if not 0x08 <= address <= 0x77:
            raise SettingsError(f"Address 0x{address:02X} is no chip's; it must be from 0x08 to 0x77.")
        self._chips[address] = chip
        return chip

    def detach(self, address: int) -> None:
        """Take the chip at `address` away for good, with its faults.

        Raises
        ------
        SettingsError
            If there is no chip at `address`.
        """
        with self._lock:
            self._there(address)
            del self._chips[address]
            self._unplugged.discard(address)
            self._faults.pop(address, None)

    def unplug(self, address: int) -> None:
        """Let the chip at `address` vanish: no transfer with that address is acknowledged.

        Raises
        ------
        SettingsError
            If there is no chip at `address`.
        """
        self._there(address)
        self._unplugged.add(address)

    def plug(self, address: int) -> None:
        """Put the chip at `address` back; it begins as after a power-up.

        Raises
        ------
        SettingsError
            If there is no chip at `address`.
        """
        with self._lock:
            self._there(address).power_up()
            self._unplugged.discard(address)

    def inject(self, address: int, fault: Fault, *, times: int = 1, bit: int | None = None) -> None:
        """Let the next transfers with `address` go wrong.

        Parameters
        ----------
        address
            Address of the chip concerned.
        fault
            ``"nak"``: the chip doesn't acknowledge. ``"timeout"``: the bus hangs. ``"flip"``: one bit of the
            bytes read is inverted (this fault waits for the next read).
        times
            How many transfers go wrong.
        bit
            Which bit is flipped, counted from the first byte's most significant one; by default the seed
            chooses.

        Raises
        ------
        SettingsError
            If there is no such fault or no chip at `address`, or `times` or `bit` is no such number.
        """
        if fault not in get_args(Fault):
            raise SettingsError(f"fault is {fault!r}; it can be {', '.join(map(repr, get_args(Fault)))}.")
        for what, value, least in (("times", times, 1), ("bit", 0 if bit is None else bit, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SettingsError(f"{what} is {value!r}; it must be a whole number of {least} or more.")
        self._there(address)
        with self._lock:
            self._faults.setdefault(address, deque()).extend([(fault, bit)] * times)

    def scan(self) -> list[int]:
        """Return the addresses where a chip is plugged in."""
        return sorted(self._chips.keys() - self._unplugged)

    def i2c_rdwr(self, *i2c_msgs: Any) -> None:
        """Carry out messages of the shape of ``smbus2.i2c_msg``."""
        with self._lock:
            for message in i2c_msgs:
                if message.flags & READ_FLAG:
                    ctypes.memmove(message.buf, self._read(message.addr, message.len), message.len)
                else:
                    self._write(message.addr, ctypes.string_at(message.buf, message.len))

    # Calls of smbus2 that other people's drivers use, with smbus2's names and parameters.

    def write_byte(self, i2c_addr: int, value: int) -> None:
        """Write one byte."""
        self._write(i2c_addr, bytes([value]))

    def read_byte(self, i2c_addr: int) -> int:
        """Return one byte."""
        return self._read(i2c_addr, 1)[0]

    def write_byte_data(self, i2c_addr: int, register: int, value: int) -> None:
        """Write one byte to a register."""
        self._write(i2c_addr, bytes([register, value]))

    def read_byte_data(self, i2c_addr: int, register: int) -> int:
        """Return one byte of a register."""
        return self.read_i2c_block_data(i2c_addr, register, 1)[0]

    def write_word_data(self, i2c_addr: int, register: int, value: int) -> None:
        """Write two bytes, the low one first."""
        self._write(i2c_addr, bytes([register, value & 0xFF, value >> 8]))

    def read_word_data(self, i2c_addr: int, register: int) -> int:
        """Return two bytes, the low one first."""
        low, high = self.read_i2c_block_data(i2c_addr, register, 2)
        return high << 8 | low

    def write_i2c_block_data(self, i2c_addr: int, register: int, data: list[int]) -> None:
        """Write bytes to a register."""
        self._write(i2c_addr, bytes([register, *data]))

    def read_i2c_block_data(self, i2c_addr: int, register: int, length: int) -> list[int]:
        """Return bytes from a register on."""
        with self._lock:
            self._write(i2c_addr, bytes([register]))
            return list(self._read(i2c_addr, length))

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _there(self, address: int) -> SimulatedChip:
        if address not in self._chips:
            there = ", ".join(f"0x{a:02X}" for a in sorted(self._chips)) or "nothing"
            raise SettingsError(f"There is no chip at 0x{address:02X} on bus {self.name}; attached: {there}.")
        return self._chips[address]

    def _write(self, address: int, data: bytes) -> None:
        with self._lock:
            chip = self._chip(address)
            try:
                chip.write(data)
            except NotAcknowledged:
                raise self._refused(address) from None
            self.trace.append(Transfer(address, "write", data))

    def _read(self, address: int, count: int) -> bytes:
        with self._lock:
            chip = self._chip(address)
            try:
                # Where a chip sends no more bits, the pull-ups make them ones.
                data = chip.read(count)[:count].ljust(count, b"\xff")
            except NotAcknowledged:
                raise self._refused(address) from None
            if self._next_fault(address) == "flip":
                data = self._flipped(data, self._faults[address].popleft()[1])
            self.trace.append(Transfer(address, "read", data))
            return data

    def _chip(self, address: int) -> SimulatedChip:
        fault = self._next_fault(address)
        if fault == "timeout":
            self._faults[address].popleft()
            self.trace.append(Transfer(address, "refused", b""))
            raise OSError(errno.ETIMEDOUT, "Connection timed out")
        if fault == "nak":
            self._faults[address].popleft()
            raise self._refused(address)
        if address not in self._chips or address in self._unplugged:
            raise self._refused(address)
        return self._chips[address]

    def _next_fault(self, address: int) -> Fault | None:
        waiting = self._faults.get(address)
        return waiting[0][0] if waiting else None

    def _refused(self, address: int) -> OSError:
        self.trace.append(Transfer(address, "refused", b""))
        return OSError(EREMOTEIO, "Remote I/O error")

    def _flipped(self, data: bytes, bit: int | None) -> bytes:
        bits = 8 * len(data)
        if not bits:
            return data
        position = self._rng.randrange(bits) if bit is None else bit % bits
        return (int.from_bytes(data, "big") ^ 1 << (bits - 1 - position)).to_bytes(len(data), "big")


class RegisterChip:
    """A chip of 256 one-byte registers.

    A write sets the pointer, and the registers from the pointer on; a read goes on from the pointer.
    `RegisterChip` is the simplest chip, for trying out a `RegisterSensor`, and a base of more particular
    chips.

    Parameters
    ----------
    registers
        The contents after a power-up, by register number: a byte, or several for the registers from that
        number on.
    """

    def __init__(self, registers: dict[int, int | bytes] | None = None) -> None:
        self._initial = bytearray(256)
        for register, content in (registers or {}).items():
            content = bytes([content]) if isinstance(content, int) else content
            self._initial[register : register + len(content)] = content
        if len(self._initial) != 256:
            raise SettingsError("The registers' contents go beyond 0xFF; a register's number is one byte.")
        self.power_up()

    def power_up(self) -> None:
        """Set every register to its content after a power-up."""
        self.registers = bytearray(self._initial)
        self._pointer = 0

    def write(self, data: bytes, /) -> None:
        """Set the pointer to the first byte; store the others from there on."""
        if data:
            self._pointer, *values = data
            for offset, value in enumerate(values):
                self.registers[(self._pointer + offset) & 0xFF] = value

    def read(self, count: int, /) -> bytes:
        """Return `count` bytes from the pointer on, and move it."""
        begin = self._pointer
        self._pointer = (begin + count) & 0xFF
        around = bytes(self.registers) * (2 + count // 256)
        return around[begin : begin + count]
