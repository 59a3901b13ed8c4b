"""A simulated room: its air, as people breathe and a window opens and closes.

Owns the model and nothing else: simulated chips read it, and a device's orders may open its window. The model
is a single well-mixed volume of air, believable to the eye rather than a building simulation:

* People breathe out CO₂ and moisture, and warm the room.
* Air is exchanged with the outside, slowly through the cracks, quickly through an open window.
* Walls and heating pull the temperature back to `ROOM_TEMPERATURE`.
* Outside, temperature and pressure move as weather does, by a seed.

The air is computed in steps of one second of the room's clock, however often it is read, so that the same
seed, clock and events give the same air.
"""

from __future__ import annotations

import math
import random
import threading
import time
from dataclasses import dataclass

from pratipad_nb.errors import SettingsError
from pratipad_nb.hardware.clock import Clock

__all__ = ["Climate", "SimulatedRoom"]

#: Seconds between two steps. All time constants below are hundreds of them.
STEP = 1.0
#: A longer pause between two readings is computed as if only this much had passed: a laptop that slept over
#: the weekend must not compute for seconds, and a room is in balance after a day.
LONGEST_GAP = 86_400.0

ROOM_TEMPERATURE = 21.0
#: Cubic metres of CO₂ that a seated adult breathes out in an hour: 0.0052 l/s (ASTM D6245, 1.2 met).
CO2_PER_PERSON = 0.0187
#: Grams of water that an adult at rest gives off in an hour (ASHRAE Fundamentals: 40 to 60).
WATER_PER_PERSON = 50.0
#: Kelvins by which a person would warm the closed room in an hour, walls included.
WARMTH_PER_PERSON = 0.4
#: Air changes in an hour: through the cracks of a fairly tight building, and through a window wide open on
#: one side (EN 16798-7: 5 to 15).
CRACKS, OPEN_WINDOW = 0.3, 8.0
#: Hours in which walls and heating make up for most of a difference.
WALLS = 1.5
#: The fraction of the exchanged air's cold that the walls don't make up for at once.
COLD_FRACTION = 0.15
#: Parts per million outside: the yearly mean at Mauna Loa, 2024.
CO2_OUTSIDE = 425.0


@dataclass(frozen=True, slots=True)
class Climate:
    """The air at one moment.

    Attributes
    ----------
    temperature_c, humidity_percent, pressure_hpa, co2_ppm
        In the units that the attributes' names end in; humidity is relative.
    """

    temperature_c: float = 21.0
    humidity_percent: float = 45.0
    pressure_hpa: float = 1013.25
    co2_ppm: float = 600.0


