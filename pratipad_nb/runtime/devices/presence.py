"""Presence: which devices are connected, by their own hellos and by the server's word.

Owns what a hello says, and following the server's news. Receiving the hellos is for `hellos`. The server
needs no word from a device: a device whose power was cut is missed all the same, and foreign devices, which
say no hello, are known too. Keeping the list of devices is for `roster`, and the credit that answers a hello
for `credit`.

Hellos and the server's news come on several ways, so that either may overtake the other. A device that has
left, by the news, is doubted for a moment, and has not left if the device says hello meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from pratipad_nb.runtime.devices.backward import Backward
from pratipad_nb.runtime.devices.credit import Ledger
from pratipad_nb.runtime.devices.roster import Roster
from pratipad_nb.runtime.values.stats import MOST_CONNECTIONS
from pratipad_nb.transport.frames import decode_hello
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.protocol import Attendance, News, Signal
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Presence"]

log = logging.getLogger(__name__)

#: Seconds that a device is doubted: a hello and the server's news of the same connection lie less apart.
_DOUBT_SECONDS = 0.5


class Presence:
    """Hears the devices of one run, and follows the server's news which devices are connected."""

    def __init__(
        self, attendance: Attendance, subjects: Subjects, roster: Roster, ledger: Ledger, backward: Backward
    ) -> None:
        self._attendance = attendance
        self._subjects = subjects
        self._roster = roster
        self._ledger = ledger
        self._backward = backward
        #: The devices of the identities that have a connection. Tenants share no account, so that the flow's
        #: own tenant need not be known here.
        self._devices: dict[str, str] = {}
        #: When each device last said hello, by the monotonic clock.
        self._heard: dict[str, float] = {}
        #: Devices that count as connected, although the server names no connection of theirs, and since when.
        self._doubted: dict[str, float] = {}
        self._doubts = asyncio.Event()

    def on_hello(self, signal: Signal) -> None:
        """Take note of a device's hello; raise `FrameError` if the hello is malformed."""
        device = self._subjects.device_of(signal.subject)
        frame = decode_hello(signal.data, self._subjects.flow, device)
        account = self._ledger.hello(frame)
        self._backward.hello(frame, connected=account.connected)
        self._note_hello(device, leaving=frame.leaving)

    def _note_hello(self, device: str, *, leaving: bool) -> None:
        now = self._heard[device] = time.monotonic()
        if leaving:
            self._roster.parted(device)
        elif self._attendance.live and device not in self._roster.connections:
            self._doubt(device, now)

    async def watch(self) -> None:
        """Follow the server's news, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name=f"{self._subjects.flow}: news")
            group.create_task(self._settle(), name=f"{self._subjects.flow}: doubts")

    async def _follow(self) -> None:
        async with contextlib.aclosing(self._attendance.news()) as all_news:
            async for news in all_news:
                self._take(news)

    def _take(self, news: News) -> None:
        counts = self._attendance.connections
        for identity in news.identities:
            count = counts.get(identity, 0)
            if device := self._device_of(identity, keep=count > 0):
                self._note_count(device, count)
        if news.asked is None:
            return
        self._roster.connections = {
            self._devices[identity]: count for identity, count in counts.items() if identity in self._devices
        }
        for device, account in self._ledger.accounts.items():
            if account.connected and device not in self._roster.connections:
                heard = self._heard.get(device, 0.0)
                if heard < news.asked and self._doubted.get(device, 0.0) <= heard:
                    self._doubt(device, news.asked)

    def _device_of(self, identity: str, *, keep: bool) -> str:
        """Return the flow's device of that identity; empty for other parties."""
        device = self._devices.pop(identity, "")
        if not device:
            party = Party.parse(identity)
            if party is None or (party.role, party.flow) != ("device", self._subjects.flow):
                return ""
            device = party.name
        if keep:
            self._devices[identity] = device
        return device

    def _note_count(self, device: str, count: int) -> None:
        """Take note of the number of a device's connections, by the server."""
        before = self._roster.connections.get(device, 0)
        if count > MOST_CONNECTIONS >= before:
            log.warning("device %s has %d connections at once; %d are usual", device, count, MOST_CONNECTIONS)
        if count:
            self._roster.connections[device] = count
            self._doubted.pop(device, None)
            if self._roster.owns(device):
                self._backward.came(device)
            return
        self._roster.parted(device)
        if self._roster.says_hello(device):
            self._doubt(device, time.monotonic())

    # -- doubts ----------------------------------------------------------------------------------------------

    def _doubt(self, device: str, since: float) -> None:
        self._doubted[device] = since
        self._doubts.set()

    async def _settle(self) -> None:
        """Part with devices that were doubted and have not come back, until cancelled."""
        while True:
            await self._doubts.wait()
            await asyncio.sleep(_DOUBT_SECONDS)
            self._doubts.clear()
            ripe = time.monotonic() - _DOUBT_SECONDS
            for device, since in tuple(self._doubted.items()):
                if since > ripe:
                    self._doubts.set()
                    continue
                del self._doubted[device]
                if device in self._roster.connections:
                    continue
                if self._heard.get(device, 0.0) >= since:
                    self._attendance.refresh()  # the news of the device's connection, or the hello, is late
                else:
                    self._part_with(device)

    def _part_with(self, device: str) -> None:
        self._ledger.gone(device)
        self._backward.gone(device)
