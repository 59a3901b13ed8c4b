"""Signals on their way out: of several signals that wait for one subject, the newest alone is sent.

Owns the sending. A signal may be lost, for its sender sends it again sooner or later.
"""

from __future__ import annotations

import asyncio
import contextlib

from pratipad_nb.errors import TransportError, WaitTimeout
from pratipad_nb.transport.protocol import Connection

__all__ = ["Signals"]


class Signals:
    """Sends a flow's signals to devices and handles, by one task, `run`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: dict[str, bytes] = {}
        self._filled = asyncio.Event()

    def send(self, subject: str, data: bytes) -> None:
        """Send a signal soon; drop a signal to the same subject that still waits."""
        self._waiting[subject] = data
        self._filled.set()

    async def run(self) -> None:
        """Send signals until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            waiting, self._waiting = self._waiting, {}
            for subject, data in waiting.items():
                with contextlib.suppress(TransportError, WaitTimeout):
                    await self._connection.publish(subject, data)
