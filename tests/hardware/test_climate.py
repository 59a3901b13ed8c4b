"""The simulated room reacts, and does so the same way each time."""

from __future__ import annotations

import random

import pytest

from pratipad_nb.errors import SettingsError
from pratipad_nb.hardware.climate import CO2_OUTSIDE, Climate, SimulatedRoom
from pratipad_nb.hardware.clock import ManualClock


def a_room(**options: object) -> tuple[SimulatedRoom, ManualClock]:
    clock = ManualClock()
    return SimulatedRoom(clock=clock, **options), clock  # type: ignore[arg-type]


def test_people_use_up_the_air_and_an_open_window_makes_it_better() -> None:
    room, clock = a_room(people=2)
    clock.advance(1200)
    stuffy = room().co2_ppm
    assert stuffy > 800
    room.window_open = True
    clock.advance(1200)
    assert room().co2_ppm < 700 < stuffy
    room.window_open = False
    clock.advance(1200)
    assert room().co2_ppm > 800


def test_an_empty_room_comes_to_the_air_outside() -> None:
    room, clock = a_room(people=0, start=Climate(co2_ppm=2000))
    clock.advance(20 * 3600)
    assert room().co2_ppm == pytest.approx(CO2_OUTSIDE, abs=10)


def test_people_make_a_room_warmer_and_more_humid_and_a_window_cools_it() -> None:
    full, clock = a_room(people=6, start=Climate(temperature_c=21))
    clock.advance(3600)
    then = full()
    assert then.temperature_c > 21.5
    assert then.humidity_percent > 60
    full.window_open = True
    clock.advance(3600)
    assert full().temperature_c < then.temperature_c - 2


def test_the_same_seed_and_events_give_the_same_air_however_often_it_is_read() -> None:
    often, often_clock = a_room(seed=4)
    seldom, seldom_clock = a_room(seed=4)
    for _ in range(1200):
        often_clock.advance(0.5)
        often()
    seldom_clock.advance(600)
    assert often() == seldom()
    often.window_open = seldom.window_open = True
    often_clock.advance(600)
    seldom_clock.advance(600)
    assert often() == seldom()


def test_another_seed_is_another_weather() -> None:
    (one, one_clock), (other, other_clock) = a_room(seed=1), a_room(seed=2)
    one_clock.advance(6 * 3600)
    other_clock.advance(6 * 3600)
    assert one().pressure_hpa != other().pressure_hpa


def test_a_room_stays_believable_over_weeks() -> None:
    rng = random.Random(7)
    room, clock = a_room(people=3)
    for _ in range(100):
        room.window_open = rng.random() < 0.5
        room.people = rng.randrange(8)
        clock.advance(rng.uniform(60, 8000))
        air = room()
        assert 0 < air.temperature_c < 40
        assert 0 < air.humidity_percent <= 100
        assert 990 < air.pressure_hpa < 1040
        assert 400 < air.co2_ppm < 20_000


@pytest.mark.parametrize("people", [-1, float("inf"), float("nan"), "two", True])
def test_an_impossible_number_of_people_is_refused(people: object) -> None:
    room, _ = a_room()
    with pytest.raises(SettingsError, match="people is"):
        room.people = people  # type: ignore[assignment]


def test_a_room_without_air_is_refused() -> None:
    with pytest.raises(SettingsError, match="volume is 0"):
        SimulatedRoom(volume=0)
