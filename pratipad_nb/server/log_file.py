"""The embedded server's log file: its last lines, and what it said since a moment.

The server writes to a file and not into a pipe: nothing has to be read for it to go on, its last words outlive the
process that started it, and a process that has joined the server can read them too.
"""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path

__all__ = ["ServerLog"]

#: No more of the file than this is read for the last lines, in bytes.
_TAIL_BYTES = 64 << 10
#: ``[10024] 2026/11/23 23:55:21.276245 [ERR] what happened``
_COMPLAINT = re.compile(r"^\[\d+\] \S+ \S+ \[(?:FTL|ERR)\] (?P<said>.*)$|^nats-server: (?P<early>.*)$")


class ServerLog:
    """Reads the log file at `path`, which need not be there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def position(self) -> int:
        """Return the end of the log as it is now, for `since`."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def since(self, position: int) -> list[str]:
        """Return the lines written after `position`; if the file was rotated in between, those of the new one."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(position if position <= size else 0)
                return file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return []

    def last(self, lines: int = 50) -> tuple[str, ...]:
        """Return the last lines."""
        return tuple(deque(self.since(max(0, self.position() - _TAIL_BYTES)), maxlen=lines))

    def complaints(self, position: int) -> list[str]:
        """Return what of the lines after `position` says that something went wrong, without process and time."""
        found = (_COMPLAINT.match(line) for line in self.since(position))
        return [match["said"] or match["early"] for match in found if match]
