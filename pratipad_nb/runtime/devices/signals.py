"""Signals on their way out: of several to one subject that wait, only the newest is of use.

Owns the sending. A signal that is lost is nobody's loss: what it said is said again.
"""

from __future__ import annotations

import asyncio
import contextlib

from pratipad_nb.errors import TransportError, WaitTimeout
from pratipad_nb.transport.protocol import Connection

__all__ = ["Signals"]


class Signals:
    """What a flow has to say to devices and handles, sent by one task, `run`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: dict[str, bytes] = {}
        self._filled = asyncio.Event()

    def send(self, subject: str, data: bytes) -> None:
        """Send a signal soon; one to the same subject that still waits is dropped."""
        self._waiting[subject] = data
        self._filled.set()

    async def run(self) -> None:
        """Send what comes, until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            waiting, self._waiting = self._waiting, {}
            for subject, data in waiting.items():
                with contextlib.suppress(TransportError, WaitTimeout):
                    await self._connection.publish(subject, data)
