"""A simulated SCD40, SCD41 or SCD43: the chip on the other end of the wires, down to its commands.

Owns the chip's behaviour as the data sheet tells it: the states idle, measuring and asleep; the commands
refused in each; how long a command takes; that a measurement can be read once. The measured values come from
a climate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from pratipad_nb.hardware.climate import Climate
from pratipad_nb.hardware.clock import Clock
from pratipad_nb.hardware.scd4x import INTERVALS, ChecksumError, Command, Commands, pack_words, unpack_words
from pratipad_nb.hardware.simulated_bus import NotAcknowledged

__all__ = ["SimulatedSCD4X", "measurement_words"]

_VARIANTS = {"SCD40": 0x0, "SCD41": 0x1, "SCD43": 0x5}
_COMMANDS = {c.code: c for c in vars(Commands).values() if isinstance(c, Command)}
#: Commands that a measuring chip takes; it refuses all others (table "command overview").
_WHILE_MEASURING = {
    Commands.READ_MEASUREMENT,
    Commands.STOP_PERIODIC,
    Commands.DATA_READY,
    Commands.AMBIENT_PRESSURE,
}
_POWER_UP_SECONDS = 0.03
_READY, _NOT_READY = 0x8006, 0x8000


def measurement_words(climate: Climate) -> tuple[int, int, int]:
    """Return the words for CO₂, temperature and humidity: the inverse of the data sheet's formulas."""
    return (
        _word(climate.co2_ppm),
        _word((climate.temperature_c + 45.0) / 175.0 * 65535.0),
        _word(climate.humidity_percent / 100.0 * 65535.0),
    )


def _word(value: float) -> int:
    return min(max(round(value), 0), 0xFFFF)


class SimulatedSCD4X:
    """An SCD4x for a `SimulatedBus`.

    Parameters
    ----------
    climate
        A callable that returns the present air: a `SimulatedRoom`, or ``lambda: Climate(…)``.
    variant
        Which of the three chips. The SCD40 refuses single shots.
    serial
        The chip's serial number, 48 bits.
    clock
        The chip's clock: the bus's.

    Attributes
    ----------
    ambient_pressure_hpa
        The air pressure that the chip was told last.
    stuck
        Whether measurements no longer become ready.
    """

    def __init__(
        self,
        climate: Callable[[], Climate],
        *,
        variant: Literal["SCD40", "SCD41", "SCD43"] = "SCD41",
        serial: int = 0xF896_9F07_3BBE,
        clock: Clock = time,
    ) -> None:
        self.stuck = False
        self._climate = climate
        self._variant = variant
        self._serial = serial
        self._clock = clock
        self.power_up()

    def __repr__(self) -> str:
        return f"Simulated{self._variant}()"

    def power_up(self) -> None:
        """Begin idle, after the 30 ms that starting up takes."""
        self.ambient_pressure_hpa = 1013
        self._asleep = False
        self._interval: float | None = None
        self._due: float | None = None
        self._measurement: tuple[int, int, int] | None = None
        self._answer = b""
        self._busy_until = self._clock.monotonic() + _POWER_UP_SECONDS

    def write(self, data: bytes, /) -> None:
        """Take a command, with its argument and checksum if it has one."""
        command = _COMMANDS.get(int.from_bytes(data[:2], "big"))
        self._run()
        if self._asleep and command is Commands.WAKE_UP:
            self._asleep = False
            self._busy_for(command)
            raise NotAcknowledged  # a chip wakes without acknowledging: data sheet, wake_up
        if command is None or self._asleep or self._clock.monotonic() < self._busy_until:
            raise NotAcknowledged
        if self._interval is not None and command not in _WHILE_MEASURING:
            raise NotAcknowledged
        self._carry_out(command, data[2:])
        self._busy_for(command)

    def read(self, count: int, /) -> bytes:
        """Return the answer to the last command, once."""
        if self._asleep or not self._answer or self._clock.monotonic() < self._busy_until:
            raise NotAcknowledged
        answer, self._answer = self._answer, b""
        return answer[:count]

    def _busy_for(self, command: Command) -> None:
        self._busy_until = self._clock.monotonic() + command.seconds

    def _run(self) -> None:
        now = self._clock.monotonic()
        if self._due is None or self.stuck or now < self._due:
            return
        self._measurement = measurement_words(self._climate())
        if self._interval is None:
            self._due = None
        else:
            self._due += self._interval * (1 + (now - self._due) // self._interval)

    def _carry_out(self, command: Command, argument: bytes) -> None:
        self._answer = b""
        if command is Commands.START_PERIODIC:
            self._start(INTERVALS["periodic"])
        elif command is Commands.START_LOW_POWER:
            self._start(INTERVALS["low_power"])
        elif command is Commands.STOP_PERIODIC:
            self._interval = self._due = self._measurement = None
        elif command is Commands.SINGLE_SHOT:
            self._single_shot()
        elif command is Commands.READ_MEASUREMENT:
            self._read_measurement()
        elif command is Commands.DATA_READY:
            self._answer = pack_words(_READY if self._measurement else _NOT_READY)
        elif command is Commands.SERIAL_NUMBER:
            self._answer = pack_words(*(self._serial >> shift & 0xFFFF for shift in (32, 16, 0)))
        elif command is Commands.VARIANT:
            self._answer = pack_words(_VARIANTS[self._variant] << 12 | 0x440)
        elif command is Commands.AMBIENT_PRESSURE:
            self._ambient_pressure(argument)
        elif command is Commands.POWER_DOWN:
            self._asleep = True

    def _start(self, interval: float) -> None:
        self._interval = interval
        self._due = self._clock.monotonic() + interval

    def _single_shot(self) -> None:
        if self._variant == "SCD40":
            raise NotAcknowledged
        self._measurement = None
        self._due = self._clock.monotonic() + Commands.SINGLE_SHOT.seconds

    def _read_measurement(self) -> None:
        # Reading empties the buffer, and reading an empty buffer is not acknowledged.
        if self._measurement is None:
            raise NotAcknowledged
        self._answer = pack_words(*self._measurement)
        self._measurement = None

    def _ambient_pressure(self, argument: bytes) -> None:
        if not argument:
            self._answer = pack_words(self.ambient_pressure_hpa)
            return
        try:
            (self.ambient_pressure_hpa,) = unpack_words(argument)
        except (ChecksumError, ValueError, IndexError):
            raise NotAcknowledged from None
