"""Taking messages from a reader, and looping over its messages, on ordinary threads.

Owns the synchronous side of a `Reader`, for `Cloud` and for a flow's own handle. One hop to the event loop
fetches many messages; the position never moves past the messages that the loop body has seen.

Ctrl-C may come between any two steps. The invariant: a message counts as taken only in the last step before
the caller has it. Until that step the message is `Lent`, and a lent message that isn't taken comes again.

Opening the reader and storing its position are for `reader`. The synchronous device is
`pratipad_nb.device.blocking`, which shares nothing with this module.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

from pratipad_nb.cloud.reader import Lent, Reader, check_take
from pratipad_nb.errors import PratipadError, TransportClosed, WaitTimeout
from pratipad_nb.forks import watch
from pratipad_nb.message import Message
from pratipad_nb.portal import Portal

__all__ = ["BlockingReader"]

#: Most messages that one hop fetches. A hop costs about 50 µs, so 0.05 µs a message.
_BATCH = 1000


class BlockingReader:
    """A reader as synchronous code uses it, from any thread.

    Parameters
    ----------
    portal
        The thread of the event loop that the reader belongs to.
    reader
        Returns the reader; awaited on that event loop at every hop, so that the reader may be made at its
        first use.
    """

    def __init__(self, portal: Portal, reader: Callable[[float | None], Awaitable[Reader]]) -> None:
        self._portal = portal
        self._reader = reader
        self._turn = threading.Lock()
        self._lent = Lent([], over=True)
        self._opened: Reader | None = None
        self._closed = False
        watch(self)

    def _find_forked(self) -> bool:
        # Not stranded: the portal refuses the next step, and its error names the process.
        self._turn = threading.Lock()
        self._lent = Lent([], over=True)
        return False

    def take(self, n: int = 1, timeout: float | None = 10.0) -> list[Message]:
        """Return the next `n` messages; see `Reader.take`."""
        check_take(n, timeout)
        if self._closed:
            raise TransportClosed("this is closed, and takes no more messages. Make a new one.")
        end = None if timeout is None else time.monotonic() + timeout
        patience = -1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)
        lent, held = Lent([]), False
        try:
            try:
                # Held while this take waits: a loop in another thread must not look ahead to its messages.
                # Unpacked, not assigned from a call: Ctrl-C may come between a call and the assignment of its
                # result, and nobody would release the lock.
                (held,) = map(self._turn.acquire, (True,), (patience,))
                if not held:
                    raise WaitTimeout(
                        f"got 0 of {n} messages in {timeout:g} s: a take or loop in another thread was "
                        "waiting all the while. Let it end first, or give each its own reader name."
                    )
                lent = self._portal.run(self._take(n, end))
                lent.taken = n
            finally:
                if held:
                    self._turn.release()
            return list(lent.messages)  # a copy: the reader still uses its list while it is lent
        except PratipadError:
            raise
        except BaseException:  # Ctrl-C, or an exception of another signal's handler
            lent.taken = 0
            self._put_back()
            raise

    async def _take(self, n: int, end: float | None) -> Lent:
        self._opened = reader = await self._reader(_left(end))
        return await reader.lend(n, _left(end))

    def _put_back(self) -> None:
        """Let lent messages that are not taken come again, to the next handle of this name as well."""
        # While another thread has its turn, the next step of that thread puts the messages back.
        if self._opened is None or not self._turn.acquire(blocking=False):
            return
        try:
            # If the portal is closed, the reader's `close` has put the messages back.
            with contextlib.suppress(PratipadError):
                self._portal.run(self._opened.put_back())
        finally:
            self._turn.release()

    def __iter__(self) -> Iterator[Message]:
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> Message | None:
        lent, noted = self._lent, 0
        try:
            with self._turn:
                if self._closed:
                    return None
                lent = self._lent
                if (
                    lent.over
                    or lent.taken == len(lent.messages)
                    # A process that was frozen may have lost its reader's name meanwhile.
                    or time.monotonic() >= lent.until
                ):
                    lent = self._portal.run(self._look())
                if not lent.messages:
                    return None
                message = lent.messages[lent.taken]
                lent.taken = noted = lent.taken + 1
        except BaseException:
            if noted and lent.taken == noted:  # cut off at the lock's release
                lent.taken = noted - 1
            raise
        else:
            return message

    async def _look(self) -> Lent:
        self._opened = reader = await self._reader(None)
        self._lent = await reader.look(_BATCH)
        return self._lent

    def close(self) -> None:
        """Let loops end. Closing the reader wakes a take or loop that waits. Idempotent."""
        self._closed = True


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())
