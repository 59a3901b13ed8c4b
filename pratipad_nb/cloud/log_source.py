"""Frames of a durable flow's output log, and the stored position of the reader that takes them.

Owns three things that must agree: the frames that have arrived (`Backlog`), the stored position (a
`ReadFrame` under ``read.<reader>``) and the consumer's acknowledgements.

* The **stored position** alone decides which messages are taken. Every save is conditional on the position
  before it. So of two handles of one name the slower handle is fenced, and starts again from the stored
  position.
* The **consumer** is the quick way to new frames. Its acknowledgements tell the edge which frames this reader
  is done with. The invariant: no frame is acknowledged that the stored position doesn't cover.
  `_acknowledge` and `_is_due` alone acknowledge, and compare each frame with the position saved last.
* **Frames** are numbered without gaps, so that a missing frame is noticed. A missing frame is read from the
  log directly; a frame that the log doesn't have either was purged, and is counted. So it does no harm if the
  consumer delivers a frame again, out of turn, to another handle of the same name, or not at all.
* The **log** may go back: its server comes up with an older store. So after every reconnect all is opened
  anew, and the log is compared with the newest frame that has arrived (`Trail`), before another frame is read
  or acknowledged. If the log went back, this reader goes on at the first frame that it hasn't got.

Frames of a fast flow are for `signal_source`; counting messages within frames is for `backlog`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from pratipad_nb.backoff import Backoff
from pratipad_nb.bugs import log_bug
from pratipad_nb.cloud.backlog import Backlog, messages_of
from pratipad_nb.cloud.trail import Trail
from pratipad_nb.errors import Fenced, FrameError, NotInvited, TransportClosed, TransportError, WaitTimeout
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import OutputFrame, ReadFrame, StoredRead
from pratipad_nb.transport.landmarks import LATER, Landmark, entry_at, first_since, holds, landmark_of
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

#: The consumer delivers a frame that isn't acknowledged again after this long, in seconds. Frames may well
#: wait here for a user who takes seldom. A frame that is really missing is noticed sooner, and read from the
#: log directly.
_ACK_WAIT = 600.0
#: Seconds between two looks for something that sends no notice: a log that doesn't exist yet, or a frame
#: beyond the window.
_POLL = 0.05
#: Longest pause before a save that got no answer is tried again, in seconds; the first pause is `_POLL`.
_LONGEST_PAUSE = 0.5
#: A save without a time-out, that of `seek`, is tried for this long, in seconds.
_STORE_PATIENTLY = 5.0
#: How much longer than `seconds` a call of `more` may take, in seconds: a call without time to wait still
#: finds the frames that are stored.
_GRACE = 0.25


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a reader waits for its server.

    Attributes
    ----------
    silence
        After so many seconds in which nothing arrived, the log itself is asked whether there is more.
    store
        Storing the position is tried for at least this long, in seconds, however little time is left: the
        messages have arrived already.
    """

    silence: float = 2.0
    store: float = 1.0


@dataclass(frozen=True, slots=True)
class _Opened:
    """The output as it was found when it was opened.

    `known` is the stored position's sequence as this handle knew it before it read `stored`. `parting` is the
    first frame that this reader hasn't got, if the log went back; else None.
    """

    consumer: Consumer
    output: Log
    state: LogState
    marks: Log
    stored: Record | None
    known: int
    parting: int | None


