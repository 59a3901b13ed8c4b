"""Access: how a flow gets to its server, and lets devices, readers and other edges in.

Owns the three ways to a server: the embedded server of a state folder (`Site`), an existing server with a
folder of certificates, and the in-memory transport. Callers use an `Access` and don't know which of the three
it is. Opening one access for a flow at a time is for `entrance`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pratipad_nb.errors import CertificateError, FlowError, SettingsError
from pratipad_nb.pki.invitation import Invitation
from pratipad_nb.settings import GUEST, Credentials, Endpoint, Leaf, Sync
from pratipad_nb.transport.frames import RenewedFrame
from pratipad_nb.transport.parties import Party, Role, flow_key
from pratipad_nb.transport.rights import Verb

if TYPE_CHECKING:
    from pratipad_nb.server.register import Rules
    from pratipad_nb.session.site import Site

__all__ = ["Access", "EmbeddedAccess", "ExternalAccess", "MemoryAccess", "open_access"]


class Access(Protocol):
    """A way to the server."""

    mqtt_url: str
    is_leaf: bool
    issues: bool

    async def endpoint_for(self, role: Role, name: str) -> Endpoint:
        """Let a party in, and return its endpoint."""

    async def declare(self, rules: Rules | None) -> None:
        """Have the server go by `rules` for the flow, from the start of the edge on; None: by none."""

    async def invite(self, name: str, folder: Path, role: Role, mqtt: bool) -> Endpoint:
        """Let a party in, write its certificate folder to `folder`, and return its endpoint."""

    async def renew(self, device: str, request: bytes) -> RenewedFrame:
        """Return a new certificate for the device, which has asked for it over its own connection.

        Raises
        ------
        CertificateError
            If `request` is none, or the authority isn't here.
        """

    async def revoke(self, role: Role, name: str) -> bool:
        """Let a party in no more; return whether it was let in."""

    async def share(self, tenant: str, reader: str) -> None:
        """Share the flow's output with the reader of another tenant."""

    async def unshare(self, tenant: str) -> bool:
        """Share it with no reader of that tenant any more; return whether it was shared."""

    async def who_can(self, verb: Verb, subject: str) -> tuple[str, ...]:
        """Return the identities of the flow's parties that may publish, or subscribe to, `subject`."""

    async def failure(self) -> None:
        """Wait until a bug of ours ends the watch over the server, and raise its exception."""

    async def close(self) -> None:
        """Give the access back."""


class EmbeddedAccess:
    """The embedded server of a state folder, shared by all flows of this process in that folder."""

    issues = True

    def __init__(self, flow: str, tenant: str, site: Site) -> None:
        self._flow = flow
        self._tenant = tenant
        self._site = site
        self.mqtt_url = site.mqtt_url
        self.is_leaf = site.is_leaf

    async def endpoint_for(self, role: Role, name: str) -> Endpoint:
        """Let a party in, making its certificate if there is none, and return its endpoint."""
        return await self._let_in(role, name)

    async def declare(self, rules: Rules | None) -> None:
        """Have the server go by `rules` for the flow, from the start of the edge on."""
        await self._site.declare(flow_key(self._flow, self._tenant), rules)

    async def invite(self, name: str, folder: Path, role: Role, mqtt: bool) -> Endpoint:
        """Let a party in, copy its certificate into `folder`, and return its endpoint.

        Raises
        ------
        SettingsError
            If `folder` holds anything else than this party's certificate, or can't be written to.
        """
        endpoint = await self._let_in(role, name, mqtt)
        credentials = endpoint.credentials
        assert credentials is not None
        # An edge's certificate bears the name of its flow.
        called, key = name if role != "edge" else self._flow, flow_key(self._flow, self._tenant)
        invitation = Invitation(role, called, key, endpoint.url)
        copied = await asyncio.to_thread(invitation.fill, folder, credentials)
        await self._site.note_carried(self._party(role, name), folder)
        return Endpoint(endpoint.url, endpoint.flow, copied, tenant=endpoint.tenant)

    async def who_can(self, verb: Verb, subject: str) -> tuple[str, ...]:
        """Return the identities of those that the server lets in, and that have the right."""
        return self._site.who_can(verb, subject, flow_key(self._flow, self._tenant))

    async def _let_in(self, role: Role, name: str, mqtt: bool | None = None) -> Endpoint:
        return await self._site.endpoint_for(self._party(role, name), mqtt)

    def _party(self, role: Role, name: str) -> Party:
        return Party(self._flow, role, "" if role == "edge" else name, self._tenant)

    async def renew(self, device: str, request: bytes) -> RenewedFrame:
        """Return a new certificate for the device, let in from now on."""
        return await self._site.renew(self._party("device", device), request)

    async def revoke(self, role: Role, name: str) -> bool:
        """Let a party in no more, and end its connections."""
        return await self._site.revoke(self._party(role, name))

    async def share(self, tenant: str, reader: str) -> None:
        """Share the flow's output with the reader of another tenant; the reader needs a certificate yet."""
        await self._site.share(Party(self._flow, "reader", f"{reader}{GUEST}{tenant}", self._tenant))

    async def unshare(self, tenant: str) -> bool:
        """Cut the readers of that tenant off, and forget their positions."""
        return await self._site.unshare(flow_key(self._flow, self._tenant), tenant)

    async def failure(self) -> None:
        """Wait until the site fails, and raise its exception."""
        await self._site.failure()

    async def close(self) -> None:
        """Release the site; its server stops with the last release."""
        await self._site.release()


