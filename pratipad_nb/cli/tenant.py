"""``pratipad tenant``: what a tenant may have over all its flows, and what it has.

Owns the command. The quotas belong to `pratipad_nb.server.register`, which refuses what exceeds them.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pratipad_nb import wording
from pratipad_nb.cli.exits import reported
from pratipad_nb.cli.local_state import change, home_folder, joined_server, parties_in
from pratipad_nb.cli.options import Home, Json
from pratipad_nb.errors import ServerError, SettingsError
from pratipad_nb.settings import Credentials, valid_name

if TYPE_CHECKING:
    from pratipad_nb.server.register import Quota, Register

__all__ = ["tenant"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b|bytes?)?", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


@reported
def tenant(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The tenant's name.")],
    disk: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Most that all its logs may take, as 10GiB.", show_default=False),
    ] = None,
    connections: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Most connections of its devices and readers.", show_default=False
        ),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Most devices that are let in.", show_default=False),
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Set what a tenant may have over all its flows, and show it beside what the tenant has.

    An option that is left out stays as it was; 0 takes a bound away. If the tenant has more than a bound, its
    logs and devices stay, and no more are let in; its connections beyond the bound are ended. Connections are
    shared out among the tenant's flows by their devices and readers.

    \b
    Examples:
      pratipad tenant acme --disk 10GiB --connections 500 --devices 1000
      pratipad tenant acme
      pratipad tenant acme --json | jq .devices.used
    """
    from pratipad_nb.server.register import Change, Quota

    valid_name(name, "tenant")
    folder = home_folder(home)
    register = parties_in(folder)
    given = {"bytes": _bytes(disk), "connections": connections, "devices": devices}
    wanted = {key: value for key, value in given.items() if value is not None}
    if wanted:
        quota = replace(register.quotas.get(name, Quota()), **wanted)
        asyncio.run(change(folder, Change(quotas={name: quota if quota != Quota() else None})))
        register = parties_in(folder)
    elif name not in register.quotas and not _flows(register, name):
        raise SettingsError(
            f"the server in {folder} has neither a flow nor a quota of the tenant {name!r}. Check the name, "
            f"or set a quota: pratipad tenant {name} --disk 10GiB"
        )
    _print(name, register, asyncio.run(_connections(folder, register, name)), as_json)


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise SettingsError(f"--disk {text!r} is no size; it is a number with a unit, as 500MB or 10GiB.")
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** _POWERS.get((unit or "").lower(), 0))


def _flows(register: Register, tenant: str) -> list[str]:
    return [key.partition("/")[2] for key in register.flows if key.startswith(f"{tenant}/")]


async def _connections(home: Path, register: Register, tenant: str) -> int | None:
    """Return how many connections the tenant's devices and readers have; None while no server runs."""
    from pratipad_nb.server.accounts import account_of
    from pratipad_nb.server.usage import connections_of

    accounts = {
        account_of(party, register.rules_of(party.key))
        for party in register.parties.values()
        if party.tenant == tenant and party.role in ("device", "reader")
    }
    try:
        server = joined_server(home)
        url = await server.start()
    except ServerError:
        return None
    try:
        return await connections_of(url, Credentials.in_folder(home / "pki" / "owner"), sorted(accounts))
    finally:
        await server.stop()


def _print(name: str, register: Register, connections: int | None, as_json: bool) -> None:
    from pratipad_nb.server.register import Quota

    quota: Quota = register.quotas.get(name, Quota())
    numbers: dict[str, tuple[int | None, int]] = {
        "disk": (register.bytes_of(name), quota.bytes),
        "connections": (connections, quota.connections),
        "devices": (register.devices_of(name), quota.devices),
    }
    flows = _flows(register, name)
    if as_json:
        told: dict[str, Any] = {"tenant": name, "flows": flows}
        told |= {what: {"used": used, "quota": most or None} for what, (used, most) in numbers.items()}
        typer.echo(json.dumps(told))
        return
    typer.echo(f"tenant {name}: {', '.join(flows) or 'no flow yet'}")
    for what, (used, most) in numbers.items():
        in_words = wording.size if what == "disk" else "{:,}".format
        has = "the server doesn't run" if used is None else in_words(used)
        typer.echo(f"  {what:<11}  {has} of {in_words(most) if most else 'any number'}")