class SimulatedRoom:
    """A room whose air changes with time, people and a window; calling it returns its present `Climate`.

    A room can be used from any thread.

    Parameters
    ----------
    people
        How many people are in the room at first.
    volume
        The room's air, in cubic metres. 30 is a small office: there one person's breath adds about 600 ppm in
        an hour.
    start
        The air at first.
    seed
        Seed of the weather outside.
    clock
        The `time` module, a `ScaledClock` (an afternoon in a minute) or a `ManualClock` (tests).

    Attributes
    ----------
    clock
        The argument `clock`; simulated chips in this room go by it.

    Raises
    ------
    SettingsError
        If `people` is negative or `volume` is not above zero.
    """

    def __init__(
        self,
        *,
        people: float = 2,
        volume: float = 30.0,
        start: Climate | None = None,
        seed: int = 0,
        clock: Clock = time,
    ) -> None:
        if not volume > 0:
            raise SettingsError(f"The room's volume is {volume!r} m³; it must be above 0, for example 30.")
        start = start or Climate()
        self.clock = clock
        self._people = _checked_people(people)
        self._volume = volume
        self._window_open = False
        self._weather = _Weather(seed, start.pressure_hpa)
        self._temperature = start.temperature_c
        self._water = start.humidity_percent / 100.0 * _saturation(start.temperature_c)
        self._co2 = start.co2_ppm
        self._last = clock.monotonic()
        self._elapsed = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> Climate:
        """Return the present air."""
        with self._lock:
            self._advance()
            return Climate(
                temperature_c=self._temperature,
                humidity_percent=min(100.0, 100.0 * self._water / _saturation(self._temperature)),
                pressure_hpa=self._weather.pressure(self._elapsed),
                co2_ppm=self._co2,
            )

    @property
    def people(self) -> float:
        """How many people are in the room. Raises `SettingsError` when set below zero."""
        return self._people

    @people.setter
    def people(self, people: float) -> None:
        people = _checked_people(people)
        with self._lock:
            self._advance()
            self._people = people

    @property
    def window_open(self) -> bool:
        """Whether the room's window is open."""
        return self._window_open

    @window_open.setter
    def window_open(self, window_open: bool) -> None:
        with self._lock:
            self._advance()
            self._window_open = bool(window_open)

    def _advance(self) -> None:
        now = self.clock.monotonic()
        self._last = max(self._last, now - LONGEST_GAP)
        while now - self._last >= STEP:
            self._last += STEP
            self._elapsed += STEP
            self._step(STEP / 3600.0)

    def _step(self, hours: float) -> None:
        exchange = OPEN_WINDOW if self._window_open else CRACKS
        outside = self._weather.temperature(self._elapsed)
        self._co2 += hours * (
            self._people * CO2_PER_PERSON / self._volume * 1e6 - exchange * (self._co2 - CO2_OUTSIDE)
        )
        self._temperature += hours * (
            self._people * WARMTH_PER_PERSON
            - (self._temperature - ROOM_TEMPERATURE) / WALLS
            - COLD_FRACTION * exchange * (self._temperature - outside)
        )
        self._water += hours * (
            self._people * WATER_PER_PERSON / self._volume
            - exchange * (self._water - self._weather.water(outside))
        )
        # Water that the air can't hold ends up on the window pane.
        self._water = min(self._water, _saturation(self._temperature))


class _Weather:
    """Slow swings of a few hours to days, as functions of the time since the start; phases by the seed."""

    def __init__(self, seed: int, pressure_hpa: float) -> None:
        rng = random.Random(seed)  # noqa: S311 - weather, not secrets
        self._phases = [rng.uniform(0.0, 2.0 * math.pi) for _ in range(4)]
        # The mean is shifted so that the pressure is `pressure_hpa` at the start.
        self._pressure = pressure_hpa - self._swing(0.0)

    def temperature(self, seconds: float) -> float:
        """Return degrees Celsius outside: 12 on average, 4 more or less over a day, 2 over six days."""
        hours = seconds / 3600.0
        day = math.sin(hours * 2 * math.pi / 24 + self._phases[0])
        return 12.0 + 4.0 * day + 2.0 * math.sin(hours * 2 * math.pi / 144 + self._phases[1])

    def pressure(self, seconds: float) -> float:
        """Return hectopascals: up to 8 away from the mean, over hours and days."""
        return self._pressure + self._swing(seconds)

    def water(self, temperature: float) -> float:
        """Return grams of water in a cubic metre outside, where the air is 70 % humid."""
        return 0.7 * _saturation(temperature)

    def _swing(self, seconds: float) -> float:
        hours = seconds / 3600.0
        slow = 6.0 * math.sin(hours * 2 * math.pi / 60 + self._phases[2])
        return slow + 2.0 * math.sin(hours * 2 * math.pi / 11 + self._phases[3])


def _saturation(temperature_c: float) -> float:
    """Return the grams of water that a cubic metre of air holds at most.

    By the Magnus formula over water (WMO-No. 8, annex 4.B) and the gas law for water vapour.
    """
    hectopascals = 6.112 * math.exp(17.62 * temperature_c / (243.12 + temperature_c))
    return 216.68 * hectopascals / (273.15 + temperature_c)


def _checked_people(people: float) -> float:
    if isinstance(people, bool) or not isinstance(people, (int, float)) or not 0 <= people < math.inf:
        raise SettingsError(f"people is {people!r}; it must be a number of 0 or more.")
    return people
