"""``pratipad server``: the embedded NATS server in the foreground.

Owns the server's life as a process of its own: the names in its certificate, the output. The server itself
belongs to `pratipad_nb.server.embedded`, renewal to `pratipad_nb.server.renewal`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pratipad_nb.cli.exits import Signalled, reported, run_until_signalled, said
from pratipad_nb.cli.leaf import leaf_from
from pratipad_nb.cli.local_state import home_folder, let_in, public_leaves_url, public_url
from pratipad_nb.cli.options import Home, Json
from pratipad_nb.errors import ServerError, SettingsError, TransportError, WaitTimeout
from pratipad_nb.settings import Address

if TYPE_CHECKING:
    from pratipad_nb.pki.store import CertificateStore
    from pratipad_nb.server.embedded import EmbeddedServer
    from pratipad_nb.server.renewal import Renewal
    from pratipad_nb.server.state import ServerState
    from pratipad_nb.settings import Credentials, Leaf

__all__ = ["server"]

_IDENTITY = "urn:pratipad:server"
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with
_SYNCS = ("interval", "always")


@dataclass(frozen=True, slots=True)
class _Listening:
    """The addresses of a server's listeners (None: none, or any), and its machine's names for others."""

    clients: Address | None
    mqtt: Address | None
    leaves: Address | None
    names: tuple[str, ...]


@reported
def server(
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where to listen; 0.0.0.0:4222 is all of this machine's addresses. Default: 127.0.0.1 and "
            "the port of the last start, else any.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name or address that others reach this machine by; stands in the certificate. The first "
            "goes into invitations. May be repeated.",
            show_default=False,
        ),
    ] = None,
    mqtt: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Also take devices that speak MQTT 3.1.1 there (TLS).",
            show_default=False,
        ),
    ] = None,
    leaves: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Also let other sites' servers join this one there, as its leaves (TLS).",
            show_default=False,
        ),
    ] = None,
    leaf_of: Annotated[
        str | None,
        typer.Option(
            metavar="URL|DIR",
            help="Join a server elsewhere as its leaf: tls://HOST:7422 with --certs DIR; or that folder "
            "alone, which `pratipad certs issue leaf` has written there.",
            show_default=False,
        ),
    ] = None,
    certs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder for --leaf-of URL.", show_default=False),
    ] = None,
    sync: Annotated[
        str,
        typer.Option(
            metavar="interval|always",
            help="When what is written is forced to disk: every 2 minutes, or always.",
        ),
    ] = "interval",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Run the NATS server, with mutual TLS and permissions, until a signal ends it.

    Flows in other processes that use the same state folder join it; so do `cloud`, `top` and `device` there.
    Others need a certificate folder: `pratipad certs issue`. A flow that has started a server itself before
    hands the folder over. Beside a server that is a leaf, flows go on while the link is down; their results
    are forwarded when the link is up again.

    \b
    Examples:
      pratipad server
      pratipad server --listen 0.0.0.0:4222 --host edge.local --home /var/lib/pratipad
      pratipad server --listen 0.0.0.0:4222 --leaves 0.0.0.0:7422 --host cloud.example
      pratipad server --leaf-of barn-certs
    """
    from pratipad_nb.server.state import ServerLocked

    if sync not in _SYNCS:
        raise SettingsError(f"--sync is {sync!r}; it can be {' or '.join(_SYNCS)}.")
    if leaves is not None and leaf_of is not None:
        raise SettingsError("a server either takes leaves or is one: pass --leaves or --leaf-of, not both.")
    clients, mqtts, leaf_nodes = (each and Address.parse(each) for each in (listen, mqtt, leaves))
    listening = _Listening(clients or None, mqtts or None, leaf_nodes or None, tuple(host or ()))
    try:
        run_until_signalled(
            _serve(home_folder(home), listening, leaf_from(leaf_of, certs), sync=sync, as_json=as_json)
        )
    except Signalled:
        said("the server has stopped; its stored messages stay.")
    except ServerLocked as locked:
        raise ServerError(_taken(home_folder(home), locked.state)) from locked


def _taken(home: Path, state: ServerState) -> str:
    if state.standalone:
        return (
            f"process {state.owner} runs the server of {home} already, at {state.url}; flows and devices use "
            "that. End it first if this one is to take its place, or choose another state folder (--home)."
        )
    return (
        f"process {state.owner}, which runs a flow, has started a server of its own in {home}, at "
        f"{state.url}, and does not hand the folder over: that process does not answer, or its server takes "
        "MQTT devices or is a leaf, and this one isn't told to. End that process, start `pratipad server`, "
        "then the flow again, which joins the server (`pratipad run FILE --join` waits for it)."
    )


