"""Named readers at the server: the log of each reader's position, and each reader's consumer of the output.

Owns how both are made, found and deleted. A reader itself makes and deletes neither: a party that may make a
consumer may let the server deliver entries to any subject. So whoever lets a reader in makes both for the
reader, with an edge's certificate (`prepare_reader`); an edge makes them anew when it starts
(`prepare_known_readers`), or when a reader asks for them.

Every position has a log of its own, so that a reader needs no right to a log that holds anything else. Its
first sequence is the time, in milliseconds, at which the log was made. So a position that was forgotten and
stored anew has a higher sequence than before, while a position in a store that went back has a lower one.

Up to version 0.1, positions were stored among the edge's marks. `carry_positions` moves them. It may be cut
off anywhere, and be done again or by several edges at once: an entry is deleted among the marks once it
stands in a log of its own, and `Logs.take_over` copies an entry only into a log that takes no other entry
yet.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import replace

from pratipad_nb.errors import FrameError
from pratipad_nb.transport.protocol import ConsumerSpec, Log, Logs, LogSpec, Record
from pratipad_nb.transport.subjects import Subjects

__all__ = [
    "POSITION_BYTES",
    "READER_WINDOW",
    "carry_positions",
    "forget_reader",
    "forget_readers",
    "has_read",
    "known_readers",
    "prepare_known_readers",
    "prepare_reader",
    "prepare_readers",
    "reader_consumer",
]

log = logging.getLogger(__name__)

#: Bound of the log of one reader's position, in bytes. A position has some hundred bytes, and the next is
#: stored before it is deleted.
POSITION_BYTES = 1 << 16
#: Most frames that a reader's consumer has in flight.
READER_WINDOW = 512
#: The consumer delivers a frame that isn't acknowledged again after this long, in seconds. Frames may well
#: wait at a reader for a user who takes seldom. A frame that is really missing is noticed sooner, and read
#: from the log directly.
_ACK_WAIT = 600.0


def reader_consumer(reader: str) -> ConsumerSpec:
    """Return the spec of the consumer of `reader` in the output."""
    return ConsumerSpec(reader, "all", max_pending=READER_WINDOW, ack_wait=_ACK_WAIT)


async def prepare_reader(logs: Logs, flow: str, reader: str) -> None:
    """Make the log of the position of `reader`, and its consumer if the flow has an output yet.

    Parameters
    ----------
    logs
        A connection with an edge's certificate, or the logs of another server (`Connection.beyond`).
    """
    await prepare_readers(logs, flow, (reader,))


async def prepare_readers(logs: Logs, flow: str, readers: Iterable[str]) -> None:
    """Do `prepare_reader` for all of `readers`."""
    await carry_positions(logs, flow)
    await _prepare(logs, Subjects(flow), readers)


async def _prepare(logs: Logs, subjects: Subjects, readers: Iterable[str]) -> None:
    output = await logs.find_log(subjects.output_stream)
    for reader in readers:
        await logs.open_log(_position_log(subjects, reader))
        if output is not None:
            await output.prepare_consumer(reader_consumer(reader))


async def prepare_known_readers(logs: Logs, flow: str) -> None:
    """Do `prepare_reader` for all readers of which the server has the log of a position."""
    await carry_positions(logs, flow)
    await _prepare(logs, Subjects(flow), await known_readers(logs, flow))


async def known_readers(logs: Logs, flow: str) -> list[str]:
    """Return the readers of which the server has the log of a position."""
    subjects = Subjects(flow)
    prefix = subjects.position_stream("")
    names = await logs.log_names(subjects.read_all)
    return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))


async def has_read(logs: Logs, flow: str, reader: str) -> bool:
    """Return whether `reader` has ever begun to read: its position is stored."""
    found = await logs.find_log(Subjects(flow).position_stream(reader))
    return found is not None and (await found.state()).messages > 0


async def carry_positions(logs: Logs, flow: str) -> None:
    """Move positions that are stored among the edge's marks, as up to version 0.1, into logs of their own."""
    subjects = Subjects(flow)
    marks = await logs.find_log(subjects.mark_stream)
    if marks is None:
        return
    if subjects.read_all in marks.spec.subjects:
        # Else the logs of the positions would be refused: two logs can't store one subject.
        marks = await logs.open_log(replace(marks.spec, subjects=(subjects.mark_all,)))
    former = [record async for record in marks.read(1, subjects.read_all)]
    async with asyncio.TaskGroup() as group:
        for record in former:
            try:
                reader = subjects.reader_of(record.subject)
            except FrameError as error:  # no reader can ask for it
                log.warning("entry %d of %s stays there: %s", record.sequence, marks.spec.name, error)
            else:
                group.create_task(_carry(logs, marks, _position_log(subjects, reader), record))


async def _carry(logs: Logs, marks: Log, own: LogSpec, record: Record) -> None:
    await logs.take_over(own, marks.spec.name)
    await marks.delete(record.sequence)


async def forget_reader(logs: Logs, flow: str, reader: str) -> None:
    """Delete the consumer and the position of `reader`, so that no frame is kept for that reader."""
    subjects = Subjects(flow)
    await carry_positions(logs, flow)
    await logs.delete_log(subjects.position_stream(reader))
    output = await logs.find_log(subjects.output_stream)
    if output is not None:
        await output.forget_consumer(reader)


async def forget_readers(logs: Logs, flow: str) -> list[str]:
    """Delete the positions of all readers, and return the names of the logs that held them."""
    subjects = Subjects(flow)
    gone = [subjects.position_stream(reader) for reader in await known_readers(logs, flow)]
    for name in gone:
        await logs.delete_log(name)
    return gone


def _position_log(subjects: Subjects, reader: str) -> LogSpec:
    name, first = subjects.position_stream(reader), int(time.time() * 1000)
    return LogSpec(name, (subjects.read(reader),), POSITION_BYTES, "latest", first=first)
