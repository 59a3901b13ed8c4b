"""Presence: which devices are connected, as the server knows it.

Owns the asking. It needs no word from the device, so that one whose power was cut is noticed all the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from pratipad_nb.errors import TransportError, WaitTimeout
from pratipad_nb.transport.permissions import identity_of
from pratipad_nb.transport.protocol import Connection

__all__ = ["Presence"]

_SECONDS = 1.0
#: With many clients the answer is long: at most this many a second are read.
_CLIENTS_A_SECOND = 2000


class Presence:
    """Asks the server, about once a second, who is connected."""

    def __init__(self, connection: Connection, flow: str) -> None:
        self._connection = connection
        self._prefix = identity_of(flow, "device", "x")[:-1]
        self.connected: set[str] = set()

    async def watch(self, told: Callable[[set[str], float], None]) -> None:
        """Call `told` with the names of the devices that are connected, and since when that is known (by the monotonic
        clock), until cancelled.
        """
        while True:
            pause = _SECONDS
            asked = time.monotonic()
            try:
                clients = await self._connection.clients()
            except (TransportError, WaitTimeout):
                pass  # a foreign server may not allow the question; then what devices say has to do
            else:
                prefix = self._prefix
                self.connected = {
                    c.identity.removeprefix(prefix) for c in clients if c.identity.startswith(prefix)
                }
                told(self.connected, asked)
                pause = max(pause, len(clients) / _CLIENTS_A_SECOND)
            await asyncio.sleep(pause)
