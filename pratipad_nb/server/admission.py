"""Letting parties in and out of a running server.

Owns the register's file, the accounts' file that follows from it, and the protocol by which several processes
change both: under a lock, as a whole, and holding the lock until the server says that it has read the
accounts. Calls within a few milliseconds become one change. A change that the server refuses changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

from pratipad_nb.bugs import log_bug
from pratipad_nb.errors import ServerError
from pratipad_nb.files import FileLock, write_whole
from pratipad_nb.server import config
from pratipad_nb.server.accounts import Account, account_names, flow_account, rendered_accounts
from pratipad_nb.server.config import ServerFiles, rendered_include
from pratipad_nb.server.log_file import ServerLog
from pratipad_nb.server.register import Change, Register, parsed_register, rendered_register
from pratipad_nb.transport.parties import Party
from pratipad_nb.wording import size

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
#: The server says that it reloaded, and leaves accounts without JetStream.
_LAMED = "Error enabling jetstream"


class Admission:
    """Changes the register of the server whose files are `files`.

    Parameters
    ----------
    files
        The server's files.
    running
        Returns the process id of the server, None while it is down and will come back; raises `ServerError`
        if the server won't come back.
    patience
        How long a change may take, and how long another process's change is waited for, in seconds.
    end_leaves
        Ends the links of leaves to the accounts of these names.
    """

    def __init__(
        self,
        files: ServerFiles,
        running: Callable[[], int | None],
        patience: float = _RELOAD_SECONDS,
        end_leaves: Callable[[set[str]], Awaitable[None]] | None = None,
    ) -> None:
        self._files = files
        self._patience = patience
        self._running = running
        self._end_leaves = end_leaves
        self._log = ServerLog(files.log)
        self._pending: list[Change] = []
        self._gathering: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        # What was read last, and of which state of the file: a loop of calls reads the file once.
        self._register = Register()
        self._stamp: tuple[int, int, int] | None = None

    def register(self) -> Register:
        """Return the register as it is now.

        Raises
        ------
        ServerError
            If its file is damaged.
        """
        try:
            status = self._files.parties.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp != self._stamp:
                self._register = parsed_register(self._files.parties.read_bytes())
                self._stamp = stamp
        except FileNotFoundError:
            self._register, self._stamp = Register(), None
        return self._register

    async def change(self, change: Change) -> None:
        """Let parties in or out, or change the rules of flows; return once the server knows.

        Raises
        ------
        SettingsError
            If the change exceeds a tenant's quota, or lets a guest in with whom the flow isn't shared.
        ServerError
            If the files can't be written, or the server doesn't take them.
        """
        await self._commit_with_others(change)

    async def allow(self, parties: Iterable[Party]) -> None:
        """Let `parties` in; see `change`."""
        if listed := tuple(parties):
            await self.change(Change(listed))

    async def revoke(self, party: Party) -> None:
        """Let `party` in no more, and end its connections; an unknown party is no error. See `change`.

        A party without a serial number means all certificates of its identity.
        """
        await self._commit_with_others(Change(gone=(party,)))

    async def reload(self) -> None:
        """Have the server read its files again, with the register unchanged."""
        await self._commit_with_others(Change())

    async def write(self, change: Change) -> None:
        """Change the register of a server that isn't running, and make the accounts anew.

        Raises
        ------
        SettingsError, ServerError
            As `change`.
        """
        async with self._locked():
            before = self.register()
            before.check(change)
            self._write(before.changed(change))

    async def close(self) -> None:
        """Break off a change under way."""
        self._gathering = None
        self._pending.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _commit_with_others(self, change: Change) -> None:
        # Checked alone first: a change that exceeds a quota must not fail the changes that gather with it.
        self.register().changed(*self._pending).check(change)
        self._pending.append(change)
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._commit(), name="parties of the server")
            self._tasks.add(self._gathering)
            self._gathering.add_done_callback(self._tasks.discard)
            # Every caller of the change may have been cancelled; then nobody else looks at how it ended.
            self._gathering.add_done_callback(partial(log_bug, log, "the change of the server's parties"))
        committed = self._gathering
        try:
            # Shielded, for the change isn't one caller's alone.
            await asyncio.shield(committed)
        except asyncio.CancelledError:
            if (
                committed.cancelled()
                and (task := asyncio.current_task()) is not None
                and not task.cancelling()
            ):
                raise ServerError(
                    "the server was stopped before it took the change of its parties."
                ) from None
            raise

    async def _commit(self) -> None:
        await asyncio.sleep(_GATHER_SECONDS)
        async with self._turn:  # while a change is under way, all later changes gather into the next
            changes, self._pending, self._gathering = self._pending, [], None
            async with self._locked():
                before = self.register()
                after = before.changed(*changes)
                self._write(after)
                try:
                    await self._confirmed()
                    if account_names(after) - account_names(before):
                        # nats-server 2.15: what a new account imports is dead until the second reload.
                        await self._confirmed()
                except ServerError:
                    self._write(before)
                    raise
            await self._end_links(changes)

    async def _end_links(self, changes: Sequence[Change]) -> None:
        """End what a reload leaves standing: the links of leaves that are let in no more."""
        gone = [party for change in changes for party in change.gone if party.role == "leaf"]
        if gone and self._end_leaves is not None:
            await self._end_leaves({flow_account(party.flow, party.tenant) for party in gone})

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        lock = FileLock(self._files.parties_lock)
        try:
            async with asyncio.timeout(self._patience):
                while not lock.try_acquire():  # noqa: ASYNC110 - another process can't set an event
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise ServerError(
                f"another process has been changing {self._files.parties} for over {self._patience:g} s. "
                "End it and try again."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _write(self, register: Register) -> None:
        accounts = rendered_accounts(register)
        self._check_room(register, accounts)
        try:
            write_whole(self._files.parties, rendered_register(register))
            write_whole(self._files.accounts, rendered_include(accounts))
        except OSError as error:
            raise ServerError(f"{self._files.parties} can't be written: {error.strerror}.") from error

    def _check_room(self, register: Register, accounts: Mapping[str, Account]) -> None:
        """Raise `ServerError` if the accounts may store more than the server.

        The server would take such accounts, and leave some flow without its streams, any one.
        """
        wanted = sum(max(0, account.get("jetstream", {}).get("max_file", 0)) for account in accounts.values())
        if wanted <= config.MAX_STORE:
            return
        before = self.register().rules
        # Only of the tenant whose flow asks for room: tenants learn nothing of each other.
        tenants = {_tenant(key) for key, rules in register.rules.items() if before.get(key) != rules}
        parts = ", ".join(
            f"{key!r} {size(rules.bytes)}"
            for key, rules in sorted(register.rules.items())
            if _tenant(key) in tenants
        )
        raise ServerError(
            f"the server may store {size(config.MAX_STORE)} on its disk, at {self._files.store}, and its "
            f"flows together might take {size(wanted)}: {parts}. Make the bounds of a flow smaller "
            "(keep=Keep(bytes=…), FlowOptions), or delete a flow that is over: flow.forget()."
        )

    async def _confirmed(self) -> None:
        """Have the server read the accounts, and return once its log says so; ask a restarted server anew."""
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
                f"the server has not read its accounts within {self._patience:g} s. Its log is "
                f"{self._files.log}."
            ) from error

    def _answered(self, position: int) -> bool:
        for line in self._log.since(position):
            if _LAMED in line:
                raise ServerError(
                    f"the server took its accounts, but could not give a flow its streams: "
                    f"{line.partition(_LAMED)[2].strip(': ')}. See {self._files.log}."
                )
            if _RELOADED in line:
                return True
            if _REFUSED in line:
                said = line.partition(_REFUSED)[2].strip(": ")
                raise ServerError(f"the server refused its accounts: {said}. See {self._files.log}.")
        return False


def _tenant(key: str) -> str:
    return key.rpartition("/")[0]
