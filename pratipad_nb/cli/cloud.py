"""``pratipad cloud``: a flow's results on stdout, and orders to its devices.

Owns when a message counts as read: once it is written (and in the database) and answered, so that a crash
repeats some messages rather than lose any. Reading belongs to `pratipad_nb.cloud`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pratipad_nb.backoff import Backoff
from pratipad_nb.cli.exits import Signalled, reported, run_until_signalled, said
from pratipad_nb.cli.local_state import called, endpoint_for, home_folder, known_flows, parties_in
from pratipad_nb.cli.options import Certs, Home, Server, Tenant
from pratipad_nb.cli.rules import Rule
from pratipad_nb.errors import (
    NotInvited,
    PayloadError,
    SettingsError,
    TransportClosed,
    TransportError,
    WaitTimeout,
)
from pratipad_nb.pki.invitation import invitation_in

if TYPE_CHECKING:
    from pratipad_nb.cli.patient_output import PatientSink
    from pratipad_nb.cloud.client import AsyncCloud
    from pratipad_nb.message import Message
    from pratipad_nb.settings import Endpoint

__all__ = ["answer", "cloud"]

_READER = "cloud"
#: Most messages that are written before their position is stored.
_BATCH = 1000
#: Seconds between two looks whether a pull request is done.
_LOOK_SECONDS = 0.2
#: First and longest pause before an order that couldn't be sent is tried again, in seconds.
_PAUSES = (0.1, 5.0)
#: Seconds that a flow may take to say which devices it knows.
_STATS_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class _Wishes:
    """The options of one call; `home` is the state folder, if the server is that folder's."""

    most: int | None
    timeout: float | None
    begin: str | None
    order: Any
    ordered: bool
    to: list[str] | None
    pull: int | None
    database: Path | None
    quiet: bool
    rule: Rule | None
    home: Path | None


@reported
def cloud(
    flow: Annotated[str, typer.Argument(metavar="FLOW", help="The flow's name.")],
    most: Annotated[
        int | None,
        typer.Option("-n", metavar="N", min=1, help="End after N results.", show_default=False),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0.0, help="Fail if they aren't there in time.", show_default=False
        ),
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The name to read under; each reader has a position of its own. Default: the certificate "
            "folder's reader, or cloud.",
            show_default=False,
        ),
    ] = None,
    begin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="oldest|newest",
            help="Where to begin. Default: where it stopped.",
            show_default=False,
        ),
    ] = None,
    send: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help="Send an order, then end (unless -n or --pull).", show_default=False
        ),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEVICE",
            help="Whom to send it to; may be repeated. Default: all known.",
            show_default=False,
        ),
    ] = None,
    pull: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Ask devices for N readings; end when they are here.", show_default=False
        ),
    ] = None,
    sqlite: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write the results into this SQLite file.", show_default=False
        ),
    ] = None,
    rule: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.py",
            help="Answer results: the return value of its rule(message), unless None, is sent to the "
            "message's device.",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no results.")] = False,
    server: Server = None,
    certs: Certs = None,
    home: Home = None,
    tenant: Tenant = "",
) -> None:
    """Print a flow's results as JSON lines, until a signal ends it; send orders; ask for readings.

    A result is an object with payload, id, device, time, received and flow. After a crash the last few may
    come twice, and be answered twice: their ids are equal, and --sqlite keeps one of each.

    A reader's name is for one process at a time. A newer `pratipad cloud` of the same --reader takes the name
    over; the older one names the newer one's process and host, and ends with exit code 3.

    \b
    Examples:
      pratipad cloud house
      pratipad cloud house -n 10 --timeout 30 | jq .payload
      pratipad cloud house --sqlite house.db --quiet --reader archive
      pratipad cloud house --sqlite house.db --rule rule.py
      pratipad cloud house --send '{"led": "on"}' --to room1
      pratipad cloud meter --pull 5
      pratipad cloud house --tenant acme
      pratipad cloud acme/house --tenant globex --certs archive-certs    (see flow.share)
    """
    if begin not in (None, "oldest", "newest"):
        raise SettingsError(f"--from is {begin!r}; it can be oldest or newest.")
    if to and send is None:
        raise SettingsError("--to says who gets the order of --send, and there is none.")
    wishes = _Wishes(
        most,
        timeout,
        begin,
        _parsed(send),
        send is not None,
        to or None,
        pull,
        sqlite,
        quiet,
        None if rule is None else Rule(rule),
        home_folder(home) if server is None and certs is None else None,
    )
    issued = invitation_in(certs) if certs is not None else None
    name = reader or (issued.name if issued is not None and issued.role == "reader" else _READER)
    patience = timeout if send is None or most is not None or pull is not None else 0.0
    party = called("reader", name, flow=flow, certs=certs, tenant=tenant)
    work = endpoint_for(
        "reader",
        name,
        flow=flow,
        server=server,
        certs=certs,
        home=home,
        tenant=tenant,
        patience=patience,
    )
    try:
        run_until_signalled(_run(work, party.name if party is not None else name, wishes))
    except Signalled:
        if most is not None or pull is not None or send is not None:
            raise