async def _serve(home: Path, listening: _Listening, leaf: Leaf | None, *, sync: Any, as_json: bool) -> None:
    from pratipad_nb.files import guarded_folder
    from pratipad_nb.pki.store import CertificateStore
    from pratipad_nb.server.accounts import OWNER
    from pratipad_nb.server.config import LOOPBACK
    from pratipad_nb.server.embedded import EmbeddedServer
    from pratipad_nb.session.state_folder import ignore_in_git
    from pratipad_nb.tasks import first_of

    await asyncio.to_thread(guarded_folder, home)
    store = await asyncio.to_thread(CertificateStore.open, home)
    await asyncio.to_thread(ignore_in_git, home)
    hosts = _hosts(listening)
    clients = listening.clients
    credentials = await asyncio.to_thread(_certificate, store, home, hosts)
    owner = await asyncio.to_thread(store.owner, OWNER)
    running = EmbeddedServer(
        home / "server",
        credentials,
        sync=sync,
        host=clients.host if clients else LOOPBACK,
        port=clients.port if clients else None,
        mqtt=str(listening.mqtt or "") or False,
        leaves=str(listening.leaves or "") or False,
        leaf_of=leaf,
        standalone=True,
        owner=owner,
        on_exit=lambda event: said(f"{event.reason}; it is restarted in {event.pause:.2g} s"),
        on_full=said,
    )
    try:
        url = await running.start()
        await _prepare_readers(running, store)
        public = public_url(home, _public(url, clients, listening.names))
        leaves = ""
        if listening.leaves is not None:
            leaves = public_leaves_url(home, _public(running.leaves_url, listening.leaves, listening.names))
        said_of = {
            "url": public,
            "mqtt": running.mqtt_url,
            "leaves": leaves,
            "leaf_of": leaf.url if leaf else "",
        }
        _announce(said_of | {"home": str(home)}, as_json)
        renewal = await asyncio.to_thread(_renewal, running, store, home, hosts, owner, leaf)
        await first_of(running.failure(), renewal.run())
    finally:
        await running.stop()


async def _prepare_readers(running: EmbeddedServer, store: CertificateStore) -> None:
    """Make what readers need that were let in while no server ran."""
    from pratipad_nb.server.readers import prepare

    try:
        await prepare(running.url, running.register.parties.values(), partial(let_in, store, running))
    except (TransportError, WaitTimeout) as error:
        said(f"readers that were let in while no server ran have to wait for their flow: {error}")


def _hosts(listening: _Listening) -> tuple[str, ...]:
    """Return the certificate's host names: this computer's own, and those that others use."""
    from pratipad_nb.pki.store import LOOPBACK_HOSTS

    addresses = [each for each in (listening.clients, listening.mqtt, listening.leaves) if each is not None]
    others = [socket.gethostname() if each.host in _EVERYWHERE else each.host for each in addresses]
    return tuple(dict.fromkeys((*LOOPBACK_HOSTS, *listening.names, *others)))


def _public(url: str, address: Address | None, names: tuple[str, ...]) -> str:
    """Return the URL that goes into invitations."""
    port = int(url.rpartition(":")[2])
    if names:
        return f"tls://{Address(names[0], port)}"
    if address is None or address.host == "localhost":
        return url
    return f"tls://{Address(socket.gethostname() if address.host in _EVERYWHERE else address.host, port)}"


def _certificate(store: CertificateStore, home: Path, hosts: tuple[str, ...]) -> Credentials:
    # A folder of its own, since a flow that joins makes the certificate of a server on the loopback, which
    # has fewer names.
    return store.authority.ensure(_IDENTITY, home / "pki" / "listener", hosts=hosts, server=True)


def _renewal(
    running: EmbeddedServer,
    store: CertificateStore,
    home: Path,
    hosts: tuple[str, ...],
    owner: Credentials,
    leaf: Leaf | None,
) -> Renewal:
    """Return the renewal of the server's certificate, which also follows the files of its link as a leaf."""
    from pratipad_nb.server.renewal import Renewal

    async def reload(_credentials: Credentials) -> None:
        await running.reload()

    renewal = Renewal(store)
    own = _certificate(store, home, hosts)
    renewal.keep(
        _IDENTITY, "the server", own, ensure=partial(_certificate, store, home, hosts), renewed=reload
    )
    renewal.keep_owner(owner)
    for each in leaf.credentials if leaf is not None else ():
        renewal.follow(f"the leaf in {each.certificate.parent}", each, renewed=reload)
    return renewal


def _announce(said_of: dict[str, str], as_json: bool) -> None:
    """Print the server's URLs; empty values are left out, except in JSON."""
    if as_json:
        typer.echo(json.dumps(said_of | {"pid": os.getpid()}))
        return
    for key, label in (
        ("url", "server"), ("mqtt", "mqtt"), ("leaves", "leaves"), ("leaf_of", "leaf of"), ("home", "home")
    ):  # fmt: skip
        if said_of[key]:
            typer.echo(f"{label:<8}{said_of[key]}")
    typer.echo("run a flow here       pratipad run FILE")
    typer.echo("let a device in       pratipad certs issue device room1 --flow house --out room1-certs")
    if said_of["leaves"]:
        typer.echo("let a site's server in  pratipad certs issue leaf barn --flow house --out barn-certs")
    typer.echo("end it                Ctrl-C, or SIGTERM")
