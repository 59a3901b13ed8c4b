"""The state folder as the command line uses it: its server, if it runs, and certificates for others.

Owns how a command finds its endpoint: in a folder that was carried here, or in the state folder. Certificates
are made by `pratipad_nb.pki`, users are let in by `pratipad_nb.server`; neither the authority nor the server
is imported where a certificate folder says all.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pratipad_nb.cli.exits import said
from pratipad_nb.errors import ConnectionRefused, ServerError, SettingsError
from pratipad_nb.files import write_whole
from pratipad_nb.pki.invitation import invitation_in
from pratipad_nb.settings import Credentials, Endpoint, party_name, valid_name

if TYPE_CHECKING:
    from pratipad_nb.pki.store import CertificateStore
    from pratipad_nb.server.config import ServerFiles
    from pratipad_nb.server.joined import JoinedServer
    from pratipad_nb.transport.permissions import Role, User

__all__ = [
    "allow",
    "answering_server",
    "certificate",
    "endpoint_for",
    "flows_of",
    "home_folder",
    "joined_server",
    "known_flows",
    "own_folder",
    "public_leaves_url",
    "public_url",
    "server_files",
    "started_server",
    "user_of",
]

#: Seconds between two looks for a server that a command waits for.
_LOOK_SECONDS = 0.2
_PUBLIC_URL = "public-url"
_PUBLIC_LEAVES_URL = "public-leaves-url"


def home_folder(home: Path | None) -> Path:
    """Return the state folder that ``--home`` means."""
    return (home or Path(".pratipad")).expanduser().absolute()


def own_folder(certs: Path, name: str) -> Path:
    """Return the certificate folder of the party `name`: `certs` itself, or the folder of that name in it."""
    inner = certs.expanduser() / name
    return inner if inner.is_dir() else certs.expanduser()


async def endpoint_for(
    role: Role,
    name: str,
    *,
    flow: str | None,
    server: str | None,
    certs: Path | None,
    home: Path | None,
    patience: float | None = 0.0,
) -> Endpoint:
    """Return the endpoint of the party `name`: the certificate folder's server, or the state folder's.

    Parameters
    ----------
    patience
        Seconds to wait for a server in the state folder; None: for ever.

    Raises
    ------
    SettingsError
        If neither options nor folder say the server and the flow.
    ServerError
        If no server runs in the state folder.
    """
    party_name(name, role)
    if flow is not None:
        valid_name(flow, "flow")
    if server is not None and server.startswith("memory://") and flow is not None:
        return Endpoint(server, flow)
    if certs is None:
        if server is not None:
            raise SettingsError(
                "--server goes with --certs DIR, the certificate folder of this " + role + "."
            )
        return await _endpoint_here(home_folder(home), role, name, flow, patience)
    folder = own_folder(certs, name)
    issued = invitation_in(folder)
    server = server or (issued.server if issued else "")
    flow = flow or (issued.flow if issued else None)
    if not server or flow is None:
        missing = "--flow NAME" if server else "--server URL"
        raise SettingsError(f"{folder} doesn't say it, so pass {missing}.")
    if issued is not None and (issued.role, issued.name) != (role, name):
        raise SettingsError(
            f"{folder} lets the {issued.role} {issued.name!r} in, not the {role} {name!r}. Issue one for it: "
            f"pratipad certs issue {role} {name} --flow {flow}"
        )
    return Endpoint(server, flow, Credentials.in_folder(folder))


async def _endpoint_here(
    home: Path, role: Role, name: str, flow: str | None, patience: float | None
) -> Endpoint:
    from pratipad_nb.server.disk import storage_in
    from pratipad_nb.server.state import url_in

    if flow is None:
        raise SettingsError("which flow? Pass --flow NAME, or --certs DIR with a folder that says it.")
    server = await started_server(home, patience)
    url = server.url
    try:
        credentials = await asyncio.to_thread(certificate, _store(home), role, flow, name)
        await server.allow([user_of(role, flow, name)])
    finally:
        await server.stop()
    folder = home / "server"
    return Endpoint(
        url, flow, credentials, functools.partial(url_in, folder), functools.partial(storage_in, folder)
    )


def _store(home: Path) -> CertificateStore:
    from pratipad_nb.pki.store import CertificateStore

    return CertificateStore.open(home)


def server_files(home: Path) -> ServerFiles:
    """Return the paths of the files of the server of `home`."""
    from pratipad_nb.server.config import ServerFiles

    return ServerFiles(home / "server")


def joined_server(home: Path) -> JoinedServer:
    """Return the server that runs in `home`; its `start` joins it.

    Raises
    ------
    ServerError
        If no server runs in `home`.
    """
    from pratipad_nb.server.joined import JoinedServer
    from pratipad_nb.server.state import is_running

    files = server_files(home)
    if not files.lock.exists() or not is_running(files):
        raise ServerError(
            f"no server runs in {home}. Start one (pratipad server, or pratipad run FILE), say where it is "
            "(--home), or pass --certs DIR with the certificate folder for a server elsewhere."
        )
    return JoinedServer(files.folder)


async def started_server(home: Path, patience: float | None) -> JoinedServer:
    """Return the server that runs in `home`, joined; wait up to `patience` seconds for it (None: for ever).

    Raises
    ------
    ServerError
        If no server runs in `home` by then.
    """
    end = None if patience is None else time.monotonic() + patience
    told = False
    while True:
        try:
            server = joined_server(home)
            await server.start()
        except ServerError:
            if end is not None and time.monotonic() >= end:
                raise
        else:
            return server
        if not told:
            said(
                f"waiting for a server in {home}. Start one (pratipad server), or pass --certs DIR with the "
                "certificate folder for a server elsewhere."
            )
        told = True
        await asyncio.sleep(_LOOK_SECONDS)


async def answering_server(url: str, credentials: Credentials) -> None:
    """Wait for a server elsewhere, at `url`.

    Raises
    ------
    NotInvited, CertificateError
        If the server, or this side, doesn't accept the other side's certificate.
    """
    from pratipad_nb.transport.tls import probe

    told = False
    while True:
        try:
            await probe(url, credentials)
        except ConnectionRefused as error:
            if not told:
                said(f"waiting for a server at {url}: {error}")
            told = True
            await asyncio.sleep(_LOOK_SECONDS)
        else:
            return


async def allow(home: Path, users: list[User]) -> str:
    """Let `users` into the server of `home` and return its URL; empty if it doesn't run yet."""
    from pratipad_nb.files import guarded_folder
    from pratipad_nb.server.users import Admission

    try:
        server = joined_server(home)
    except ServerError:
        files = server_files(home)
        guarded_folder(home)
        guarded_folder(files.folder)
        await Admission(files, lambda: None).write(users)
        return ""
    try:
        return await server.start(users)
    finally:
        await server.stop()


