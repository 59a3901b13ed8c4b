"""Files that two processes may want at once: written as a whole or not at all, and locks between processes.

Owns writing and locking for every room, and which folders are safe enough for keys. A lock is the operating
system's, so a killed process never leaves a lock behind.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from shlex import quote

from pratipad_nb.errors import SettingsError
from pratipad_nb.forks import keep_from_forks, unforked

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["FileLock", "guarded_folder", "private_folder", "set_aside", "write_together", "write_whole"]

_POLL_SECONDS = 0.005
#: A new file of ours: never one that is there already, nor the target of a link.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def private_folder(folder: Path) -> Path:
    """Make `folder`, and the folders above it, unless they exist; return it.

    `folder` alone is made readable by its owner only (0700).
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Made in one step with its mode, so that the folder is never open to others.
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def guarded_folder(folder: Path) -> Path:
    """Return `folder`, made by `private_folder`, if no other user can put files there: keys, users, settings.

    The folders above `folder` don't matter: a folder that another user puts in the place of `folder` belongs
    to that user.

    Raises
    ------
    SettingsError
        If others may write to `folder`, or another user owns it.
    """
    found = private_folder(folder).stat()
    if sys.platform == "win32":
        return folder
    owner, this = found.st_uid, os.geteuid()
    if owner != this:
        raise SettingsError(
            f"{folder}, which holds keys, belongs to the user {_user(owner)}, who could put other keys "
            f"there, and this process is {_user(this)}'s. Run: sudo chown -R {_user(this)} "
            f"{quote(str(folder))} (or run this as {_user(owner)}, or choose another state folder: "
            "PRATIPAD_HOME)."
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SettingsError(
            f"{folder}, which holds keys, may be written by other users (mode "
            f"{stat.S_IMODE(found.st_mode):04o}), who could put other keys there. Run: "
            f"chmod go-w {quote(str(folder))}"
        )
    return folder


def _user(number: int) -> str:
    """Return the name of a user; its number if it has no name here, as in many containers."""
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write `data` to `path`, so that a reader, or a crash, finds the old file or the new file, never a part.

    The new file has `mode`, less the process's umask, from its first byte on. A link at `path` is replaced,
    and its target left alone.
    """
    write_together({path: (data, mode)})


def write_together(files: Mapping[Path, tuple[bytes, int]]) -> None:
    """Write several files (path: content and mode) by `write_whole`, in their order, all of them or none.

    If there is no room for all, every old file stays. A crash may leave the first files new and the others
    old.
    """
    written: list[tuple[Path, Path]] = []
    try:
        for path, (data, mode) in files.items():
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            handle = os.open(temporary, _NEW, mode)
            written.append((temporary, path))
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for temporary, path in written:
            temporary.replace(path)
    except BaseException:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)
        raise


def set_aside(path: Path, *, also: Iterable[str] = ()) -> Path:
    """Rename `path`, which is damaged, to a free name that says the time; return that name.

    Parameters
    ----------
    also
        Endings of files beside `path` that belong to it. They keep their endings.

    Raises
    ------
    OSError
        If `path` can't be renamed.
    """
    when = time.strftime("%Y-%m-%d-%H-%M-%S")
    names = (
        path.with_name(f"{path.name}.damaged-{when}{again}")
        for again in ("", *map("-{}".format, range(2, 100)))
    )
    aside = next(name for name in names if not os.path.lexists(name))
    for ending in also:
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{ending}").rename(f"{aside}{ending}")
    return path.rename(aside)


class FileLock:
    """An exclusive lock on the file `path`, between processes, and between two `FileLock` of one process.

    The file stays when the lock is released: deleting the file would let two processes hold "the" lock at
    once. A child process that is given `descriptor` holds the lock too, until the child ends.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """The open file that carries the lock."""
        assert self._descriptor is not None, "the lock is not held"
        return self._descriptor

    def try_acquire(self) -> bool:
        """Take the lock if it is free; return whether this object holds the lock now."""
        if self._descriptor is not None:
            return True
        with unforked():
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
            try:
                _lock(descriptor)
            except OSError:
                os.close(descriptor)
                return False
            keep_from_forks(descriptor)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Release the lock. Idempotent."""
        if self._descriptor is not None:
            keep_from_forks(self._descriptor, until_closed=False)
            os.close(self._descriptor)
            self._descriptor = None

    @contextlib.contextmanager
    def held(self, timeout: float) -> Iterator[None]:
        """Hold the lock for the length of a ``with`` block; blocks the thread.

        Raises
        ------
        TimeoutError
            If another process holds the lock for longer than `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not self.try_acquire():
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process has held {self._path} for over {timeout:g} s")
            time.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            self.release()


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
