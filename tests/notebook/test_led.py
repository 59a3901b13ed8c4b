"""A `Led` in a notebook: a light that follows it from any thread, at a pace the page can show."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref
from typing import Any

import pytest

from pratipad_nb.device import Blink, Led
from pratipad_nb.notebook.led import PACE, LedWidget


@pytest.fixture
def led() -> Any:
    light = Led(name="lamp")
    yield light
    light.close()


def test_a_cell_that_ends_with_a_led_shows_a_light(quick_shell: Any) -> None:
    quick_shell.ok("from pratipad_nb.device import Led\nlamp = Led(name='lamp')")
    shown, _ = quick_shell.ip.display_formatter.format(quick_shell.names["lamp"])
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert shown["text/plain"] == "Led('lamp')"
    quick_shell.ok("%unload_ext pratipad_nb")
    plain, _ = quick_shell.ip.display_formatter.format(quick_shell.names["lamp"])
    assert plain == {"text/plain": "Led('lamp', dark, simulated)"}
    quick_shell.ok("%load_ext pratipad_nb\nlamp.close()")


def test_the_light_follows_orders_from_other_threads(led: Led, until: Any) -> None:
    widget = LedWidget.of(led)
    assert widget.state == {"name": "lamp", "lit": False, "changes": 0}
    threading.Thread(target=led, args=({"led": "on"},)).start()
    until(lambda: widget.state["lit"])
    led({"led": "off"})
    until(lambda: not widget.state["lit"] and widget.state["changes"] == 2)


def test_the_first_change_is_sent_at_once(led: Led) -> None:
    widget = LedWidget.of(led)
    time.sleep(PACE)
    led.on()
    assert widget.state["lit"]


def test_a_fast_blinking_is_sent_at_a_pace_and_counted_in_full(led: Led, until: Any) -> None:
    widget = LedWidget.of(led)
    sent: list[float] = []
    widget.observe(lambda _: sent.append(time.monotonic()), names="state")
    led.blink(Blink(times=25, period=0.02))
    until(lambda: widget.state["changes"] == 50)
    assert widget.state["lit"] is False
    assert len(sent) <= 0.6 / PACE + 2
    assert all(later - earlier > 0.8 * PACE for earlier, later in itertools.pairwise(sent))


def test_a_led_has_one_widget_which_goes_with_it() -> None:
    light = Led(name="lamp")
    assert LedWidget.of(light) is LedWidget.of(light)
    light.close()
    gone = weakref.ref(light)
    del light
    gc.collect()
    assert gone() is None