class LogSource:
    """The frames of the output log of `flow`, for the reader `name`.

    Parameters
    ----------
    window
        Most frames that have arrived and are not covered by the stored position.
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
        # Encoded positions that may be stored or not: their `save` was cancelled, or got no answer.
        self._doubtful: set[bytes] = set()
        self._anew = False
        self._trail = Trail()
        #: Whether the log may have gone back since it was opened.
        self._suspect = False
        #: Whether the log went back, and the position in it is yet to be stored.
        self._moved = False
        self._forget_callback = connection.on_reconnect(self._on_reconnect)

    @property
    def astray(self) -> bool:
        """Whether a position behind the next message here is stored, or may be."""
        following, saved = self.held.position, self._saved
        ahead = (saved.sequence, saved.offset) > (following.sequence, following.offset)
        return self._begun and (ahead or bool(self._doubtful))

    # -- arriving --------------------------------------------------------------------------------------------

    async def more(self, seconds: float) -> None:
        """Wait at most `seconds` for frames to arrive. May return early without a frame; call it again then.

        Raises
        ------
        TransportClosed
            If this side has closed the connection.
        NotInvited
            If this reader may not read the flow's output.
        """
        try:
            if self._suspect:
                await self._let_go()
                self._suspect = False
            async with asyncio.timeout(seconds + _GRACE):
                await self._look(seconds)
            read = self.held.next - self._saved.sequence
            if self._moved or (not self.held.count and read >= max(1, self._window // 4)):
                # Frames without messages must not hold the flow back.
                await self.save(self.held.position, 0.0)
        except (TransportClosed, NotInvited):
            raise
        except WaitTimeout:  # the link is down, and comes back by itself
            await asyncio.sleep(min(_POLL, seconds))
        except TimeoutError:  # the next call looks again
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
            # Not cancelled when `seconds` have passed: its deliveries are there for the next call.
            work: Coroutine[Any, Any, Any] = (
                self._opening() if self._open is None else self._open.consumer.get()
            )
            task = self._task = asyncio.create_task(work, name=f"reader {self._name}")
        await asyncio.wait({task}, timeout=min(seconds, self._patience.silence))
        if self._suspect:
            return
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
        # All deliveries are noted before the first wait: a call that runs out of time loses none.
        for delivery in [each for each in outcome if self._is_due(each)]:
            await self._admit(delivery)

    def _is_due(self, delivery: Delivery) -> bool:
        """Note a delivery and return whether its frame is to be held.

        A frame that the stored position covers is acknowledged again, for its first acknowledgement was lost.
        """
        if delivery.sequence < self._saved.sequence and self._open is not None:
            self._open.consumer.acknowledge(delivery)
            return False
        self._due[delivery.sequence] = delivery
        self._newest = max(self._newest, delivery.sequence)
        return True

    async def _admit(self, delivery: Delivery) -> None:
        missing = delivery.sequence > self.held.next
        if missing and await self._read_on(delivery.sequence) and delivery.sequence > self.held.next:
            return  # more than a window was missing: later calls read the rest
        if delivery.sequence >= self.held.next:
            self._hold(delivery)

    async def _catch_up(self, seconds: float) -> None:
        """Read the log itself where the consumer doesn't help.

        The consumer doesn't help with frames that it delivered before and that were skipped over. Nor does it
        deliver further frames while a window of them is unacknowledged: a `take` of more than a window needs
        those.
        """
        if await self._read_on():
            return
        if self._newest >= self.held.next:  # all those frames were purged
            self.skipped_frames += self._newest + 1 - self.held.next
            self.held.begin(ReadFrame(self._newest + 1, 0))
        await asyncio.sleep(min(_POLL, seconds))

    async def _read_on(self, before: int = 0) -> bool:
        """Read the next frames from the log itself, at most a window, and only before `before` if given."""
        assert self._open is not None
        left = self._window
        async for record in self._open.output.read(self.held.next):
            if (before and record.sequence >= before) or not left or self._suspect:
                break
            self._hold(record)
            left -= 1
        return left < self._window

    def _hold(self, record: Record) -> None:
        self.skipped_frames += record.sequence - self.held.next
        try:
            frame = decode(record.data, OutputFrame)
            messages = messages_of(frame, self._flow)
        except (FrameError, ValueError) as error:
            log.error("reader %s skips frame %d of %s: %s", self._name, record.sequence, self._flow, error)
            self.skipped_frames += 1
            self._trail.add(record, [])
            self.held.add(record.sequence, [])
            return
        self._trail.add(record, frame.covers)
        self.held.add(record.sequence, messages, self._trail.repeats(frame))

    # -- opening ---------------------------------------------------------------------------------------------

    async def _opening(self) -> _Opened:
        """Open the output and begin to get deliveries; wait for a flow that was never started."""
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
        parting = await self._parting(output, state, stored)
        if parting is not None:
            # The consumer may stand elsewhere: what is known of it is of another log.
            await self._forget_consumer(output)
            start = parting
        spec = ConsumerSpec(self._name, "all", max_pending=self._window, ack_wait=_ACK_WAIT, start=start)
        consumer = await output.consumer(spec)
        try:
            # Else frames that a killed process got and didn't acknowledge would come after newer frames.
            await consumer.rewind()
        except BaseException:
            await consumer.close()
            raise
        return _Opened(consumer, output, state, marks, stored, known, parting)

    async def _parting(self, output: Log, state: LogState, stored: Record | None) -> int | None:
        """Return the first frame that this reader hasn't got if the log went back; else None."""
        if self._goes_on(stored):
            newest, following = self._trail.newest, self.held.next
        elif stored is not None:
            read = decode(stored.data, StoredRead)
            newest = Landmark(read.sequence - (not read.offset), read.seen) if read.seen else None
            following = read.sequence
        else:
            return None
        if following <= state.last + 1 and (newest is None or await holds(output, newest, state)):
            return None
        if self._goes_on(stored):
            return min(following, await self._trail.parting(output, state))
        if newest is None:
            return state.last + 1
        return min(following, await first_since(output, newest.time + LATER, state))

    def _goes_on(self, stored: Record | None) -> bool:
        """Return whether this handle goes on where it is: no other handle has moved the position.

        A stored position older than the one that this handle has saved went back with its log.
        """
        at = stored.sequence if stored else 0
        return self._begun and (at <= self._saved_at or (stored is not None and self._is_own(stored)))

    def _begin(self, opened: _Opened) -> None:
        self._open = opened
        self._due.clear()
        self._newest = 0
        at = opened.stored.sequence if opened.stored else 0
        if opened.stored is not None and at != self._saved_at and self._is_own(opened.stored):
            self._adopt(opened.stored)
        # `stored` may be older than a position that this handle saved while the output was being opened.
        if self._begun and (at <= self._saved_at or opened.known != self._saved_at):
            if opened.known == self._saved_at != at:
                self._saved, self._saved_at = self._stored_position(opened), at
                self._doubtful.clear()
                self._moved = True
            if opened.parting is not None:
                self._go_back(opened, opened.parting)
            return
        self._begun = True
        self._doubtful.clear()
        self._saved_at = at
        self._saved = self._stored_position(opened)
        before = self._saved.sequence - (not self._saved.offset)
        seen = decode(opened.stored.data, StoredRead).seen if opened.stored else 0.0
        self._trail.begin(Landmark(before, seen) if seen else None)
        self.held.begin(self._saved)
        if opened.parting is not None:
            self._go_back(opened, opened.parting)

    def _stored_position(self, opened: _Opened) -> ReadFrame:
        if opened.stored is None:
            return ReadFrame(opened.state.first, 0)
        return decode(opened.stored.data, ReadFrame)

    def _go_back(self, opened: _Opened, at: int) -> None:
        """Go on at frame `at` of a log that went back."""
        log.warning(
            "log %s went back, as after a restored backup or a power cut: reader %s had read it up to frame "
            "%d, and goes on at frame %d of now %d. %s",
            opened.output.spec.name,
            self._name,
            self.held.next - 1,
            at,
            opened.state.last,
            "Messages that this reader has got already are left out where they come again."
            if self.held.next - at < self._trail.length
            else "Messages may come again.",
        )
        self._trail.part(at)
        self.held.part(at)
        self._moved = True

    def _on_reconnect(self) -> None:
        self._suspect = True
        self.wake()

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
                log_bug(log, f"reader {self._name} of {self._flow}", task)
                if not task.cancelled() and task.exception() is None and isinstance(task.result(), _Opened):
                    opened = task.result()
        finally:  # also if the caller is cancelled: no other task closes the consumer
            if opened is not None:
                await opened.consumer.close()

    # -- moving ----------------------------------------------------------------------------------------------

    async def save(self, position: ReadFrame, seconds: float) -> None:
        """Store `position`, trying for `seconds` and a little longer, and acknowledge the frames before it.

        A save that was cancelled, or got no answer, is in doubt, and the next save settles the doubt. Each
        save is conditional on the sequence of the stored position that it follows (`expect`). So either the
        next save is stored, and the earlier one can never be stored any more; or the next save is fenced, and
        the earlier one is found stored and adopted.

        Raises
        ------
        Fenced
            If another handle has moved this reader's position since, or the log may have gone back.
            `restart` goes on from there.
        WaitTimeout
            If the server doesn't answer.
        """
        if self._suspect:
            raise Fenced(f"the link to {self._flow} was down, and its log may have gone back meanwhile")
        end = time.monotonic() + max(seconds, self._patience.store)
        backoff = Backoff(_POLL, _LONGEST_PAUSE)
        while position != self._saved or self._doubtful:
            try:
                await self._store(position, max(0.1, end - time.monotonic()))
            except WaitTimeout:
                if time.monotonic() >= end:
                    raise
                await asyncio.sleep(backoff.next())
        self._moved = False
        self._acknowledge()

    async def _store(self, position: ReadFrame, seconds: float) -> None:
        """Store `position`, or adopt an earlier position of this handle that turns out to be stored."""
        seen = self._trail.time_of(position.sequence - (not position.offset))
        data = encode(StoredRead(position.sequence, position.offset, seen))
        earlier = frozenset(self._doubtful)
        self._doubtful.add(data)
        try:
            at = await self._connection.append(self._subject, data, expect=self._saved_at, timeout=seconds)
        except TransportError as error:
            self._doubtful = set(earlier)  # `position` is not stored, for certain
            if not isinstance(error, Fenced):
                raise
            newest = await self._newest_stored()
            if (newest.sequence if newest else 0) < self._saved_at:
                self._suspect = True  # no other handle has moved the position: its log went back
            if newest is None or not earlier or not self._is_own(newest):
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
        """Take `stored` as this handle's position: no other position in doubt can be stored any more."""
        self._saved, self._saved_at = decode(stored.data, ReadFrame), stored.sequence
        self._doubtful.clear()

    def _acknowledge(self) -> None:
        done = [sequence for sequence in self._due if sequence < self._saved.sequence]
        if not done or self._suspect:
            return
        newest = self._due[max(done)]
        for sequence in done:
            del self._due[sequence]
        if self._open is not None:
            self._open.consumer.acknowledge(newest)

    async def restart(self, seconds: float) -> None:
        """Find out why the position can't be stored, and go on; try for `seconds` and a little longer.

        If the log went back, go on in the log as it is now, with the messages that wait here. If another
        handle has moved the position, forget these messages, and go on from the stored position.

        Raises
        ------
        WaitTimeout
            If the server doesn't answer.
        """
        if self._suspect:
            await self._compare(max(seconds, self._patience.store))
            return
        log.warning("another handle reads %s as %s; the messages are shared", self._flow, self._name)
        # First: a caller that is cancelled in `_let_go` must not go on with messages that the other handle
        # has.
        self._begun = False
        self.held.begin(ReadFrame(0, 0))
        await self._let_go()

    async def _compare(self, seconds: float) -> None:
        """Open the output anew, find the place in it if it went back, and store the position then."""
        try:
            async with asyncio.timeout(seconds):
                await self._let_go()
                self._suspect = False
                self._begin(await self._opening())
                if self._moved:
                    await self.save(self.held.position, 0.0)
        except TimeoutError as error:  # `WaitTimeout` is one, too
            self._suspect = True
            raise WaitTimeout(
                f"the output of {self._flow} could not be compared with what reader {self._name} has read: "
                f"{error or f'no answer came within {seconds:g} s'}. The link comes back by itself."
            ) from error

    async def seek(self, where: Literal["oldest", "newest"]) -> None:
        """Move the position to the oldest message that is kept, or behind the newest."""
        await self._let_go()
        self._suspect = False
        opened = await self._opening()
        self._begin(opened)
        state = opened.state
        position = ReadFrame(state.first if where == "oldest" else state.last + 1, 0)
        before = await entry_at(opened.output, position.sequence - 1) if where == "newest" else None
        self._trail.begin(landmark_of(before) if before is not None else None)
        await self.save(position, _STORE_PATIENTLY)
        self.held.begin(position)
        # The consumer is made anew at the position: it never delivers acknowledged frames again, and need not
        # deliver skipped ones.
        self._anew = True
        await self._let_go()
        await self._forget_consumer(opened.output)

    async def _forget_consumer(self, output: Log) -> None:
        await output.forget_consumer(self._name)
        self._anew = False

    async def pending(self) -> int:
        """Return the number of frames with messages that are not taken, frames in the log included."""
        output = await self._connection.find_log(self._subjects.output_stream)
        if output is None:
            return 0
        state = await output.state()
        first = self.held.position.sequence if self._begun else state.first
        return max(0, state.last + 1 - max(first, state.first))

    async def close(self) -> None:
        """Stop getting deliveries; the stored position stays."""
        self._forget_callback()
        await self._let_go()
