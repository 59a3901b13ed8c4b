"""Turns: one caller at a time, for a handle that outlives its event loop.

Owns that each event loop has a lock of its own. The work in a turn is for the caller.
"""

from __future__ import annotations

import asyncio

__all__ = ["Turn"]


class Turn:
    """A lock for callers on one event loop now, and on another event loop later.

    An `asyncio.Lock` belongs to the first event loop on which a caller had to wait for it, and refuses all
    others. A synchronous flow has a new event loop with each start.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    @property
    def taken(self) -> bool:
        """Whether a caller holds the lock of its event loop."""
        return self._lock.locked()

    def here(self) -> asyncio.Lock:
        """Return the running loop's lock; a holder of an earlier loop's lock doesn't count any more."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock
