"""The origin of a frame: the process, and the edge or handle in it, that a frame comes from.

Owns how parties that share a name tell each other apart, and how a user finds the other process.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from datetime import datetime

import msgspec

__all__ = ["Origin"]

#: Longest host name that is shown: an origin may come from the network.
_SHOWN = 64


class Origin(msgspec.Struct, frozen=True, gc=False):
    """An edge, or the handle of a reader, and the process that it belongs to.

    `id` differs for each edge and handle. `since` is when the edge or handle was made, in seconds since 1970.
    """

    id: str
    host: str
    pid: int
    since: float

    @classmethod
    def here(cls) -> Origin:
        """Return a new origin in this process."""
        # A subject has the id as a token, and names begin with a letter.
        return cls(f"o{uuid.uuid4().hex}", socket.gethostname(), os.getpid(), time.time())

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host:.{_SHOWN}}, since {_clock(self.since)}"

    @property
    def gone(self) -> bool:
        """Whether the process has ended for certain: only a process of this computer is looked for."""
        if self.host != socket.gethostname() or os.name != "posix":
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError, ValueError):
            return True
        except OSError:  # the process of another user
            return False
        return False

    @property
    def in_this_process(self) -> bool:
        """Whether the edge or handle is, or was, in this process."""
        return (self.host, self.pid) == (socket.gethostname(), os.getpid())


def _clock(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, OSError, ValueError):
        return "an unknown time"
