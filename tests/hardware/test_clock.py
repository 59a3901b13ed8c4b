"""The clocks that stand in for the `time` module."""

from __future__ import annotations

import time

import pytest

from pratipad_nb.errors import SettingsError
from pratipad_nb.hardware.clock import Clock, ManualClock, ScaledClock


def test_the_time_module_is_a_clock() -> None:
    clock: Clock = time
    assert clock.monotonic() <= clock.monotonic()


def test_a_manual_clock_moves_only_when_slept_on_or_advanced() -> None:
    clock = ManualClock(10.0)
    clock.sleep(5)
    clock.advance(0.5)
    assert clock.monotonic() == 15.5


def test_a_clock_does_not_go_back() -> None:
    with pytest.raises(SettingsError, match="can't go back by 1 s"):
        ManualClock().advance(-1)


def test_a_scaled_clock_passes_an_hour_in_a_moment() -> None:
    clock = ScaledClock(360_000)
    began = time.monotonic()
    clock.sleep(3600)
    assert clock.monotonic() >= 3600
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("speed", [0, -1, float("nan")])
def test_a_clock_needs_a_speed_above_zero(speed: float) -> None:
    with pytest.raises(SettingsError, match="above 0"):
        ScaledClock(speed)
