"""The embedded server's log file: its last lines, and its lines since a position.

The server writes to a file and not into a pipe: the server goes on when nobody reads, its last lines outlive
the process that started the server, and a process that has joined the server can read them too.
"""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path

__all__ = ["ServerLog"]

#: Most bytes of the file that are read for the last lines.
_TAIL_BYTES = 64 << 10
#: ``[10024] 2026/11/23 23:55:21.276245 [ERR] what happened``
_COMPLAINT = re.compile(r"^\[\d+\] \S+ \S+ \[(?:FTL|ERR)\] (?P<said>.*)$|^nats-server: (?P<early>.*)$")


class ServerLog:
    """Reads the log file at `path`, which need not exist."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        """The log file."""
        return self._path

    def position(self) -> int:
        """Return the present end of the log, for `since`."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def since(self, position: int) -> list[str]:
        """Return the lines after `position`; if the file was rotated meanwhile, the lines of the new file."""
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
        """Return the errors among the lines after `position`, without process and time."""
        found = (_COMPLAINT.match(line) for line in self.since(position))
        return [match["said"] or match["early"] for match in found if match]
