"""Taking and looping over a reader from ordinary threads.

Owns the synchronous side of a `Reader`, for `Cloud` and for a flow's own handle: one hop to the event loop for many
messages, without moving the position past what the loop body has seen.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator

from pratipad_nb.cloud.reader import Reader, check_take
from pratipad_nb.errors import TransportClosed, WaitTimeout
from pratipad_nb.message import Message
from pratipad_nb.portal import Portal

__all__ = ["BlockingReader"]

#: Most messages that are fetched in one hop; the hop costs about 50 µs, so 0.05 µs a message.
_BATCH = 1000


class BlockingReader:
    """A reader as synchronous code uses it, from any thread.

    Parameters
    ----------
    portal
        Where the event loop runs that the reader belongs to.
    reader
        Awaited there for the reader, anew for every hop, so that it may be made when it is first needed.
    """

    def __init__(self, portal: Portal, reader: Callable[[float | None], Awaitable[Reader]]) -> None:
        self._portal = portal
        self._reader = reader
        self._turn = threading.Lock()
        self._ahead: deque[Message] = deque()
        self._seen = 0
        self._closed = False

    def take(self, n: int = 1, timeout: float | None = 10.0) -> list[Message]:
        """Return the next `n` messages; see `Reader.take`."""
        check_take(n, timeout)
        if self._closed:
            raise TransportClosed("this is closed, and takes no more messages. Make a new one.")
        end = None if timeout is None else time.monotonic() + timeout
        # Held while it waits: a loop in another thread must not look ahead to what this returns.
        if not self._turn.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)):
            raise WaitTimeout(
                f"got 0 of {n} messages in {timeout:g} s: a take or loop in another thread was waiting all the while. "
                "Let it end first, or give each its own reader name."
            )
        try:
            seen, self._seen = self._seen, 0
            self._ahead.clear()
            return self._portal.run(self._take(n, end, seen))
        finally:
            self._turn.release()

    async def _take(self, n: int, end: float | None, seen: int) -> list[Message]:
        reader = await self._reader(_left(end))
        await reader.advance(seen)
        return await reader.take(n, _left(end))

    def __iter__(self) -> Iterator[Message]:
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> Message | None:
        with self._turn:
            if self._closed:
                return None
            if not self._ahead:
                seen, self._seen = self._seen, 0
                self._ahead.extend(self._portal.run(self._look(seen)))
            if not self._ahead:
                return None
            self._seen += 1
            return self._ahead.popleft()

    async def _look(self, seen: int) -> list[Message]:
        reader = await self._reader(None)
        await reader.advance(seen)
        return await reader.look(_BATCH)

    def settle(self) -> None:
        """Move the position behind what loops have seen, and look no further ahead."""
        with self._turn:
            self._settle()

    def _settle(self) -> None:
        seen, self._seen = self._seen, 0
        self._ahead.clear()
        if seen:
            self._portal.run(self._advance(seen))

    async def _advance(self, seen: int) -> None:
        await (await self._reader(None)).advance(seen)

    def close(self) -> None:
        """Settle and let loops end. Not awaited is a take or loop that waits: closing the reader wakes it."""
        if self._closed:
            return
        self._closed = True
        if self._turn.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._turn.release()


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())
