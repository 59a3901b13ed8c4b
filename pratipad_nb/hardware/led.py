"""The LED: an actuator that is switched and blinks on orders, on a pin of a Raspberry Pi or simulated.

Owns the light's state and the blinking. It knows nothing of flows: a device hands it the payload of an order. ``gpiozero``
is imported here alone, and only when a pin is given.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pratipad_nb.errors import DeviceError, SettingsError

__all__ = ["Blink", "Led"]

#: How many of the last changes `Led.history` keeps.
HISTORY_LENGTH = 1000
#: Bounds of an order from outside: a mistyped one must not keep a light busy for a year.
MOST_BLINKS, SHORTEST_PERIOD, LONGEST_PERIOD = 10_000, 0.02, 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Blink:
    """An order to blink.

    Attributes
    ----------
    times
        How often it lights up, 1 to 10,000.
    period
        Seconds from one lighting up to the next, 0.02 to 60; it is lit for half of it. Default 0.5, easily seen and counted.

    Raises
    ------
    SettingsError
        If one of them is out of its bounds.
    """

    times: int = 3
    period: float = 0.5

    def __post_init__(self) -> None:
        if (
            isinstance(self.times, bool)
            or not isinstance(self.times, int)
            or not 1 <= self.times <= MOST_BLINKS
        ):
            raise SettingsError(
                f"Blink: times is {self.times!r}; it must be a whole number, 1 to {MOST_BLINKS}."
            )
        number = isinstance(self.period, (int, float)) and not isinstance(self.period, bool)
        if not number or not SHORTEST_PERIOD <= self.period <= LONGEST_PERIOD:
            raise SettingsError(
                f"Blink: period is {self.period!r}; it must be seconds, {SHORTEST_PERIOD} to {LONGEST_PERIOD:g}."
            )

    def order(self) -> dict[str, Any]:
        """Return the payload that says this, for ``flow.send``: ``{"led": "blink", "times": 3, "period": 0.5}``."""
        return {"led": "blink", "times": self.times, "period": self.period}

    @classmethod
    def from_order(cls, payload: Mapping[str, Any]) -> Blink:
        """Return the order in `payload`; what it doesn't say is as by default.

        Raises
        ------
        SettingsError
            If a value is out of its bounds.
        """
        return cls(**{name: payload[name] for name in ("times", "period") if name in payload})


class Led:
    """A light on a pin, or a simulated one.

    Calling it with the payload of an order carries it out, so that it can be what a device does with its orders:
    ``Device("room1", read=…, receive=Led(17))``. Orders are ``{"led": "on"}``, ``{"led": "off"}`` and `Blink.order`;
    payloads without ``"led"`` are not for it and are left alone.

    Nothing blocks: blinking runs in a thread of its own, and a later order ends it.

    Parameters
    ----------
    pin
        The GPIO number (as ``gpiozero`` counts: 17 is the header's pin 11), or ``None`` for a simulated light. Where
        ``gpiozero`` isn't installed or there are no pins, it is simulated too, and says so in the log.
    name
        What errors and the log call it.

    Attributes
    ----------
    simulated
        Whether no real light is behind it.
    history
        The last thousand changes: pairs of `time.monotonic` and whether it went on.

    Raises
    ------
    SettingsError
        If `pin` is no GPIO number.
    DeviceError
        If the pin can't be had.
    """

    def __init__(self, pin: int | None = None, *, name: str = "led") -> None:
        if pin is not None and (isinstance(pin, bool) or not isinstance(pin, int) or pin < 0):
            raise SettingsError(
                f"{name}: pin is {pin!r}; it is a GPIO number of 0 or more, for example 17, or None for a simulated light."
            )
        self.name = name
        self.history: deque[tuple[float, bool]] = deque(maxlen=HISTORY_LENGTH)
        self._pin = None if pin is None else _open_pin(pin, name)
        self.simulated = self._pin is None
        self._lit = False
        self._closed = False
        self._observers: list[Callable[[bool], None]] = []
        self._lock = threading.RLock()
        self._blinking: _Blinking | None = None

    def __repr__(self) -> str:
        return (
            f"Led({self.name!r}, {'lit' if self._lit else 'dark'}{', simulated' if self.simulated else ''})"
        )

    def __call__(self, payload: Any) -> None:
        """Carry out the order in `payload`, if it is one for a light.

        Raises
        ------
        DeviceError
            If it is for a light, but none that a light knows.
        """
        if not isinstance(payload, Mapping) or "led" not in payload:
            return
        what = payload["led"]
        if what == "on":
            self.on()
        elif what == "off":
            self.off()
        elif what == "blink":
            try:
                self.blink(Blink.from_order(payload))
            except SettingsError as error:
                raise DeviceError(f"{self.name} can't carry out {dict(payload)!r}: {error}") from error
        else:
            raise DeviceError(
                f"{self.name} can't carry out {dict(payload)!r}: 'led' can be 'on', 'off' or 'blink' (with 'times' and "
                "'period')."
            )

    @property
    def is_lit(self) -> bool:
        """Whether it is lit now."""
        return self._lit

    @property
    def is_blinking(self) -> bool:
        """Whether a blink order is being carried out."""
        blinking = self._blinking
        return blinking is not None and blinking.is_alive()

    def on(self) -> None:
        """Light it; ends a blinking."""
        self._set(True)

    def off(self) -> None:
        """Put it out; ends a blinking."""
        self._set(False)

    def blink(self, order: Blink | None = None) -> None:
        """Begin to blink and return at once; it is dark afterwards. A blinking that still runs ends first.

        Raises
        ------
        DeviceError
            If it was closed.
        """
        with self._lock:
            self._check_open()
            self._end_blinking()
            self._blinking = _Blinking(order or Blink(), self._set, self.name)
            self._blinking.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no order is being carried out; return whether that is so, false after `timeout` seconds."""
        blinking = self._blinking
        if blinking is not None:
            blinking.join(timeout)
        return not self.is_blinking

    def observe(self, observer: Callable[[bool], None]) -> None:
        """Call `observer` with whether it is lit at each change, from the thread that makes it: return quickly."""
        self._observers.append(observer)

    def close(self) -> None:
        """Put it out and give the pin back. Closing twice does nothing more."""
        with self._lock:
            if self._closed:
                return
            blinking = self._blinking
            self.off()
            self._closed = True
            if self._pin is not None:
                self._pin.close()
        if blinking is not None and blinking is not threading.current_thread():
            blinking.join()

    def _end_blinking(self) -> None:
        # Without waiting for its thread, which may be waiting for our lock: `_set` no longer listens to it.
        if self._blinking is not None:
            self._blinking.ended.set()
            self._blinking = None

    def _set(self, lit: bool, by: _Blinking | None = None) -> None:
        with self._lock:
            if by is not None and by is not self._blinking:
                return
            self._check_open()
            if by is None:
                self._end_blinking()
            if lit == self._lit:
                return
            self._lit = lit
            self.history.append((time.monotonic(), lit))
            if self._pin is not None:
                self._pin.on() if lit else self._pin.off()
        for observer in list(self._observers):
            try:
                observer(lit)
            except Exception:  # noqa: BLE001 - an observer's fault must not stop the light
                _log.exception("An observer of %s failed.", self.name)

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError(f"{self.name} was closed; make a new `Led`.")


class _Blinking(threading.Thread):
    """One blink order being carried out."""

    def __init__(self, order: Blink, switch: Callable[[bool, _Blinking], None], name: str) -> None:
        super().__init__(name=f"{name}-blink", daemon=True)
        self.ended = threading.Event()
        self._order = order
        self._switch = switch

    def run(self) -> None:
        # By a fixed beat, so that small delays of the scheduler don't add up.
        began = time.monotonic()
        for half in range(2 * self._order.times):
            if self.ended.wait(max(0.0, began + half * self._order.period / 2 - time.monotonic())):
                return
            self._switch(half % 2 == 0, self)


def _open_pin(pin: int, name: str) -> Any:
    """Return ``gpiozero``'s LED on `pin`, or ``None`` where there is none to be had."""
    try:
        from gpiozero import LED
        from gpiozero.exc import BadPinFactory
    except ImportError:
        _log.warning("%s is simulated: gpiozero isn't installed (`pip install gpiozero lgpio`).", name)
        return None
    try:
        with warnings.catch_warnings():
            # It warns of each way to the pins that it tries in vain; one line in the log is enough.
            warnings.simplefilter("ignore")
            return LED(pin)
    except BadPinFactory as error:
        _log.warning("%s is simulated: this computer has no pins that gpiozero can use (%s).", name, error)
        return None
    except Exception as error:
        raise DeviceError(
            f"{name} can't have pin {pin!r}: {error}. Choose a free GPIO number, for example 17, or none for a "
            "simulated light."
        ) from error
