"""The former input: version 0.1 kept a flow's input in a work queue, which moves into the log of today, once.

Owns the move. A stream's retention can't be changed in its place, and no two streams store one subject. So
the frames that the queue still holds, which are exactly those that no edge has acknowledged, are copied in
their order into the new log, under subjects of the move's own. The log's first sequence lies behind the
queue's last, so that a foreign client's message, whose number is its sequence, gets a number that is new.

The move can be killed at any moment, and the next start finishes it:

1. The new log stores the subjects of the move alone, until it is complete. A log that is found so is deleted,
   and the move begins anew.
2. The queue gives up the devices' subjects only for the last few frames. Meanwhile devices are told that no
   log is there, and send again; frames that nobody repeats (from MQTT) may be lost in these milliseconds.
3. One call gives the new log the devices' subjects. A log that is found so is complete.
4. The queue is deleted.

Frames that are moved count as received when they are moved.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pratipad_nb.errors import FlowError, FrameError, LogFull, WaitTimeout
from pratipad_nb.runtime.positions.unreadable import Unreadable
from pratipad_nb.runtime.values.plan import EdgeSettings, log_specs
from pratipad_nb.transport.codec import MAGIC
from pratipad_nb.transport.protocol import Connection, Log, LogSpec, Partitioning
from pratipad_nb.transport.subjects import Subjects

__all__ = ["FormerInput"]

log = logging.getLogger(__name__)

#: So few frames may be left to be copied when the queue gives up the devices' subjects.
_FEW = 32
#: Room in the new log besides the frames' own size, in bytes.
_ROOM = 1 << 20
#: Pause between two looks whether another partition's edge has moved the input, and the longest wait for it,
#: in seconds.
_LOOK, _PATIENCE = 0.2, 60.0


@dataclass(frozen=True, slots=True)
class _Copied:
    """How many entries of the queue were copied, up to which sequence, and the new log's present spec."""

    entries: int
    last: int
    spec: LogSpec

    def followed_by(self, more: _Copied) -> _Copied:
        return _Copied(self.entries + more.entries, more.last, more.spec)


class FormerInput:
    """Moves the input of a flow that version 0.1 has stored.

    Parameters
    ----------
    connection, settings
        The edge's connection, and how the flow runs.
    is_stored
        Returns whether the message of a foreign client, by its device and number, is at Output.
    check_owner
        Raises `Fenced` if another edge runs the flow by now: then that edge moves the input.
    unreadable
        Counts the entries that are of no device, and don't move.
    """

    def __init__(
        self,
        connection: Connection,
        settings: EdgeSettings,
        *,
        is_stored: Callable[[str, int], Awaitable[bool]],
        check_owner: Callable[[], Awaitable[None]],
        unreadable: Unreadable | None = None,
    ) -> None:
        self._unreadable = unreadable or Unreadable()
        self._connection = connection
        self._settings = settings
        self._subjects = Subjects(settings.name)
        self._is_stored = is_stored
        self._check_owner = check_owner
        self._spec = log_specs(settings)[self._subjects.input_stream]
        #: A part of the subjects of this move: frames of a move that was given up reach no other move's log.
        self._token = secrets.token_hex(8)

    async def move(self) -> None:
        """Move the input, if it is yet to be moved; in a partition other than the first, wait until it is.

        Raises
        ------
        Fenced
            If another edge has taken the flow over.
        WaitTimeout
            If the server doesn't answer, or the first partition's edge doesn't move the input.
        """
        queue = await self._connection.find_log(self._subjects.former_input_stream)
        if queue is None:
            return
        if self._settings.partition != 0:
            await self._wait()
            return
        if not await self._is_moved():
            await self._copy(queue)
        await self._check_owner()
        await self._connection.delete_log(queue.spec.name)

    async def _is_moved(self) -> bool:
        """Return whether the new log is complete."""
        found = await self._connection.find_log(self._subjects.input_stream)
        return found is not None and found.spec.subjects == self._spec.subjects

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + _PATIENCE
        while not await self._is_moved():
            if loop.time() > end:
                raise WaitTimeout(
                    f"the input of flow {self._settings.name!r} was stored by version 0.1, and waits to be "
                    "moved by the edge that runs partition 0. Stop edges of version 0.1, and start one of "
                    "this version that runs partition 0."
                )
            await asyncio.sleep(_LOOK)

    async def _copy(self, queue: Log) -> None:
        """Fill a new log with what `queue` holds, and give it the devices' subjects."""
        await self._connection.delete_log(self._subjects.input_stream)  # of a move that was given up
        state = await queue.state()
        staged = LogSpec(
            self._subjects.input_stream,
            (self._subjects.moving_all(self._token),),
            state.bytes + state.bytes // 4 + _ROOM,
            "log",
            partitioning=Partitioning(
                self._subjects.moving_all(self._token),
                self._subjects.input_root,
                self._settings.options.partitions,
            ),
            first=state.last + 1,
        )
        await self._connection.open_log(staged)
        copied = few = await self._copy_behind(queue, 0, staged)
        while few.entries > _FEW:
            few = await self._copy_behind(queue, copied.last, copied.spec)
            copied = copied.followed_by(few)
        retired = dataclasses.replace(queue.spec, subjects=(self._subjects.retired,), partitioning=None)
        await self._connection.open_log(retired)
        copied = copied.followed_by(await self._copy_behind(queue, copied.last, copied.spec))
        await self._check_owner()
        if copied.entries != (held := (await queue.state()).messages):
            raise FlowError(
                f"flow {self._settings.name!r}: of the input that version 0.1 has stored, {copied.entries} "
                f"frames were copied, and {held} are there: an edge of version 0.1 seems to run. Stop that "
                "edge, and start again."
            )
        size = max(self._spec.max_bytes, copied.spec.max_bytes)
        await self._connection.open_log(dataclasses.replace(self._spec, max_bytes=size))
        log.info("%d frames of flow %s are moved from version 0.1", copied.entries, self._settings.name)

    async def _copy_behind(self, queue: Log, last: int, spec: LogSpec) -> _Copied:
        """Copy the frames of `queue` behind the sequence `last`; the new log, opened by `spec`, may grow."""
        entries = 0
        async for record in queue.read(last + 1):
            last, entries = record.sequence, entries + 1
            try:
                device = self._subjects.device_of(record.subject)
            except FrameError as error:
                self._unreadable.note(queue.spec.name, record, error)
                continue
            if not record.data.startswith(MAGIC) and await self._is_stored(device, record.sequence):
                continue  # the number that such a message would have in the new log is a new one
            while True:
                try:
                    await self._connection.append(self._subjects.moving(self._token, device), record.data)
                    break
                except LogFull:
                    spec = dataclasses.replace(spec, max_bytes=2 * spec.max_bytes + len(record.data))
                    await self._connection.open_log(spec)
        return _Copied(entries, last, spec)