class ExternalAccess:
    """A server that somebody else runs; its configuration decides who is let in, and how."""

    mqtt_url = ""
    is_leaf = False
    issues = False

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def endpoint_for(self, role: Role, name: str) -> Endpoint:
        """Return the edge's own endpoint; refuse devices and readers, which bring their own certificates."""
        if role == "edge":
            return self._endpoint
        raise FlowError(
            f"the {role} {name!r} needs a certificate of its own for {self._endpoint.url}, which only who "
            f"runs that server can make. Connect it with url, flow={self._endpoint.flow!r} and certs=FOLDER."
        )

    async def declare(self, rules: Rules | None) -> None:
        """Do nothing: its configuration is not ours, and the edge itself goes by the notation."""

    async def invite(self, name: str, folder: Path, role: Role, mqtt: bool) -> Endpoint:  # noqa: ARG002 - a protocol's method
        """Refuse to let anybody but the edge in: this server is not ours."""
        return await self.endpoint_for(role, name)

    async def renew(self, device: str, request: bytes) -> RenewedFrame:  # noqa: ARG002 - a protocol's method
        """Refuse: the authority isn't here."""
        raise CertificateError(
            f"the certificate of {device!r} can't be renewed here: the authority is elsewhere."
        )

    async def revoke(self, role: Role, name: str) -> bool:
        """Refuse: this server is not ours."""
        raise FlowError(
            f"the {role} {name!r} is let in by who runs {self._endpoint.url}, and is revoked there: pratipad "
            f"certs revoke {role} {name}."
        )

    async def share(self, tenant: str, reader: str) -> None:
        """Refuse: this server is not ours."""
        raise FlowError(
            f"with whom a flow at {self._endpoint.url} is shared is for who runs that server: the reader "
            f"{reader!r} of {tenant!r} needs a certificate, and an account, from there."
        )

    async def unshare(self, tenant: str) -> bool:
        """Refuse: this server is not ours."""
        raise FlowError(
            f"with whom a flow at {self._endpoint.url} is shared is for who runs that server; {tenant!r} can "
            "be cut off there alone."
        )

    async def who_can(self, verb: Verb, subject: str) -> tuple[str, ...]:
        """Refuse: an edge doesn't know whom else the server lets in."""
        raise FlowError(
            f"who has the right to {verb}, for {subject!r:.100}, is for {self._endpoint.url} to say, which "
            "others run. Ask where that server runs: flow.who_can(…) without server=, in that server's "
            "state folder. docs/security.md has the table of each role's rights."
        )

    async def failure(self) -> None:
        """Wait for ever: no server is watched here."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Do nothing: nothing was opened."""


class MemoryAccess:
    """The in-memory transport of `pratipad_nb.testing`: everybody in the process may come in."""

    mqtt_url = ""
    is_leaf = False
    issues = False

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def endpoint_for(self, role: Role, name: str) -> Endpoint:  # noqa: ARG002 - a protocol's method
        """Return the endpoint, which is the same for all parties."""
        return self._endpoint

    async def declare(self, rules: Rules | None) -> None:
        """Do nothing: the edge itself goes by the notation."""

    async def invite(self, name: str, folder: Path, role: Role, mqtt: bool) -> Endpoint:  # noqa: ARG002 - a protocol's method
        """Refuse: the in-memory transport has no certificates to write."""
        raise SettingsError(
            f"the {role} {name!r} needs no folder: at {self._endpoint.url}, which exists in this process "
            "alone, everybody may come in. Connect it with connect(flow)."
        )

    async def renew(self, device: str, request: bytes) -> RenewedFrame:  # noqa: ARG002 - a protocol's method
        """Refuse: the authority isn't here."""
        raise CertificateError(
            f"the certificate of {device!r} can't be renewed here: the authority is elsewhere."
        )

    async def revoke(self, role: Role, name: str) -> bool:
        """Refuse: nobody can be kept out."""
        raise SettingsError(
            f"at {self._endpoint.url}, which exists in this process alone, everybody may come in, and so may "
            f"the {role} {name!r}."
        )

    async def share(self, tenant: str, reader: str) -> None:
        """Do nothing: everybody may come in, guests too."""

    async def unshare(self, tenant: str) -> bool:
        """Refuse: nobody can be kept out."""
        raise SettingsError(
            f"at {self._endpoint.url}, which exists in this process alone, everybody may come in, and so may "
            f"{tenant!r}."
        )

    async def who_can(self, verb: Verb, subject: str) -> tuple[str, ...]:
        """Refuse: the in-memory transport knows no rights."""
        raise SettingsError(
            f"at {self._endpoint.url}, which exists in this process alone, everybody may {verb} everything, "
            f"{subject!r:.100} as well. Use a flow without server= to try rights: it has a real server."
        )

    async def failure(self) -> None:
        """Wait for ever: no server is watched here."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Do nothing: nothing was opened."""


async def open_access(
    flow: str,
    tenant: str,
    *,
    server: str | None,
    certs: Path | None,
    home: Path,
    sync: Sync,
    mqtt: bool | str = False,
    leaf_of: Leaf | None = None,
) -> Access:
    """Return the access that the checked arguments of a `Flow` mean.

    Raises
    ------
    ServerError
        If the embedded server can't be started.
    """
    if server is None:
        # Imported here: a flow against another server needs neither `cryptography` nor the server's binary.
        from pratipad_nb.session.site import Site

        return EmbeddedAccess(flow, tenant, await Site.acquire(home, sync, mqtt, leaf_of))
    if certs is None:
        return MemoryAccess(Endpoint(server, flow, tenant=tenant))
    return ExternalAccess(Endpoint(server, flow, Credentials.in_folder(certs), tenant=tenant))
