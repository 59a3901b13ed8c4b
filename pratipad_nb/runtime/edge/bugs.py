"""Bugs of this package's own in callbacks: they end the run, and are seen.

A callback of a subscription has no caller that an exception could reach: the transport would drop it, and the run would
go on without what the callback does. Owns that such an exception reaches the run, as one of a task does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pratipad_nb.transport.protocol import Signal

__all__ = ["Bugs"]

log = logging.getLogger(__name__)


class Bugs:
    """The first exception of any callback of one run."""

    def __init__(self) -> None:
        self._first: Exception | None = None
        self._raised = asyncio.Event()

    def seen(self, callback: Callable[[Signal], None]) -> Callable[[Signal], None]:
        """Return `callback`, an exception of which ends the run."""

        def guarded(signal: Signal) -> None:
            try:
                callback(signal)
            except Exception as error:  # noqa: BLE001 - raised again by `run`
                self._first = self._first or error
                self._raised.set()

        return guarded

    async def run(self) -> None:
        """Wait for an exception, and raise it."""
        await self._raised.wait()
        assert self._first is not None
        raise self._first
