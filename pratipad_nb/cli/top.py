"""``pratipad top``: live rates of a server's flows in a terminal.

Owns finding and asking flows, and the table. The numbers belong to the flows, and any reader may ask for
them. They are sums over all edges of a flow.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pratipad_nb.cli.exits import Signalled, reported, run_until_signalled
from pratipad_nb.cli.local_state import called, endpoint_for, home_folder, joined_server, known_flows
from pratipad_nb.cli.options import Certs, Home, Json, Server, Tenant
from pratipad_nb.cli.rate_rows import COLUMNS, fitting, row, rows, troubles
from pratipad_nb.errors import FlowError, SettingsError, WaitTimeout
from pratipad_nb.pki.invitation import invitation_in

if TYPE_CHECKING:
    from rich.console import Group

    from pratipad_nb.cloud.control import Control

__all__ = ["drawn", "top"]

_READER = "top"
#: Seconds that a flow may take to answer before it counts as not running.
_PATIENCE = 3.0


@reported
def top(
    flow: Annotated[
        str | None,
        typer.Argument(metavar="[FLOW]", help="One flow; default: all of the server.", show_default=False),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the numbers once, and end.")] = False,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="How often they are asked for.")
    ] = 1.0,
    server: Server = None,
    certs: Certs = None,
    home: Home = None,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Show the rates of a server's flows, each summed over all edges that run it.

    Edges are listed if there are several. Below the table stands what blocks a flow and what has failed, with
    the edge's host and process; --json has the same, under edges.

    With --server and --certs the command shows one flow, as the flow's reader. --once exits with 1 if no flow
    answers.

    \b
    Examples:
      pratipad top
      pratipad top house --once --json | jq .rate
    """
    live = not (once or as_json)
    where = _Where(flow, server, certs, home_folder(home), tenant)
    work = _show(where, None if once else every, live, as_json)
    with contextlib.suppress(Signalled):
        run_until_signalled(work)


@dataclass(frozen=True, slots=True)
class _Where:
    """The options of one call that say which flows are asked, and where."""

    flow: str | None
    server: str | None
    certs: Path | None
    home: Path
    tenant: str


async def _show(where: _Where, every: float | None, live: bool, as_json: bool) -> None:
    async with contextlib.AsyncExitStack() as stack:
        flows = {key: await stack.enter_async_context(_control(key, where)) for key in _keys(where)}
        if live:
            await _draw(flows, every or 1.0)
        while not live:
            stats = await _asked(flows)
            if as_json:
                sys.stdout.writelines(json.dumps(each) + "\n" for each in stats)
                sys.stdout.flush()
            else:
                _table(stats)
            if every is None:
                if not stats:
                    raise FlowError(f"no flow answers ({', '.join(flows)}). Start one: pratipad run FILE")
                return
            await asyncio.sleep(every)


def _keys(where: _Where) -> list[str]:
    """Return the keys of the flows to ask: the flow that is named, else all of the server or the tenant."""
    if where.certs is not None or (where.server is not None and where.flow is not None):
        party = called("reader", _READER, flow=where.flow, certs=where.certs, tenant=where.tenant)
        if party is None:
            raise SettingsError(
                f"which flow? {where.certs} doesn't say it: pratipad top FLOW --certs "
                f"{quote(str(where.certs))}"
            )
        return [party.key]
    known = known_flows(joined_server(where.home).register)
    found = [key for key in known if not where.tenant or key.startswith(f"{where.tenant}/")]
    if not found:
        of = f" of the tenant {where.tenant!r}" if where.tenant else ""
        raise FlowError(f"the server in {where.home} has no flow{of} yet. Start one: pratipad run FILE")
    if where.flow is None:
        return found
    party = called("reader", _READER, flow=where.flow, certs=None, tenant=where.tenant)
    if party is None or party.key not in found:
        # Checked before a certificate is made: a mistyped name must let nobody in.
        raise FlowError(
            f"the server in {where.home} has no flow {where.flow!r}; it has {', '.join(found)}. Check the "
            "name, or start that flow: pratipad run FILE"
        )
    return [party.key]


@contextlib.asynccontextmanager
async def _control(key: str, where: _Where) -> AsyncIterator[Control]:
    from pratipad_nb.cloud.control import Control
    from pratipad_nb.transport.connecting import connect

    said = invitation_in(where.certs) if where.certs is not None else None
    name = said.name if said is not None and said.role == "reader" else _READER
    endpoint = await endpoint_for(
        "reader", name, flow=key, server=where.server, certs=where.certs, home=where.home
    )
    connection = await connect(endpoint, role="reader", name=name)
    try:
        yield Control(connection, endpoint.flow, name)
    finally:
        await connection.close()


async def _asked(flows: dict[str, Control]) -> list[dict[str, Any]]:
    """Return the numbers of the flows that answer, under the flows' keys."""

    async def one(key: str, control: Control) -> dict[str, Any] | None:
        try:
            return await control.ask("stats", {}, _PATIENCE) | {"name": key}
        except WaitTimeout:
            return None

    answers = await asyncio.gather(*(one(key, control) for key, control in flows.items()))
    return [answer for answer in answers if answer is not None]


def _table(stats: list[dict[str, Any]]) -> None:
    """Print the table as plain text, for a file or a pipe."""
    table = [COLUMNS, *map(row, stats)]
    widths = [max(len(each[column]) for each in table) for column in range(len(COLUMNS))]
    for each in table:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(each, widths, strict=True)).rstrip())
    for flow in stats:
        for line in troubles(flow):
            typer.echo(line)


async def _draw(flows: dict[str, Control], every: float) -> None:
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(), auto_refresh=False, transient=False) as screen:
        while True:
            stats = await _asked(flows)
            screen.update(drawn(stats, screen.console.width), refresh=True)
            await asyncio.sleep(every)


def drawn(stats: list[dict[str, Any]], width: int = 80) -> Group:
    """Return the table for a terminal of `width`, each flow's processors and edges below it, and troubles.

    If the terminal is narrow, names are folded, and some columns are left out.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    found = [each for flow in stats for each in rows(flow)]
    kept = fitting([COLUMNS, *found], width)
    table = Table(caption="" if stats else "no flow answers", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for at in kept:
        table.add_column(COLUMNS[at], no_wrap=at > 0, overflow="fold", justify="right" if at > 1 else "left")
    for each in found:
        # As text, for a name in brackets would be taken for Rich's markup.
        table.add_row(*(Text(each[at]) for at in kept))
    return Group(table, *(Text(line) for flow in stats for line in troubles(flow)))
