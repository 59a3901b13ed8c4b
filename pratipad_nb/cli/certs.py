"""``pratipad certs``: the authority of a state folder, and folders of files that let others in.

Owns the commands. Certificates belong to `pratipad_nb.pki`, permissions to
`pratipad_nb.transport.permissions`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pratipad_nb.cli import local_state
from pratipad_nb.cli.exits import reported, said
from pratipad_nb.cli.options import Home, Json
from pratipad_nb.errors import CertificateError, ServerError, SettingsError
from pratipad_nb.settings import valid_name

if TYPE_CHECKING:
    from pratipad_nb.pki.store import CertificateStore
    from pratipad_nb.transport.permissions import User

__all__ = ["certs"]

certs = typer.Typer(
    help="The authority of a state folder, and folders of files that let others in.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Role(StrEnum):
    """The kind of party that a certificate lets in."""

    DEVICE = "device"
    READER = "reader"
    EDGE = "edge"
    LEAF = "leaf"


_RoleArgument = Annotated[
    Role, typer.Argument(metavar="ROLE", help="device, reader, edge, or leaf: another site's server.")
]
_NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Of the device, reader or site; for an edge, the flow's.")
]
_FlowOption = Annotated[
    str | None,
    typer.Option(
        "--flow",
        envvar="PRATIPAD_FLOW",
        metavar="NAME",
        help="The flow; for a leaf, several may go with commas.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class _Row:
    """One party in the list of ``pratipad certs list``."""

    role: str
    flow: str
    name: str
    allowed: bool
    until: str
    folder: str


@certs.command()
@reported
def init(
    ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your own authority's certificate (PEM).", show_default=False),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Its key (PEM, elliptic curve, not encrypted).", show_default=False
        ),
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make the authority of a state folder, or take your own; an existing authority stays.

    \b
    Examples:
      pratipad certs init
      pratipad certs init --ca ca.pem --key ca-key.pem --home /var/lib/pratipad
    """
    if (ca is None) != (key is None):
        raise SettingsError("--ca and --key go together: an authority's certificate and its key.")
    folder = local_state.home_folder(home)
    if ca is not None and key is not None:
        _take(folder, ca, key)
    certificate = _opened(folder).authority.certificate
    if as_json:
        typer.echo(json.dumps({"authority": str(certificate), "until": _until(certificate)}))
    else:
        typer.echo(f"authority {certificate}, valid until {_until(certificate)}")


def _take(home: Path, ca: Path, key: Path) -> None:
    from pratipad_nb.files import private_folder
    from pratipad_nb.pki.authority import Authority
    from pratipad_nb.pki.certificates import read_authority

    pair = read_authority(ca.expanduser(), key.expanduser())  # before anything is written
    private_folder(home)
    private_folder(home / "pki")
    Authority.take(home / "pki" / "authority", pair)


def _opened(home: Path) -> CertificateStore:
    from pratipad_nb.files import private_folder
    from pratipad_nb.pki.store import CertificateStore

    private_folder(home)
    return CertificateStore.open(home)


