"""Batches: messages in columns on their way through the pipeline.

Owns where each message comes from (`Source`), and how far a batch completes its source (`Batch.done`). No
object is made per message: a message is an index into its source until its metadata are asked for.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pratipad_nb.message import Message
from pratipad_nb.runtime.values.sampling import Followed
from pratipad_nb.transport.frames import DeadEntry, Position, message_id
from pratipad_nb.transport.protocol import ConsumerState

__all__ = ["Barrier", "Batch", "Failed", "InputFrame", "Item", "Kind", "Source"]

#: Of messages that rebuild a state and failed the first time, told apart by device, epoch, number and part:
#: the keys of the processors that failed on them.
Failed = Mapping[tuple[str, int, int, int], frozenset[str]]

#: The kinds of messages. ``"new"``: from the input, or a dead letter that is retried. ``"replay"``: from a
#: tape. ``"rebuild"``: messages whose results are at Output, which pass the processors again for the sake of
#: their state alone.
Kind = Literal["new", "replay", "rebuild"]


@dataclass(frozen=True, slots=True)
class InputFrame:
    """An input frame as it was admitted: consecutive messages of one device.

    Attributes
    ----------
    device, epoch, first
        The device of the messages, the epoch, and the number of the first message.
    received, times
        When the server received the frame, and the device's time of each message; seconds since 1970-01-01
        UTC.
    on_safe
        Called once all results of the frame are safe at Output; acknowledges the frame.
    retry, part
        If the frame is one retried message: the sequence of its dead letter, and which of several results of
        its number it was. `retry` is 0 for a frame from a device.
    covers
        The position that the frame completes, if not the position of its messages: a retried dead letter's,
        or a replay's.
    sources
        Of a gateway's frame, the full name of each message's device.
    """

    device: str
    epoch: int
    first: int
    received: float
    times: Sequence[float]
    on_safe: Callable[[], None] | None = None
    retry: int = 0
    part: int = 0
    covers: Position | None = None
    sources: list[str] | None = None

    def source(self, offset: int) -> str:
        """Return the name of the device that message `offset` of the frame is from."""
        return self.sources[offset] if self.sources is not None else self.device

    def position(self, count: int) -> Position:
        """Return the position that the first `count` messages of the frame complete."""
        return self.covers or (self.device, self.epoch, self.first + count - 1)


class Source:
    """The input frames behind a batch. Messages are counted through all frames, and found by bisection."""

    __slots__ = (
        "__weakref__",
        "_complete",
        "_written",
        "failed",
        "flow",
        "followed",
        "frames",
        "kind",
        "size",
        "starts",
    )

    def __init__(
        self,
        flow: str,
        frames: Sequence[InputFrame],
        *,
        followed: Followed | None = None,
        kind: Kind = "new",
        failed: Failed | None = None,
    ) -> None:
        self.flow = flow
        #: The messages that are followed through the flow, for the inspector.
        self.followed = followed
        self.kind = kind
        #: Messages that failed the first time, where messages rebuild a state.
        self.failed = failed or {}
        self.frames = frames
        self.starts: list[int] = []
        size = 0
        for frame in frames:
            self.starts.append(size)
            size += len(frame.times)
        self.size = size
        self._complete = 0
        self._written = 0

    @property
    def rebuilds(self) -> bool:
        """Whether the messages pass the processors for the sake of their state alone."""
        return self.kind == "rebuild"

    @property
    def retried(self) -> bool:
        """Whether the messages are dead letters that are retried."""
        return any(frame.retry for frame in self.frames)

    def locate(self, index: int) -> tuple[InputFrame, int]:
        """Return the frame of message `index`, and the offset of the message in that frame."""
        at = bisect_right(self.starts, index) - 1
        return self.frames[at], index - self.starts[at]

    def message(self, index: int, payload: Any, part: int = 0) -> Message:
        """Return message `index`, or its `part`-th result, with its metadata and the given `payload`."""
        frame, offset = self.locate(index)
        number = frame.first + offset
        return Message(
            payload=payload,
            id=message_id(frame.device, frame.epoch, number, frame.part + part, frame.retry),
            device=frame.source(offset),
            time=frame.times[offset],
            received=frame.received,
            flow=self.flow,
        )

    def advance(self, done: int, covers: list[Position], complete: list[InputFrame]) -> int:
        """Note that all messages below index `done` are at Output; return how many of them are new.

        Adds the completed positions to `covers`, and the completed frames to `complete`.
        """
        while self._complete < len(self.frames):
            frame, start = self.frames[self._complete], self.starts[self._complete]
            count = min(done - start, len(frame.times))
            if count <= 0:
                break
            covers.append(frame.position(count))
            if count < len(frame.times):
                break
            complete.append(frame)
            self._complete += 1
        finished, self._written = done - self._written, done
        return finished

    def device(self, index: int) -> str:
        """Return the name of the device that message `index` is from."""
        frame, offset = self.locate(index)
        return frame.source(offset)


@dataclass(slots=True)
class Batch:
    """Payloads on their way, in their devices' order.

    Attributes
    ----------
    source, payloads, origins
        `origins[k]` is the index in the source of the message that `payloads[k]` stems from. Origins never
        fall, and all rows of a message are in one batch.
    done
        Once this batch is at Output, all messages of the source below this index are complete.
    replies, dead
        The replies of processors to devices, and the dead letters of failed messages, by the key of the
        (first) failed processor. Both are sent off before the batch counts as stored.
    stage
        Index of the stage where the batch enters; above 0 if a dead letter is retried.
    only
        The keys of the members of that stage that are to run; None for all.
    """

    source: Source
    payloads: list[Any]
    origins: Sequence[int]
    done: int
    replies: list[tuple[Any, Message]] = field(default_factory=list)
    dead: list[tuple[str, DeadEntry]] = field(default_factory=list)
    stage: int = 0
    only: frozenset[str] | None = None

    def __len__(self) -> int:
        return len(self.payloads)

    def message(self, row: int, payload: Any) -> Message:
        """Return the message in `row`, with the given `payload`."""
        return self.source.message(self.origins[row], payload, self._part(row))

    def _part(self, row: int) -> int:
        """Return which of the results of its message `row` is."""
        if isinstance(self.origins, range):
            return 0
        return row - bisect_left(self.origins, self.origins[row])

    def passing(self, keys: Collection[str], stage: int) -> Sequence[int]:
        """Return the rows that pass the processors `keys` of a stage: all but those that failed there before.

        Only rows that rebuild a state have failed before. A retried dead letter passes the processor that it
        failed on.
        """
        if not self.source.failed or (stage == self.stage and self.source.retried):
            return range(len(self))
        return [row for row in range(len(self)) if self._failed_on(row).isdisjoint(keys)]

    def _failed_on(self, row: int) -> frozenset[str]:
        frame, offset = self.source.locate(self.origins[row])
        identity = (frame.device, frame.epoch, frame.first + offset, frame.part + self._part(row))
        return self.source.failed.get(identity, frozenset())

    def only_rows(self, rows: Sequence[int]) -> Batch:
        """Return the batch with no other rows; its messages count as complete all the same."""
        if len(rows) == len(self):
            return self
        return replace(
            self, payloads=[self.payloads[row] for row in rows], origins=[self.origins[row] for row in rows]
        )


@dataclass(slots=True)
class Barrier:
    """Goes through the pipeline between two batches, and collects the state of every processor at that point.

    When the barrier reaches the output, the states and the stored positions are of one moment: a checkpoint.

    Attributes
    ----------
    progress
        If a state is kept: how far the input was acknowledged before the barrier was put in.
    behind_state
        Whether the barrier has passed a stage that keeps state.
    outcome
        Whether the checkpoint was stored; None until that is known.
    """

    states: dict[str, bytes] = field(default_factory=dict)
    progress: ConsumerState | None = None
    behind_state: bool = False
    outcome: bool | None = None


#: The items of the pipeline's queues; None ends a queue.
Item = Batch | Barrier | None
