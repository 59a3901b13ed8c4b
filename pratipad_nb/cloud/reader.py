"""The reader: a named position in a flow's output, and the messages from there on.

Owns `take`, iteration and the promises of both about the position. Used by
`pratipad_nb.cloud.client.AsyncCloud` and by a flow's own handle. Fetching frames and storing the position are
for `log_source` (durable delivery) and `signal_source` (fast delivery).

The invariant of durable delivery: once a `take` has returned, the stored position is exactly behind its
messages. `take` peeks at the messages, stores the position behind them, and drops them only then. A `take`
that is cut off in between leaves the messages in the backlog and a position that may be stored or not
(`astray`). The next save, which is due at once, stores the position of the first message in the backlog.

A loop stores the position less often. It hands messages out only while this handle is sure to hold its name
(`sure_until`); see `position`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol

from pratipad_nb.cloud.backlog import Backlog
from pratipad_nb.cloud.control import Control
from pratipad_nb.cloud.log_source import LogSource
from pratipad_nb.cloud.position import Patience
from pratipad_nb.cloud.signal_source import SignalSource
from pratipad_nb.errors import (
    Fenced,
    FrameError,
    SettingsError,
    TakenOver,
    TransportClosed,
    TransportError,
    WaitTimeout,
)
from pratipad_nb.message import Message
from pratipad_nb.settings import Delivery, checked_delivery, valid_name, valid_reader
from pratipad_nb.transport.frames import ReadFrame
from pratipad_nb.transport.protocol import Connection

__all__ = ["Lent", "Reader", "check_take"]

log = logging.getLogger(__name__)

#: Default of `window`.
WINDOW = 512
#: Default of `buffer`: a third of a second at full speed, minutes at an ordinary one.
FAST_MESSAGES = 100_000
#: While iterating, the position is stored after so many messages, or sooner when no message waits.
_STORE_EVERY = 1000
#: How long storing the position may take while iterating, in seconds; after that, it is stored later.
_STORE_SECONDS = 5.0
#: How long a cancelled `take` tries to put the position back, in seconds; after that, the next step does so.
_PUT_BACK_SECONDS = 1.0
_PATIENCE = Patience()
#: Longest single wait of a call without a time-out, in seconds; such a call waits again and again.
_LONG = 3600.0


class _Source(Protocol):
    """A source of frames, which also stores the position: `LogSource` or `SignalSource`."""

    held: Backlog
    skipped_frames: int
    lack: str

    @property
    def astray(self) -> bool: ...
    @property
    def sure_until(self) -> float: ...
    async def confirm(self) -> None: ...
    async def more(self, seconds: float) -> None: ...
    async def save(self, position: ReadFrame, seconds: float) -> None: ...
    async def restart(self, seconds: float) -> None: ...
    async def seek(self, where: Literal["oldest", "newest"]) -> None: ...
    def wake(self) -> None: ...
    async def pending(self) -> int: ...
    async def close(self) -> None: ...


@dataclass(slots=True)
class Lent:
    """The next messages of a reader, lent to a caller that notes how many of them are taken.

    The reader reads `taken` in its next step; the messages beyond `taken` come again then.

    Attributes
    ----------
    messages
        The messages, in order.
    taken
        Number of messages that the caller has taken, from the first on. Any thread may set it.
    over
        Whether the reader has taken its next step: a change of `taken` is not seen any more.
    until
        From then on, by the monotonic clock, a message is to be taken only after the reader's next step:
        another handle may have taken the reader's name over.
    """

    messages: list[Message]
    taken: int = 0
    over: bool = False
    until: float = math.inf


class Reader:
    """The output of a flow as one named reader gets it. Belongs to one event loop.

    Parameters
    ----------
    connection
        An open connection; the caller closes it.
    flow, name
        Names of the flow and of the reader. A position belongs to the reader's name, and in durable delivery
        one handle at a time reads under a name: a newer handle, in whatever process, takes the name over once
        it reads, and the older handle raises `TakenOver`.
    delivery
        The flow's delivery. With ``"durable"`` the position is stored at the server and outlives this
        process. With ``"fast"`` a reader gets the messages that come while it listens, from the first `take`
        (or `open`) on.
    window
        Durable: most frames that are fetched ahead. At full speed (1,000 messages in 25 kB) 512 frames are
        13 MB.
    buffer
        Fast: most messages that wait here to be taken; beyond that the oldest frames are dropped and counted.
    patience
        Durable: how long the server is waited for.
    prepare
        Durable: makes the reader's consumer and the log of its position at the server, if one is missing;
        see `pratipad_nb.transport.readers`. None: the running edge is asked.

    Notes
    -----
    `take` returns messages exactly once: the position behind the messages is stored before `take`
    returns, so that no later `take` returns them again, whatever is killed when. A cancelled `take` puts the
    position back before it ends, so that its messages come again, to this handle or to the next handle of its
    name. Iterating stores the position less often; after a kill the last messages (about 1,000 at most, and
    one frame) may come twice.
    """

    def __init__(
        self,
        connection: Connection,
        flow: str,
        name: str,
        *,
        delivery: Delivery = "durable",
        window: int = WINDOW,
        buffer: int = FAST_MESSAGES,
        patience: Patience = _PATIENCE,
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.flow = valid_name(flow, "flow")
        self.name = valid_reader(name)
        self.delivery = checked_delivery(delivery)
        self._connection = connection
        self._buffer = buffer
        self._source: _Source
        if delivery == "durable":
            prepare = prepare or Control(connection, flow, name).prepare
            self._source = LogSource(connection, flow, name, window, patience, prepare)
        else:
            self._source = SignalSource(connection, flow, buffer)
        self._lock = asyncio.Lock()
        self._unsaved = 0
        self._lent: Lent | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._source.held.count} messages here"
        return f"<Reader {self.name!r} of {self.flow!r}, {self.delivery}: {state}>"

    async def __aenter__(self) -> Reader:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def position(self) -> ReadFrame:
        """The next frame, and the next message in that frame; ``(0, 0)`` before the first `take` or loop."""
        return self._source.held.position

    @property
    def skipped_frames(self) -> int:
        """Frames that this handle has missed: purged before it read them, or dropped from a full buffer."""
        return self._source.skipped_frames

    async def pending(self) -> int:
        """Return the number of frames with messages that are not taken; a frame has up to 4,096 messages."""
        self._settle()
        return await self._source.pending()

    async def open(self) -> None:
        """Begin to listen to a fast flow. Does nothing for a durable flow, of which no message is missed."""
        if isinstance(self._source, SignalSource):
            await self._source.open()

    async def take(self, n: int = 1, timeout: float | None = 10.0) -> list[Message]:
        """Return the next `n` messages, once all have arrived.

        Parameters
        ----------
        n
            Number of messages, at least 1.
        timeout
            Seconds to wait for all `n` messages; None: for ever.

        Raises
        ------
        WaitTimeout
            If fewer have arrived in time, or the position can't be stored. The position hasn't moved then:
            the next `take` returns the messages that have arrived.
        SettingsError
            If `n` is no whole number of at least 1, or `timeout` no number of at least 0.
        TransportClosed
            If this reader is closed.
        TakenOver
            If a newer handle reads under this reader's name. The messages that this `take` waited for are the
            newer handle's.
        """
        lent = await self.lend(n, timeout)
        lent.taken = n
        self._settle()
        return lent.messages

    async def lend(self, n: int, timeout: float | None) -> Lent:
        """Return the next `n` messages as `take` does; the caller notes them as taken, or calls `put_back`.

        For a caller that may be cut off between the end of `lend` and the moment when the caller has the
        messages.
        """
        check_take(n, timeout)
        end = asyncio.get_running_loop().time() + (math.inf if timeout is None else timeout)
        await self._turn(end, n, timeout)
        try:
            self._settle()
            return self._lend(await self._stored(n, end, timeout))
        finally:
            self._lock.release()

    async def _turn(self, end: float, n: int, timeout: float | None) -> None:
        """Wait for the lock: takes are served one after another."""
        try:
            async with asyncio.timeout_at(None if timeout is None else end):
                await self._lock.acquire()
        except TimeoutError:
            raise WaitTimeout(
                f"got 0 of {n} messages of {self.flow!r} in {timeout:g} s: another take or loop on this "
                "reader was waiting all the while. Let it end first, or give each its own reader name."
            ) from None

    async def _stored(self, n: int, end: float, timeout: float | None) -> list[Message]:
        """Return the next `n` messages, with the position behind them stored."""
        source, loop = self._source, asyncio.get_running_loop()
        while True:
            await self._fill(n, end, timeout)
            messages, position = source.held.peek(n)
            try:
                await source.save(position, max(0.0, min(end - loop.time(), _LONG)))
            except Fenced:
                await source.restart(max(0.0, min(end - loop.time(), _LONG)))
                continue
            except asyncio.CancelledError:
                await self._put_back()
                raise
            except WaitTimeout:
                self._unsaved = (
                    _STORE_EVERY  # the position may be stored all the same: the next step makes sure
                )
                raise
            self._unsaved = 0
            return messages

    def _lend(self, messages: list[Message]) -> Lent:
        if self.delivery == "fast":  # newer messages may push these out at any time
            self._source.held.drop(len(messages))
        self._lent = Lent(messages)
        return self._lent

    def _settle(self) -> None:
        """Go on behind the last taken message of those that are lent."""
        lent, self._lent = self._lent, None
        if lent is None:
            return
        lent.over = True
        if self.delivery == "fast":
            self._source.held.put_back(lent.messages[lent.taken :])
        else:
            self._source.held.drop(lent.taken)
            self._unsaved += lent.taken
            if self._source.astray:  # a `lend` of which not all messages are taken
                self._unsaved = _STORE_EVERY

    async def put_back(self) -> None:
        """Let lent messages that are not taken come again, to the next handle of this name as well."""
        async with self._lock:
            self._settle()
            if self._source.astray:
                await self._put_back()

    async def _put_back(self) -> None:
        """Store the position of the next message here again: a save that was cut off may have moved it on."""
        self._unsaved = _STORE_EVERY  # should this save fail, the next step stores the position
        try:
            async with asyncio.timeout(_PUT_BACK_SECONDS):
                await self._save()
        except (TransportError, TimeoutError, TakenOver) as error:
            log.info("reader %s of %s puts its position back later: %s", self.name, self.flow, error)

    async def _fill(self, n: int, end: float, timeout: float | None) -> None:
        held, loop = self._source.held, asyncio.get_running_loop()
        if isinstance(self._source, SignalSource):
            self._source.most = max(self._buffer, n)
        late = False
        while True:
            if self._closed:
                raise TransportClosed(f"the reader {self.name!r} of {self.flow!r} is closed. Make a new one.")
            if held.count >= n:
                return
            if late:
                next_step = (
                    "Ask for fewer, wait longer (timeout=…), or see whether the flow runs and devices send."
                )
                if self._source.lack:
                    next_step = f"This reader can't read yet: {self._source.lack}"
                if not self._connection.connected:
                    next_step = (
                        "The server doesn't answer: see whether it runs; the link comes back by itself."
                    )
                raise WaitTimeout(
                    f"got {held.count} of {n} messages of {self.flow!r} in {timeout:.3g} s; they wait for "
                    f"the next take. {next_step}"
                )
            left = end - loop.time()
            late = left <= 0
            await self._source.more(max(0.0, min(left, _LONG)))

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> Message:
        held = self._source.held
        # One condition for all rare cases: `__anext__` runs for every message.
        if (
            not held.count
            or self._unsaved >= _STORE_EVERY
            or self._lent is not None
            or self._closed
            or self._lock.locked()
            or time.monotonic() >= self._source.sure_until
        ):
            async with self._lock:
                return await self._next()
        self._unsaved += 1
        return held.pop()

    async def _next(self) -> Message:
        await self._some()
        if self._closed:
            raise StopAsyncIteration
        self._unsaved += 1
        return self._source.held.pop()

    async def look(self, most: int) -> Lent:
        """Wait for messages and lend those that are here, at most `most`.

        The position is stored as while iterating. For loops that fetch many messages at once. Lends no
        messages once this reader is closed.
        """
        async with self._lock:
            await self._some()
            if self._closed:
                return Lent([], over=True)
            held = self._source.held
            messages, _ = held.peek(min(most, held.count))
            lent = self._lend(messages)
            lent.until = self._source.sure_until
            return lent

    async def _some(self) -> None:
        """Store the position if that is due; then wait until messages may be handed out, or for `close`."""
        held = self._source.held
        self._settle()
        if self._unsaved and (not held.count or self._unsaved >= _STORE_EVERY):
            await self._save()
        while not self._closed:
            if not held.count:
                await self._source.more(_LONG)
            elif time.monotonic() >= self._source.sure_until:
                await self._source.confirm()
            else:
                return

    async def _save(self) -> None:
        """Store the position that iterating has reached."""
        try:
            await self._source.save(self._source.held.position, _STORE_SECONDS)
        except Fenced:
            await self._source.restart(_STORE_SECONDS)
        except WaitTimeout as error:
            log.info("reader %s of %s stores its position later: %s", self.name, self.flow, error)
            return
        self._unsaved = 0

    async def seek(self, where: Literal["oldest", "newest"]) -> None:
        """Move the position: ``"oldest"`` to the first message that is kept, ``"newest"`` behind the last.

        Raises
        ------
        SettingsError
            If `where` is neither ``"oldest"`` nor ``"newest"``.
        """
        if where not in ("oldest", "newest"):
            raise SettingsError(f"seek: where is {where!r}; it can be 'oldest' or 'newest'.")
        async with self._lock:
            self._settle()
            await self._source.seek(where)
            self._unsaved = 0

    async def close(self) -> None:
        """Store the position and stop reading; a waiting `take` fails with `TransportClosed`. Idempotent.

        Doesn't raise `TakenOver`: the position is a newer handle's then. Nor `FrameError`: the entry in the
        place of the position can't be read, as the next handle is told.
        """
        if self._closed:
            return
        self._closed = True
        self._source.wake()
        async with self._lock:
            try:
                self._settle()
                if self._unsaved or self._source.astray:
                    with contextlib.suppress(TakenOver):
                        await self._save()
            except FrameError as error:
                log.warning("reader %s of %s can't store its position: %s", self.name, self.flow, error)
            finally:
                await self._source.close()


def check_take(n: object, timeout: object) -> None:
    """Raise `SettingsError` if `n` or `timeout` is no valid argument of `Reader.take`."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise SettingsError(f"take: n is {n!r}; it must be a whole number of at least 1.")
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0
    ):
        raise SettingsError(
            f"take: timeout is {timeout!r}; it must be seconds (0 or more), or None for ever."
        )
