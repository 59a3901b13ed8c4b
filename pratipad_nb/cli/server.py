"""``pratipad server``: the embedded NATS server in the foreground.

Owns its life as a process of its own: the names in its certificate, renewal, what is printed. The server is
`pratipad_nb.transport.server`'s.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pratipad_nb.cli.faults import Signalled, reported, run_until_signalled, said
from pratipad_nb.cli.here import home_folder, public_url
from pratipad_nb.cli.options import Home, Json

if TYPE_CHECKING:
    from pratipad_nb.pki.store import CertificateStore
    from pratipad_nb.settings import Address, Credentials
    from pratipad_nb.transport.server import EmbeddedServer

__all__ = ["server"]

_IDENTITY = "urn:pratipad:server"
#: A server's certificate is renewed ten days before its end; looking four times a day is plenty.
_RENEWAL_SECONDS = 6 * 3600.0
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with
_SYNCS = ("interval", "always")


@reported
def server(
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where to listen; 0.0.0.0:4222 is all of this machine's addresses. Default: 127.0.0.1 and the port "
            "of the last start, else any.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name or address that others reach this machine by; stands in the certificate. The first goes into "
            "invitations. May be repeated.",
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

    Flows in other processes that use the same state folder join it; so do `cloud`, `top` and `device` there. Others
    need a certificate folder: `pratipad certs issue`.

    \b
    Examples:
      pratipad server
      pratipad server --listen 0.0.0.0:4222 --host edge.local --home /var/lib/pratipad
    """
    from pratipad_nb.errors import SettingsError
    from pratipad_nb.settings import Address

    if sync not in _SYNCS:
        raise SettingsError(f"--sync is {sync!r}; it can be {' or '.join(_SYNCS)}.")
    address = None if listen is None else Address.parse(listen)
    try:
        run_until_signalled(_serve(home_folder(home), address, tuple(host or ()), mqtt, sync, as_json))
    except Signalled:
        said("the server has stopped; what it stores stays.")


async def _serve(
    home: Path, address: Address | None, names: tuple[str, ...], mqtt: str | None, sync: Any, as_json: bool
) -> None:
    from pratipad_nb.files import private_folder
    from pratipad_nb.pki.store import CertificateStore
    from pratipad_nb.transport.server import EmbeddedServer
    from pratipad_nb.transport.server_config import LOOPBACK

    await asyncio.to_thread(private_folder, home)
    store = await asyncio.to_thread(CertificateStore.open, home)
    (home / ".gitignore").write_text("*\n")
    hosts = _hosts(address, names)
    credentials = await asyncio.to_thread(_certificate, store, home, hosts)
    running = EmbeddedServer(
        home / "server",
        credentials,
        sync=sync,
        host=address.host if address else LOOPBACK,
        port=address.port if address else None,
        mqtt=mqtt or False,
        standalone=True,
        on_exit=lambda event: said(f"{event.reason}; it is restarted in {event.pause:g} s"),
    )
    try:
        url = await running.start()
        public = public_url(home, _public(url, address, names))
        _announce(running, home, public, as_json)
        while True:
            await asyncio.sleep(_RENEWAL_SECONDS)
            await _renew(running, store, home, hosts, credentials)
    finally:
        await running.stop()


def _hosts(address: Address | None, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return what the certificate names: this computer from within, and what others call it."""
    from pratipad_nb.pki.store import LOOPBACK_HOSTS

    others = names
    if address is not None and address.host not in LOOPBACK_HOSTS:
        others += (socket.gethostname(),) if address.host in _EVERYWHERE else (address.host,)
    return tuple(dict.fromkeys((*LOOPBACK_HOSTS, *others)))


def _public(url: str, address: Address | None, names: tuple[str, ...]) -> str:
    """Return the URL that goes into invitations."""
    from pratipad_nb.settings import Address

    port = int(url.rpartition(":")[2])
    if names:
        return f"tls://{Address(names[0], port)}"
    if address is None or address.host == "localhost":
        return url
    return f"tls://{Address(socket.gethostname() if address.host in _EVERYWHERE else address.host, port)}"


def _certificate(store: CertificateStore, home: Path, hosts: tuple[str, ...]) -> Credentials:
    # In a folder of its own: a flow that joins makes the certificate of a server on the loopback, which has fewer names.
    return store.authority.ensure(_IDENTITY, home / "pki" / "listener", hosts=hosts, server=True)


async def _renew(
    running: EmbeddedServer,
    store: CertificateStore,
    home: Path,
    hosts: tuple[str, ...],
    credentials: Credentials,
) -> None:
    before = credentials.certificate.read_bytes()
    await asyncio.to_thread(_certificate, store, home, hosts)
    if credentials.certificate.read_bytes() != before:
        await running.reload()


def _announce(running: EmbeddedServer, home: Path, public: str, as_json: bool) -> None:
    if as_json:
        value = {"url": public, "mqtt": running.mqtt_url, "home": str(home), "pid": os.getpid()}
        typer.echo(json.dumps(value))
        return
    typer.echo(f"server  {public}")
    if running.mqtt_url:
        typer.echo(f"mqtt    {running.mqtt_url}")
    typer.echo(f"home    {home}")
    typer.echo("run a flow here       pratipad run FILE")
    typer.echo("let a device in       pratipad certs issue device room1 --flow house --out room1-certs")
    typer.echo("end it                Ctrl-C, or SIGTERM")
