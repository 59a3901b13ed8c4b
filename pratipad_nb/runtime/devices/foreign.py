"""Orders for foreign devices: devices that speak MQTT or NATS, but not this package's frames.

Owns how a foreign device gets an order: as plain JSON, while the device listens. A foreign device never says
hello and confirms nothing. So an order waits for a foreign device as for any other, but is sent once:
delivery is at most once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from pratipad_nb.errors import PayloadError, TransportError, WaitTimeout
from pratipad_nb.runtime.devices.roster import Roster
from pratipad_nb.runtime.values.packing import unsealed
from pratipad_nb.transport.codec import encode_plain
from pratipad_nb.transport.frames import DownFrame
from pratipad_nb.transport.protocol import Attendance, Connection
from pratipad_nb.transport.subjects import Subjects

__all__ = ["PlainDevices"]

log = logging.getLogger(__name__)

#: First pause until a device that did not listen is asked about again, and the longest one, in seconds. The
#: longest is shorter where the server doesn't tell that a device has come.
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_UNTOLD = 0.4, 10.0, 2.0


class PlainDevices:
    """The foreign devices of one flow."""

    def __init__(
        self, connection: Connection, subjects: Subjects, attendance: Attendance, roster: Roster
    ) -> None:
        self._connection = connection
        self._subjects = subjects
        self._attendance = attendance
        self._roster = roster
        #: By device, when the server is asked again whether the device listens, and after which pause.
        self._again: dict[str, tuple[float, float]] = {}

    async def listening(self, devices: Collection[str], news_of: Collection[str] = ()) -> list[str]:
        """Return which of `devices` listen for plain orders now.

        The server is asked right before orders are sent, and its answer is not kept: a device that has just
        connected may not listen yet. The server is asked at once about the devices of which there is news,
        `news_of`, and ever less often about those that did not listen. A device without a connection doesn't
        listen.
        """
        for device in news_of:
            self._again.pop(device, None)
        now = time.monotonic()
        asked = [device for device in devices if self._may_listen(device, now)]
        if not asked:
            return []
        try:
            found = await self._attendance.listening([self._subjects.plain(device) for device in asked])
        except (TransportError, WaitTimeout):
            found = frozenset()  # the link is down, or a foreign server doesn't allow the question
        listening = [device for device in asked if self._subjects.plain(device) in found]
        for device in set(asked).difference(listening):
            self._ask_later(device, now)
        return listening

    def _may_listen(self, device: str, now: float) -> bool:
        if self._attendance.live and device not in self._roster.connections:
            return False
        return self._again.get(device, (0.0, 0.0))[0] <= now

    def _ask_later(self, device: str, now: float) -> None:
        longest = _LONGEST_PAUSE if self._attendance.live else _LONGEST_UNTOLD
        pause = min(longest, 2 * self._again.get(device, (0.0, _FIRST_PAUSE / 2))[1])
        self._again[device] = now + pause, pause

    def forget(self, device: str) -> None:
        """Take note that no order waits for `device`."""
        self._again.pop(device, None)

    async def send(self, device: str, order: DownFrame) -> bool:
        """Send `order` to `device` as its payload's JSON; return whether it was sent or had to be dropped."""
        try:
            data = encode_plain(unsealed(order.payload))
        except PayloadError as error:
            log.warning("an order for %s was dropped: %s", device, error)
            return True
        try:
            await self._connection.publish(self._subjects.plain(device), data)
        except (TransportError, WaitTimeout):
            return False
        return True
