"""The LED: an actuator that orders switch or make blink, on a pin of a Raspberry Pi or simulated.

Owns the light's state and the blinking. Knows no flows: a device calls an `Led` with the payload of an order.
``gpiozero`` is imported here alone, and only when a pin is given.
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
#: Bounds of an order from outside: a mistyped order must not keep a light busy for a year.
MOST_BLINKS, SHORTEST_PERIOD, LONGEST_PERIOD = 10_000, 0.02, 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Blink:
    """An order to blink.

    Attributes
    ----------
    times
        How often the light goes on, 1 to 10,000.
    period
        Seconds from each lighting up to the next, 0.02 to 60; the light is on for half of the period. Default
        0.5, easily seen and counted.

    Raises
    ------
    SettingsError
        If `times` or `period` is out of its bounds.
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
                f"Blink: period is {self.period!r}; it must be seconds, {SHORTEST_PERIOD} to "
                f"{LONGEST_PERIOD:g}."
            )

    def order(self) -> dict[str, Any]:
        """Return the order's payload, for ``flow.send``: ``{"led": "blink", "times": 3, "period": 0.5}``."""
        return {"led": "blink", "times": self.times, "period": self.period}

    @classmethod
    def from_order(cls, payload: Mapping[str, Any]) -> Blink:
        """Return the order in `payload`; a key missing there has its default.

        Raises
        ------
        SettingsError
            If a value is out of its bounds.
        """
        return cls(**{name: payload[name] for name in ("times", "period") if name in payload})


class Led:
    """A light on a pin, or a simulated one.

    Calling an `Led` with the payload of an order carries the order out, so that an `Led` can be a device's
    `receive`: ``Device("room1", read=…, receive=Led(17))``. Orders are ``{"led": "on"}``, ``{"led": "off"}``
    and `Blink.order`; a payload without ``"led"`` is for something else and is ignored.

    Nothing blocks: blinking runs in a thread of its own, and a later order ends the blinking.

    Parameters
    ----------
    pin
        The GPIO number (as ``gpiozero`` counts: 17 is the header's pin 11), or ``None`` for a simulated
        light. Where ``gpiozero`` isn't installed or there are no pins, the light is simulated too, and a
        warning is logged.
    name
        The light's name in errors and in the log.

    Attributes
    ----------
    simulated
        Whether there is no real light.
    history
        The last thousand changes: pairs of `time.monotonic` and whether the light went on.

    Raises
    ------
    SettingsError
        If `pin` is no GPIO number.
    DeviceError
        If the pin can't be used.
    """

    def __init__(self, pin: int | None = None, *, name: str = "led") -> None:
        if pin is not None and (isinstance(pin, bool) or not isinstance(pin, int) or pin < 0):
            raise SettingsError(
                f"{name}: pin is {pin!r}; it is a GPIO number of 0 or more, for example 17, or None for a "
                "simulated light."
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
        """Carry out the order in `payload`, if the payload has the key ``"led"``.

        Raises
        ------
        DeviceError
            If ``"led"`` has an unknown value, or a value of the order is out of its bounds.
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
                f"{self.name} can't carry out {dict(payload)!r}: 'led' can be 'on', 'off' or 'blink' (with "
                "'times' and 'period')."
            )

    @property
    def is_lit(self) -> bool:
        """Whether the light is on now."""
        return self._lit

    @property
    def is_blinking(self) -> bool:
        """Whether a blink order is being carried out."""
        blinking = self._blinking
        return blinking is not None and blinking.is_alive()

    def on(self) -> None:
        """Switch the light on; ends a blinking."""
        self._set(True)

    def off(self) -> None:
        """Switch the light off; ends a blinking."""
        self._set(False)

    def blink(self, order: Blink | None = None) -> None:
        """Begin to blink and return at once; the light is off afterwards. A blinking in progress ends first.

        Raises
        ------
        DeviceError
            If the light was closed.
        """
        with self._lock:
            self._check_open()
            self._end_blinking()
            self._blinking = _Blinking(order or Blink(), self._set, self.name)
            self._blinking.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no blinking is in progress; return false if `timeout` seconds pass before that."""
        blinking = self._blinking
        if blinking is not None:
            blinking.join(timeout)
        return not self.is_blinking

    def observe(self, observer: Callable[[bool], None]) -> None:
        """Call `observer` at each change with whether the light is on.

        `observer` runs in the thread that makes the change, so it has to return quickly.
        """
        self._observers.append(observer)

    def close(self) -> None:
        """Switch the light off and give the pin back. Closing again does nothing."""
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
        # The blinking thread isn't waited for, as it may be waiting for our lock: `_set` ignores that thread
        # from now on.
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
    """The thread that carries out one blink order."""

    def __init__(self, order: Blink, switch: Callable[[bool, _Blinking], None], name: str) -> None:
        super().__init__(name=f"{name}-blink", daemon=True)
        self.ended = threading.Event()
        self._order = order
        self._switch = switch

    def run(self) -> None:
        # Every change has a fixed time after `began`, so that small delays of the scheduler don't add up.
        began = time.monotonic()
        for half in range(2 * self._order.times):
            if self.ended.wait(max(0.0, began + half * self._order.period / 2 - time.monotonic())):
                return
            self._switch(half % 2 == 0, self)


def _open_pin(pin: int, name: str) -> Any:
    """Return ``gpiozero``'s LED on `pin`, or ``None`` if there is no ``gpiozero`` or it finds no pins."""
    try:
        from gpiozero import LED
        from gpiozero.exc import BadPinFactory
    except ImportError:
        _log.warning("%s is simulated: gpiozero isn't installed (`pip install gpiozero lgpio`).", name)
        return None
    try:
        with warnings.catch_warnings():
            # gpiozero warns of each way to the pins that it tries in vain; one line in the log is enough.
            warnings.simplefilter("ignore")
            return LED(pin)
    except BadPinFactory as error:
        _log.warning("%s is simulated: this computer has no pins that gpiozero can use (%s).", name, error)
        return None
    except Exception as error:
        raise DeviceError(
            f"{name} can't have pin {pin!r}: {error}. Choose a free GPIO number, for example 17, or none for "
            "a simulated light."
        ) from error
