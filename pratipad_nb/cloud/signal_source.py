"""Frames of a fast flow: signals, at most once, kept in a bounded buffer until their messages are taken.

Owns the buffer and the count of missed frames. Nothing is stored: a new handle begins with the next frame to
come. Frames of a durable flow are for `log_source`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from typing import Literal

from pratipad_nb.cloud.backlog import Backlog, messages_of
from pratipad_nb.errors import FrameError
from pratipad_nb.seldom import Seldom
from pratipad_nb.tasks import first_of
from pratipad_nb.transport.codec import decode
from pratipad_nb.transport.frames import OutputFrame, ReadFrame
from pratipad_nb.transport.protocol import Connection, Signal, Subscription
from pratipad_nb.transport.room import Place
from pratipad_nb.transport.subjects import Subjects

__all__ = ["SignalSource"]

log = logging.getLogger(__name__)

#: Most memory that the messages take which wait here; beyond that the oldest frames are dropped, too.
_MEMORY = 256 << 20
#: Up to this part of it, it is no matter how far the most that a frame may take is from what it takes.
_ROOMY = 4


class SignalSource:
    """The frames that a fast flow sends to Output while this source listens.

    Attributes
    ----------
    astray
        False: no position is stored.
    lack
        Empty: nothing has to be made for a reader of signals.
    sure_until
        Infinite: each handle gets all frames that are sent while it listens, whatever its name.

    Parameters
    ----------
    most
        Most messages that wait here; beyond that the oldest frames are dropped and counted. A `take` of more
        messages raises it.
    """

    def __init__(self, connection: Connection, flow: str, most: int) -> None:
        self.held = Backlog()
        self.skipped_frames = 0
        self._line = Seldom()
        self.most = most
        self.astray = False
        self.lack = ""
        self.sure_until = math.inf
        self._connection = connection
        self._flow = flow
        self._subject = Subjects(flow).out_all
        self._subscription: Subscription | None = None
        self._filled = asyncio.Event()
        self._numbers: dict[tuple[str, str], int] = {}

    async def open(self) -> None:
        """Listen from now on. Idempotent."""
        if self._subscription is None:
            self._subscription = await self._connection.subscribe(self._subject, self._on_signal)

    async def more(self, seconds: float) -> None:
        """Wait at most `seconds` for frames to arrive."""
        await self.open()
        self._filled.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await first_of(self._filled.wait(), self._connection.failure())

    async def confirm(self) -> None:
        """Do nothing: no name is held."""

    def _on_signal(self, signal: Signal) -> None:
        try:
            frame = decode(signal.data, OutputFrame)
            messages = messages_of(frame, self._flow)
        except (FrameError, ValueError) as error:
            if told := self._line.note():
                log.error(
                    "a reader of %s skips a frame: %s; %d frames since the last line", self._flow, error, told
                )
            self.skipped_frames += 1
            return
        self._count_gap(signal.subject, frame)
        place = Place.of(self._flow, signal.data)
        if self.held.memory + place.size > _MEMORY // _ROOMY:
            # Readings are simple as a rule. A look into the frame would take as long as decoding it.
            place.tighten([message.payload for message in messages])
        self.held.add(self.held.next, messages, memory=place)
        self.skipped_frames += self.held.trim(self.most, _MEMORY)
        self._filled.set()

    def _count_gap(self, subject: str, frame: OutputFrame) -> None:
        """Count the frames that the writer has numbered between its last frame that came and `frame`."""
        key = (subject, frame.writer)
        before = self._numbers.get(key)
        if before is None:
            self._numbers = {k: v for k, v in self._numbers.items() if k[0] != subject}
        elif frame.number > before + 1:
            self.skipped_frames += frame.number - before - 1
        self._numbers[key] = frame.number

    async def save(self, position: ReadFrame, seconds: float) -> None:
        """Do nothing: a fast flow's position is not stored."""

    async def restart(self, seconds: float = 0.0) -> None:  # noqa: ARG002 - no server is asked
        """Forget the messages that wait."""
        self.held.begin(ReadFrame(0, 0))

    def wake(self) -> None:
        """Let a waiting `more` return at once."""
        self._filled.set()

    async def seek(self, where: Literal["oldest", "newest"]) -> None:
        """Forget the messages that wait if `where` is ``"newest"``; older frames are gone anyway."""
        if where == "newest":
            await self.restart()

    async def pending(self) -> int:
        """Return how many frames wait here."""
        return self.held.frames

    async def close(self) -> None:
        """Listen no longer."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()
