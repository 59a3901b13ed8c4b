"""Positions: how far each device's messages are dealt with, and the chained output that keeps it.

This one module owns what makes delivery durable: nothing lost, nothing doubled, in order, one owner at a time.

* A **position** is a device, its epoch, and the number of its last message that is dealt with. Numbers run without a
  gap, so a lower one is a repeat, however old it is, and a higher one than the next says that something is missing.
  An **epoch** is one start of a device. See `Positions` for how many of them are kept, and why not all.
* The **output** is one chain: every frame is appended on condition that ours was the newest before it. Every frame
  names the positions it completes, so that results and positions can't be stored one without the other. An edge that
  another has replaced finds its condition broken: it is fenced.
* A **checkpoint** holds all positions as they stood at one frame of the output. A start reads the newest
  checkpoint and the output's frames since. The janitor never purges those.

The design foresaw a mark per device, written between the output's acknowledgement and the input's. A checkpoint of
all devices, written now and then, does the same: what is not in it is in the output since. That saves a write
per device and frame (with 10,000 devices a second one for every message) and lets the input be acknowledged at once.

The frames themselves are in `pratipad_nb.transport.frames`, and what happens between input and output in `pipeline`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from pratipad_nb.backoff import Backoff
from pratipad_nb.errors import Fenced, FrameError, LogFull, PayloadError, WaitTimeout
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import MarkFrame, OutputFrame, OutputHeader, Position, Segment
from pratipad_nb.transport.protocol import Connection, Log

__all__ = ["Admission", "OutputChain", "Positions"]

log = logging.getLogger(__name__)

#: Most epochs that are kept of one device, a power of two. A service that is restarted every ten seconds
#: makes as many in three hours.
_MOST_EPOCHS = 1024
#: So many epochs of a device are kept however many others there are.
_LEAST_EPOCHS = 8
#: Positions that are kept of all devices, as long as each has its `_LEAST_EPOCHS`. A checkpoint, made every
#: second, holds them all: 65,536 take some 25 ms to write.
_MOST_POSITIONS = 1 << 16

#: So many of the largest frames fill the output log: a frame has to fit into what the janitor, which begins to cut
#: at 80 %, leaves free.
_FRAME_SHARE = 8

#: A partition that has nothing to say while others append so many frames appends an empty one, for the janitor never
#: deletes a partition's newest frame.
_FRAMES_BEHIND = 1024

#: First and longest pause before an append to a full log, or a look at a server that is away, is tried again, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0


@dataclass(frozen=True, slots=True)
class Admission:
    """Of an arriving frame, how many of its first messages are repeats, and how many before it are `missing`."""

    skip: int
    missing: int


class Positions:
    """For every device, and each of its epochs, the number of the last message that is dealt with.

    Each message is taken once, and in order within its epoch, in any number of starts, with any clocks and in
    any overlap, for as long as its epoch is kept:

    * Epochs are told apart, never compared. The clocks of devices say nothing about which epochs still
      matter.
    * An epoch is forgotten (`forget_unused`) only when its device has more epochs than its share. The epoch
      whose position moved longest ago goes first, so an epoch that is in use is kept. A checkpoint names a
      device's epochs in the order in which they moved, and the output's frames since follow, so a restart
      forgets the same epochs.
    * The share is 1,024 epochs. It is halved, down to 8, while all devices have more than 65,536 positions.
      So the devices that have most epochs lose theirs first: a device that counts in a new epoch with each
      frame harms itself, and the checkpoint, which has to fit into a frame, stays within bounds.
    * A frame whose epoch was forgotten is admitted as new: its messages come once if they weren't stored, and
      once more if they were. From then on the epoch is kept again, as the epoch that moved last.

    To forget nothing would need to know of every start that no frame of it can come any more. No device can
    say that: a start that is killed says nothing, and a kept outbox may come back with its epoch after a
    year. A forgotten epoch puts at risk the messages that were stored and whose acknowledgement got lost, for
    all others have left the outbox. And its next frame is taken to stand behind a gap.
    """

    def __init__(self, positions: Iterable[Position] = ()) -> None:
        #: Of each device its epochs, in the order in which they moved.
        self._numbers: dict[str, dict[int, int]] = {}
        #: Devices that have a new epoch since `forget_unused` looked.
        self._grown: set[str] = set()
        self._share = _MOST_EPOCHS
        #: How many positions of devices there are; what stands for a dead letter or a replay is none.
        self._count = 0
        self.advance(positions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Positions) and self._numbers == other._numbers

    __hash__ = None  # type: ignore[assignment]

    def number(self, device: str, epoch: int) -> int:
        """Return the number of the last message dealt with; 0: none."""
        return self._numbers.get(device, {}).get(epoch, 0)

    def admit(self, device: str, epoch: int, first: int, count: int) -> Admission:
        """Say which of the messages `first` … `first + count - 1` are new."""
        last = self.number(device, epoch)
        return Admission(skip=min(count, max(0, last - first + 1)), missing=max(0, first - last - 1))

    def advance(self, positions: Iterable[Position]) -> None:
        """Move on to `positions`; those that lie behind change nothing."""
        for device, epoch, number in positions:
            epochs = self._numbers.setdefault(device, {})
            if number <= epochs.get(epoch, 0):
                continue
            if epoch not in epochs:
                self._grown.add(device)
                self._count += not device.startswith("#")
            elif next(reversed(epochs)) != epoch:
                del epochs[epoch]  # and so comes behind all others
            epochs[epoch] = number

    def forget_unused(self) -> list[Position]:
        """Forget the epochs that devices have beyond their share; return what was forgotten."""
        forgotten = self._cut(self._grown)
        self._grown.clear()
        while self._count > _MOST_POSITIONS and self._share > _LEAST_EPOCHS:
            self._share //= 2
            forgotten += self._cut(self._numbers)
        return forgotten

    def _cut(self, devices: Iterable[str]) -> list[Position]:
        """Forget what `devices` have beyond their share."""
        found = [
            (device, epoch, number)
            for device in devices
            if len(epochs := self._numbers.get(device, {})) > self._share
            for epoch, number in islice(epochs.items(), len(epochs) - self._share)
        ]
        self.drop(found)
        return found

    def drop(self, positions: Iterable[Position]) -> None:
        """Forget the epochs of `positions`, but those that have moved beyond."""
        for device, epoch, number in positions:
            epochs = self._numbers.get(device, {})
            if 0 < epochs.get(epoch, 0) <= number:
                del epochs[epoch]
                self._count -= not device.startswith("#")

    def ahead_of(self, other: Positions) -> int:
        """Return how many messages lie between `other`'s positions and these, where these are further."""
        return sum(
            max(0, number - other.number(device, epoch))
            for device, epoch, number in self.all()
            if not device.startswith("#")
        )

    def forget(self, device: str) -> None:
        """Drop what is known of `device`."""
        self.drop((device, epoch, number) for epoch, number in tuple(self._numbers.get(device, {}).items()))
        self._numbers.pop(device, None)

    def all(self) -> list[Position]:
        """Return every position, for a checkpoint."""
        return [
            (device, epoch, number)
            for device, epochs in self._numbers.items()
            for epoch, number in epochs.items()
        ]


