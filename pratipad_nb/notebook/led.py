"""The LED in a notebook: a `Led` that a cell shows is a light on the page, and blinks when the order arrives.

Owns the trait that reaches the page and its pace. The light itself, its switching and its blinking belong to
`pratipad_nb.hardware.led`, which knows nothing of notebooks and calls its observers.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import anywidget
import traitlets

from pratipad_nb.hardware.led import Led

__all__ = ["LedWidget", "hang_into", "take_out_of"]

_STATIC = Path(__file__).with_name("static")

#: The least time between two updates, in seconds: a light that changes faster can't be followed by eye.
PACE = 0.05


class LedWidget(anywidget.AnyWidget):
    """The light of one `Led`; made by `of`.

    Changes come on the thread that switches the light: a device's, or that of the blinking. The first change
    after a pause is sent from that thread at once, which reaches the page while a cell runs; changes that
    follow too fast are sent together.
    """

    _esm = (_STATIC / "led.js").read_text(encoding="utf-8")
    _css = (_STATIC / "led.css").read_text(encoding="utf-8")
    state = traitlets.Dict().tag(sync=True)

    _shown: ClassVar[WeakKeyDictionary[Led, LedWidget]] = WeakKeyDictionary()
    _making = threading.Lock()

    def __init__(self, led: Led) -> None:
        super().__init__()
        self._name = led.name
        self._lit = led.is_lit
        self._changes = 0
        self._guard = threading.Lock()
        self._sent_at = float("-inf")
        self._timer: threading.Timer | None = None
        self._tell_page()
        led.observe(self._note)

    @classmethod
    def of(cls, led: Led) -> LedWidget:
        """Return the widget of `led`, always the same: it may be shown in several places."""
        with cls._making:
            found = cls._shown.get(led)
            if found is None:
                found = cls._shown[led] = cls(led)
            return found

    def _note(self, lit: bool) -> None:
        """Take note of a change, on any thread, and send it once it is due."""
        with self._guard:
            self._lit = lit
            self._changes += 1
            if self._timer is not None:
                return
            left = self._sent_at + PACE - time.monotonic()
            if left > 0:
                self._timer = threading.Timer(left, self._tell_late)
                self._timer.daemon = True
                self._timer.start()
                return
            self._tell_page()

    def _tell_late(self) -> None:
        with self._guard:
            self._timer = None
            self._tell_page()

    def _tell_page(self) -> None:
        self._sent_at = time.monotonic()
        self.state = {"name": self._name, "lit": self._lit, "changes": self._changes}

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Add the light's name, for front ends without widgets; not its state, since tools compare text."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return data | {"text/plain": f"Led({self._name!r})"}, metadata


def hang_into(shell: Any) -> None:
    """Let `shell` show every `Led` that a cell ends with as a light."""
    shell.display_formatter.mimebundle_formatter.for_type(Led, _shown)


def take_out_of(shell: Any) -> None:
    """Undo `hang_into`."""
    shell.display_formatter.mimebundle_formatter.pop(Led, None)


def _shown(led: Led) -> Any:
    return LedWidget.of(led)._repr_mimebundle_()
