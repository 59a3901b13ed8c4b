"""The names of output frames: the writer of a frame, and its number by that writer.

Owns reading a name off an entry of the output, and finding the last frame before entries that are no frames.
"""

from __future__ import annotations

from pratipad_nb.errors import FrameError
from pratipad_nb.transport.codec import decode
from pratipad_nb.transport.frames import OutputHeader
from pratipad_nb.transport.protocol import Log, Record

__all__ = ["last_name", "name_of"]

#: So many entries are looked at first, and the more the longer no frame is found.
_WINDOW, _GROWTH = 64, 8


def name_of(record: Record) -> tuple[str, int] | None:
    """Return the writer and the number of the frame in `record`; None if it is no output frame."""
    try:
        header = decode(record.data, OutputHeader)
    except FrameError:
        return None
    return header.writer, header.number


async def last_name(log: Log, newest: Record) -> tuple[str, int] | None:
    """Return the name of the last frame in `log` up to the entry `newest`; None if there is no frame."""
    name, begin, window = name_of(newest), newest.sequence, _WINDOW
    while name is None and begin > 1:
        end, begin = begin, max(1, begin - window)
        window *= _GROWTH
        async for record in log.read(begin, newest.subject):
            if record.sequence >= end:
                break
            name = name_of(record) or name
    return name
