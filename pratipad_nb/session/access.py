"""Access: how a flow gets to its server, and lets others in.

Owns the three ways there are: the embedded server of a state folder (`Site`), an existing server with a folder of
certificates, and the in-memory transport. Everything above asks an `Access` and doesn't know which it is.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pratipad_nb.errors import FlowError, SettingsError
from pratipad_nb.settings import Credentials, Endpoint, Leaf, Sync
from pratipad_nb.transport.permissions import Role

if TYPE_CHECKING:
    from pratipad_nb.session.site import Site

__all__ = ["Access", "EmbeddedAccess", "ExternalAccess", "MemoryAccess", "open_access"]


class Access(Protocol):
    """A way to the server."""

    mqtt_url: str
    is_leaf: bool

    async def endpoint_for(self, role: Role, name: str) -> Endpoint:
        """Let a party in, and return what it connects to."""

    async def invite(self, name: str, folder: Path, role: Role) -> Endpoint:
        """Let a party in and write what it needs into `folder`."""

    async def failure(self) -> None:
        """Wait until the server can't be looked after any more, by a bug of ours, and raise its exception."""

    async def close(self) -> None:
        """Give it back."""


class EmbeddedAccess:
    """The server that runs in a state folder, shared by all flows of this process there."""

    def __init__(self, flow: str, site: Site) -> None:
        self._flow = flow
        self._site = site
        self.mqtt_url = site.mqtt_url
        self.is_leaf = site.is_leaf

    async def endpoint_for(self, role: Role, name: str) -> Endpoint:
        """Make the party's certificate if there is none, let it in, and return its endpoint."""
        return await self._site.endpoint_for(self._flow, role, name)

    async def invite(self, name: str, folder: Path, role: Role) -> Endpoint:
        """Do the same, and copy the certificate into `folder`."""
        endpoint = await self._site.endpoint_for(self._flow, role, name)
        credentials = endpoint.credentials
        assert credentials is not None
        copied = await asyncio.to_thread(_copy, credentials, folder)
        return Endpoint(endpoint.url, endpoint.flow, copied)

    async def failure(self) -> None:
        """Wait until the site fails, and raise its exception."""
        await self._site.failure()

    async def close(self) -> None:
        """Let the site go; with the last one its server stops."""
        await self._site.release()


def _copy(credentials: Credentials, folder: Path) -> Credentials:
    """Copy certificate files to where `Credentials.in_folder` looks for them."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = folder / "key.pem"
        key.touch(0o600)  # before there is anything in it
        shutil.copyfile(credentials.authority, folder / "ca.pem")
        shutil.copyfile(credentials.certificate, folder / "cert.pem")
        shutil.copyfile(credentials.key, key)
    except OSError as error:
        raise SettingsError(
            f"the certificate can't be written to {folder}: {error.strerror}. Name a folder that can be."
        ) from error
    return Credentials.in_folder(folder)


class ExternalAccess:
    """A server that somebody else runs; whom it lets in, and how, is decided there."""

    mqtt_url = ""
    is_leaf = False

    def __init__(self, flow: str, url: str, folder: Path) -> None:
        self._endpoint = Endpoint(url, flow, Credentials.in_folder(folder))

    async def endpoint_for(self, role: Role, name: str) -> Endpoint:
        """Return the edge's own endpoint; others bring their certificates along."""
        if role == "edge":
            return self._endpoint
        raise FlowError(
            f"the {role} {name!r} needs a certificate of its own for {self._endpoint.url}, which only who runs that "
            f"server can make. Connect it with url, flow={self._endpoint.flow!r} and certs=FOLDER."
        )

    async def invite(self, name: str, folder: Path, role: Role) -> Endpoint:  # noqa: ARG002 - a protocol's method
        """Refuse: this server is not ours."""
        return await self.endpoint_for(role, name)

    async def failure(self) -> None:
        """Wait for ever: nothing is looked after here."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Nothing was taken."""


class MemoryAccess:
    """The in-memory transport of `pratipad_nb.testing`: everybody in the process may come in."""

    mqtt_url = ""
    is_leaf = False

    def __init__(self, flow: str, url: str) -> None:
        self._endpoint = Endpoint(url, flow)

    async def endpoint_for(self, role: Role, name: str) -> Endpoint:  # noqa: ARG002 - a protocol's method
        """Return the one endpoint."""
        return self._endpoint

    async def invite(self, name: str, folder: Path, role: Role) -> Endpoint:  # noqa: ARG002 - a protocol's method
        """Refuse: there is nothing that could be written."""
        raise SettingsError(
            f"the {role} {name!r} needs no folder: at {self._endpoint.url}, which exists in this process alone, everybody "
            "may come in. Connect it with connect(flow)."
        )

    async def failure(self) -> None:
        """Wait for ever: nothing is looked after here."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Nothing was taken."""


async def open_access(
    flow: str,
    *,
    server: str | None,
    certs: Path | None,
    home: Path,
    sync: Sync,
    mqtt: bool | str = False,
    leaf_of: Leaf | None = None,
) -> Access:
    """Return the access that the arguments of a `Flow`, which are checked, mean.

    Raises
    ------
    ServerError
        If the embedded server can't be started.
    """
    if server is None:
        # Imported here, for a flow against a server elsewhere needs neither `cryptography` nor the binary.
        from pratipad_nb.session.site import Site

        return EmbeddedAccess(flow, await Site.acquire(home, sync, mqtt, leaf_of))
    if certs is None:
        return MemoryAccess(flow, server)
    return ExternalAccess(flow, server, certs)
