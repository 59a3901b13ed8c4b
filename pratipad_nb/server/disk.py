"""The disk of a server's store: whether there is room, and when a server that had none has to be restarted.

Owns the look at the disk. JetStream reserves nothing on the disk of an embedded server (`config`), so the
disk itself is the bound, and is watched here. Restarting the server is for `embedded`.

What nats-server 2.15 does on a full disk, tried: the log whose write failed takes no entry any more, whether
there is room again or not, and answers no append; other logs go on as long as their own writes succeed. All
entries that were acknowledged are there after a restart. So a restart is what makes a log take entries again,
and a restart before there is room would only fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pratipad_nb.server.config import ServerFiles
from pratipad_nb.server.log_file import ServerLog
from pratipad_nb.settings import Storage
from pratipad_nb.wording import size

__all__ = ["DiskSpace", "DiskWatch", "disk_space", "storage_in"]

#: Below so many bytes, or files, a disk is full: a log's next block doesn't fit.
_FULL_BYTES, _FULL_FILES = 1 << 20, 16
#: A disk has room from so many bytes and files on, or from this part of the disk on: with less, results wait,
#: and a server that found the disk full would be restarted for nothing, again and again.
_ROOM_BYTES, _ROOM_FILES, _ROOM_PART = 64 << 20, 64, 0.05
#: With less than so many times that room, old results are deleted, and no new message is taken: what has been
#: taken can then be worked off.
_SPARE, _SHORT = 4, 2
#: Bytes of the file that is written to see whether the disk takes writes: quotas show in no other way.
_TRIAL_BYTES = 1 << 20
#: Seconds between two looks.
_LOOK_SECONDS = 0.5
#: The server's words for a write that failed, after which the log concerned takes no entry.
_FAILED_WRITE = re.compile(
    r"no space left on device|disk quota exceeded|read-only file system|input/output error|"
    r"critical write error|disabling JetStream|will be DISABLED",
    re.IGNORECASE,
)


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """The space of the disk that the folder `path` is on.

    Attributes
    ----------
    free, total
        Bytes that are free for this user, and all bytes.
    free_files, files
        How many more files the disk takes, and how many in all; 0 of 0: the disk has no such bound.
    read_only
        Whether the disk takes no writes at all.
    """

    path: Path
    free: int
    total: int
    free_files: int
    files: int
    read_only: bool

    @property
    def full(self) -> bool:
        """Whether the disk takes no more entries of logs."""
        return self.read_only or self.free < _FULL_BYTES or self._few_files(_FULL_FILES)

    @property
    def margin(self) -> int:
        """How many bytes have to be free for a disk that has room."""
        return max(2 * _FULL_BYTES, min(_ROOM_BYTES, int(self.total * _ROOM_PART)))

    @property
    def has_room(self) -> bool:
        """Whether results can be stored, and a server that found the disk full can go on."""
        return not self.full and self.free >= self.margin and not self._few_files(_ROOM_FILES)

    @property
    def storage(self) -> Storage:
        """How the disk stands for those who store on it."""
        tight = not self.has_room
        short = tight or self.free < _SHORT * self.margin
        missing = max(0, _SPARE * self.margin - self.free)
        return Storage(self.words if short else "", self.total, missing, short, tight)

    def _few_files(self, few: int) -> bool:
        return self.files > 0 and self.free_files < few

    @property
    def words(self) -> str:
        """How the disk stands, in words."""
        if self.read_only:
            return f"the disk of the server's logs ({self.path}) is mounted read-only"
        if self._few_files(_ROOM_FILES):
            return (
                f"the disk of the server's logs ({self.path}) takes no more files: {self.free_files} of "
                f"{self.files:,} are left"
            )
        return (
            f"the disk of the server's logs ({self.path}) is full: {size(self.free)} of {size(self.total)} "
            f"are free; the logs go on from {size(_SHORT * self.margin)} on"
        )


def disk_space(path: Path) -> DiskSpace:
    """Return the space of the disk that `path`, or the nearest folder above it that exists, is on."""
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    found = os.statvfs(folder)
    return DiskSpace(
        path,
        found.f_bavail * found.f_frsize,
        found.f_blocks * found.f_frsize,
        found.f_favail,
        found.f_files,
        bool(found.f_flag & os.ST_RDONLY),
    )


def storage_in(folder: Path) -> Storage:
    """Return how the disk of the server of `folder` stands."""
    try:
        return disk_space(ServerFiles(folder).store).storage
    except OSError as error:
        trouble = f"the disk of the server's logs ({folder}) can't be looked at: {error.strerror}"
        return Storage(trouble, short=True, tight=True)


class DiskWatch:
    """Watches the disk of one server.

    Parameters
    ----------
    tell
        Called once, with the words, when the disk is found to be full, or a write of the server failed.

    Attributes
    ----------
    was_full
        Whether the disk was full since `recovered` was called last: a disk that fails otherwise may go on
        failing.
    """

    def __init__(self, files: ServerFiles, tell: Callable[[str], None]) -> None:
        self._store = files.store
        self._log = ServerLog(files.log)
        self._tell = tell
        self._failed = ""
        self.was_full = False

    async def recovered(self) -> str:
        """Wait until a write of the server has failed and the disk has room again; return that in words."""
        self.was_full = False
        position = self._log.position()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                space, position, complaint = await asyncio.to_thread(self._look, position)
            except OSError as error:  # the folder was deleted, or its disk is gone
                _log.debug("the disk of %s can't be looked at: %s", self._store, error)
                continue
            self._note(space, complaint)
            if self._failed and await self._takes_writes(space):
                self._failed = ""
                return (
                    f"the disk of the server's logs ({space.path}) has room again ({size(space.free)} free), "
                    "and the server needs a restart to write there"
                )

    async def room(self) -> None:
        """Wait while the disk is full, or still has too little room after it was."""
        while True:
            try:
                space = await asyncio.to_thread(disk_space, self._store)
            except OSError:  # a start will say what is wrong
                return
            self._note(space, "")
            if not self._failed or await self._takes_writes(space):
                self._failed = ""
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _look(self, position: int) -> tuple[DiskSpace, int, str]:
        """Return the space, the log's new end, and the server's last word of a write that failed."""
        space, end = disk_space(self._store), self._log.position()
        said = self._log.complaints(position) if end != position else ()
        return space, end, next((each for each in reversed(said) if _FAILED_WRITE.search(each)), "")

    def _note(self, space: DiskSpace, complaint: str) -> None:
        self.was_full = self.was_full or space.full
        if self._failed or not (space.full or complaint):
            return
        self._failed = space.words if space.full else f"the server can't write its logs: {complaint}"
        self._tell(self._failed)

    async def _takes_writes(self, space: DiskSpace) -> bool:
        return space.has_room and await asyncio.to_thread(_tried, self._store)


def _tried(folder: Path) -> bool:
    """Return whether a file can be written in `folder`."""
    with contextlib.suppress(OSError):
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_TRIAL_BYTES))
            file.flush()
            os.fsync(file.fileno())
        return True
    return False
