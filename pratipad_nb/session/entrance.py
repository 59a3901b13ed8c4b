"""The entrance: one flow's way to its server, opened by the first who needs it and closed by `stop`.

Owns that there is one at a time. A device may come before its flow is started, so that it isn't the flow's start alone
that opens it. Which ways there are is in `access`.
"""

from __future__ import annotations

from pathlib import Path

from pratipad_nb.errors import ServerError
from pratipad_nb.session import state_folder
from pratipad_nb.session.access import Access, open_access
from pratipad_nb.session.checks import checked_role
from pratipad_nb.session.turn import Turn
from pratipad_nb.settings import Endpoint, FlowOptions, checked_path, valid_name
from pratipad_nb.transport.permissions import Role

__all__ = ["Entrance"]


class Entrance:
    """Where one flow connects, and lets others in.

    Parameters
    ----------
    flow
        Its name.
    server, certs
        Of an existing server, checked; None: the embedded one of `home`.
    home
        The state folder.
    options
        Those of the flow.
    """

    def __init__(
        self, flow: str, server: str | None, certs: Path | None, home: Path, options: FlowOptions
    ) -> None:
        self._flow = flow
        self._server = server
        self._certs = certs
        self._home = home
        self._options = options
        self._access: Access | None = None
        self._turn = Turn()

    async def opened(self) -> Access:
        """Return the access, opening it if it is closed.

        Raises
        ------
        ServerError
            If the embedded server can't be started.
        """
        async with self._turn.here():
            if self._access is None:
                self._access = await open_access(
                    self._flow,
                    server=self._server,
                    certs=self._certs,
                    home=self._home,
                    sync=self._options.sync,
                    mqtt=self._options.mqtt,
                    leaf_of=self._options.leaf_of,
                )
            return self._access

    async def close(self) -> None:
        """Give the access back; a closed one is left alone."""
        async with self._turn.here():
            access, self._access = self._access, None
            if access is not None:
                await access.close()

    async def failure(self) -> None:
        """Wait until the access that is open now fails by a bug of ours, and raise its exception."""
        if self._access is not None:
            await self._access.failure()

    @property
    def may_have_stored(self) -> bool:
        """Whether the flow can have stored anything, as far as that can be told without a connection."""
        return self._server is not None or self._flow in state_folder.flows_in(self._home)

    @property
    def mqtt_url(self) -> str:
        """Where devices that speak MQTT connect; empty if they can't, or while it is closed."""
        return self._access.mqtt_url if self._access is not None else ""

    async def endpoint_for(self, role: Role, name: str) -> Endpoint:
        """Let a party in by that name, and return what it connects to."""
        valid_name(name, checked_role(role))
        while True:
            access = await self.opened()
            try:
                return await access.endpoint_for(role, name)
            except ServerError:
                if access is self._access:
                    raise
                # The end of a run closed the access meanwhile: open it anew.

    async def invite(self, name: str, folder: str | Path, role: Role = "device") -> Endpoint:
        """Do the same, and write the party's certificate into `folder`."""
        valid_name(name, checked_role(role))
        path = checked_path(folder, "invite: folder")
        return await (await self.opened()).invite(name, path, role)
