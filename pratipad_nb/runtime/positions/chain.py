"""The output chain: results and the positions that they complete, in one frame, by one writer.

Owns taking the output over, appending to it, and storing a checkpoint. The docstring of `positions` says why
no message is lost or doubled. Which states go into a checkpoint is for `checkpoints`.

An entry that is no frame (`unreadable`) is no owner's, so it fences nobody:

* In the output, an owner goes on behind such an entry, if all entries since the owner's last frame are such.
* In the place of the checkpoint, the owner that runs stores its next checkpoint over the entry.
* A start that finds such an entry in the place of the checkpoint has lost what the checkpoint said. If the
  output holds every frame since its first, the positions are read from these frames alone, and are exact. The
  processors' states pass from the beginning of the input then, if the input still holds all (`opening`).
  Otherwise the start ends with an error: messages whose positions are unknown could come twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from typing import Literal

from pratipad_nb.backoff import Backoff
from pratipad_nb.errors import Fenced, FlowError, FrameError, LogFull, PayloadError, WaitTimeout
from pratipad_nb.runtime.positions.frame_names import last_name, name_of
from pratipad_nb.runtime.positions.lineage import Holder
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.runtime.positions.rebuilding import Behind, Rebuild
from pratipad_nb.runtime.positions.unreadable import Unreadable
from pratipad_nb.settings import Storage
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import MarkFrame, OutputFrame, OutputHeader, Position, Segment
from pratipad_nb.transport.protocol import Connection, Log, Record

__all__ = ["OutputChain"]

log = logging.getLogger(__name__)

#: So many of the largest frames fill the output log. The janitor begins to cut at 80 %, and a frame has to
#: fit into the remaining fifth.
_FRAME_SHARE = 8

#: While a partition has no results and others append so many frames, the partition appends an empty frame,
#: for the janitor never deletes a partition's newest frame.
_FRAMES_BEHIND = 1024

#: First and longest pause, in seconds, before an append to a full log, or a look at a server that is away, is
#: tried again.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0
#: How often taking the output over is tried while another owner goes on writing.
_TRIES = 8


class OutputChain:
    """The single writer of one partition of the output, and the owner of its positions.

    Parameters
    ----------
    connection, output, marks
        The connection to the server, the output's log, and the log that holds checkpoints.
    out_subject, mark_subject
        The partition's subjects.
    storage
        How the server's storage stands; results wait while the disk is tight.
    unreadable
        Counts the entries that are no frames.

    Attributes
    ----------
    states_lost
        Why the states of processors are not known: the checkpoint can't be read. Empty if they are known.
    """

    def __init__(
        self,
        connection: Connection,
        output: Log,
        marks: Log,
        *,
        out_subject: str,
        mark_subject: str,
        storage: Callable[[], Storage] = Storage,
        unreadable: Unreadable | None = None,
    ) -> None:
        self._unreadable = unreadable or Unreadable()
        self.states_lost = ""
        self._connection = connection
        self._output = output
        self._marks = marks
        self._out = out_subject
        self._mark = mark_subject
        self._storage = storage
        self.writer = uuid.uuid4().hex
        self.positions = Positions()
        #: States of processors' instances, by `StateKey`, as of the newest barrier.
        self.states: dict[str, bytes] = {}
        #: The input's sequence up to which all messages are in the states; None if no state is kept.
        self.floor: int | None = None
        #: Where the states stand, for each place whose position is ahead of the states.
        self.behind: Behind = {}
        #: The messages that the restored states lack; none until `restored`.
        self.rebuild = Rebuild("", {}, self.positions)
        self.last = 0
        #: Writer and number of the frame at `last`; None if they aren't known.
        self._newest: tuple[str, int] | None = None
        self.checkpointed = 0
        self.full = asyncio.Event()
        #: The last frame of the owner before: its writer, and its number by that writer.
        self.before: tuple[str, int] = ("", 0)
        self._number = 0
        self._marked = 0

    async def open(self) -> None:
        """Take the output over, so that any earlier owner is fenced from now on, then read the positions.

        An earlier owner that ends may store its last checkpoint meanwhile. So the checkpoint that is read and
        the checkpoint that ours replaces are the same: if another was quicker, all is read anew.

        Raises
        ------
        Fenced
            If yet another owner takes it over at the same time.
        FlowError
            If the checkpoint can't be read, and the positions aren't known without it.
        """
        taken_over = await self._take_over_the_output()
        while True:
            await self._read_checkpoint()
            if self.checkpointed > taken_over:
                self._note_lost_end(taken_over)
            await self._read_since(self.checkpointed)
            if self.states_lost:  # a start that ends before its states are rebuilt must leave the same behind
                return
            # An earlier owner can't put an old checkpoint over ours, and no checkpoint of a deleted log
            # stays.
            with contextlib.suppress(Fenced):
                await self._store_checkpoint()
                return

    @property
    def next(self) -> tuple[str, int]:
        """The next frame: its writer, and the least number that it may have."""
        return self.writer, self._number + 1

    async def _take_over_the_output(self) -> int:
        """Append an empty frame, if there is room; return the sequence of the partition's newest frame."""
        for _ in range(_TRIES):
            newest = await self._output.latest(self._out)
            name = await last_name(self._output, newest) if newest is not None else None
            self.before = name or ("", 0)
            at = newest.sequence if newest is not None else 0
            try:
                # An empty frame of ours breaks the condition of every append that an earlier owner has yet to
                # make.
                at = await self._connection.append(self._out, self._frame([], []), expect=at)
            except Fenced:
                continue
            except LogFull:
                # The first frame with results will take the output over. A full log takes no other owner's
                # frame either.
                pass
            else:
                self._newest = (self.writer, self._number)
            return at
        raise Fenced(f"another edge goes on writing to {self._out}. Stop it first.")

    async def read(self) -> None:
        """Read the positions and the states; take nothing over."""
        await self._read_checkpoint()
        await self._read_since(self.checkpointed)

    async def check_owner(self) -> None:
        """Raise `Fenced` if another owner has taken over."""
        await self._store_checkpoint()

    async def _read_checkpoint(self) -> None:
        """Read the newest checkpoint, or none, in place of all that was read before."""
        record = await self._marks.latest(self._mark)
        self.positions, self.states, self.floor, self.behind = Positions(), {}, None, {}
        self.last = self.checkpointed = self._marked = 0
        self.states_lost = ""
        if record is None:
            await self._check_whole(f"there is no checkpoint under {self._mark}")
            return
        mark = self._mark_of(record)
        if mark is None:
            await self._do_without(record)
            return
        self.positions.advance(mark.positions)
        self.states, self.floor = mark.states, mark.floor
        self.behind = {(device, epoch): number for device, epoch, number in mark.behind}
        self._marked = record.sequence
        self.last = self.checkpointed = mark.sequence

    def _mark_of(self, record: Record) -> MarkFrame | None:
        """Return the checkpoint in `record`; None if it is no checkpoint."""
        try:
            return decode(record.data, MarkFrame)
        except FrameError as error:
            self._unreadable.note(self._marks.spec.name, record, error)
            return None

    async def _do_without(self, record: Record) -> None:
        """Begin at the output's first frame, for the checkpoint can't be read."""
        name = self._marks.spec.name
        self.states_lost = f"entry {record.sequence} of log {name}, under {record.subject}, is no checkpoint"
        await self._check_whole(self.states_lost)
        self.floor, self._marked = 0, record.sequence

    async def _check_whole(self, why: str) -> None:
        """Raise `FlowError` if the output doesn't hold every frame since its first."""
        first = (await self._output.state()).first
        if first > 1:
            raise FlowError(
                f"{why}, and log {self._output.spec.name} holds no frame before {first}: which messages are "
                "delivered already isn't known. Restore the server's state folder from a backup, or forget() "
                "the flow, which deletes all that is stored of it."
            )

    def _note_lost_end(self, at: int) -> None:
        """Go on behind frame `at`, the newest: the output lost the frames from there to the checkpoint."""
        log.warning(
            "log %s went back, as after a power cut: the checkpoint of %s is of frame %d, and the newest "
            "frame is %d. Results between the two are lost.",
            self._output.spec.name,
            self._out,
            self.checkpointed,
            at,
        )
        self.last = self.checkpointed = at

    async def _read_since(self, sequence: int) -> None:
        async for record in self._output.read(sequence + 1, self._out):
            try:
                header = decode(record.data, OutputHeader)
            except FrameError as error:
                self._unreadable.note(self._output.spec.name, record, error)
                self._newest = None
            else:
                self._advance(header.covers)
                self._newest = (header.writer, header.number)
            self.last = record.sequence

    def _advance(self, covers: list[Position]) -> None:
        """Move the positions on to `covers`; the states stay where they stand."""
        if self.floor is not None:
            for device, epoch, _ in covers:
                self.behind.setdefault((device, epoch), self.positions.number(device, epoch))
        self.positions.advance(covers)

    def _frame(self, covers: list[Position], segments: list[Segment]) -> bytes:
        self._number += 1
        return encode(OutputFrame(self.writer, self._number, covers, segments))

    async def append(self, covers: list[Position], segments: list[Segment]) -> int:
        """Store results and the positions they complete; return the frame's sequence once the frame is safe.

        Waits for as long as the log is full or the disk is tight (`full` is set meanwhile), or the server is
        away.

        Raises
        ------
        Fenced
            If another owner has taken over: nothing was stored, and no further frame of ours will be.
        PayloadError
            If a payload is not JSON-like, or the results are too large for one frame: nothing was stored.
        """
        data = self._frame(covers, segments)
        most = min(self._connection.max_frame_bytes, self._output.spec.max_bytes // _FRAME_SHARE)
        if len(data) > most:
            raise PayloadError(
                f"results of {len(data)} bytes in one frame; at most {most} are taken, of which an output "
                f"log of {self._output.spec.max_bytes} bytes (`keep`) holds {_FRAME_SHARE} and a server at "
                "least one."
            )
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                if self._storage().tight:
                    # On a full disk the log would break, and could not even be purged.
                    raise LogFull("the disk is full")
                self.last = await self._connection.append(self._out, data, expect=self.last)
                self._newest = (self.writer, self._number)
                break
            except LogFull:
                self.full.set()
                # The janitor purges no frame that isn't in a checkpoint, and the pipeline's next barrier
                # stands behind the results that wait here.
                with contextlib.suppress(WaitTimeout, LogFull):
                    if self.last != self.checkpointed:
                        await self._store_checkpoint()
                await asyncio.sleep(backoff.next())
            except (WaitTimeout, Fenced) as error:
                # An answer may be lost although the frame is stored. Then our own frame breaks the condition
                # of a second try. The newest frame in the log tells whether it is ours.
                found = await self._since_last()
                if found == "ours":
                    break
                if isinstance(error, Fenced) and found != "no frame":
                    raise
        self.full.clear()
        self._advance(covers)
        return self.last

    @property
    def holder(self) -> Holder:
        """The output, for a `Lineage`."""
        return Holder(self._output.spec.name, self._difference)

    async def _difference(self) -> str:
        """Return how the output differs from what this owner knows, in words; empty if it goes on from there.

        Raises
        ------
        Fenced
            If another owner has taken over.
        """
        record = await self._output.latest(self._out)
        at, name = (record.sequence, name_of(record)) if record is not None else (0, None)
        if at < self.last or (at == self.last and self._newest is not None and name != self._newest):
            return f"{self._out} was at frame {self.last}, and log {self._output.spec.name} is now at {at}"
        if at > self.last and name is not None and name[0] != self.writer:
            raise Fenced(f"another edge has taken over {self._out}: it has appended frame {at}.")
        return ""

    async def _since_last(self) -> Literal["ours", "another's", "no frame", "nothing"]:
        """Return what the output holds behind `last`, and go on behind our own frame and what is no frame.

        Our own frame is the frame that was sent last.
        """
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                newest = await self._output.latest(self._out)
                if newest is None or newest.sequence <= self.last:
                    return "nothing"
                if name_of(newest) is None:
                    return await self._behind_last()
                break
            except WaitTimeout:
                await asyncio.sleep(backoff.next())
        if name_of(newest) != (self.writer, self._number):
            return "another's"
        self.last, self._newest = newest.sequence, (self.writer, self._number)
        return "ours"

    async def _behind_last(self) -> Literal["ours", "another's", "no frame", "nothing"]:
        """Return the same as `_since_last`, where the newest entry is no frame."""
        found: Literal["ours", "no frame", "nothing"] = "nothing"
        last = self.last
        async for record in self._output.read(last + 1, self._out):
            last = record.sequence
            try:
                header = decode(record.data, OutputHeader)
            except FrameError as error:
                self._unreadable.note(self._output.spec.name, record, error)
                found = "ours" if found == "ours" else "no frame"
            else:
                if (header.writer, header.number) != (self.writer, self._number):
                    return "another's"
                found = "ours"
        self.last, self._newest = last, None
        return found

    async def keep_up(self) -> None:
        """Append an empty frame if other partitions are far ahead, so that their frames can be purged."""
        if (await self._output.state()).last - self.last > _FRAMES_BEHIND and not self.full.is_set():
            await self.append([], [])

    async def checkpoint(self, states: dict[str, bytes], floor: int | None = None) -> None:
        """Store all positions as of now, with the processors' `states` of this moment.

        Parameters
        ----------
        floor
            The input's sequence up to which all entries were acknowledged before this moment; None: no state
            is kept.

        Raises
        ------
        Fenced
            If another owner has taken over.
        WaitTimeout, LogFull
            If the checkpoint can't be stored now; the checkpoint before it stays.
        PayloadError
            If the checkpoint is too large.
        """
        self.states, self.floor, self.behind = states, floor, self.rebuild.behind
        await self._store_checkpoint()

    async def _store_checkpoint(self) -> None:
        """Store all positions as of now, with the states of the last barrier."""
        sequence = self.last
        behind = [(device, epoch, number) for (device, epoch), number in self.behind.items()]
        mark = MarkFrame(sequence, self.positions.all(), self.states, self.writer, self.floor, behind)
        data = encode(mark)
        while True:
            try:
                self._marked = await self._connection.append(self._mark, data, expect=self._marked)
                break
            except (WaitTimeout, Fenced):
                # As with results, the answer to this checkpoint or to an earlier one may be lost.
                newest = await self._marks.latest(self._mark)
                at = newest.sequence if newest is not None else 0
                if at < self._marked and not await self._difference():
                    # The log of checkpoints went back alone. The output is what counts.
                    self._marked = at
                    continue
                if newest is None or at <= self._marked:
                    raise
                found = self._mark_of(newest)
                if found is None and not await self._difference():
                    self._marked = at
                    continue
                if found is None or found.writer != self.writer:
                    raise
                self._marked = newest.sequence
        self.checkpointed = sequence
