"""The storage of the server: whether it takes messages and results at present, and what has to be deleted.

Owns the look at the storage for all parts of a run, and the brake of the input: while the disk is short, the
input log is bounded to what it holds, so that devices wait, and what has been taken can be worked off. How
the disk stands is for the transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

from pratipad_nb.errors import TransportError, WaitTimeout
from pratipad_nb.settings import Storage
from pratipad_nb.transport.protocol import Connection, LogSpec

__all__ = ["StorageWatch"]

#: Seconds between two looks, in general, and while the disk gets full.
_LOOK, _SHORT_LOOK = 0.5, 0.05


class StorageWatch:
    """How the storage stood at the last look.

    Parameters
    ----------
    intake
        The specification of the input log; None where another partition's run holds the input up, or in fast
        delivery.

    Attributes
    ----------
    state
        The storage as of the last look.
    """

    def __init__(self, connection: Connection, intake: LogSpec | None) -> None:
        self._connection = connection
        self._intake = intake
        self._held = False
        self.state = Storage()

    async def look(self) -> None:
        """Find out how the storage stands, and hold the input up, or let it go on."""
        self.state = await self._connection.storage()
        # On a nearly full disk no log is changed: a log is lost whose new settings are stored by half.
        if self.state.short != self._held and not self.state.tight:
            await self._hold(self.state.short)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            with contextlib.suppress(TransportError, WaitTimeout):
                await self.look()
            await asyncio.sleep(_SHORT_LOOK if self.state.missing else _LOOK)

    async def _hold(self, held: bool) -> None:
        """Bound the input log to what it holds, or to what it may hold."""
        spec = self._intake
        log = await self._connection.find_log(spec.name) if spec is not None else None
        if spec is not None and log is not None:
            if held:
                bound = max(1, (await log.state()).bytes)
                spec = dataclasses.replace(spec, max_bytes=min(bound, spec.max_bytes))
            await self._connection.open_log(spec)
        self._held = held

    async def close(self) -> None:
        """Let the input go on: devices may send while no run is there to let it go on later."""
        if self._held and not self.state.tight:
            with contextlib.suppress(TransportError, WaitTimeout):
                await self._hold(False)
