"""Which server runs in a folder, and its owner: a second process needs both to join the server.

Owns ``server.json`` and the lock on the folder. The lock is the truth: the operating system releases it when
its last holder ends, and the server process is a holder. The file only says more about the holder.
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
#: Seconds in which a lock's holder that is starting, stopping or dying has to name itself or be gone.
_UNDECIDED_SECONDS = 15.0
#: Seconds that an owner has to hand the folder over; an older or a frozen owner never does.
_HANDOVER_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class ServerState:
    """A running server.

    Attributes
    ----------
    url
        The server's URL for this machine: as a rule ``tls://127.0.0.1:PORT``.
    pid
        The server's process id.
    owner
        Id of the process that started the server and restarts it.
    standalone
        Whether the owner exists for the server's sake, so that no other process takes over after it.
    mqtt
        The URL for devices that speak MQTT, as ``mqtts://HOST:PORT``; empty if the server takes none.
    leaf
        Whether the server is a leaf of another server.
    """

    url: str
    pid: int
    owner: int
    standalone: bool = False
    mqtt: str = ""
    leaf: bool = False


class ServerLocked(ServerError):
    """Another process has a server on this folder, described by `state`. `JoinedServer` joins it."""

    def __init__(self, files: ServerFiles, state: ServerState) -> None:
        super().__init__(
            f"process {state.owner} already runs a NATS server at {state.url} on {files.folder}; two on one "
            "store would lose messages. Join that server, or end that process first."
        )
        self.state = state


def read_state(files: ServerFiles) -> ServerState | None:
    """Return the running server as its owner has described it, None if the owner has not."""
    try:
        return ServerState(**json.loads(files.state.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_state(files: ServerFiles, state: ServerState | None) -> None:
    """Write which server runs; None: no server."""
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
    """Return the present URL of the server of `folder`; empty if no server runs."""
    state = read_state(ServerFiles(folder))
    return state.url if state is not None else ""


def is_wanted(files: ServerFiles) -> bool:
    """Return whether a living process waits for the folder to be handed over to it."""
    try:
        return _lives(int(files.wanted.read_text()))
    except (OSError, ValueError):
        return False


def unwant(files: ServerFiles) -> None:
    """Take this process's wish to own the folder back, fulfilled or given up; leave another process's."""
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
        Whether to ask the owner of a running server to hand the folder over; the owner then stops its server
        and joins the new one. The caller calls `unwant` afterwards.
    patience
        How long a holder that says nothing of its server is waited for, in seconds.

    Raises
    ------
    ServerLocked
        If a living process owns a server on the folder.
    ServerError
        If the lock's holder doesn't name itself.
    """
    lock = FileLock(files.lock)
    deadline = time.monotonic() + patience
    handover = time.monotonic() + _HANDOVER_SECONDS
    while not lock.try_acquire():
        state = read_state(files)
        # A dead owner's server is about to be killed by its watchdog; a holder that hasn't named itself is
        # starting or stopping.
        if state is not None and _lives(state.owner):
            if not takes_over(state) or time.monotonic() > handover:
                raise ServerLocked(files, state)
            if not is_wanted(files):
                write_whole(files.wanted, str(os.getpid()).encode())
            deadline = time.monotonic() + patience
        if time.monotonic() > deadline:
            raise ServerError(
                f"another process holds {files.lock} and says nothing of its server. Find it "
                f"(`fuser {quote(str(files.lock))}`) and end it, or choose another state folder "
                "(PRATIPAD_HOME)."
            )
        await asyncio.sleep(_POLL_SECONDS)
    # Remove the state that a killed owner left.
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
