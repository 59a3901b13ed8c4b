"""Orders for foreign devices: devices that speak MQTT or NATS, but not this package's frames.

Owns how a foreign device gets an order: as plain JSON, while the device listens. A foreign device never says
hello and confirms nothing. So an order waits for a foreign device as for any other, but is sent once:
delivery is at most once.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from pratipad_nb.errors import PayloadError, TransportError, WaitTimeout
from pratipad_nb.transport.codec import encode_plain
from pratipad_nb.transport.frames import DownFrame
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.transport.subjects import Subjects

__all__ = ["PlainDevices"]

log = logging.getLogger(__name__)


class PlainDevices:
    """The foreign devices of one flow."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self._connection = connection
        self._subjects = subjects

    async def listening(self, devices: Collection[str]) -> list[str]:
        """Return which of `devices` listen for plain orders now.

        The cost grows with the number of listeners alone. The server is asked right before orders are sent,
        and its answer is not kept: a device that has just connected may not listen yet.
        """
        if not devices:
            return []
        pattern = self._subjects.plain(next(iter(devices))) if len(devices) == 1 else self._subjects.plain_all
        try:
            found = await self._connection.listeners(pattern)
        except (TransportError, WaitTimeout):
            return []  # the link is down, or a foreign server doesn't allow the question
        names = [subject.rpartition(".")[2] for subject, listeners in found.items() if listeners]
        return [name for name in names if name in devices]

    async def send(self, device: str, order: DownFrame) -> bool:
        """Send `order` to `device` as its payload's JSON; return whether it was sent or had to be dropped."""
        try:
            data = encode_plain(order.payload)
        except PayloadError as error:
            log.warning("an order for %s was dropped: %s", device, error)
            return True
        try:
            await self._connection.publish(self._subjects.plain(device), data)
        except (TransportError, WaitTimeout):
            return False
        return True
