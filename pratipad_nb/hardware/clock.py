"""Clocks: drivers, simulated chips and the simulated room get their time from a clock, and wait on it.

Owns two stand-ins for the `time` module, which is the ordinary clock: `ManualClock`, which a test moves by
hand, and `ScaledClock`, which runs faster, so that an afternoon in a simulated room passes in a minute. Owns
no schedule: how often a sensor is read is the device's matter.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from pratipad_nb.errors import SettingsError

__all__ = ["Clock", "ManualClock", "ScaledClock"]


class Clock(Protocol):
    """A clock that can be read and slept on; the `time` module is such a clock."""

    def monotonic(self) -> float:
        """Return the seconds since some fixed point; never goes back."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Return once `seconds` of this clock have passed."""
        ...


class ManualClock:
    """A clock that moves only by `sleep` and `advance`: nothing waits, everything is repeatable.

    Parameters
    ----------
    start
        The clock's first value, in seconds.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        """Return the seconds that the clock shows."""
        return self._now

    def sleep(self, seconds: float, /) -> None:
        """Move on by `seconds` and return at once."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`.

        Raises
        ------
        SettingsError
            If `seconds` is negative: drivers rely on a clock that never goes back.
        """
        if seconds < 0:
            raise SettingsError(f"A clock can't go back by {-seconds!r} s; advance it by 0 or more.")
        with self._lock:
            self._now += seconds


class ScaledClock:
    """A clock that runs `speed` times as fast as the real clock, from zero.

    Parameters
    ----------
    speed
        Seconds of this clock in one real second; 60 makes a minute of a second.

    Raises
    ------
    SettingsError
        If `speed` is not above zero.
    """

    def __init__(self, speed: float) -> None:
        if not speed > 0:
            raise SettingsError(f"speed is {speed!r}; it must be a number above 0, for example 60.")
        self.speed = speed
        self._start = time.monotonic()

    def monotonic(self) -> float:
        """Return the seconds of this clock since it was made."""
        return (time.monotonic() - self._start) * self.speed

    def sleep(self, seconds: float, /) -> None:
        """Return once `seconds` of this clock have passed."""
        time.sleep(seconds / self.speed)
