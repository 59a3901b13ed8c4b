"""The entrance: one flow's access to its server, opened at its first use and closed by `stop`.

Owns that a flow has one access at a time. A device may come before its flow is started, so that not only the
flow's start opens the access. The kinds of access are in `access`.
"""

from __future__ import annotations

from pathlib import Path

from pratipad_nb.errors import ServerError, SettingsError
from pratipad_nb.server.register import Rules
from pratipad_nb.session import state_folder
from pratipad_nb.session.access import Access, open_access
from pratipad_nb.session.checks import checked_mqtt, checked_role, checked_subject, checked_verb
from pratipad_nb.session.turn import Turn
from pratipad_nb.settings import Endpoint, FlowOptions, checked_path, party_name, valid_name, valid_tenant
from pratipad_nb.transport.parties import Role, flow_key
from pratipad_nb.transport.rights import Verb
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Entrance"]


class Entrance:
    """The access of one flow, opened when it is needed.

    Parameters
    ----------
    flow, tenant
        The flow's name, and its tenant; empty: none.
    server, certs
        URL and certificate folder of an existing server, both checked; None: the embedded server of `home`.
    home
        The state folder.
    options
        The flow's options.
    """

    def __init__(
        self,
        flow: str,
        tenant: str,
        server: str | None,
        certs: Path | None,
        home: Path,
        options: FlowOptions,
    ) -> None:
        self._flow = flow
        self._tenant = tenant
        self._server = server
        self._certs = certs
        self._home = home
        self._options = options
        self._access: Access | None = None
        self._turn = Turn()

    async def opened(self) -> Access:
        """Return the access; open it if it is closed.

        Raises
        ------
        ServerError
            If the embedded server can't be started.
        """
        async with self._turn.here():
            if self._access is None:
                self._access = await open_access(
                    self._flow,
                    self._tenant,
                    server=self._server,
                    certs=self._certs,
                    home=self._home,
                    sync=self._options.sync,
                    mqtt=self._options.mqtt,
                    leaf_of=self._options.leaf_of,
                )
            return self._access

    async def close(self) -> None:
        """Give the access back; do nothing if it is closed."""
        async with self._turn.here():
            access, self._access = self._access, None
            if access is not None:
                await access.close()

    async def failure(self) -> None:
        """Wait until a bug of ours fails the access that is open now, and raise its exception."""
        if self._access is not None:
            await self._access.failure()

    @property
    def in_use(self) -> bool:
        """Whether the access is open, or being opened or closed."""
        return self._access is not None or self._turn.taken

    @property
    def may_have_stored(self) -> bool:
        """Whether the flow may have stored anything, as far as can be told without a connection."""
        return self._server is not None or flow_key(self._flow, self._tenant) in state_folder.flows_in(
            self._home
        )

    @property
    def mqtt_url(self) -> str:
        """URL for devices that speak MQTT; empty if the server takes none, or while the access is closed."""
        return self._access.mqtt_url if self._access is not None else ""

    async def endpoint_for(self, role: Role, name: str) -> Endpoint:
        """Let a party in by that name, and return its endpoint."""
        party_name(name, checked_role(role))
        while True:
            access = await self.opened()
            try:
                return await access.endpoint_for(role, name)
            except ServerError:
                if access is self._access:
                    raise
                # The end of a run closed the access meanwhile: open it anew.

    async def declare(self, rules: Rules | None) -> None:
        """Have the server go by `rules` for the flow, if the access is open."""
        if self._access is not None:
            await self._access.declare(rules)

    async def revoke(self, role: Role, name: str) -> bool:
        """Let a party in no more; return whether it was let in."""
        party_name(name, checked_role(role))
        return await (await self.opened()).revoke(role, name)

    async def share(self, tenant: str, reader: str) -> None:
        """Share the flow's output with the reader of another tenant."""
        self._check_other(tenant)
        party_name(reader, "reader")
        await (await self.opened()).share(tenant, valid_name(reader, "reader"))

    async def unshare(self, tenant: str) -> bool:
        """Share it with no reader of that tenant any more; return whether it was shared."""
        self._check_other(tenant)
        return await (await self.opened()).unshare(tenant)

    def _check_other(self, tenant: object) -> None:
        if valid_tenant(tenant) == self._tenant:
            whose = f"the tenant {tenant!r}" if tenant else "no tenant"
            raise SettingsError(
                f"the flow {flow_key(self._flow, self._tenant)!r} is of {whose} itself, whose readers are "
                "let in by invite(name, folder, role='reader'). Name another tenant to share the flow with."
            )

    async def invite(
        self, name: str, folder: str | Path, role: Role = "device", mqtt: bool = False
    ) -> Endpoint:
        """Let a party in by that name, write its certificate into `folder`, and return its endpoint."""
        party_name(name, checked_role(role))
        path = checked_path(folder, "invite: folder")
        return await (await self.opened()).invite(name, path, role, checked_mqtt(mqtt, role))

    async def who_can(self, verb: Verb, subject: str) -> tuple[str, ...]:
        """Return the identities of the flow's parties that may publish, or subscribe to, `subject`."""
        whole = Subjects(self._flow).whole(checked_subject(subject))
        return await (await self.opened()).who_can(checked_verb(verb), whole)
