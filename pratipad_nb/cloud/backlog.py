"""What has arrived at a reader and is not taken yet, frame by frame, and the messages in a frame.

Owns the arithmetic of positions in memory: which message is next, and what a position will be once some are taken.
Where frames come from is for `pratipad_nb.cloud.log_source` and `signal_source`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pratipad_nb.message import Message
from pratipad_nb.transport.frames import OutputFrame, ReadFrame, Segment, message_id

__all__ = ["Backlog", "messages_of"]


def messages_of(frame: OutputFrame, flow: str) -> list[Message]:
    """Return the messages of `frame`, in its order, with their ids.

    Raises
    ------
    ValueError
        If a segment's lists differ in length.
    """
    made: list[Message] = []
    for segment in frame.segments:
        device, received = segment.device, segment.received
        sources = segment.sources or [device] * len(segment.payloads)
        made += [
            Message(payload=payload, id=id, device=source, time=time, received=received, flow=flow)
            for id, source, time, payload in zip(  # noqa: A001 - as the message's attribute
                _ids(segment), sources, segment.times, segment.payloads, strict=True
            )
        ]
    return made


def _ids(segment: Segment) -> list[str]:
    """Return the id of every message of `segment`; most differ in their number alone."""
    device, epoch, retry = segment.device, segment.epoch, segment.retry
    count = len(segment.payloads)
    numbers = segment.numbers or range(segment.first, segment.first + count)
    if segment.parts or retry:
        parts = segment.parts or [0] * count
        return [
            message_id(device, epoch, number, part, retry)
            for number, part in zip(numbers, parts, strict=True)
        ]
    start = message_id(device, epoch, 0)[:-1]
    return [f"{start}{number}" for number in numbers]


@dataclass(slots=True)
class _Held:
    """A frame of which messages from `start` on are not taken."""

    sequence: int
    messages: list[Message]
    start: int


class Backlog:
    """The messages that wait to be taken.

    Attributes
    ----------
    count
        How many there are.
    next
        The sequence that the next frame to arrive has, unless one is missing.
    """

    def __init__(self) -> None:
        self.count = 0
        self.next = 0
        self._start = 0
        self._frames: deque[_Held] = deque()

    @property
    def frames(self) -> int:
        """How many frames have messages here."""
        return len(self._frames)

    @property
    def position(self) -> ReadFrame:
        """Where the first message that is not taken stands."""
        if not self._frames:
            return ReadFrame(self.next, self._start)
        return ReadFrame(self._frames[0].sequence, self._frames[0].start)

    def begin(self, position: ReadFrame) -> None:
        """Drop everything; the first message to come is the one at `position`."""
        self._frames.clear()
        self.count = 0
        self.next, self._start = position.sequence, position.offset

    def add(self, sequence: int, messages: list[Message]) -> None:
        """Add the frame at `sequence`, or what `begin` left of it. It may be empty."""
        start = self._start if sequence == self.next else 0
        self.next, self._start = sequence + 1, 0
        left = len(messages) - start
        if left > 0:
            self._frames.append(_Held(sequence, messages, start))
            self.count += left

    def peek(self, n: int) -> tuple[list[Message], ReadFrame]:
        """Return the next `n` messages, of which there must be as many, and the position behind them."""
        taken: list[Message] = []
        for held in self._frames:
            if len(taken) == n:
                return taken, ReadFrame(held.sequence, held.start)
            end = held.start + n - len(taken)
            taken += held.messages[held.start : end]
            if end < len(held.messages):
                return taken, ReadFrame(held.sequence, end)
        return taken, ReadFrame(self.next, 0)

    def drop(self, n: int) -> None:
        """Take out the next `n` messages."""
        self.count -= n
        while n:
            held = self._frames[0]
            step = min(n, len(held.messages) - held.start)
            held.start += step
            n -= step
            if held.start == len(held.messages):
                self._frames.popleft()

    def pop(self) -> Message:
        """Take out the next message, of which there must be one, and return it."""
        held = self._frames[0]
        message = held.messages[held.start]
        self.drop(1)
        return message

    def put_back(self, messages: list[Message]) -> None:
        """Let `messages`, which `drop` took out, be the next again; only where positions don't matter."""
        if messages:
            self._frames.appendleft(_Held(0, messages, 0))
            self.count += len(messages)

    def trim(self, most: int) -> int:
        """Drop the oldest frames until at most `most` messages are left; return how many frames went."""
        gone = 0
        while self.count > most and len(self._frames) > 1:
            held = self._frames.popleft()
            self.count -= len(held.messages) - held.start
            gone += 1
        return gone
