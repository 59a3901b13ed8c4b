"""Presence: which devices are connected, by their own hellos and by the server's list of clients.

Owns what a hello says, and asking the server. Receiving the hellos is for `hellos`. The server needs no word
from a device: a device whose power was cut is missed all the same, and foreign devices, which say no hello,
are known too. Keeping the list of devices is for `roster`, and the credit that answers a hello for `credit`.
"""

from __future__ import annotations

import asyncio
import logging
import time

from pratipad_nb.errors import TransportError, WaitTimeout
from pratipad_nb.runtime.devices.backward import Backward
from pratipad_nb.runtime.devices.credit import Ledger
from pratipad_nb.runtime.devices.roster import Roster
from pratipad_nb.transport.frames import decode_hello
from pratipad_nb.transport.permissions import identity_of
from pratipad_nb.transport.protocol import Connection, Signal
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Presence"]

log = logging.getLogger(__name__)

#: Seconds between two questions to the server.
_SECONDS = 1.0
#: With many clients the server's answer is long: at most so many clients a second are read.
_CLIENTS_A_SECOND = 2000


class Presence:
    """Hears the devices of one run, and asks the server about once a second which devices are connected."""

    def __init__(
        self, connection: Connection, subjects: Subjects, roster: Roster, ledger: Ledger, backward: Backward
    ) -> None:
        self._connection = connection
        self._subjects = subjects
        self._roster = roster
        self._ledger = ledger
        self._backward = backward
        self._prefix = identity_of(subjects.flow, "device", "x")[:-1]

    def on_hello(self, signal: Signal) -> None:
        """Take note of a device's hello; raise `FrameError` if the hello is malformed."""
        device = self._subjects.device_of(signal.subject)
        frame = decode_hello(signal.data, self._subjects.flow, device)
        account = self._ledger.hello(frame)
        self._backward.hello(frame, connected=account.connected)

    async def watch(self) -> None:
        """Compare the devices that said hello with those that the server knows, until cancelled."""
        while True:
            pause = _SECONDS
            asked = time.monotonic()
            try:
                clients = await self._connection.clients()
            except (TransportError, WaitTimeout) as error:
                # A foreign server may not allow the question; then hellos alone tell which devices are there.
                log.debug("the server doesn't say which devices are connected: %s", error)
            else:
                prefix = self._prefix
                self._roster.connected = frozenset(
                    c.identity.removeprefix(prefix) for c in clients if c.identity.startswith(prefix)
                )
                self._part_with_the_gone(asked)
                pause = max(pause, len(clients) / _CLIENTS_A_SECOND)
            await asyncio.sleep(pause)

    def _part_with_the_gone(self, asked: float) -> None:
        """Take note of devices that left; a device that moved since the server was asked has not left."""
        for device, account in self._ledger.accounts.items():
            if account.connected and device not in self._roster.connected and account.moved < asked:
                self._ledger.gone(device)
                self._backward.gone(device)
