"""The state folder as the command line uses it: its server, if it runs, and certificates for others.

Owns how a command finds its endpoint: in a folder that was carried here, or in the state folder. Certificates
are made by `pratipad_nb.pki`, users are let in by `pratipad_nb.server`; neither the authority nor the server
is imported where a certificate folder says all.
"""

from __future__ import annotations

import asyncio
import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pratipad_nb.cli.exits import said
from pratipad_nb.errors import ConnectionRefused, ServerError, SettingsError
from pratipad_nb.files import write_whole
from pratipad_nb.pki.invitation import invitation_in
from pratipad_nb.settings import Credentials, Endpoint, party_name

if TYPE_CHECKING:
    from pratipad_nb.pki.store import CertificateStore
    from pratipad_nb.server.config import ServerFiles
    from pratipad_nb.server.embedded import EmbeddedServer
    from pratipad_nb.server.joined import JoinedServer
    from pratipad_nb.server.register import Change, Register
    from pratipad_nb.transport.parties import Party, Role

__all__ = [
    "answering_server",
    "called",
    "certificate",
    "change",
    "endpoint_for",
    "home_folder",
    "joined_server",
    "known_flows",
    "let_in",
    "listed",
    "own_folder",
    "parties_in",
    "public_leaves_url",
    "public_url",
    "server_files",
    "started_server",
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


def called(role: Role, name: str, *, flow: str | None, certs: Path | None, tenant: str = "") -> Party | None:
    """Return the party that a command's options mean; None if they don't say its flow.

    The flow is `flow`, or else what the certificate folder says, which also says the tenant of the flow.

    Raises
    ------
    SettingsError
        If the options name no party, or the certificate folder is damaged.
    """
    from pratipad_nb.transport.parties import Party

    issued = invitation_in(own_folder(certs, name)) if certs is not None else None
    if issued is not None and (flow is None or (not tenant and issued.flow.endswith(f"/{flow}"))):
        flow = issued.flow
    return Party.called(role, flow, name, tenant) if flow is not None else None


async def endpoint_for(
    role: Role,
    name: str,
    *,
    flow: str | None,
    server: str | None,
    certs: Path | None,
    home: Path | None,
    tenant: str = "",
    patience: float | None = 0.0,
) -> Endpoint:
    """Return the endpoint of the party `name`: the certificate folder's server, or the state folder's.

    Parameters
    ----------
    flow
        The flow's name, or of a tenant's flow ``TENANT/NAME``.
    tenant
        The party's tenant; empty: none, or the flow's.
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
    party = called(role, name, flow=flow, certs=certs, tenant=tenant)
    if server is not None and server.startswith("memory://") and party is not None:
        return Endpoint(server, party.flow, tenant=party.tenant)
    if certs is None:
        if server is not None:
            raise SettingsError(
                "--server goes with --certs DIR, the certificate folder of this " + role + "."
            )
        return await _endpoint_here(home_folder(home), party, patience)
    folder = own_folder(certs, name)
    issued = invitation_in(folder)
    server = server or (issued.server if issued else "")
    if not server or party is None:
        missing = "--flow NAME" if server else "--server URL"
        raise SettingsError(f"{folder} doesn't say it, so pass {missing}.")
    if issued is not None and (issued.role, issued.name) != (role, party.name):
        raise SettingsError(
            f"{folder} lets the {issued.role} {issued.name!r} in, not the {role} {party.name!r}. Issue one "
            f"for it: pratipad certs issue {role} {party.name} --flow {party.key}"
        )
    return Endpoint(server, party.flow, Credentials.in_folder(folder), tenant=party.tenant)


async def _endpoint_here(home: Path, party: Party | None, patience: float | None) -> Endpoint:
    from pratipad_nb.server.disk import storage_in
    from pratipad_nb.server.readers import prepare
    from pratipad_nb.server.state import url_in

    if party is None:
        raise SettingsError("which flow? Pass --flow NAME, or --certs DIR with a folder that says it.")
    server = await started_server(home, patience)
    url = server.url
    try:
        credentials = await let_in(_store(home), server, party)
        await prepare(url, (party,), functools.partial(let_in, _store(home), server))
    finally:
        await server.stop()
    folder = home / "server"
    return Endpoint(
        url,
        party.flow,
        credentials,
        functools.partial(url_in, folder),
        functools.partial(storage_in, folder),
        tenant=party.tenant,
    )


async def let_in(store: CertificateStore, server: EmbeddedServer | JoinedServer, party: Party) -> Credentials:
    """Let `party` in, with a certificate of this machine's, and return the certificate."""
    credentials = await asyncio.to_thread(certificate, store, party)
    await server.allow([await asyncio.to_thread(listed, party, credentials)])
    return credentials


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
    owner = home / "pki" / "owner"
    return JoinedServer(files.folder, Credentials.in_folder(owner) if owner.is_dir() else None)


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


async def change(home: Path, change: Change) -> str:
    """Change the register of the server of `home` and return its URL; empty if it doesn't run yet."""
    from pratipad_nb.files import guarded_folder
    from pratipad_nb.server.admission import Admission
    from pratipad_nb.server.readers import prepare

    try:
        server = joined_server(home)
    except ServerError:
        files = server_files(home)
        guarded_folder(home)
        guarded_folder(files.folder)
        await Admission(files, lambda: None).write(change)
        return ""
    try:
        url = await server.start()
        await server.change(change)
        await prepare(url, change.parties, functools.partial(let_in, _store(home), server))
        return url
    finally:
        await server.stop()


def parties_in(home: Path) -> Register:
    """Return the register of the server of `home`, whether it runs or not."""
    from pratipad_nb.server.admission import Admission

    return Admission(server_files(home), lambda: None).register()


def known_flows(register: Register) -> list[str]:
    """Return the keys of the flows of which an edge or a leaf is let in, sorted."""
    return sorted({party.key for party in register.parties.values() if party.role in ("edge", "leaf")})


def certificate(store: CertificateStore, party: Party) -> Credentials:
    """Return the certificate of a party that connects from this machine, made or renewed if need be."""
    if party.role == "edge":
        return store.edge(party.key, party.identity)
    if party.role == "device":
        return store.device(party.key, party.name, party.identity)
    return store.reader(party.key, party.name, party.identity)


def listed(party: Party, credentials: Credentials) -> Party:
    """Return `party` as the register lists it: with the serial number of its certificate."""
    from pratipad_nb.pki.certificates import identity_in
    from pratipad_nb.transport.parties import Party

    named = Party.parse(identity_in(credentials.certificate))
    return party.with_serial(named.serial) if named is not None else party


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