@certs.command()
@reported
def issue(
    role: _RoleArgument,
    name: _NameArgument,
    flow: _FlowOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The folder to write. Default: NAME-certs here.", show_default=False
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where the server is reached from there. Default: what `pratipad server` last said.",
            show_default=False,
        ),
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write a folder that lets a device, a reader, an edge or a leaf in, to be carried to its machine.

    The folder holds ca.pem, cert.pem, key.pem (keep the key secret) and pratipad.json, which says where to
    connect to. The party is let in at once, whether the server runs or not. Issuing the folder again renews
    the certificate when less than a third of its life is left.

    \b
    Examples:
      pratipad certs issue device room1 --flow house
      pratipad certs issue reader archive --flow house --out archive-certs
      pratipad certs issue edge house --url tls://hub.local:4222
      pratipad certs issue leaf barn --flow house,garden --url tls://cloud.example:7422
    """
    flow = _flow(role, name, flow)
    folder = local_state.home_folder(home)
    if not (folder / "pki" / "authority" / "ca.pem").exists():
        raise CertificateError(
            f"there is no authority in {folder}. Make one (pratipad certs init), or say where it is (--home)."
        )
    store = _opened(folder)
    out = (out or Path(f"{name}-certs")).expanduser()
    until = _written(store, role, flow, name, out)
    running = asyncio.run(local_state.allow(folder, [local_state.user_of(role, flow, name)]))
    server = url or (
        local_state.public_leaves_url(folder)
        if role is Role.LEAF
        else local_state.public_url(folder) or running
    )
    local_state.Invitation(role, name, flow, server).write(out)
    if as_json:
        told = {
            "folder": str(out),
            "role": role,
            "name": name,
            "flow": flow,
            "server": server,
            "until": until,
        }
        typer.echo(json.dumps(told))
        return
    what = f"the flow {flow!r}" if "," not in flow else f"the flows {flow!r}"
    typer.echo(f"{out} lets the {role} {name!r} into {what} until {until}")
    if not server:
        start = "start it with --leaves" if role is Role.LEAF else "start it"
        said(
            f"the folder doesn't say where the server is: pass --url, or {start} and issue the folder again."
        )


def _flow(role: Role, name: str, flow: str | None) -> str:
    if role is Role.EDGE:
        if flow not in (None, name):
            raise SettingsError(
                f"an edge has its flow's name: pratipad certs issue edge {flow}, without --flow."
            )
        return valid_name(name, "flow")
    valid_name(name, role.value)
    if flow is None:
        raise SettingsError(f"which flow is the {role} {name!r} of? Pass --flow NAME.")
    if role is Role.LEAF:
        return ",".join(valid_name(each.strip(), "flow") for each in flow.split(","))
    return valid_name(flow, "flow")


def _written(store: CertificateStore, role: Role, flow: str, name: str, out: Path) -> str:
    """Write the certificate into `out`, and return the end of its validity."""
    from pratipad_nb.files import private_folder, write_whole
    from pratipad_nb.pki.authority import CLIENT_DAYS

    if role in (Role.EDGE, Role.LEAF):
        # Carried by hand, as a device's certificate is, so valid as long; the certificate of this machine's
        # edge is renewed at each start.
        identity = local_state.user_of(role, flow, name).identity
        made = store.authority.ensure(identity, out, days=CLIENT_DAYS)
        store.note_carried("edge" if role is Role.EDGE else "leaf", name, out)
    else:
        made = local_state.certificate(store, role, flow, name)
        private_folder(out)
        write_whole(out / "key.pem", made.key.read_bytes())
        for path in (made.certificate, made.authority):
            write_whole(out / path.name, path.read_bytes(), 0o644)
        store.note_carried(role.value, name, out, flow)
    return _until(made.certificate)


@certs.command("list")
@reported
def list_(home: Home = None, as_json: Json = False) -> None:
    """List the parties that are let in, and until when their certificates are valid.

    \b
    Examples:
      pratipad certs list
      pratipad certs list --json | jq -r 'select(.allowed) | .name'
    """
    rows = sorted(_rows(local_state.home_folder(home)), key=lambda row: (row.flow, row.role, row.name))
    if as_json:
        for each in rows:
            typer.echo(json.dumps(asdict(each)))
        return
    head = ("ROLE", "FLOW", "NAME", "LET IN", "VALID UNTIL")
    lines = [(each.role, each.flow, each.name, "yes" if each.allowed else "no", each.until) for each in rows]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    for line in (head, *lines):
        typer.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _rows(home: Path) -> list[_Row]:
    from pratipad_nb.server.users import Admission

    users = {user.identity: user for user in Admission(local_state.server_files(home), lambda: None).users()}
    stored = list(_stored(home / "pki"))
    without = users.keys() - {identity for identity, _ in stored}
    return [
        _row(identity, users.get(identity), path)
        for identity, path in [*stored, *((each, None) for each in without)]
    ]


def _stored(pki: Path) -> Iterator[tuple[str, Path]]:
    """Yield the identity and the file of each certificate that is kept here, or of which a copy is."""
    for path in (*pki.glob("edge/*/cert.pem"), *pki.glob("carried/edge/*/*/cert.pem")):
        folder = path.parent if path.is_relative_to(pki / "edge") else path.parent.parent
        yield local_state.user_of("edge", folder.name, "").identity, path
    for path in pki.glob("carried/leaf/*/*/cert.pem"):
        yield local_state.user_of("leaf", "", path.parent.parent.name).identity, path
    for role in (Role.DEVICE, Role.READER):
        for path in (pki / role.value).glob("*/*/cert.pem"):
            yield local_state.user_of(role, path.parent.parent.name, path.parent.name).identity, path


def _row(identity: str, user: User | None, path: Path | None) -> _Row:
    flow, role, *name = identity.split(":")[2:]
    if flow == "_leaf":
        flow, role, name = ",".join(local_state.flows_of(user)) if user else "", "leaf", [role]
    until, folder = (_until(path), str(path.parent)) if path is not None else ("", "")
    return _Row(role, flow, name[0] if name else flow, user is not None, until, folder)


@certs.command()
@reported
def revoke(role: _RoleArgument, name: _NameArgument, flow: _FlowOption = None, home: Home = None) -> None:
    """Let a party in no more, and end its connections at once.

    The server goes by the name in a certificate: issuing a new certificate under the same name lets the old
    certificate in again. After a theft, choose another name.

    \b
    Examples:
      pratipad certs revoke device room1 --flow house
    """
    import shutil

    flow = "" if role is Role.LEAF else _flow(role, name, flow)
    folder = local_state.home_folder(home)
    identity = local_state.user_of(role, flow, name).identity
    if identity not in _identities(folder):
        raise SettingsError(
            f"no {role} {name!r}{flow and f' of {flow!r}'} is let in there. See `pratipad certs list`."
        )
    asyncio.run(_revoked(folder, identity))
    stored = folder / "pki" / role.value / (flow if role is Role.EDGE else f"{flow}/{name}")
    shutil.rmtree(stored, ignore_errors=True)
    party = name if role in (Role.EDGE, Role.LEAF) else f"{flow}/{name}"
    shutil.rmtree(folder / "pki" / "carried" / role.value / party, ignore_errors=True)
    typer.echo(f"the {role} {name!r}{flow and f' of {flow!r}'} is let in no more")


def _identities(home: Path) -> list[str]:
    from pratipad_nb.server.users import Admission

    return [user.identity for user in Admission(local_state.server_files(home), lambda: None).users()]


async def _revoked(home: Path, identity: str) -> None:
    from pratipad_nb.server.users import Admission

    try:
        server = local_state.joined_server(home)
    except ServerError:
        await Admission(local_state.server_files(home), lambda: None).write([], gone=[identity])
        return
    await server.start()
    try:
        await server.revoke(identity)
    finally:
        await server.stop()


def _until(certificate: Path) -> str:
    from pratipad_nb.pki.certificates import valid_until

    end = valid_until(certificate)
    return f"{end.astimezone(UTC):%Y-%m-%d}{' (over)' if end < datetime.now(UTC) else ''}"
