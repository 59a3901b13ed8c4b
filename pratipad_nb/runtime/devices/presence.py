"""Presence: which devices are there, by what they say themselves and by what the server knows.

Owns the hellos and the asking. The server needs no word from the device, so that one whose power was cut is noticed
all the same, and foreign ones, which say no hello, are known too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from pratipad_nb.errors import FrameError, TransportError, WaitTimeout
from pratipad_nb.transport.codec import decode
from pratipad_nb.transport.frames import HelloFrame
from pratipad_nb.transport.permissions import identity_of
from pratipad_nb.transport.protocol import Signal

if TYPE_CHECKING:
    from pratipad_nb.runtime.edge.edge import Edge

__all__ = ["Presence"]

log = logging.getLogger(__name__)

_SECONDS = 1.0
#: With many clients the answer is long: at most this many a second are read.
_CLIENTS_A_SECOND = 2000


class Presence:
    """Hears the devices of one edge, and asks the server, about once a second, who is connected."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._prefix = identity_of(edge.settings.name, "device", "x")[:-1]
        #: Every device of the flow that the server knew at the last asking, those of other partitions too.
        self.connected: set[str] = set()

    @property
    def known(self) -> list[str]:
        """Every device of this partition that has said, sent or is anything: foreign ones say no hello."""
        connected = {device for device in self.connected if self._edge.settings.owns(device)}
        return sorted(self._edge.ledger.accounts.keys() | self._edge.gate.counts.keys() | connected)

    def on_hello(self, signal: Signal) -> None:
        """Take note of a device's hello; the callback of the subscription."""
        edge = self._edge
        try:
            frame = decode(signal.data, HelloFrame)
            device = edge.subjects.device_of(signal.subject)
        except FrameError as error:
            log.info("a hello that is none: %s", error)
            return
        if (frame.flow, frame.device) != (edge.settings.name, device):
            log.info("a hello of %s came on the subject of %s", frame.device, device)
            return
        if not edge.settings.owns(device):
            return
        account = edge.ledger.hello(frame)
        edge.backward.hello(frame, connected=account.connected)

    async def watch(self) -> None:
        """Compare who said hello with who is connected, again and again, until cancelled."""
        while True:
            pause = _SECONDS
            asked = time.monotonic()
            try:
                clients = await self._edge.connection.clients()
            except (TransportError, WaitTimeout):
                pass  # a foreign server may not allow the question; then what devices say has to do
            else:
                prefix = self._prefix
                self.connected = {
                    c.identity.removeprefix(prefix) for c in clients if c.identity.startswith(prefix)
                }
                self._part_with_the_gone(asked)
                pause = max(pause, len(clients) / _CLIENTS_A_SECOND)
            await asyncio.sleep(pause)

    def _part_with_the_gone(self, asked: float) -> None:
        """Take note of who isn't connected any more; one that has come since the asking is here all the same."""
        for device, account in self._edge.ledger.accounts.items():
            if account.connected and device not in self.connected and account.moved < asked:
                self._edge.ledger.gone(device)
                self._edge.backward.gone(device)