def _parsed(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise SettingsError(
            f'--send {text} is no JSON: {error}. Quote it, as \'{{"led": "on"}}\'.'
        ) from error


async def _run(endpoint: Any, name: str, wishes: _Wishes) -> None:
    from pratipad_nb.cli.patient_output import PatientSink
    from pratipad_nb.cloud.client import AsyncCloud
    from pratipad_nb.transport.parties import flow_key

    with contextlib.closing(endpoint):
        # Before the reader is let in, for which an edge of the flow is let in as well.
        known = known_flows(parties_in(wishes.home)) if wishes.home is not None else []
        found: Endpoint = await endpoint
    sink = None if wishes.database is None else PatientSink(wishes.database)
    try:
        if sink is not None:
            await sink.open()
        if wishes.home is not None:
            _tell_if_unknown(wishes.home, known, flow_key(found.flow, found.tenant), name)
        async with AsyncCloud(found.flow, reader=name, endpoint=found) as client:
            await _fulfil(client, wishes, sink)
    finally:
        if sink is not None:
            sink.close()


def _tell_if_unknown(home: Path, flows: list[str], flow: str, reader: str) -> None:
    """Say that there is no such flow: a reader may come first, but a mistyped name would wait for ever."""
    if flow not in flows:
        tenant = flow.rpartition("/")[0]
        there = ", ".join(each for each in flows if each.rpartition("/")[0] == tenant)
        said(
            f"the server in {home} has no flow {flow!r} yet; it has {there or 'none'}. This waits "
            f"for it. If the name is wrong, take the reader back: pratipad certs revoke reader {reader} "
            f"--flow {flow}"
        )


async def _fulfil(client: AsyncCloud, wishes: _Wishes, sink: PatientSink | None) -> None:
    if wishes.begin is not None:
        await client.seek("oldest" if wishes.begin == "oldest" else "newest")
    if wishes.ordered:
        typer.echo(json.dumps({"order": await client.send(wishes.order, wishes.to)}))
        await _tell_who_is_unknown(client, wishes.to)
        if wishes.most is None and wishes.pull is None:
            return
    if wishes.pull is None:
        await _read(client, wishes, sink, None)
        return
    request = await client.pull(wishes.pull)
    fulfilled = asyncio.create_task(request.wait(wishes.timeout or None), name="the pull request")
    try:
        await _read(client, wishes, sink, fulfilled.done)
        if fulfilled.done():
            await fulfilled  # raises an error that names the silent devices
    finally:
        fulfilled.cancel()
        await asyncio.wait({fulfilled})


async def _tell_who_is_unknown(client: AsyncCloud, to: list[str] | None) -> None:
    """Say which addressed devices the flow doesn't know: a mistyped name would go unnoticed."""
    from pratipad_nb.cloud.control import Control

    try:
        stats = await Control(await client.connect(), client.flow, client.reader).ask(
            "stats", {}, _STATS_SECONDS
        )
    except (TransportError, WaitTimeout):
        return  # the order is stored all the same
    known = stats["devices"]
    if to is None and not known:
        said(f"the flow {client.flow!r} knows no device yet, so the order reaches nobody.")
    for name in to or ():
        # A device behind a gateway may be silent for long; its gateway is known.
        if name not in known and name.partition(".")[0] not in known:
            said(
                f"the flow {client.flow!r} knows no device {name!r} (it knows "
                f"{', '.join(sorted(known)) or 'none'}); the order waits until it connects."
            )


async def _read(
    client: AsyncCloud, wishes: _Wishes, sink: PatientSink | None, done: Callable[[], bool] | None
) -> None:
    """Write results until there are enough, or (`done`) a request is fulfilled and no result is left."""
    import msgspec

    from pratipad_nb.cli.patient_output import print_patiently

    loop = asyncio.get_running_loop()
    end = None if wishes.timeout is None else loop.time() + wishes.timeout
    reader = await client.opened_reader(wishes.timeout)
    count = 0
    while wishes.most is None or count < wishes.most:
        until = end if done is None else loop.time() + _LOOK_SECONDS
        finished = done is not None and done()
        try:
            async with asyncio.timeout_at(until):
                lent = await reader.look(_BATCH if wishes.most is None else min(_BATCH, wishes.most - count))
        except TimeoutError:
            if finished and not await reader.pending():
                return
            if end is not None and loop.time() >= end:
                wanted = "" if wishes.most is None else f" of {wishes.most}"
                raise WaitTimeout(
                    f"{count}{wanted} results of {client.flow!r} came in {wishes.timeout:g} s. Wait longer "
                    "(--timeout), or see whether the flow runs and devices send: pratipad top"
                ) from None
            continue
        if sink is not None:
            await sink.write(lent.messages)
        if not wishes.quiet:
            await print_patiently(b"".join(msgspec.json.encode(each) + b"\n" for each in lent.messages))
        if wishes.rule is not None:
            for message, order in wishes.rule.orders(lent.messages):
                await answer(client, message, order)
        lent.taken = len(lent.messages)
        count += lent.taken


async def answer(
    client: AsyncCloud, message: Message, order: Any, pauses: tuple[float, float] = _PAUSES
) -> None:
    """Send an order, and go on trying while the order can't be sent now: the position waits for it.

    An order that can never be sent is only reported, as a message is on which the rule fails: the next start
    would fail on that order again.
    """
    waits = False
    backoff = Backoff(*pauses)
    while True:
        try:
            await client.send(order, message.device)
        except (PayloadError, SettingsError) as error:
            said(
                f"the rule's order can't be sent: {error} Message {message.id} of {message.device} is not "
                "answered."
            )
            return
        except (NotInvited, TransportClosed):
            raise
        except (TransportError, WaitTimeout) as error:
            if not waits:
                said(f"an order to {message.device} waits: {error}")
            waits = True
            await asyncio.sleep(backoff.next())
        else:
            return
