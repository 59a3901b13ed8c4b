"""The backlog: messages that have arrived at a reader and are not taken yet, frame by frame.

Owns the arithmetic of positions in memory: which message is next, and the position behind the next `n`
messages. Also owns making the messages of a frame. Fetching frames is for `log_source` and `signal_source`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from pratipad_nb.message import Message
from pratipad_nb.transport.frames import OutputFrame, ReadFrame, Segment, message_id
from pratipad_nb.transport.room import Place

__all__ = ["Backlog", "messages_of"]


def messages_of(frame: OutputFrame, flow: str) -> list[Message]:
    """Return the messages of `frame`, in the frame's order, with their ids.

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
    """Return the id of every message of `segment`; most ids differ in their number alone."""
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
    """A frame whose messages from `start` on are not taken.

    `lost`: the log went back and has lost the frame, whose place is before the log's frame `sequence`.
    `memory` is the memory of the frame; None: not counted.
    """

    sequence: int
    messages: list[Message]
    start: int
    lost: bool = False
    memory: Place | None = None

    def position(self, offset: int) -> ReadFrame:
        """Return the position of the frame's message `offset` in the log."""
        return ReadFrame(self.sequence, 0 if self.lost else offset)


class Backlog:
    """The messages that wait to be taken.

    Attributes
    ----------
    count
        How many messages wait.
    next
        The sequence of the next frame to arrive, unless a frame is missing.
    memory
        Most bytes that the frames take, by what is known of those that were added with their memory.
    """

    def __init__(self) -> None:
        self.count = self.memory = 0
        self.next = 0
        self._start = 0
        self._frames: deque[_Held] = deque()
        #: The places of frames that were not looked into, the oldest first.
        self._rough: deque[Place] = deque()

    @property
    def frames(self) -> int:
        """How many frames have messages that wait."""
        return len(self._frames)

    @property
    def position(self) -> ReadFrame:
        """The position of the first message that is not taken."""
        if not self._frames:
            return ReadFrame(self.next, self._start)
        return self._frames[0].position(self._frames[0].start)

    def begin(self, position: ReadFrame) -> None:
        """Drop all messages; the first message to come is the message at `position`."""
        self._frames.clear()
        self._rough.clear()
        self.count = self.memory = 0
        self.next, self._start = position.sequence, position.offset

    def add(
        self,
        sequence: int,
        messages: list[Message],
        without: Sequence[tuple[int, int]] = (),
        memory: Place | None = None,
    ) -> None:
        """Add the frame at `sequence`, which may be empty, from the position on that `begin` was given.

        Messages in the ranges `without`, which are in order, are left out. `memory` is counted by `trim`.
        """
        start = self._start if sequence == self.next else 0
        self.next, self._start = sequence + 1, 0
        for begin, end in without:
            self._hold(sequence, messages[:begin], start)
            start = max(start, end)
        self._hold(sequence, messages, start, memory)

    def _hold(self, sequence: int, messages: list[Message], start: int, memory: Place | None = None) -> None:
        left = len(messages) - start
        if left > 0:
            self._frames.append(_Held(sequence, messages, start, memory=memory))
            self.count += left
            if memory is not None:
                self.memory += memory.size
                self._rough.append(memory)

    def _part_with_first(self) -> _Held:
        held = self._frames.popleft()
        if held.memory is not None:
            self.memory -= held.memory.size
            if self._rough and self._rough[0] is held.memory:
                self._rough.popleft()
        return held

    def part(self, at: int) -> None:
        """Note that the log has lost the frames from the sequence `at` on: other frames have their sequences.

        The messages of those frames stay here. They come before the messages of the log's frame `at`.
        """
        for held in self._frames:
            if held.sequence >= at:
                held.sequence, held.lost = at, True
        self.next, self._start = at, 0

    def peek(self, n: int) -> tuple[list[Message], ReadFrame]:
        """Return the next `n` messages and the position behind them; at least `n` must wait."""
        taken: list[Message] = []
        for held in self._frames:
            if len(taken) == n:
                return taken, held.position(held.start)
            end = held.start + n - len(taken)
            taken += held.messages[held.start : end]
            if end < len(held.messages):
                return taken, held.position(end)
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
                self._part_with_first()

    def pop(self) -> Message:
        """Take out the next message and return it; at least one must wait."""
        held = self._frames[0]
        message = held.messages[held.start]
        self.drop(1)
        return message

    def put_back(self, messages: list[Message]) -> None:
        """Let `messages`, which `drop` took out, be the next again; only if positions don't matter."""
        if messages:
            self._frames.appendleft(_Held(0, messages, 0))
            self.count += len(messages)

    def trim(self, most: int, most_memory: int) -> int:
        """Drop the oldest frames until at most `most` messages are left, in at most `most_memory` bytes.

        The last frame stays, whatever is in it. Return the number of frames dropped.
        """
        gone = 0
        while len(self._frames) > 1 and (self.count > most or not self._fit(most_memory)):
            held = self._part_with_first()
            self.count -= len(held.messages) - held.start
            gone += 1
        return gone

    def _fit(self, most: int) -> bool:
        """Return whether the frames take at most `most` bytes; they are looked into only if they may not."""
        while self.memory > most and self._rough:
            self.memory -= self._rough.popleft().measure()
        return self.memory <= most
