"""Frames from a durable flow's output log, and the stored position of the reader who takes them.

Owns three things that must agree: what has arrived (`Backlog`), the position that is stored (a `ReadFrame` under
``read.<reader>``) and the consumer's acknowledgements. The stored position alone decides what is taken. The consumer
is the quick way to new frames, and what it has acknowledged tells the edge which frames this reader is done with; it
never acknowledges more than the stored position covers.

Frames are numbered without gaps, so a missing one is noticed: it is read from the log directly, and one that is not
there either has been purged and is counted. That also makes right whatever a consumer may do: deliver again, out of
turn, to another handle of the same name, or not at all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from pratipad_nb.backoff import Backoff
from pratipad_nb.cloud.backlog import Backlog, messages_of
from pratipad_nb.errors import Fenced, FrameError, NotInvited, TransportClosed, TransportError, WaitTimeout
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import OutputFrame, ReadFrame
from pratipad_nb.transport.protocol import (
    Connection,
    Consumer,
    ConsumerSpec,
    Delivery,
    Log,
    LogState,
    Record,
)
from pratipad_nb.transport.subjects import Subjects

__all__ = ["LogSource", "Patience"]

log = logging.getLogger(__name__)

#: A frame that isn't acknowledged comes again after this long, in seconds. Frames may well wait here for a user who
#: takes seldom; one that is really missing is noticed sooner, and read directly.
_ACK_WAIT = 600.0
#: Seconds between two looks for something that can't be waited for: a log that isn't there yet, or more than a window.
_POLL = 0.05
#: Longest pause before a position whose storing was not answered is stored again, in seconds; the first is `_POLL`.
_LONGEST_PAUSE = 0.5
#: How long storing the position is tried where nobody has set an end, in seconds.
_STORE_PATIENTLY = 5.0
#: How much longer than it was asked to a look for frames may take, in seconds: what is there is to be found without time
#: to wait as well.
_GRACE = 0.25


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a reader waits for its server.

    Attributes
    ----------
    silence
        After so many seconds in which nothing arrived, the log itself is asked whether there is more.
    store
        Storing the position is tried for at least this long, in seconds, however little time is left: what is read
        is here.
    """

    silence: float = 2.0
    store: float = 1.0


@dataclass(frozen=True, slots=True)
class _Opened:
    """What was found when the output was opened."""

    consumer: Consumer
    output: Log
    state: LogState
    marks: Log
    stored: Record | None
    known: int  # the stored position's sequence as this handle knew it before it read `stored`


