"""Letting users in and out of a running server.

Owns the users file and the protocol by which several processes change the file: under a lock, as a whole, and
holding the lock until the server says that it has read the file. Calls within a few milliseconds become one
change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from functools import partial

from pratipad_nb.bugs import log_bug
from pratipad_nb.errors import ServerError
from pratipad_nb.files import FileLock, write_whole
from pratipad_nb.server.config import ServerFiles, parsed_users, rendered_users
from pratipad_nb.server.log_file import ServerLog
from pratipad_nb.transport.permissions import User

__all__ = ["Admission"]

log = logging.getLogger(__name__)

#: How long changes gather: far below what a person or a TLS handshake notices, and enough for a loop of
#: calls.
_GATHER_SECONDS = 0.005
_POLL_SECONDS = 0.002
#: 10,000 users are read in 0.4 s.
_RELOAD_SECONDS = 10.0
_RELOADED = "Reloaded server configuration"
_REFUSED = "Failed to reload server configuration"


class Admission:
    """Changes the users of the server whose files are `files`.

    Parameters
    ----------
    files
        The server's files.
    running
        Returns the process id of the server, None while it is down and will come back; raises `ServerError`
        if the server won't come back.
    patience
        How long a change may take, and how long another process's change is waited for, in seconds.
    """

    def __init__(
        self, files: ServerFiles, running: Callable[[], int | None], patience: float = _RELOAD_SECONDS
    ) -> None:
        self._files = files
        self._patience = patience
        self._running = running
        self._log = ServerLog(files.log)
        self._pending: dict[str, User | None] = {}
        self._gathering: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def users(self) -> tuple[User, ...]:
        """Return the users that may connect, by identity."""
        return tuple(sorted(self._read().values(), key=lambda user: user.identity))

    async def allow(self, users: Iterable[User]) -> None:
        """Let `users` in, with the permissions of known users replaced; return once the server knows.

        Raises
        ------
        ServerError
            If the users file can't be written, or the server doesn't take it.
        """
        if changes := {user.identity: user for user in users}:
            await self._change(changes)

    async def revoke(self, identity: str) -> None:
        """Let `identity` in no more, and end its connections; an unknown identity is no error.

        Raises
        ------
        ServerError
            As `allow`.
        """
        await self._change({identity: None})

    async def reload(self) -> None:
        """Have the server read its files again, with the users unchanged."""
        await self._change({})

    async def write(self, users: Iterable[User], gone: Iterable[str] = ()) -> None:
        """Add `users` to the file and remove the identities `gone`, for a server that isn't running yet."""
        async with self._locked():
            self._apply({user.identity: user for user in users} | dict.fromkeys(gone))

    async def close(self) -> None:
        """Break off a change under way."""
        self._gathering = None
        self._pending.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _change(self, changes: Mapping[str, User | None]) -> None:
        self._pending.update(changes)
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._commit(), name="users of the server")
            self._tasks.add(self._gathering)
            self._gathering.add_done_callback(self._tasks.discard)
            # Every caller of the change may have been cancelled; then nobody else looks at how it ended.
            self._gathering.add_done_callback(partial(log_bug, log, "the change of the server's users"))
        change = self._gathering
        try:
            # Shielded, for the change isn't one caller's alone.
            await asyncio.shield(change)
        except asyncio.CancelledError:
            if change.cancelled() and (task := asyncio.current_task()) is not None and not task.cancelling():
                raise ServerError("the server was stopped before it took the change of its users.") from None
            raise

    async def _commit(self) -> None:
        await asyncio.sleep(_GATHER_SECONDS)
        async with self._turn:  # while a change is under way, all later changes gather into the next
            changes, self._pending, self._gathering = self._pending, {}, None
            async with self._locked():
                self._apply(changes)
                await self._confirmed()

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        lock = FileLock(self._files.users_lock)
        try:
            async with asyncio.timeout(self._patience):
                while not lock.try_acquire():  # noqa: ASYNC110 - another process can't set an event
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise ServerError(
                f"another process has been changing {self._files.users} for over {self._patience:g} s. "
                "End it and try again."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _read(self) -> dict[str, User]:
        try:
            return parsed_users(self._files.users.read_bytes())
        except FileNotFoundError:
            return {}

    def _apply(self, changes: Mapping[str, User | None]) -> None:
        users = self._read()
        for identity, user in changes.items():
            if user is None:
                users.pop(identity, None)
            else:
                users[identity] = user
        try:
            write_whole(self._files.users, rendered_users(users.values()))
        except OSError as error:
            raise ServerError(f"{self._files.users} can't be written: {error.strerror}.") from error

    async def _confirmed(self) -> None:
        """Have the server read the file, and return once its log says so; ask a restarted server anew."""
        asked, position = None, 0
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    pid = self._running()
                    if pid is not None and pid != asked:
                        position = self._log.position()
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGHUP)
                            asked = pid
                    elif asked is not None and self._answered(position):
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise ServerError(
                f"the server has not read its users within {self._patience:g} s. Its log is "
                f"{self._files.log}."
            ) from error

    def _answered(self, position: int) -> bool:
        for line in self._log.since(position):
            if _RELOADED in line:
                return True
            if _REFUSED in line:
                said = line.partition(_REFUSED)[2].strip(": ")
                raise ServerError(f"the server refused its users: {said}. See {self._files.log}.")
        return False