def user_of(role: str, flow: str, name: str) -> User:
    """Return the server's user for a party."""
    from pratipad_nb.transport.permissions import device_user, edge_user, leaf_user, reader_user

    if role == "leaf":
        return leaf_user(name, flow.split(",") if flow else ())
    if role == "edge":
        return edge_user(flow)
    return device_user(flow, name) if role == "device" else reader_user(flow, name)


def flows_of(user: User) -> list[str]:
    """Return the flows of a party: its one flow, or all flows whose results a leaf passes on."""
    from pratipad_nb.transport.subjects import Subjects

    flow, *_ = user.identity.split(":")[2:]
    if not _is_leaf(user):
        return [flow]
    names = (subject.split(".")[1] for subject in user.subscribe if subject.endswith(".order"))
    return sorted(name for name in names if Subjects(name).order in user.subscribe)


def known_flows(users: Iterable[User]) -> list[str]:
    """Return the flows of which the server lets an edge or a leaf in."""
    return sorted(
        {
            flow
            for user in users
            if _is_leaf(user) or user.identity.endswith(":edge")
            for flow in flows_of(user)
        }
    )


def _is_leaf(user: User) -> bool:
    return "LEAFNODE" in user.listeners


def certificate(store: CertificateStore, role: str, flow: str, name: str) -> Credentials:
    """Return the certificate of a party that connects from this machine, made or renewed if need be."""
    identity = user_of(role, flow, name).identity
    if role == "edge":
        return store.edge(flow, identity)
    return store.device(flow, name, identity) if role == "device" else store.reader(flow, name, identity)


def public_url(home: Path, url: str | None = None) -> str:
    """Return the public URL of the server of `home`, set to `url` if given; empty if it was never set."""
    return _told(home / _PUBLIC_URL, url)


def public_leaves_url(home: Path, url: str | None = None) -> str:
    """Return the public URL of the listener for leaves, as `public_url` does for clients."""
    return _told(home / _PUBLIC_LEAVES_URL, url)


def _told(path: Path, url: str | None) -> str:
    if url is not None:
        write_whole(path, f"{url}\n".encode(), 0o644)
        return url
    try:
        return path.read_text().strip()
    except OSError:
        return ""
