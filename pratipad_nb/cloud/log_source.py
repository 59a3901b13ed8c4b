"""Frames of a durable flow's output log, for the reader that takes their messages.

Owns three things that must agree: the frames that have arrived (`Backlog`), the reader's position
(`StoredPosition`) and the consumer's acknowledgements.

* The **stored position** alone decides which messages are taken. A newer handle of the reader's name takes
  the position over, and the older handle raises `TakenOver`.
* The **consumer** is the quick way to new frames. Whoever lets the reader in makes the consumer, and the log
  of the position; if one is missing, the reader asks the running edge for it, and waits. The consumer's
  acknowledgements tell the edge which frames this reader is done with. The invariant: no frame is
  acknowledged that the stored position doesn't cover. `_acknowledge` and `_is_due` alone acknowledge, and
  compare each frame with the position saved last; `reset` acknowledges the frames before that position.
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
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Literal

from pratipad_nb.bugs import log_bug
from pratipad_nb.cloud.backlog import Backlog, messages_of
from pratipad_nb.cloud.position import Claim, Patience, StoredPosition, stored_read
from pratipad_nb.cloud.trail import Trail
from pratipad_nb.errors import (
    Fenced,
    FlowError,
    FrameError,
    NotInvited,
    TakenOver,
    TransportClosed,
    TransportError,
    WaitTimeout,
)
from pratipad_nb.seldom import Seldom
from pratipad_nb.transport.codec import decode, most_memory_of
from pratipad_nb.transport.frames import OutputFrame, ReadFrame
from pratipad_nb.transport.landmarks import LATER, Landmark, entry_at, first_since, holds, landmark_of
from pratipad_nb.transport.protocol import (
    Connection,
    Consumer,
    Delivery,
    Log,
    LogState,
    Record,
)
from pratipad_nb.transport.readers import READER_WINDOW, reader_consumer
from pratipad_nb.transport.subjects import Subjects

__all__ = ["LogSource"]

log = logging.getLogger(__name__)

#: Seconds between two looks for something that sends no notice: a log that doesn't exist yet, or a frame
#: beyond the window.
_POLL = 0.05
#: Seconds between two requests to the edge for what is missing.
_ASK_AGAIN = 1.0
#: Most memory that the frames take which one call of `more` decodes, and a single frame may take more.
_MEMORY = 256 << 20
#: A save without a time-out, that of `seek`, is tried for this long, in seconds.
_STORE_PATIENTLY = 5.0
#: How much longer than `seconds` a call of `more` may take, in seconds: a call without time to wait still
#: finds the frames that are stored.
_GRACE = 0.25


@dataclass(frozen=True, slots=True)
class _Opened:
    """The output as it was found when it was opened.

    `known` is the stored position's sequence as this handle knew it before its claim. `parting` is the first
    frame that this reader hasn't got, if the log went back; else None.
    """

    consumer: Consumer
    output: Log
    state: LogState
    positions: Log
    claim: Claim
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
    prepare
        Makes this reader's consumer and the log of its position, which a reader may not make.

    Attributes
    ----------
    lack
        What this reader waits for before it can read, in words; empty if nothing is missing.
    """

    def __init__(
        self,
        connection: Connection,
        flow: str,
        name: str,
        window: int,
        patience: Patience,
        prepare: Callable[[], Awaitable[None]],
    ) -> None:
        self.lack = ""
        self._patience = patience
        self._prepare = prepare
        self._asked = -math.inf
        self.held = Backlog()
        self.skipped_frames = 0
        self._line = Seldom()
        self._connection = connection
        self._subjects = Subjects(flow)
        self._trail = Trail()
        self._position = StoredPosition(connection, flow, name, patience, self._following, self._seen)
        self._flow = flow
        self._name = name
        self._window = window
        self._spec = replace(reader_consumer(name), max_pending=min(window, READER_WINDOW))
        self._open: _Opened | None = None
        self._task: asyncio.Task[Any] | None = None
        self._due: dict[int, Delivery] = {}
        self._newest = 0
        self._heard = time.monotonic()
        self._begun = False
        #: Whether the log may have gone back since it was opened.
        self._suspect = False
        #: Whether the log went back, and the position in it is yet to be stored.
        self._moved = False
        self._forget_callback = connection.on_reconnect(self._on_reconnect)

    @property
    def astray(self) -> bool:
        """Whether a position behind the next message here is stored, or may be."""
        following, saved = self.held.position, self._position.saved
        ahead = (saved.sequence, saved.offset) > (following.sequence, following.offset)
        return self._begun and (ahead or self._position.in_doubt)

    @property
    def sure_until(self) -> float:
        """Until then, by the monotonic clock, messages may be handed out before their position is stored."""
        return self._position.sure_until

    def _following(self) -> ReadFrame:
        """Return the position of the first message that isn't handed out."""
        return self.held.position if self._begun else self._position.saved

    def _seen(self, position: ReadFrame) -> float:
        return self._trail.time_of(position.sequence - (not position.offset))

    # -- arriving --------------------------------------------------------------------------------------------

    async def more(self, seconds: float) -> None:
        """Wait at most `seconds` for frames to arrive. May return early without a frame; call it again then.

        Raises
        ------
        TransportClosed
            If this side has closed the connection.
        NotInvited
            If this reader may not read the flow's output.
        TakenOver
            If a newer handle reads under this reader's name.
        """
        await self._patiently(self._more(seconds), seconds)

    async def confirm(self) -> None:
        """Make sure that messages may be handed out now. May return early; see `sure_until`."""
        if self._open is None or self._suspect:
            await self.more(self._patience.sure)
        else:
            await self._patiently(self._position.lead(), self._patience.sure)

    async def _more(self, seconds: float) -> None:
        if self._suspect:
            await self._let_go()
            self._suspect = False
        if self._open is not None and not self._position.sure:
            await self._position.confirm()
        await self._look(seconds)

    async def _patiently(self, work: Coroutine[Any, Any, None], seconds: float) -> None:
        """Await `work`, for `seconds` and a little longer, and open the output anew should that fail."""
        try:
            async with asyncio.timeout(seconds + _GRACE):
                await work
            frames = self.held.next - self._position.saved.sequence
            if self._moved or (not self.held.count and frames >= max(1, self._window // 4)):
                # Frames without messages must not hold the flow back.
                await self.save(self.held.position, 0.0)
        except TakenOver:
            await self._let_go()  # else this handle would go on to get deliveries that are the newer handle's
            raise
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
        if self._open is not None and self._hold_due():
            return
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
        # No longer than this handle is sure of its name: else a newer handle would wait for this handle.
        await asyncio.wait({task}, timeout=min(seconds, self._patience.silence, self._patience.sure))
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
        memory = 0
        for delivery in [each for each in outcome if self._is_due(each)]:
            if memory > _MEMORY:
                return  # the next calls hold the others
            await self._admit(delivery)
            memory += most_memory_of(delivery.data)

    def _hold_due(self) -> bool:
        """Hold the next frames that have arrived, as far as memory goes; return whether there was any."""
        begin, memory = self.held.next, 0
        while memory <= _MEMORY and (delivery := self._due.get(self.held.next)) is not None:
            self._hold(delivery)
            memory += most_memory_of(delivery.data)
        return self.held.next > begin

    def _is_due(self, delivery: Delivery) -> bool:
        """Note a delivery and return whether its frame is to be held.

        A frame that the stored position covers is acknowledged again, for its first acknowledgement was lost.
        """
        if delivery.sequence < self._position.saved.sequence and self._open is not None:
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
        left, memory = self._window, 0
        async for record in self._open.output.read(self.held.next):
            if (before and record.sequence >= before) or not left or memory > _MEMORY or self._suspect:
                break
            self._hold(record)
            left -= 1
            memory += most_memory_of(record.data)
        return left < self._window

    def _hold(self, record: Record) -> None:
        self.skipped_frames += record.sequence - self.held.next
        try:
            frame = decode(record.data, OutputFrame)
            messages = messages_of(frame, self._flow)
        except (FrameError, ValueError) as error:
            if told := self._line.note():
                log.error(
                    "reader %s skips frame %d of %s: %s; %d frames since the last line",
                    self._name,
                    record.sequence,
                    self._flow,
                    error,
                    told,
                )
            self.skipped_frames += 1
            self._trail.add(record, [])
            self.held.add(record.sequence, [])
            return
        self._trail.add(record, frame.covers)
        self.held.add(record.sequence, messages, self._trail.repeats(frame))

    # -- opening ---------------------------------------------------------------------------------------------

    async def _opening(self, *, anew: bool = False, after_cut: bool = False) -> _Opened:
        """Open the output and begin to get deliveries; wait for a flow that was never started.

        Parameters
        ----------
        anew
            Whether the position is stored anew afterwards.
        after_cut
            Whether the link was down since the output was opened last.
        """
        while (output := await self._connection.find_log(self._subjects.output_stream)) is None:  # noqa: ASYNC110 - a start sets no event
            await asyncio.sleep(_POLL)
        stream = self._subjects.position_stream(self._name)
        while (positions := await self._connection.find_log(stream)) is None:
            await self._ask("the log of this reader's position")
        known = self._position.at
        state = await output.state()
        parting = await self._parting(output, state) if self._begun else None
        went_back = parting is not None
        claim = await self._position.claim(
            positions, state.first, went_back=went_back, anew=anew, after_cut=after_cut
        )
        start = stored_read(claim.stored).sequence
        if not self._begun:
            # After the claim: an older handle may have gone on reading until it handed the name over.
            state = await output.state()
            parting = await self._parting_of(claim.stored, output, state)
        consumer = await self._consumer(output, start if parting is None else parting)
        return _Opened(consumer, output, state, positions, claim, known, parting)

    async def _consumer(self, output: Log, start: int) -> Consumer:
        """Return this reader's consumer, set to deliver from `start` on; ask for it while it is missing.

        The consumer may stand elsewhere: where another handle has read on or sought, or in a log that went
        back. And frames that a killed process got and didn't acknowledge would come after newer frames.
        """
        while (consumer := await output.find_consumer(self._spec)) is None:
            await self._ask("this reader's consumer")
        self.lack = ""
        try:
            await consumer.reset(start)
        except TransportClosed:
            raise
        except BaseException as error:
            await consumer.close()
            if isinstance(error, TransportError):  # such as an earlier version's, which can't go back
                await self._ask("this reader's consumer, as it is made today")
            raise
        self._asked = -math.inf
        return consumer

    async def _ask(self, what: str) -> None:
        """Ask for `what`, unless that was done just now, and wait for a moment."""
        self.lack = (
            f"{what} is missing at the server. Letting a reader in makes what it needs (`flow.invite` with "
            'role="reader", or `pratipad certs issue reader`), and so does the flow while it runs: see '
            "whether the flow runs."
        )
        now = time.monotonic()
        if now - self._asked >= _ASK_AGAIN:
            self._asked = now
            log.info("reader %s of %s asks the flow: %s", self._name, self._flow, self.lack)
            try:
                await self._prepare()
            except (FlowError, FrameError, WaitTimeout) as error:
                log.info("reader %s of %s waits: %s", self._name, self._flow, error)
            else:
                return
        await asyncio.sleep(_POLL)

    async def _parting(self, output: Log, state: LogState) -> int | None:
        """Return the first frame that hasn't arrived if the log went back; else None."""
        newest, following = self._trail.newest, self.held.next
        if following <= state.last + 1 and (newest is None or await holds(output, newest, state)):
            return None
        return min(following, await self._trail.parting(output, state))

    async def _parting_of(self, stored: Record, output: Log, state: LogState) -> int | None:
        """Return the first frame that wasn't read if the log went back behind `stored`; else None."""
        newest, following = _landmark_of(stored), stored_read(stored).sequence
        if following <= state.last + 1 and (newest is None or await holds(output, newest, state)):
            return None
        if newest is None:
            return state.last + 1
        return min(following, await first_since(output, newest.time + LATER, state))

    def _begin(self, opened: _Opened) -> None:
        self._open = opened
        self._due.clear()
        self._newest = 0
        self._position.positions = opened.positions
        claim, stored = opened.claim, opened.claim.stored
        self._position.adopt_own(stored)
        # `stored` may be older than a position that this handle saved while the output was being opened.
        unmoved = stored.sequence == self._position.at or opened.known != self._position.at
        if self._begun and (claim.went_back or (unmoved and not claim.made)):
            if claim.went_back:
                self._position.begin(stored)
                self._moved = True
        else:
            self._begun = True
            self._position.begin(stored)
            self._trail.begin(_landmark_of(stored))
            self.held.begin(self._position.saved)
        if opened.parting is not None:
            self._go_back(opened, opened.parting)

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
        self._position.positions = None
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
        """Store `position`, and acknowledge the frames before it; see `StoredPosition.save`.

        Raises
        ------
        TakenOver
            If a newer handle reads under this reader's name.
        Fenced
            If the position was moved or forgotten elsewhere, or the log may have gone back; see `restart`.
        WaitTimeout
            If the server doesn't answer.
        """
        if self._suspect:
            raise Fenced(f"the link to {self._flow} was down, and its log may have gone back meanwhile")
        try:
            await self._position.save(position, seconds)
        except TakenOver:
            await self._let_go()
            raise
        except Fenced:
            self._suspect = self._suspect or await self._position.went_back()
            raise
        self._moved = False
        self._acknowledge()

    def _acknowledge(self) -> None:
        done = [sequence for sequence in self._due if sequence < self._position.saved.sequence]
        if not done or self._suspect:
            return
        newest = self._due[max(done)]
        for sequence in done:
            del self._due[sequence]
        if self._open is not None:
            self._open.consumer.acknowledge(newest)

    async def restart(self, seconds: float) -> None:
        """Find out why the position can't be stored, and go on; try for `seconds` and a little longer.

        If the log may have gone back, go on in the log as it is now, with the messages that wait here. If the
        position was moved elsewhere, forget these messages, and go on from the stored position.

        Raises
        ------
        WaitTimeout
            If the server doesn't answer.
        """
        if self._suspect:
            await self._compare(max(seconds, self._patience.store))
            return
        log.warning(
            "the position of reader %s of %s was moved or forgotten elsewhere; reading goes on from there",
            self._name,
            self._flow,
        )
        # First: a caller that is cancelled in `_let_go` must not go on with messages that are read elsewhere.
        self._begun = False
        self.held.begin(ReadFrame(0, 0))
        await self._let_go()

    async def _compare(self, seconds: float) -> None:
        """Open the output anew, find the place in it if it went back, and store the position then."""
        try:
            async with asyncio.timeout(seconds):
                while self._suspect:
                    await self._let_go()
                    self._suspect = False
                    self._begin(await self._opening(after_cut=True))
                    if self._moved:
                        with contextlib.suppress(Fenced):  # the link was down again
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
        opened = await self._opening(anew=True)
        self._begin(opened)
        state = opened.state
        position = ReadFrame(state.first if where == "oldest" else state.last + 1, 0)
        before = await entry_at(opened.output, position.sequence - 1) if where == "newest" else None
        self._trail.begin(landmark_of(before) if before is not None else None)
        await self.save(position, _STORE_PATIENTLY)
        self.held.begin(position)
        self._due.clear()
        self._newest = 0
        await opened.consumer.reset(position.sequence)

    async def pending(self) -> int:
        """Return the number of frames with messages that are not taken, frames in the log included."""
        output = await self._connection.find_log(self._subjects.output_stream)
        if output is None:
            return 0
        state = await output.state()
        first = self.held.position.sequence if self._begun else state.first
        return max(0, state.last + 1 - max(first, state.first))

    async def close(self) -> None:
        """Stop getting deliveries, and give the name back; the stored position stays."""
        self._forget_callback()
        await self._let_go()
        await self._position.give_back()


def _landmark_of(stored: Record) -> Landmark | None:
    """Return the newest frame of which messages before a `stored` position were taken; None if not known."""
    read = stored_read(stored)
    return Landmark(read.sequence - (not read.offset), read.seen) if read.seen else None
