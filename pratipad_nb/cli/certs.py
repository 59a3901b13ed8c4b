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


_PartyArgument = Annotated[
    list[str], typer.Argument(metavar="PARTY...", help="A role and a name, or a whole name (urn:…).")
]
_RevokedArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PARTY...", help="A role and a name, or a whole name (urn:…).", show_default=False
    ),
]
_OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="The folder to write. Default: NAME-certs here.", show_default=False
    ),
]
_UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Where the server is reached from there. Default: what `pratipad server` last said.",
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
    serial: str


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
    out: _OutOption = None,
    url: _UrlOption = None,
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
    the certificate when less than half of its life is left; `pratipad certs renew` renews it in any case.

    \b
    Examples:
      pratipad certs issue device room1 --flow house
      pratipad certs issue reader archive --flow house --out archive-certs
      pratipad certs issue edge house --url tls://hub.local:4222
      pratipad certs issue leaf barn --flow house,garden --url tls://cloud.example:7422
      pratipad certs issue device room1 --flow house --tenant acme
      pratipad certs issue reader archive --flow acme/house --tenant globex    (see flow.share)
    """
    parties = _parties(role, name, flow, tenant, mqtt)
    party_name(name, role.value)
    _issue(role, name, parties, _Target(out, url, home, as_json))


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a certificate folder is written, and how that is told: options of `issue` and `renew`."""

    out: Path | None
    url: str | None
    home: Path | None
    as_json: bool


def _issue(role: Role, name: str, parties: list[Party], target: _Target, *, anew: bool = False) -> None:
    """Write the folder of `parties`, one party or a leaf's, and let them in; `anew`: with new keys."""
    from pratipad_nb.server.register import Change

    folder = local_state.home_folder(target.home)
    # Before a certificate is made: an invitation that is refused leaves no trace.
    local_state.parties_in(folder).check(Change(tuple(parties)))
    if not (folder / "pki" / "authority" / "ca.pem").exists():
        raise CertificateError(
            f"there is no authority in {folder}. Make one (pratipad certs init), or say where it is (--home)."
        )
    store = _opened(folder)
    out = (target.out or Path(f"{name}-certs")).expanduser()
    flows = ",".join(party.key for party in parties)
    invitation = Invitation(role.value, parties[0].name or name, flows)
    # Before a certificate is made: a folder of another party leaves no trace.
    invitation.claim(out, store.authority.certificate)
    made = {party: _written(store, party, invitation, out, anew=anew) for party in parties}
    listed = tuple(local_state.listed(party, credentials) for party, credentials in made.items())
    running = asyncio.run(local_state.change(folder, Change(listed)))
    until = min(_until(credentials.certificate) for credentials in made.values())
    server = target.url or (
        local_state.public_leaves_url(folder)
        if role is Role.LEAF
        else local_state.public_url(folder) or running
    )
    replace(invitation, server=server).write(out)
    if target.as_json:
        told = {
            "folder": str(out),
            "role": role,
            "name": name,
            "flow": invitation.flow,
            "server": server,
            "until": until,
        }
        typer.echo(json.dumps(told))
        return
    what = f"the flow{'s' if ',' in invitation.flow else ''} {invitation.flow!r}"
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


def _written(
    store: CertificateStore, party: Party, invitation: Invitation, out: Path, *, anew: bool = False
) -> Credentials:
    """Write the certificate of `party` into `out`, and return it; a leaf has a folder there for each flow."""
    from pratipad_nb.pki.authority import CLIENT_DAYS

    invitation.claim(out, store.authority.certificate)  # before a certificate is made in vain
    if party.role not in ("edge", "leaf"):
        own = (
            store.renew(party.role, party.key, party.name, party.identity)
            if anew
            else local_state.certificate(store, party)
        )
        made = invitation.fill(out, own)
        store.note_carried(party.role, party.key, party.name, out)
        return made
    # Carried by hand, as a device's certificate is, so valid as long; the certificate of this machine's edge
    # is renewed at each start.
    folder = out / file_key(party.key) if party.role == "leaf" else out
    made_folder(folder)
    make = store.authority.issue if anew else store.authority.ensure
    made = make(party.identity, folder, days=CLIENT_DAYS)
    store.note_carried(party.role, party.key, party.name, folder)
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
    head = ("ROLE", "FLOW", "NAME", "LET IN", "VALID UNTIL", "SERIAL")
    lines = [
        (each.role, each.flow, each.name, "yes" if each.allowed else "no", each.until, each.serial)
        for each in rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    for line in (head, *lines):
        typer.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _rows(home: Path) -> list[_Row]:
    from pratipad_nb.transport.parties import Party

    parties = local_state.parties_in(home).parties
    stored = dict(_stored(home / "pki"))
    rows = [
        *(_row(Party.parse(user), user in parties, path) for user, path in stored.items()),
        *(_row(party, True, None) for user, party in parties.items() if user not in stored),
    ]
    sites: dict[str, list[_Row]] = {}
    for row in rows:
        if row.role == Role.LEAF:
            sites.setdefault(row.name, []).append(row)
    return [*(row for row in rows if row.role != Role.LEAF), *map(_site_row, sites.values())]


def _site_row(leaves: list[_Row]) -> _Row:
    """Return one row for the leaf of a site, which has a certificate for each of its flows."""
    newest: dict[str, str] = {}
    for leaf in leaves:
        newest[leaf.flow] = max(leaf.until, newest.get(leaf.flow, ""))
    return replace(
        leaves[0],
        flow=",".join(sorted(newest)),
        allowed=any(leaf.allowed for leaf in leaves),
        until=min(newest.values()),
        serial=",".join(leaf.serial for leaf in leaves),
    )


def _stored(pki: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name in each certificate that is here, or of which a copy is, and the certificate's file."""
    from pratipad_nb.pki.certificates import identity_in

    for kept in ("edge/*", "device/*/*", "reader/*/*", "carried/*/*/*", "carried/*/*/*/*"):
        for path in pki.glob(f"{kept}/cert.pem"):
            yield identity_in(path), path


def _row(party: Party | None, allowed: bool, path: Path | None) -> _Row:
    from pratipad_nb.pki.certificates import serial_of

    until, folder = (_until(path), str(path.parent)) if path is not None else ("", "")
    serial = serial_of(path) if path is not None else party.serial if party is not None else ""
    if party is None:
        return _Row("", "", "", allowed, until, folder, serial)
    return _Row(party.role, party.key, party.name or party.flow, allowed, until, folder, serial)


@certs.command()
@reported
def renew(
    party: _PartyArgument,
    flow: _FlowOption = None,
    out: _OutOption = None,
    url: _UrlOption = None,
    tenant: Tenant = "",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write the folder of a party that is let in anew, with a new key, to be carried to its machine.

    The former certificate goes on to be let in until its own end, so that there is time to carry the folder
    over. A program that runs takes the new files at its next reconnect, if they are put in the place of the
    old ones. PARTY is a role and a name, or the name that warnings and `certs list` show.

    \b
    Examples:
      pratipad certs renew device room1 --flow house
      pratipad certs renew edge house --out house-certs
      pratipad certs renew urn:pratipad:house:device:room1
    """
    role, name, parties = _named(party, flow, tenant)
    entries = local_state.parties_in(local_state.home_folder(home)).parties.values()
    known = {each.identity: each for each in entries if not each.mqtt} | {
        each.identity: each for each in entries if each.mqtt
    }
    missing = [each for each in parties if each.identity not in known]
    if missing:
        raise SettingsError(
            f"{missing[0].in_words} is not let in there, so there is nothing to renew. See `pratipad certs "
            "list`, or let it in: pratipad certs issue"
        )
    parties = [replace(known[each.identity], serial="") for each in parties]
    _issue(role, name, parties, _Target(out, url, home, as_json), anew=True)


def _named(party: list[str], flow: str | None, tenant: str) -> tuple[Role, str, list[Party]]:
    """Return the role, the name and the parties that ``ROLE NAME``, or an identity, means."""
    from pratipad_nb.transport.parties import Party

    if len(party) == 1 and (found := Party.parse(party[0])) is not None:
        # The name of another tenant's reader is followed by that tenant.
        name = found.name.partition("@")[0] or found.flow
        return Role(found.role), name, [replace(found, serial="")]
    roles = [role.value for role in Role]
    if len(party) != 2 or party[0] not in roles:
        raise SettingsError(
            f"{' '.join(party)!r} is no party. It is a role ({', '.join(roles)}) and a name, as in 'device "
            "room1 --flow house', or a whole name, as in 'urn:pratipad:house:device:room1'."
        )
    return Role(party[0]), party[1], _parties(Role(party[0]), party[1], flow, tenant)


@certs.command()
@reported
def rotate(
    finish: Annotated[
        bool,
        typer.Option("--finish", help="Trust the former authority no longer.", show_default=False),
    ] = False,
    days: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            min=0.0,
            help="Warn after so many days if the change is not finished. Default: 30.",
            show_default=False,
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your own new authority's certificate (PEM).", show_default=False),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its key (PEM).", show_default=False)
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Finish also if parties are left behind.", show_default=False),
    ] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Change to a new authority, while both are trusted; then finish, and the former one is trusted no more.

    From the first call on, every folder that is issued or renewed is of the new authority, and trusts both.
    Renew what was carried away, then call again with --finish: it names who would be left behind.

    \b
    Examples:
      pratipad certs rotate
      pratipad certs renew device room1 --flow house
      pratipad certs rotate --finish
    """
    if (ca is None) != (key is None):
        raise SettingsError("--ca and --key go together: an authority's certificate and its key.")
    if finish and ca is not None:
        raise SettingsError("--ca begins a change, and --finish ends one: pass one of the two.")
    from pratipad_nb.server.register import Change

    folder = local_state.home_folder(home)
    store = _opened(folder)
    until = "" if finish else _begun(store, days, ca, key)
    if finish:
        _finished(store, force=force)
    store.renew_servers()
    asyncio.run(local_state.change(folder, Change()))
    left = store.left_behind() if until else []
    if as_json:
        told = {"authority": str(store.authority.certificate), "finish_by": until, "left": left}
        typer.echo(json.dumps(told))
    elif finish:
        typer.echo("the former authority, and all that it has signed, is trusted no longer")
    else:
        typer.echo(f"both authorities are trusted. Finish by {until}: pratipad certs rotate --finish")
        for identity in left:
            typer.echo(f"to be renewed before  pratipad certs renew {identity}")


def _begun(store: CertificateStore, days: float | None, ca: Path | None, key: Path | None) -> str:
    from pratipad_nb.pki.certificates import read_authority

    new = read_authority(ca.expanduser(), key.expanduser()) if ca is not None and key is not None else None
    return f"{store.authority.begin_change(new, days):%Y-%m-%d}"


def _finished(store: CertificateStore, *, force: bool) -> None:
    left = store.left_behind() if store.authority.finish_by is not None else []
    if left and not force:
        raise CertificateError(
            f"{len(left)} of the parties have no certificate of the new authority yet: {', '.join(left)}. "
            "Renew each (pratipad certs renew NAME), or leave them behind: pratipad certs rotate --finish "
            "--force"
        )
    store.authority.finish_change()


@certs.command()
@reported
def revoke(
    party: _RevokedArgument = None,
    flow: _FlowOption = None,
    tenant: Tenant = "",
    serial: Annotated[
        str | None,
        typer.Option(
            metavar="HEX",
            help="One certificate alone, by its serial number, in place of PARTY.",
            show_default=False,
        ),
    ] = None,
    home: Home = None,
) -> None:
    """Let a party, or one certificate, in no more, and end its connections at once.

    The party's next certificate has another serial number: issuing it lets no old certificate in again.

    \b
    Examples:
      pratipad certs revoke device room1 --flow house
      pratipad certs revoke --serial 3f2a17c0
    """
    if (serial is None) == (not party):
        raise SettingsError(
            "say who is let in no more: a party (device room1 --flow house), or --serial HEX."
        )
    folder = local_state.home_folder(home)
    if serial is not None:
        _revoke_certificate(folder, serial)
    else:
        _revoke_party(folder, party or [], flow, tenant)


def _revoke_party(folder: Path, party: list[str], flow: str | None, tenant: str) -> None:
    from pratipad_nb.pki.store import forget_party
    from pratipad_nb.server.register import Change

    listed = local_state.parties_in(folder).parties.values()
    if len(party) == 2 and party[0] == "leaf" and flow is None:
        role, name = Role.LEAF, party[1]
        wanted = [each for each in listed if each.role == "leaf" and each.name == name]
    else:
        role, name, meant = _named(party, flow, tenant)
        identities = {each.identity for each in meant}
        wanted = [each for each in listed if each.identity in identities]
    if not wanted:
        raise SettingsError(
            f"no {role} {name!r}{f' of {flow!r}' if flow else ''} is let in there. See `pratipad certs list`."
        )
    gone = tuple(sorted({replace(each, serial="") for each in wanted}, key=lambda each: each.identity))
    asyncio.run(local_state.change(folder, Change(gone=gone)))
    for each in gone:
        forget_party(folder / "pki", each.role, each.key, each.name)
    flows = " and ".join(repr(each.key) for each in gone)
    typer.echo(f"the {role} {name!r} of {flows} is let in no more")


def _revoke_certificate(folder: Path, serial: str) -> None:
    import shutil

    from pratipad_nb.pki.certificates import serial_of
    from pratipad_nb.server.register import Change

    wanted = serial.strip().lower().removeprefix("0x").replace(":", "").lstrip("0")
    parties = local_state.parties_in(folder).parties.values()
    files = [path for _, path in _stored(folder / "pki") if serial_of(path) == wanted]
    # A certificate of version 0.1 is listed by its holder's identity, and known by its file alone.
    names = {name for name, path in _stored(folder / "pki") if path in files}
    gone = tuple(
        each for each in parties if each.serial == wanted or (not each.serial and each.user in names)
    )
    if not gone:
        raise SettingsError(
            f"no certificate with the serial number {serial!r} is let in there. See `pratipad certs list "
            "--json`; openssl x509 -in cert.pem -noout -serial shows a certificate's."
        )
    asyncio.run(local_state.change(folder, Change(gone=gone)))
    for path in files:
        shutil.rmtree(path.parent, ignore_errors=True)
    typer.echo(f"the certificate {wanted} of {gone[0].in_words} is let in no more")


def _until(certificate: Path) -> str:
    from pratipad_nb.pki.certificates import valid_until

    end = valid_until(certificate)
    return f"{end.astimezone(UTC):%Y-%m-%d}{' (over)' if end < datetime.now(UTC) else ''}"