class LogSource:
    """The output log of `flow` as the reader `name` sees it.

    Parameters
    ----------
    window
        Most frames that are here and not covered by the stored position.
    patience
        How long the server is waited for.
    """

    def __init__(self, connection: Connection, flow: str, name: str, window: int, patience: Patience) -> None:
        self._patience = patience
        self.held = Backlog()
        self.skipped_frames = 0
        self._connection = connection
        self._subjects = Subjects(flow)
        self._subject = self._subjects.read(name)
        self._flow = flow
        self._name = name
        self._window = window
        self._open: _Opened | None = None
        self._task: asyncio.Task[Any] | None = None
        self._due: dict[int, Delivery] = {}
        self._newest = 0
        self._heard = time.monotonic()
        self._begun = False
        self._saved = ReadFrame(0, 0)
        self._saved_at = 0
        # Encoded positions that may be stored or not: the caller of `save` was cancelled, or no answer came.
        self._doubtful: set[bytes] = set()
        self._anew = False

    @property
    def astray(self) -> bool:
        """Whether a position behind the next message here is stored, or may be."""
        here, saved = self.held.position, self._saved
        ahead = (saved.sequence, saved.offset) > (here.sequence, here.offset)
        return self._begun and (ahead or bool(self._doubtful))

    # -- arriving -----------------------------------------------------------------------------------------------

    async def more(self, seconds: float) -> None:
        """Wait at most `seconds` for frames to arrive. Returns early, with none perhaps: who wants more asks again.

        Raises
        ------
        TransportClosed
            If this side has closed the connection.
        NotInvited
            If this reader may not read there.
        """
        try:
            async with asyncio.timeout(seconds + _GRACE):
                await self._look(seconds)
            if not self.held.count and self.held.next - self._saved.sequence >= max(1, self._window // 4):
                await self.save(
                    self.held.position, 0.0
                )  # frames without messages: they must not hold the flow
        except (TransportClosed, NotInvited):
            raise
        except WaitTimeout:  # the link is down; it comes back by itself
            await asyncio.sleep(min(_POLL, seconds))
        except TimeoutError:  # what was under way is looked for again
            return
        except TransportError as error:
            log.info("reader %s of %s opens the output anew: %s", self._name, self._flow, error)
            await self._let_go()
            await asyncio.sleep(min(_POLL, seconds))

    async def _look(self, seconds: float) -> None:
        if self._open is not None and (self._newest >= self.held.next or len(self._due) >= self._window):
            await self._catch_up(seconds)
        else:
            await self._deliveries(seconds)

    async def _deliveries(self, seconds: float) -> None:
        task = self._task
        if task is None:
            # Not cancelled when the time is up: what it gets then is there for the next call.
            work: Coroutine[Any, Any, Any] = (
                self._opening() if self._open is None else self._open.consumer.get()
            )
            task = self._task = asyncio.create_task(work, name=f"reader {self._name}")
        await asyncio.wait({task}, timeout=min(seconds, self._patience.silence))
        if not task.done():
            if self._open is not None and time.monotonic() - self._heard > self._patience.silence:
                self._heard = time.monotonic()
                await self._read_on()
            return
        self._task = None
        if task.cancelled():
            return
        outcome: _Opened | list[Delivery] = task.result()
        self._heard = time.monotonic()
        if isinstance(outcome, _Opened):
            self._begin(outcome)
            return
        # All are noted before any is waited for: whoever runs out of time goes on from there.
        for delivery in [each for each in outcome if self._is_due(each)]:
            await self._admit(delivery)

    def _is_due(self, delivery: Delivery) -> bool:
        """Note a delivery; one that the stored position covers is acknowledged again, for its first one was lost."""
        if delivery.sequence < self._saved.sequence and self._open is not None:
            self._open.consumer.acknowledge(delivery)
            return False
        self._due[delivery.sequence] = delivery
        self._newest = max(self._newest, delivery.sequence)
        return True

    async def _admit(self, delivery: Delivery) -> None:
        missing = delivery.sequence > self.held.next
        if missing and await self._read_on(delivery.sequence) and delivery.sequence > self.held.next:
            return  # more than a window was missing: the rest is read as it is asked for
        if delivery.sequence >= self.held.next:
            self._hold(delivery)

    async def _catch_up(self, seconds: float) -> None:
        """Read the log itself where the consumer doesn't help.

        That is, when what it delivered has been passed over, or when it delivers no more until some is acknowledged:
        whoever takes more than a window at once.
        """
        if await self._read_on():
            return
        if self._newest >= self.held.next:  # purged, all of it
            self.skipped_frames += self._newest + 1 - self.held.next
            self.held.begin(ReadFrame(self._newest + 1, 0))
        await asyncio.sleep(min(_POLL, seconds))

    async def _read_on(self, before: int = 0) -> bool:
        """Read what comes next from the log itself, at most a window, and up to `before` only if given."""
        assert self._open is not None
        left = self._window
        async for record in self._open.output.read(self.held.next):
            if (before and record.sequence >= before) or not left:
                break
            self._hold(record)
            left -= 1
        return left < self._window

    def _hold(self, record: Record) -> None:
        self.skipped_frames += record.sequence - self.held.next
        try:
            messages = messages_of(decode(record.data, OutputFrame), self._flow)
        except (FrameError, ValueError) as error:
            log.error("reader %s skips frame %d of %s: %s", self._name, record.sequence, self._flow, error)
            self.skipped_frames += 1
            messages = []
        self.held.add(record.sequence, messages)

    # -- opening ------------------------------------------------------------------------------------------------

    async def _opening(self) -> _Opened:
        """Open the output and begin to get deliveries; waits for a flow that was never started."""
        while True:
            output = await self._connection.find_log(self._subjects.output_stream)
            marks = await self._connection.find_log(self._subjects.mark_stream)
            if output is not None and marks is not None:
                break
            await asyncio.sleep(_POLL)
        if self._anew:
            await self._forget_consumer(output)
        state = await output.state()
        known = self._saved_at
        stored = await marks.latest(self._subject)
        start = decode(stored.data, ReadFrame).sequence if stored else state.first
        spec = ConsumerSpec(self._name, "all", max_pending=self._window, ack_wait=_ACK_WAIT, start=start)
        consumer = await output.consumer(spec)
        try:
            # What a process that was killed has got and not acknowledged would come after newer frames.
            await consumer.rewind()
        except BaseException:
            await consumer.close()
            raise
        return _Opened(consumer, output, state, marks, stored, known)

    def _begin(self, opened: _Opened) -> None:
        self._open = opened
        self._due.clear()
        self._newest = 0
        at = opened.stored.sequence if opened.stored else 0
        if opened.stored is not None and at != self._saved_at and self._is_own(opened.stored):
            self._adopt(opened.stored)
        # `stored` may be older than what this handle has stored since, while the output was being opened.
        unmoved = at == self._saved_at or opened.known != self._saved_at
        if self._begun and unmoved and self.held.next <= opened.state.last + 1:
            return  # the same log, and nobody else has moved the position: go on
        self._begun = True
        self._doubtful.clear()
        self._saved_at = at
        self._saved = (
            decode(opened.stored.data, ReadFrame) if opened.stored else ReadFrame(opened.state.first, 0)
        )
        if self._saved.sequence > opened.state.last + 1:
            # The log's end was lost, with its disk's last seconds. What is written now has these numbers again.
            self._saved = ReadFrame(opened.state.last + 1, 0)
        self.held.begin(self._saved)

    def wake(self) -> None:
        """Let a waiting `more` return at once."""
        if self._task is not None:
            self._task.cancel()

    async def _let_go(self) -> None:
        task, self._task = self._task, None
        opened, self._open = self._open, None
        self._due.clear()
        try:
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
                if not task.cancelled() and task.exception() is None and isinstance(task.result(), _Opened):
                    opened = task.result()
        finally:  # also if the caller is cancelled: nobody else would close the consumer
            if opened is not None:
                await opened.consumer.close()

    # -- moving -------------------------------------------------------------------------------------------------

    async def save(self, position: ReadFrame, seconds: float) -> None:
        """Store `position` and acknowledge what it covers; tried for `seconds`, and a little longer.

        A save that was cancelled, or got no answer, is settled by the next save. Each save names the position it
        follows: either the next save is stored and the earlier never can be, or the earlier is found stored.

        Raises
        ------
        Fenced
            If another handle has moved this reader since. `restart` goes on from where that one is.
        WaitTimeout
            If the server doesn't answer.
        """
        end = time.monotonic() + max(seconds, self._patience.store)
        backoff = Backoff(_POLL, _LONGEST_PAUSE)
        while position != self._saved or self._doubtful:
            try:
                await self._store(position, max(0.1, end - time.monotonic()))
            except WaitTimeout:
                if time.monotonic() >= end:
                    raise
                await asyncio.sleep(backoff.next())
        self._acknowledge()

    async def _store(self, position: ReadFrame, seconds: float) -> None:
        """Store `position`, or adopt an earlier one of this handle's that turns out to be stored."""
        data = encode(position)
        earlier = frozenset(self._doubtful)
        self._doubtful.add(data)
        try:
            at = await self._connection.append(self._subject, data, expect=self._saved_at, timeout=seconds)
        except TransportError as error:
            self._doubtful = set(earlier)  # this one is not stored, for certain
            if not isinstance(error, Fenced):
                raise
            newest = await self._newest_stored() if earlier else None
            if newest is None or not self._is_own(newest):
                self._doubtful.clear()
                raise
            self._adopt(newest)
        else:
            self._saved, self._saved_at = position, at
            self._doubtful.clear()

    async def _newest_stored(self) -> Record | None:
        if self._open is not None:
            return await self._open.marks.latest(self._subject)
        marks = await self._connection.find_log(self._subjects.mark_stream)
        return await marks.latest(self._subject) if marks is not None else None

    def _is_own(self, stored: Record) -> bool:
        return stored.data in self._doubtful

    def _adopt(self, stored: Record) -> None:
        """Take `stored` as this handle's: nothing else that was in doubt can be stored any more."""
        self._saved, self._saved_at = decode(stored.data, ReadFrame), stored.sequence
        self._doubtful.clear()

    def _acknowledge(self) -> None:
        done = [sequence for sequence in self._due if sequence < self._saved.sequence]
        if not done:
            return
        newest = self._due[max(done)]
        for sequence in done:
            del self._due[sequence]
        if self._open is not None:
            self._open.consumer.acknowledge(newest)

    async def restart(self) -> None:
        """Forget what is held and go on from the stored position, which another handle has moved."""
        log.warning("another handle reads %s as %s; the messages are shared", self._flow, self._name)
        # First: a caller that is cancelled in `_let_go` must not go on with messages the other handle has.
        self._begun = False
        self.held.begin(ReadFrame(0, 0))
        await self._let_go()

    async def seek(self, where: Literal["oldest", "newest"]) -> None:
        """Move the position to the oldest message that is kept, or behind the newest."""
        await self._let_go()
        opened = await self._opening()
        self._begin(opened)
        state = opened.state
        position = ReadFrame(state.first if where == "oldest" else state.last + 1, 0)
        await self.save(position, _STORE_PATIENTLY)
        self.held.begin(position)
        # Made anew at the position: what is acknowledged never comes again, and what is passed over need not come.
        self._anew = True
        await self._let_go()
        await self._forget_consumer(opened.output)

    async def _forget_consumer(self, output: Log) -> None:
        await output.forget_consumer(self._name)
        self._anew = False

    async def pending(self) -> int:
        """Return how many frames hold messages that are not taken, those in the log included."""
        output = await self._connection.find_log(self._subjects.output_stream)
        if output is None:
            return 0
        state = await output.state()
        first = self.held.position.sequence if self._begun else state.first
        return max(0, state.last + 1 - max(first, state.first))

    async def close(self) -> None:
        """Stop getting deliveries; the stored position stays."""
        await self._let_go()
