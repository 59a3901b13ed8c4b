"""Joining the embedded server that another process owns.

Owns the second process's side: finding the server by its folder, and changing its register through the
same file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pratipad_nb.errors import ServerError
from pratipad_nb.server.admission import Admission
from pratipad_nb.server.config import ServerFiles
from pratipad_nb.server.leaves import end_leaves
from pratipad_nb.server.log_file import ServerLog
from pratipad_nb.server.register import Change, Register
from pratipad_nb.server.state import is_running, read_state
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.parties import Party

__all__ = ["JoinedServer"]


class JoinedServer:
    """A server that another process owns on `folder`, with the same methods as `EmbeddedServer`.

    The register is changed through the same file. The server ends with its owner; a process that joined may
    then start its own: the port, the store and the register stay.
    """

    def __init__(self, folder: Path, owner: Credentials | None = None) -> None:
        self._files = ServerFiles(folder.absolute())
        self._owner = owner
        self._admission = Admission(self._files, self._running_pid, end_leaves=self._end_leaves)
        self._url = ""

    @property
    def url(self) -> str:
        """The server's URL; empty before `start`."""
        return self._url

    @property
    def mqtt_url(self) -> str:
        """The URL for devices that speak MQTT; empty if the server takes none, or is down."""
        state = read_state(self._files)
        return state.mqtt if state is not None else ""

    @property
    def is_leaf(self) -> bool:
        """Whether the server joins another as a leaf."""
        state = read_state(self._files)
        return state is not None and state.leaf

    @property
    def pid(self) -> int | None:
        """The server's process id, None while the server is down."""
        state = read_state(self._files)
        return state.pid if state is not None else None

    @property
    def log(self) -> tuple[str, ...]:
        """The last lines of the server's log."""
        return ServerLog(self._files.log).last()

    @property
    def register(self) -> Register:
        """The parties that may connect, and what is known of their flows."""
        return self._admission.register()

    @property
    def running(self) -> bool:
        """Whether the owner still runs the server."""
        return is_running(self._files)

    async def start(self, parties: Iterable[Party] = ()) -> str:
        """Let `parties` into the running server and return its URL.

        Raises
        ------
        ServerError
            If no server runs on the folder, or as `allow`.
        """
        state = read_state(self._files)
        if state is None or not is_running(self._files):
            raise _ended(self._files)
        await self._admission.allow(parties)
        self._url = state.url
        return self._url

    async def change(self, change: Change) -> None:
        """Let parties in or out, or change the rules of flows; see `EmbeddedServer.change`."""
        await self._admission.change(change)

    async def allow(self, parties: Iterable[Party]) -> None:
        """Let `parties` in; see `EmbeddedServer.allow`."""
        await self._admission.allow(parties)

    async def revoke(self, party: Party) -> None:
        """Let `party` in no more and end its connections; see `EmbeddedServer.revoke`."""
        await self._admission.revoke(party)

    async def reload(self) -> None:
        """Have the server read its accounts and certificate again; see `EmbeddedServer.reload`."""
        await self._admission.reload()

    async def stop(self) -> None:
        """Leave the server, which goes on. Idempotent."""
        await self._admission.close()

    async def _end_leaves(self, accounts: set[str]) -> None:
        if self._owner is not None:
            await end_leaves(self._url, self._owner, accounts)

    def _running_pid(self) -> int | None:
        # The state of a killed owner stays, and its server's process id may be another process's by now.
        if not is_running(self._files):
            raise _ended(self._files)
        return self.pid


def _ended(files: ServerFiles) -> ServerError:
    return ServerError(
        f"no server runs on {files.folder} any more: its owner has ended. Start one (EmbeddedServer)."
    )
