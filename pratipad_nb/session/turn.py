"""Turns: one at a time, for a handle that outlives the event loop it is used on.

Owns that each event loop has a lock of its own. What is done in a turn is for its user.
"""

from __future__ import annotations

import asyncio

__all__ = ["Turn"]


class Turn:
    """A lock for who runs on one event loop at a time, and on another one later.

    An `asyncio.Lock` belongs to the first loop on which somebody had to wait for it, and refuses all others. A
    synchronous flow has a new loop with each start.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    def here(self) -> asyncio.Lock:
        """Return the running loop's lock; who may still hold that of the loop before has no say any more."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock
