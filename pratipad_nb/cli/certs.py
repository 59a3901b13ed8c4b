"""``pratipad certs``: the authority of a state folder, and folders of files that let others in.

Owns the commands. Certificates belong to `pratipad_nb.pki`, the register of the parties that are let in to
`pratipad_nb.server`, and their rights to `pratipad_nb.transport.rights`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pratipad_nb.cli import local_state
from pratipad_nb.cli.exits import reported, said
from pratipad_nb.cli.options import Home, Json, Tenant
from pratipad_nb.errors import CertificateError, SettingsError
from pratipad_nb.pki.invitation import Invitation, made_folder
from pratipad_nb.settings import file_key, party_name

if TYPE_CHECKING:
    from pratipad_nb.pki.store import CertificateStore
    from pratipad_nb.settings import Credentials
    from pratipad_nb.transport.parties import Party

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
    from pratipad_nb.files import guarded_folder
    from pratipad_nb.pki.authority import Authority
    from pratipad_nb.pki.certificates import read_authority

    pair = read_authority(ca.expanduser(), key.expanduser())  # before anything is written
    guarded_folder(home)
    guarded_folder(home / "pki")
    Authority.take(home / "pki" / "authority", pair)


def _opened(home: Path) -> CertificateStore:
    from pratipad_nb.files import guarded_folder
    from pratipad_nb.pki.store import CertificateStore

    guarded_folder(home)
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
    tenant: Tenant = "",
    mqtt: Annotated[
        bool, typer.Option("--mqtt", help="The device speaks MQTT, and no NATS.", show_default=False)
    ] = False,
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
      pratipad certs issue device room1 --flow house --tenant acme
      pratipad certs issue reader archive --flow acme/house --tenant globex    (see flow.share)
    """
    from pratipad_nb.server.register import Change

    parties = _parties(role, name, flow, tenant, mqtt)
    party_name(name, role.value)
    folder = local_state.home_folder(home)
    # Before a certificate is made: an invitation that is refused leaves no trace.
    local_state.parties_in(folder).check(Change(tuple(parties)))
    if not (folder / "pki" / "authority" / "ca.pem").exists():
        raise CertificateError(
            f"there is no authority in {folder}. Make one (pratipad certs init), or say where it is (--home)."
        )
    store = _opened(folder)
    out = (out or Path(f"{name}-certs")).expanduser()
    flows = ",".join(party.key for party in parties)
    invitation = Invitation(role.value, parties[0].name or name, flows)
    # Before a certificate is made: a folder of another party leaves no trace.
    invitation.claim(out, store.authority.certificate)
    made = {party: _written(store, party, invitation, out) for party in parties}
    listed = tuple(local_state.listed(party, credentials) for party, credentials in made.items())
    running = asyncio.run(local_state.change(folder, Change(listed)))
    until = min(_until(credentials.certificate) for credentials in made.values())
    flow = invitation.flow
    server = url or (
        local_state.public_leaves_url(folder)
        if role is Role.LEAF
        else local_state.public_url(folder) or running
    )
    replace(invitation, server=server).write(out)
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


def _parties(role: Role, name: str, flow: str | None, tenant: str, mqtt: bool = False) -> list[Party]:
    """Return the parties that a command means: one, or of a leaf one for each flow."""
    from pratipad_nb.transport.parties import Party

    if mqtt and role is not Role.DEVICE:
        raise SettingsError(f"--mqtt is for devices, and not for a {role}.")
    if role is Role.EDGE:
        if flow not in (None, name):
            raise SettingsError(
                f"an edge has its flow's name: pratipad certs issue edge {flow}, without --flow."
            )
        flow = name
    if flow is None:
        raise SettingsError(f"which flow is the {role} {name!r} of? Pass --flow NAME.")
    flows = flow.split(",") if role is Role.LEAF else [flow]
    return [replace(Party.called(role.value, each.strip(), name, tenant), mqtt=mqtt) for each in flows]


def _written(store: CertificateStore, party: Party, invitation: Invitation, out: Path) -> Credentials:
    """Write the certificate of `party` into `out`, and return it; a leaf has a folder there for each flow."""
    from pratipad_nb.pki.authority import CLIENT_DAYS

    if party.role not in ("edge", "leaf"):
        made = invitation.fill(out, local_state.certificate(store, party))
        store.note_carried(party.role, party.key, party.name, out)
        return made
    # Carried by hand, as a device's certificate is, so valid as long; the certificate of this machine's edge
    # is renewed at each start.
    own = out / file_key(party.key) if party.role == "leaf" else out
    made_folder(own)
    made = store.authority.ensure(party.identity, own, days=CLIENT_DAYS)
    store.note_carried(party.role, party.key, party.name, own)
    return made


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
    from pratipad_nb.transport.parties import Party

    parties = local_state.parties_in(home).parties
    stored = dict(_stored(home / "pki"))
    return [
        *(_row(Party.parse(user), user in parties, path) for user, path in stored.items()),
        *(_row(party, True, None) for user, party in parties.items() if user not in stored),
    ]


def _stored(pki: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name in each certificate that is here, or of which a copy is, and the certificate's file."""
    from pratipad_nb.pki.certificates import identity_in

    for kept in ("edge/*", "device/*/*", "reader/*/*", "carried/*/*/*", "carried/*/*/*/*"):
        for path in pki.glob(f"{kept}/cert.pem"):
            yield identity_in(path), path


def _row(party: Party | None, allowed: bool, path: Path | None) -> _Row:
    until, folder = (_until(path), str(path.parent)) if path is not None else ("", "")
    if party is None:
        return _Row("", "", "", allowed, until, folder)
    return _Row(party.role, party.key, party.name or party.flow, allowed, until, folder)


@certs.command()
@reported
def revoke(
    role: _RoleArgument,
    name: _NameArgument,
    flow: _FlowOption = None,
    tenant: Tenant = "",
    home: Home = None,
) -> None:
    """Let a party in no more, and end its connections at once.

    The party's next certificate has another serial number: issuing it lets no old certificate in again.

    \b
    Examples:
      pratipad certs revoke device room1 --flow house
    """
    import shutil

    from pratipad_nb.server.register import Change

    folder = local_state.home_folder(home)
    listed = local_state.parties_in(folder).parties.values()
    if role is Role.LEAF and flow is None:
        wanted = [party for party in listed if party.role == "leaf" and party.name == name]
    else:
        meant = {party.identity for party in _parties(role, name, flow, tenant)}
        wanted = [party for party in listed if party.identity in meant]
    if not wanted:
        raise SettingsError(
            f"no {role} {name!r}{f' of {flow!r}' if flow else ''} is let in there. See `pratipad certs list`."
        )
    gone = tuple(sorted({replace(party, serial="") for party in wanted}, key=lambda party: party.identity))
    asyncio.run(local_state.change(folder, Change(gone=gone)))
    for party in gone:
        key = file_key(party.key)
        stored = folder / "pki" / party.role / (key if party.role == "edge" else f"{key}/{party.name}")
        shutil.rmtree(stored, ignore_errors=True)
        shutil.rmtree(folder / "pki" / "carried" / party.role / key / party.name, ignore_errors=True)
    flows = " and ".join(repr(party.key) for party in gone)
    typer.echo(f"the {role} {name!r} of {flows} is let in no more")


def _until(certificate: Path) -> str:
    from pratipad_nb.pki.certificates import valid_until

    end = valid_until(certificate)
    return f"{end.astimezone(UTC):%Y-%m-%d}{' (over)' if end < datetime.now(UTC) else ''}"
