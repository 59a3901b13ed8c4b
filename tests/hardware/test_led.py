"""The LED: orders, blinking without blocking, and a real pin by gpiozero's own simulation of one."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from patience import patient

from pratipad_nb.errors import DeviceError, SettingsError
from pratipad_nb.hardware.led import Blink, Led


@pytest.fixture
def led() -> Iterator[Led]:
    led = Led()
    yield led
    led.close()


def changes(led: Led) -> list[bool]:
    return [lit for _, lit in led.history]


def test_orders_switch_it(led: Led) -> None:
    led({"led": "on"})
    assert led.is_lit
    led({"led": "off"})
    assert not led.is_lit
    assert changes(led) == [True, False]


def test_it_blinks_as_often_as_ordered_and_at_the_pace_ordered(led: Led) -> None:
    led(Blink(4, 0.04).order())
    assert led.wait(5)
    assert changes(led) == [True, False] * 4
    assert 0.12 < led.history[-1][0] - led.history[0][0] < patient(0.24)
    assert not led.is_lit


def test_a_blink_order_does_not_block_who_gives_it(led: Led) -> None:
    led.blink(Blink(10, 60.0))
    assert led.is_blinking
    assert not led.wait(0.01)


@pytest.mark.parametrize("order", ["on", "off"])
def test_a_later_order_ends_a_blinking(led: Led, order: str) -> None:
    led.blink(Blink(10_000, 0.02))
    blinking = led._blinking
    assert blinking is not None
    led({"led": order})
    assert not led.is_blinking
    after = changes(led)
    blinking.join(5)
    assert not blinking.is_alive()
    assert changes(led) == after
    assert led.is_lit is (order == "on")


def test_a_later_blink_order_replaces_the_first(led: Led) -> None:
    led.blink(Blink(10_000, 60.0))
    led.blink(Blink(2, 0.02))
    assert led.wait(5)
    assert not led.is_lit


def test_a_payload_for_others_is_left_alone(led: Led) -> None:
    led({"window": "open"})
    led("on")
    led(None)
    assert changes(led) == []


@pytest.mark.parametrize(
    "payload", [{"led": "dim"}, {"led": 1}, {"led": "blink", "times": 0}, {"led": "blink", "period": "fast"}]
)
def test_an_order_it_does_not_know_is_an_error_that_says_what_it_knows(
    led: Led, payload: dict[str, object]
) -> None:
    with pytest.raises(DeviceError, match="led can't carry out"):
        led(payload)


@pytest.mark.parametrize(
    "wrong",
    [
        {"times": 0},
        {"times": 1.5},
        {"times": 10_001},
        {"period": 0},
        {"period": 61},
        {"period": float("nan")},
    ],
)
def test_a_blink_beyond_its_bounds_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=r"Blink: .* is .*; it must be"):
        Blink(**wrong)  # type: ignore[arg-type]


def test_an_order_says_only_what_differs_from_the_default() -> None:
    assert Blink.from_order({"led": "blink"}) == Blink()
    assert Blink.from_order(Blink(7, 0.1).order()) == Blink(7, 0.1)


def test_observers_see_every_change_and_a_failing_one_stops_nothing(
    led: Led, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[bool] = []
    led.observe(lambda lit: 1 / 0)  # type: ignore[arg-type, return-value]
    led.observe(seen.append)
    led.blink(Blink(2, 0.02))
    assert led.wait(5)
    assert seen == [True, False, True, False]
    assert "An observer of led failed" in caplog.text


def test_an_observer_may_give_an_order_itself(led: Led) -> None:
    led.observe(lambda lit: led.off() if lit else None)
    led.blink(Blink(100, 0.02))
    assert led.wait(5)
    assert changes(led) == [True, False]


def test_closing_puts_it_out_and_leaves_no_thread_behind() -> None:
    led = Led(name="lamp")
    led.blink(Blink(100, 0.02))
    led.close()
    led.close()
    assert not led.is_lit
    assert not [t for t in threading.enumerate() if t.name.startswith("lamp")]
    with pytest.raises(DeviceError, match="lamp was closed"):
        led.on()
    with pytest.raises(DeviceError, match="lamp was closed"):
        led.blink()


def test_with_a_pin_it_switches_that_pin() -> None:
    from gpiozero import Device
    from gpiozero.pins.mock import MockFactory

    Device.pin_factory = MockFactory()
    try:
        led = Led(17)
        pin = Device.pin_factory.pin(17)
        assert not led.simulated
        led.on()
        assert pin.state
        led.blink(Blink(2, 0.02))
        assert led.wait(5)
        assert not pin.state
        with pytest.raises(DeviceError, match=r"led can't have pin 17: .*Choose a free GPIO number"):
            Led(17)
        led.close()
        Led(17).close()
    finally:
        Device.pin_factory.close()
        Device.pin_factory = None


def test_without_pins_it_is_simulated_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        led = Led(17)
    assert led.simulated
    assert "led is simulated: this computer has no pins" in caplog.text
    led.close()


def test_without_gpiozero_it_is_simulated_and_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gpiozero", None)
    with caplog.at_level(logging.WARNING):
        led = Led(17)
    assert led.simulated
    assert "gpiozero isn't installed" in caplog.text
    led.close()


@pytest.mark.parametrize("pin", ["abc", -4, True, 1.5])
def test_a_pin_that_is_no_number_of_one_is_refused(pin: Any) -> None:
    with pytest.raises(SettingsError, match="it is a GPIO number of 0 or more"):
        Led(pin)
