"""The trail: the frames that a reader has got lately, by which it finds its place in a log that went back.

Owns two questions about a log that went back (see `pratipad_nb.transport.landmarks`): from which frame on the
log has frames that this reader hasn't got, and which messages in those frames it has got all the same. An
edge makes results a second time if their inputs came back with the log. Such results stand in other frames
than before, but are of the same devices' messages, and each frame names the positions that it completes.

A trail is bounded. Behind its oldest frame, places are found by time alone, and repeats aren't recognised.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque

from pratipad_nb.transport.frames import OutputFrame, Position
from pratipad_nb.transport.landmarks import LATER, Landmark, entry_at, first_since, landmark_of
from pratipad_nb.transport.protocol import Log, LogState, Record

__all__ = ["Trail"]

#: Most frames on the trail, and most positions in them: about 10 MB.
_FRAMES = 4096
_POSITIONS = 1 << 16

_Step = tuple[Landmark, list[Position]]


def _sequence(step: _Step) -> int:
    return step[0].sequence


class Trail:
    """The newest frames that arrived at a reader, in order, each with the positions that it completes."""

    def __init__(self) -> None:
        self._steps: deque[_Step] = deque()
        self._positions = 0
        #: Of each device and epoch, the last message that had arrived in frames that the log lost.
        self._had: dict[tuple[str, int], int] = {}

    @property
    def newest(self) -> Landmark | None:
        """The newest frame; None if no frame is known."""
        return self._steps[-1][0] if self._steps else None

    @property
    def length(self) -> int:
        """How many frames are known."""
        return len(self._steps)

    def begin(self, newest: Landmark | None) -> None:
        """Forget all frames; `newest` is the frame that was read last, if it is known."""
        self._steps.clear()
        self._positions = 0
        self._had.clear()
        if newest is not None:
            self._steps.append((newest, []))

    def add(self, record: Record, covers: list[Position]) -> None:
        """Add a frame that has arrived."""
        self._steps.append((landmark_of(record), covers))
        self._positions += len(covers)
        while len(self._steps) > _FRAMES or (self._positions > _POSITIONS and len(self._steps) > 1):
            self._positions -= len(self._steps.popleft()[1])

    def time_of(self, sequence: int) -> float:
        """Return the time of the frame at `sequence`; 0 if it isn't on the trail."""
        at = bisect_left(self._steps, sequence, key=_sequence)
        known = at < len(self._steps) and _sequence(self._steps[at]) == sequence
        return self._steps[at][0].time if known else 0.0

    async def parting(self, log: Log, state: LogState) -> int:
        """Return the sequence of the first frame in `log` that isn't on the trail: the log went back.

        Parameters
        ----------
        state
            The log's state.
        """
        steps = [step[0] for step in self._steps if state.first <= step[0].sequence <= state.last]
        low, high = 0, len(steps)
        while low < high:
            middle = (low + high) // 2
            record = await entry_at(log, steps[middle].sequence)
            if record is not None and steps[middle].is_of(record):
                low = middle + 1
            else:
                high = middle
        if low:
            return steps[low - 1].sequence + 1
        return await first_since(log, self._steps[-1][0].time + LATER, state) if self._steps else state.first

    def part(self, at: int) -> None:
        """Forget the frames from `at` on, which the log has lost; remember which messages were in them."""
        while self._steps and _sequence(self._steps[-1]) >= at:
            _, covers = self._steps.pop()
            self._positions -= len(covers)
            for device, epoch, number in covers:
                # Epoch 0 is that of foreign devices, whose messages are numbered by the log that went back.
                if epoch and number > self._had.get((device, epoch), 0):
                    self._had[device, epoch] = number

    def repeats(self, frame: OutputFrame) -> list[tuple[int, int]]:
        """Return which messages of `frame` have arrived before, as ranges of places in the frame."""
        if not self._had:
            return []
        found: list[tuple[int, int]] = []
        end = 0
        for segment in frame.segments:
            begin, end = end, end + len(segment.payloads)
            last = self._had.get((segment.device, segment.epoch), 0)
            if segment.retry or not last:
                continue
            numbers = segment.numbers or range(segment.first, segment.first + len(segment.payloads))
            if known := bisect_right(numbers, last):
                found.append((begin, begin + known))
            if begin + known < end:  # later messages of this epoch are new
                del self._had[segment.device, segment.epoch]
        return found
