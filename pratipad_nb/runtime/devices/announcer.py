"""The announcer: asks all devices to say hello, at a start and whenever the flow's way to them changes.

Owns the signal to all devices. Taking note of a hello is for `presence`.
"""

from __future__ import annotations

from typing import Literal

from pratipad_nb.runtime.devices.credit import Ledger
from pratipad_nb.runtime.devices.signals import Signals
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import CreditFrame
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Announcer"]


class Announcer:
    """Tells the devices of one flow which input the flow has now."""

    def __init__(self, signals: Signals, subjects: Subjects, ledger: Ledger, delivery: str) -> None:
        self._signals = signals
        self._subjects = subjects
        self._ledger = ledger
        self._delivery = delivery

    def announce(self) -> None:
        """Ask all devices to say hello, and to listen for orders anew.

        A device may have been connected before this run began, or before the flow had a way back: the server
        denied it then to listen for orders.
        """
        ledger = self._ledger
        frame = CreditFrame(ledger.mode.lower(), ledger.owner, -1, 0, self._delivery)
        self._signals.send(self._subjects.credit_all, encode(frame))

    def change_mode(self, mode: Literal["Push", "Pull", "Demand"]) -> None:
        """Go on with another input: credit that was granted for the last input no longer holds."""
        self._ledger.change_mode(mode)
        self.announce()
