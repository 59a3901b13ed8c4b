"""The room for dead letters: their bound is kept where messages come in, and not where letters are stored.

Owns the bound. While the dead letters are near their bound, no new message is admitted. The letters of
messages in flight, and letters that fail again in a retry, are stored all the same: in the last part of the
log, and then beyond the bound, for which the log is enlarged. So no message waits for a room that only a
message behind it would make: a retry of full dead letters ends. Where a few devices have used up the room,
the others go on; see `letter_shares`.
"""

from __future__ import annotations

import asyncio
import dataclasses

from pratipad_nb import wording
from pratipad_nb.errors import TransportError, WaitTimeout
from pratipad_nb.runtime.positions.letter_shares import LetterShares
from pratipad_nb.transport.protocol import Connection, Log

__all__ = ["LetterRoom"]

#: The part of the bound from which on no new message is admitted; the rest is for messages in flight.
_FULL = 7 / 8
#: Bytes by which a full log is enlarged beyond the need of the moment: a log grows seldom.
_STEP = 8 << 20


class LetterRoom:
    """The room in one log of dead letters.

    Attributes
    ----------
    shares
        The devices' shares in the room.
    free
        Set while there is room. New messages and orders wait for `free`.
    refusal
        Why the server doesn't enlarge the log; empty while the server does, or isn't asked.
    """

    def __init__(self, connection: Connection, log: Log, flow: str) -> None:
        self._connection = connection
        self._log = log
        self._bound = log.spec.max_bytes
        self._bytes = 0
        self.shares = LetterShares(flow, self._bound, int(self._bound * _FULL))
        self.free = asyncio.Event()
        self.free.set()
        self.refusal = ""

    @property
    def words(self) -> str:
        """How much of the bound is taken, in words."""
        more = f"; the server doesn't enlarge their log: {self.refusal}" if self.refusal else ""
        return f"{wording.size(self._bytes)} of {wording.size(self._bound)}{more}"

    async def look(self) -> None:
        """Find out how large the log is, after appends and deletions of any edge."""
        self._note((await self._log.state()).bytes)

    def stored(self, size: int) -> None:
        """Take note of a stored frame of `size` bytes."""
        self.refusal = ""
        self._note(self._bytes + size)

    def emptied(self) -> None:
        """Take note that the log is empty."""
        self._note(0)

    def _note(self, size: int) -> None:
        self._bytes = size
        self.shares.total(size)
        if self.shares.used_up:
            self.free.clear()
        else:
            self.free.set()

    async def enlarge(self, size: int) -> None:
        """Enlarge the log, which is full, so that it takes a frame of `size` bytes; see `refusal`."""
        self.free.clear()
        try:
            storage = await self._connection.storage()
            if storage.tight:
                self.refusal = storage.trouble
                return
            self._bytes = (await self._log.state()).bytes
            bound = max(self._bytes, self._bound) + size + _STEP
            await self._connection.open_log(dataclasses.replace(self._log.spec, max_bytes=bound))
        except (TransportError, WaitTimeout) as error:
            self.refusal = str(error)
        else:
            self.refusal = ""