class OutputChain:
    """The single writer of one partition of the output, and the owner of its positions.

    Parameters
    ----------
    connection, output, marks
        Where frames are appended, the output's log, and the log that holds checkpoints.
    out_subject, mark_subject
        The partition's subjects.
    """

    def __init__(
        self, connection: Connection, output: Log, marks: Log, *, out_subject: str, mark_subject: str
    ) -> None:
        self._connection = connection
        self._output = output
        self._marks = marks
        self._out = out_subject
        self._mark = mark_subject
        self.writer = uuid.uuid4().hex
        self.positions = Positions()
        #: Kept state of processors, by key, as of the newest checkpoint.
        self.states: dict[str, bytes] = {}
        self.last = 0
        self.checkpointed = 0
        self.full = asyncio.Event()
        self._number = 0
        self._marked = 0

    async def open(self) -> None:
        """Find out where the output stands, and take it over: from now on any earlier owner is fenced.

        Raises
        ------
        Fenced
            If yet another owner takes it over at the same time.
        """
        await self._read_checkpoint()
        await self._read_since(self.checkpointed)
        for _ in range(8):
            newest = await self._output.latest(self._out)
            if newest is not None and newest.sequence > self.last:
                await self._read_since(self.last)
            try:
                # An empty frame of ours breaks the condition of whatever an earlier owner has yet to append.
                self.last = await self._connection.append(self._out, self._frame([], []), expect=self.last)
            except Fenced:
                continue
            except LogFull:
                # The first frame with results will take it over; a full log takes nobody else's either.
                return
            await self._take_over_the_checkpoint()
            return
        raise Fenced(f"another edge goes on writing to {self._out}. Stop it first.")

    async def _read_checkpoint(self) -> None:
        record = await self._marks.latest(self._mark)
        if record is None:
            return
        mark = decode(record.data, MarkFrame)
        self.positions.advance(mark.positions)
        self.states = mark.states
        # A log that was deleted and made anew counts from 1 again; then the checkpoint speaks of the old one.
        state = await self._output.state()
        self.last = self.checkpointed = min(mark.sequence, state.last)

    async def _take_over_the_checkpoint(self) -> None:
        """Write one of our own: an earlier owner can't put an old one over it, nor does one of a deleted log stay."""
        while True:
            newest = await self._marks.latest(self._mark)
            self._marked = newest.sequence if newest else 0
            with contextlib.suppress(Fenced):  # the earlier owner's last one was quicker
                await self.checkpoint(self.states)
                return

    async def _read_since(self, sequence: int) -> None:
        async for record in self._output.read(sequence + 1, self._out):
            try:
                header = decode(record.data, OutputHeader)
            except FrameError:
                log.warning("frame %d of %s is none of ours; skipped", record.sequence, self._out)
            else:
                self.positions.advance(header.covers)
            self.last = record.sequence

    def _frame(self, covers: list[Position], segments: list[Segment]) -> bytes:
        self._number += 1
        return encode(OutputFrame(self.writer, self._number, covers, segments))

    async def append(self, covers: list[Position], segments: list[Segment]) -> int:
        """Store results together with the positions they complete; return the frame's sequence once it is safe.

        Waits for as long as the log is full (`full` is set meanwhile) or the server is away.

        Raises
        ------
        Fenced
            If another owner has taken over: none of this was stored, and nothing of ours will be.
        PayloadError
            If a payload is not JSON-like, or all together are too much for one frame: nothing was stored.
        """
        data = self._frame(covers, segments)
        most = min(self._connection.max_frame_bytes, self._output.spec.max_bytes // _FRAME_SHARE)
        if len(data) > most:
            raise PayloadError(
                f"results of {len(data)} bytes in one frame; at most {most} are taken, of which an output log of "
                f"{self._output.spec.max_bytes} bytes (`keep`) holds {_FRAME_SHARE} and a server at least one."
            )
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                self.last = await self._connection.append(self._out, data, expect=self.last)
                break
            except LogFull:
                self.full.set()
                # The janitor purges no frame that isn't in a checkpoint, and the next one of the pipeline stands
                # behind what waits here.
                with contextlib.suppress(WaitTimeout, LogFull):
                    await self.checkpoint()
                await asyncio.sleep(backoff.next())
            except (WaitTimeout, Fenced) as error:
                # An answer may be lost although the frame is stored; then the condition of a second try is broken
                # by our own frame. The newest frame tells.
                stored = await self._stored_sequence()
                if stored is not None:
                    self.last = stored
                    break
                if isinstance(error, Fenced):
                    raise
        self.full.clear()
        self.positions.advance(covers)
        return self.last

    async def _stored_sequence(self) -> int | None:
        """Return where the frame that was sent last is stored, None if it isn't."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                newest = await self._output.latest(self._out)
                break
            except WaitTimeout:
                await asyncio.sleep(backoff.next())
        if newest is None:
            return None
        try:
            header = decode(newest.data, OutputHeader)
        except FrameError:
            return None
        return newest.sequence if (header.writer, header.number) == (self.writer, self._number) else None

    async def keep_up(self) -> None:
        """Of several partitions: append an empty frame if the others are far ahead, so that theirs can be purged."""
        if (await self._output.state()).last - self.last > _FRAMES_BEHIND and not self.full.is_set():
            await self.append([], [])

    async def checkpoint(self, states: dict[str, bytes] | None = None) -> None:
        """Store all positions, and processors' states, as they stand now.

        Raises
        ------
        Fenced
            If another owner has taken over.
        WaitTimeout, LogFull
            If it can't be stored now; the one before it stays.
        PayloadError
            If it is too large.
        """
        if states is not None:
            self.states = states
        elif self.last == self.checkpointed:
            return
        sequence = self.last
        data = encode(MarkFrame(sequence, self.positions.all(), self.states, self.writer))
        while True:
            try:
                self._marked = await self._connection.append(self._mark, data, expect=self._marked)
                break
            except (WaitTimeout, Fenced):
                # As with results, the answer to this one or to one before may be lost.
                newest = await self._marks.latest(self._mark)
                if newest is None or newest.sequence == self._marked:
                    raise
                if decode(newest.data, MarkFrame).writer != self.writer:
                    raise
                self._marked = newest.sequence
        self.checkpointed = sequence
