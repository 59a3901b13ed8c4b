"""Which server runs in a folder, and whose it is: what a second process needs to join it.

Owns ``server.json`` and the lock on the folder. The lock is the truth (the operating system gives it up when its last
holder ends, and the server process itself is one); the file only says more about its holder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote

from pratipad_nb.errors import ServerError
from pratipad_nb.files import FileLock, write_whole
from pratipad_nb.server.config import ServerFiles

__all__ = [
    "ServerLocked",
    "ServerState",
    "is_running",
    "is_wanted",
    "locked_folder",
    "read_state",
    "unwant",
    "url_in",
    "write_state",
]

_POLL_SECONDS = 0.01
#: How long a holder that is starting, stopping or dying may take until it says who it is or is gone.
_UNDECIDED_SECONDS = 15.0
#: How long an owner may take to hand the folder over; one that runs an older version, or is frozen, never does.
_HANDOVER_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class ServerState:
    """A running server.

    Attributes
    ----------
    url
        Where to reach it from here: as a rule ``tls://127.0.0.1:PORT``.
    pid
        Its process id.
    owner
        Process id of who started it and restarts it.
    standalone
        Whether the owner is there for the server's sake, so that nobody takes over after it.
    mqtt
        Where it takes devices that speak MQTT, as ``mqtts://HOST:PORT``; empty if it takes none.
    leaf
        Whether it is a leaf of another server.
    """

    url: str
    pid: int
    owner: int
    standalone: bool = False
    mqtt: str = ""
    leaf: bool = False


class ServerLocked(ServerError):
    """Another process has a server on this folder. `state` says which; `JoinedServer` joins it."""

    def __init__(self, files: ServerFiles, state: ServerState) -> None:
        super().__init__(
            f"process {state.owner} already runs a NATS server at {state.url} on {files.folder}; two on one store would "
            "lose messages. Join that server, or end that process first."
        )
        self.state = state


def read_state(files: ServerFiles) -> ServerState | None:
    """Return which server runs according to its owner, None if it says nothing."""
    try:
        return ServerState(**json.loads(files.state.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_state(files: ServerFiles, state: ServerState | None) -> None:
    """Say which server runs; None: none."""
    if state is None:
        files.state.unlink(missing_ok=True)
    else:
        write_whole(files.state, json.dumps(asdict(state)).encode())


def is_running(files: ServerFiles) -> bool:
    """Return whether an owner or a server holds the folder now."""
    lock = FileLock(files.lock)
    if lock.try_acquire():
        lock.release()
        return False
    return True


def url_in(folder: Path) -> str:
    """Return where the server of `folder` is reached now; empty if none runs."""
    state = read_state(ServerFiles(folder))
    return state.url if state is not None else ""


def is_wanted(files: ServerFiles) -> bool:
    """Return whether a living process waits for the folder to be handed over to it."""
    try:
        return _lives(int(files.wanted.read_text()))
    except (OSError, ValueError):
        return False


def unwant(files: ServerFiles) -> None:
    """Take the wish to own the folder back, if it is this process's: it is fulfilled, or given up."""
    with contextlib.suppress(OSError, ValueError):
        if int(files.wanted.read_text()) == os.getpid():
            files.wanted.unlink()


async def locked_folder(
    files: ServerFiles,
    takes_over: Callable[[ServerState], bool] = lambda _: False,
    patience: float = _UNDECIDED_SECONDS,
) -> FileLock:
    """Take the lock on the folder and return it.

    Parameters
    ----------
    takes_over
        Whether the owner of that server is asked to hand the folder over; then it stops its server and joins the one
        that comes. `unwant` is to follow.
    patience
        How long a holder that says nothing of its server is waited for, in seconds.

    Raises
    ------
    ServerLocked
        If a living process owns a server there.
    ServerError
        If it doesn't become clear who holds it.
    """
    lock = FileLock(files.lock)
    deadline = time.monotonic() + patience
    handover = time.monotonic() + _HANDOVER_SECONDS
    while not lock.try_acquire():
        state = read_state(files)
        # A dead owner's server is about to be killed by its watchdog; a holder that says nothing starts or stops.
        if state is not None and _lives(state.owner):
            if not takes_over(state) or time.monotonic() > handover:
                raise ServerLocked(files, state)
            if not is_wanted(files):
                write_whole(files.wanted, str(os.getpid()).encode())
            deadline = time.monotonic() + patience
        if time.monotonic() > deadline:
            raise ServerError(
                f"another process holds {files.lock} and says nothing of its server. Find it (`fuser {quote(str(files.lock))}`) "
                "and end it, or choose another state folder (PRATIPAD_HOME)."
            )
        await asyncio.sleep(_POLL_SECONDS)
    # What a killed owner left.
    write_state(files, None)
    return lock


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
