"""Hellos: received, and of each device no more than the edge has time for.

Owns the limit. What a hello says is for `presence`. A hello is the whole state of its device, so of several
hellos that come at once the newest is as good as all of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from pratipad_nb.errors import FrameError
from pratipad_nb.transport.protocol import Signal

__all__ = ["Hellos"]

log = logging.getLogger(__name__)

#: Least seconds between two hellos of one device that are worked on. An honest device says hello no more
#: often; a device that says hello as often as it can costs the edge some 2 % of a core.
_SPACING = 0.005


class Hellos:
    """The hellos of the devices of one run.

    Parameters
    ----------
    owns
        Returns whether a device belongs to this run's partition.
    take
        Works on a hello; raises `FrameError` for a malformed one.

    Attributes
    ----------
    dropped
        How many hellos of each device were malformed, or replaced by a newer one before they were worked on.
    """

    def __init__(self, owns: Callable[[str], bool], take: Callable[[Signal], None]) -> None:
        self._owns = owns
        self._take = take
        #: When the next hello of each device may be worked on, by the monotonic clock.
        self._due: dict[str, float] = {}
        #: The newest hello of each device whose last hello was worked on a moment ago.
        self._held: dict[str, Signal] = {}
        self._holds = asyncio.Event()
        self.dropped: dict[str, int] = {}

    def on_signal(self, signal: Signal) -> None:
        """Take a hello; the callback of the subscription."""
        device = signal.subject.rpartition(".")[2]
        if not self._owns(device):
            return
        if device in self._held:
            self._drop(device)
        elif time.monotonic() >= self._due.get(device, 0.0):
            self._work_on(device, signal)
            return
        self._held[device] = signal
        self._holds.set()

    async def run(self) -> None:
        """Work on the hellos that were held back, until cancelled."""
        while True:
            await self._holds.wait()
            self._holds.clear()
            await asyncio.sleep(_SPACING)
            held, self._held = self._held, {}
            for device, signal in held.items():
                self._work_on(device, signal)

    def _work_on(self, device: str, signal: Signal) -> None:
        self._due[device] = time.monotonic() + _SPACING
        try:
            self._take(signal)
        except FrameError as error:
            self._drop(device)
            log.info("a malformed hello of %s: %s", device, error)

    def _drop(self, device: str) -> None:
        self.dropped[device] = self.dropped.get(device, 0) + 1
