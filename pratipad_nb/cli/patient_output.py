"""The output of ``pratipad cloud``, its database and stdout: written to in any case, however long that takes.

Owns what becomes of a full disk and of a damaged database. A reader ends for neither: the reader's rule may
be what closes a window. The database's table is for `pratipad_nb.cloud.sqlite`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pratipad_nb.backoff import Backoff
from pratipad_nb.cli.exits import said
from pratipad_nb.cloud.sqlite import SinkAway, SinkDamaged, SQLiteSink
from pratipad_nb.errors import SettingsError
from pratipad_nb.files import set_aside
from pratipad_nb.message import Message
from pratipad_nb.wording import printable_json

__all__ = ["PatientSink", "print_patiently"]

#: First and longest pause before a write is tried again, in seconds.
_PAUSES = (0.1, 5.0)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


async def print_patiently(data: bytes, pauses: tuple[float, float] = _PAUSES) -> None:
    """Write `data`, lines of JSON, to stdout, control characters escaped; wait out a full disk."""
    sys.stdout.flush()
    left = memoryview(printable_json(data))
    backoff = Backoff(*pauses)
    waits = False
    while left:
        try:
            left = left[os.write(sys.stdout.fileno(), left) :]
        except OSError as error:
            if error.errno not in _FULL:
                raise
            if not waits:
                said(f"results can't be printed: {error.strerror}. They wait for room; none is lost.")
            waits = True
            await asyncio.sleep(backoff.next())


class PatientSink:
    """A SQLite file of messages.

    Parameters
    ----------
    path
        The file; made if it isn't there.
    """

    def __init__(self, path: Path, pauses: tuple[float, float] = _PAUSES) -> None:
        self._path = path
        self._pauses = pauses
        self._sink: SQLiteSink | None = None

    async def open(self) -> None:
        """Open the file, once that is possible.

        Raises
        ------
        SettingsError
            If the file is no SQLite file, or its folder can't be used.
        """
        await self.write(())

    async def write(self, messages: Sequence[Message]) -> None:
        """Write `messages`, once that is possible: a full disk is waited out, a damaged file is replaced.

        Raises
        ------
        PratipadError
            If the file can't be written for another reason.
        """
        backoff = Backoff(*self._pauses)
        waits = False
        while True:
            try:
                self._sink = self._sink or SQLiteSink(self._path)
                self._sink.write(messages)
            except SinkAway as error:
                if not waits:
                    said(f"{error} Results wait until then; none is lost.")
                waits = True
                await asyncio.sleep(backoff.next())
            except SinkDamaged as error:
                self._replace(error)
            else:
                if waits:
                    said(f"{self._path} can be written again.")
                return

    def _replace(self, error: SinkDamaged) -> None:
        self.close()
        try:
            aside = set_aside(self._path, also=("-wal", "-shm", "-journal"))
        except OSError as failure:
            raise SettingsError(
                f"{error} The file can't be moved aside: {failure.strerror}. Name another: --sqlite FILE."
            ) from error
        said(f"{error} The file was moved aside to {aside}; results go to a new file.")

    def close(self) -> None:
        """Close the file. Idempotent."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()
