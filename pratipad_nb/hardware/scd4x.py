"""The SCD4x, Sensirion's CO₂ sensors (SCD40, SCD41, SCD43), as a callable that returns a reading.

Owns the conversation with the chip and its checksums. The commands are those of the data sheet "SCD4x"
(version 1.3 of September 2022); times and formulas, where newer chips differ, those of Sensirion's own Python
driver 1.1. The bus belongs to `bus`.

Every word that the chip sends bears a CRC-8. The CRC-8 finds any one, two or three flipped bits in a word and
any burst up to eight bits long; of worse damage, one case in 256 slips through.
"""

from __future__ import annotations

import contextlib
import struct
import threading
from dataclasses import dataclass
from typing import Literal, get_args

from pratipad_nb.errors import DeviceError, SettingsError
from pratipad_nb.hardware.bus import I2CBus, I2CPort

__all__ = ["SCD4X", "ChecksumError", "Command", "Commands", "Mode", "crc8", "pack_words", "unpack_words"]

Mode = Literal["periodic", "low_power", "single_shot"]

#: Pause between two questions whether a measurement is ready, in seconds; a reading is no older than this
#: when it is returned.
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its code, its name, and the seconds that the chip takes to carry it out."""

    code: int
    name: str
    seconds: float


class Commands:
    """The commands, of chapter 3.5 and those after it, that the driver or the simulated chip knows."""

    START_PERIODIC = Command(0x21B1, "start_periodic_measurement", 0.0)
    START_LOW_POWER = Command(0x21AC, "start_low_power_periodic_measurement", 0.0)
    STOP_PERIODIC = Command(0x3F86, "stop_periodic_measurement", 0.5)
    READ_MEASUREMENT = Command(0xEC05, "read_measurement", 0.001)
    DATA_READY = Command(0xE4B8, "get_data_ready_status", 0.001)
    SINGLE_SHOT = Command(0x219D, "measure_single_shot", 5.0)
    SERIAL_NUMBER = Command(0x3682, "get_serial_number", 0.001)
    VARIANT = Command(0x202F, "get_sensor_variant", 0.001)
    AMBIENT_PRESSURE = Command(0xE000, "set_ambient_pressure", 0.001)
    WAKE_UP = Command(0x36F6, "wake_up", 0.03)
    POWER_DOWN = Command(0x36E0, "power_down", 0.001)


#: Seconds between two measurements; the data sheet says "approximately 30" for low power.
INTERVALS: dict[Mode, float] = {"periodic": 5.0, "low_power": 30.0}
_START: dict[Mode, Command] = {"periodic": Commands.START_PERIODIC, "low_power": Commands.START_LOW_POWER}
_SCD40 = 0x0


class ChecksumError(DeviceError):
    """A word came with a wrong checksum: bits were flipped on the wires."""


def _crc_table() -> bytes:
    table = bytearray()
    for crc in range(256):
        for _ in range(8):
            crc = (crc << 1 ^ 0x31 if crc & 0x80 else crc << 1) & 0xFF
        table.append(crc)
    return bytes(table)


_CRC_TABLE = _crc_table()


def crc8(data: bytes) -> int:
    """Return Sensirion's CRC-8 of `data`.

    Its polynomial is 0x31 (x⁸ + x⁵ + x⁴ + 1), begun at 0xFF, not reflected, without a final exclusive-or;
    ``BE EF`` gives 0x92 (chapter 3.11). This CRC-8 is known elsewhere as CRC-8/NRSC-5.
    """
    crc = 0xFF
    for byte in data:
        crc = _CRC_TABLE[crc ^ byte]
    return crc


def pack_words(*words: int) -> bytes:
    """Return 16-bit words as they travel: high byte, low byte, checksum."""
    return b"".join(pair + bytes([crc8(pair)]) for pair in (struct.pack(">H", word) for word in words))


def unpack_words(data: bytes) -> list[int]:
    """Return the words packed in `data` by `pack_words`.

    Raises
    ------
    ChecksumError
        If a checksum is wrong; the error names the word, the checksum received and the right one.
    """
    words = []
    for index in range(0, len(data), 3):
        pair, received = data[index : index + 2], data[index + 2]
        if (computed := crc8(pair)) != received:
            raise ChecksumError(
                f"word {index // 3} is {pair.hex(' ')} with checksum 0x{received:02X}, which should be "
                f"0x{computed:02X}"
            )
        words.append(int.from_bytes(pair, "big"))
    return words


class SCD4X:
    """An SCD40, SCD41 or SCD43 on a bus; calling it returns a reading.

    A reading is a dictionary with ``"co2_ppm"``, ``"temperature_c"`` and ``"humidity_percent"``.

    Nothing is sent before the first call, so that a device can start before its sensor is there. The first
    call stops any measuring in progress and starts measuring, so the first call takes one interval; a later
    call waits for the next measurement that hasn't been read yet. After a failed transfer or a time-out the
    next call begins anew, so that a chip that was unplugged works again once it is back. The sensor can be
    called from any thread.

    Parameters
    ----------
    bus
        `open_bus(1)`, an ``smbus2.SMBus`` or a `SimulatedBus`.
    address
        0x62, the chip's only address.
    mode
        ``"periodic"``: the chip measures every 5 s. ``"low_power"``: every 30 s. ``"single_shot"``: at each
        call, which takes 5 s (SCD41 and SCD43 only).

    Raises
    ------
    SettingsError
        If an argument has a value that is not allowed.
    """

    def __init__(self, bus: I2CBus, address: int = 0x62, *, mode: Mode = "periodic") -> None:
        if mode not in get_args(Mode):
            raise SettingsError(f"SCD4x: mode is {mode!r}; it can be {', '.join(map(repr, get_args(Mode)))}.")
        self._mode: Mode = mode
        self._port = I2CPort(bus, address, "SCD4x")
        self._ready = False
        self._pressure: int | None = None  # kept, since a chip that is set up anew has forgotten it
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"SCD4X(address=0x{self._port.address:02X}, mode={self._mode!r})"

    def __call__(self) -> dict[str, float]:
        """Return the next reading, waiting for it.

        Raises
        ------
        ChecksumError
            If bits were flipped on the wires; the measurement is lost, the chip goes on measuring.
        DeviceError
            If the chip doesn't answer, has nothing ready in time, or can't do single shots.
        """
        with self._lock:
            try:
                if not self._ready:
                    self._set_up()
                return self._next()
            except ChecksumError:
                raise
            except DeviceError:
                self._ready = False
                raise

    def set_ambient_pressure(self, hectopascals: float) -> None:
        """Tell the chip the air pressure, at any time.

        The chip's CO₂ value depends on the pressure, by about 0.1 % a hectopascal. The chip is told the
        pressure again whenever it is set up anew, as after a loss of power.

        Raises
        ------
        SettingsError
            If `hectopascals` is no number from 700 to 1200, the chip's range.
        DeviceError
            If the transfer fails.
        """
        number = isinstance(hectopascals, (int, float)) and not isinstance(hectopascals, bool)
        if not number or not 700 <= hectopascals <= 1200:
            raise SettingsError(
                f"SCD4x: the ambient pressure is {hectopascals!r}; it must be a number of hPa, from 700 to "
                "1200."
            )
        with self._lock:
            self._pressure = round(hectopascals)
            if self._ready:  # else `_set_up` tells it
                self._send(Commands.AMBIENT_PRESSURE, self._pressure)

    def serial_number(self) -> int:
        """Return the chip's serial number of 48 bits; only while it isn't measuring.

        Raises
        ------
        DeviceError
            If the transfer fails or the chip is measuring.
        """
        with self._lock:
            if self._ready and self._mode != "single_shot":
                raise self._port.error(
                    _named(Commands.SERIAL_NUMBER),
                    "it is measuring, and tells its serial number only while it isn't",
                    "Call `stop()` first; the next reading starts it again.",
                )
            return self._serial_number()

    def stop(self) -> None:
        """Stop measuring, which saves power; the next call starts the chip again. Takes half a second.

        Raises
        ------
        DeviceError
            If the transfer fails.
        """
        with self._lock:
            self._ready = False
            self._send(Commands.STOP_PERIODIC)

    def _set_up(self) -> None:
        # A sleeping chip wakes without acknowledging, and a chip that is awake refuses the command: both look
        # like a fault here.
        with contextlib.suppress(DeviceError):
            self._send(Commands.WAKE_UP)
        self._port.clock.sleep(Commands.WAKE_UP.seconds)
        # The chip may still be measuring from before this process, and would then refuse nearly everything.
        self._send(Commands.STOP_PERIODIC)
        self._serial_number()
        if self._pressure is not None:
            self._send(Commands.AMBIENT_PRESSURE, self._pressure)
        if self._mode == "single_shot":
            self._check_single_shot()
        else:
            self._send(_START[self._mode])
        self._ready = True

    def _serial_number(self) -> int:
        high, middle, low = self._ask(Commands.SERIAL_NUMBER, 3)
        return high << 32 | middle << 16 | low

    def _check_single_shot(self) -> None:
        try:
            variant = self._ask(Commands.VARIANT, 1)[0] >> 12
        except ChecksumError:
            raise
        except DeviceError:
            # Older firmware doesn't know the command; an SCD40 with it refuses the single shot itself.
            return
        if variant == _SCD40:
            raise self._port.error(
                _named(Commands.VARIANT),
                "it is an SCD40, which has no single shot",
                'Use mode="low_power", or an SCD41 or SCD43.',
            )

    def _next(self) -> dict[str, float]:
        if self._mode == "single_shot":
            self._send(Commands.SINGLE_SHOT)
            self._await_data(1.0)
        else:
            # 20 % more, since the interval varies with the chip's own oscillator.
            self._await_data(INTERVALS[self._mode] * 1.2 + 1.0)
        co2, temperature, humidity = self._ask(Commands.READ_MEASUREMENT, 3)
        return {
            "co2_ppm": co2,
            "temperature_c": round(-45.0 + 175.0 * temperature / 65535.0, 2),
            "humidity_percent": round(100.0 * humidity / 65535.0, 2),
        }

    def _await_data(self, longest: float) -> None:
        deadline = self._port.clock.monotonic() + longest
        # The lower 11 bits are zero while there is nothing to read.
        while not self._ask(Commands.DATA_READY, 1)[0] & 0x07FF:
            if self._port.clock.monotonic() > deadline:
                raise self._port.error(
                    _named(Commands.DATA_READY),
                    f"no measurement was ready within {longest:g} s",
                    "It may have lost its power and been reset: the next call starts it again.",
                )
            self._port.clock.sleep(POLL_SECONDS)

    def _ask(self, command: Command, words: int) -> list[int]:
        self._send(command)
        data = self._port.receive(3 * words, _named(command))
        try:
            return unpack_words(data)
        except ChecksumError as error:
            full = self._port.error(
                _named(command),
                str(error),
                "Read again; if this comes often, shorten the wires, strengthen the pull-ups or slow the "
                "bus down.",
            )
            raise ChecksumError(str(full)) from None

    def _send(self, command: Command, *words: int) -> None:
        self._port.send(struct.pack(">H", command.code) + pack_words(*words), _named(command))
        self._port.clock.sleep(command.seconds)


def _named(command: Command) -> str:
    return f"command 0x{command.code:04X} ({command.name})"
