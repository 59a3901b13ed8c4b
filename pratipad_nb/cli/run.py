"""``pratipad run``: a notebook or a program without a browser, its flows kept running.

Owns all around the file: where flows run, starting and ending them, the status line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pratipad_nb.cli.exits import Ending, raise_last, reported, said, signals
from pratipad_nb.cli.local_state import answering_server, home_folder, started_server
from pratipad_nb.cli.options import Certs, Home, Json, Server
from pratipad_nb.errors import ConnectionRefused, FlowError, PratipadError, WaitTimeout
from pratipad_nb.pki.invitation import invitation_in
from pratipad_nb.settings import Credentials

if TYPE_CHECKING:
    from pratipad_nb.session.flow import Flow

__all__ = ["run"]

#: Seconds between two looks whether a flow has failed.
_LOOK_SECONDS = 0.5


@reported
def run(
    file: Annotated[Path, typer.Argument(metavar="NOTEBOOK.ipynb|FILE.py", help="What to run.")],
    seconds: Annotated[
        float | None,
        typer.Option(
            "--for", metavar="SECONDS", min=0.0, help="Drain and end after so long.", show_default=False
        ),
    ] = None,
    status: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="How often to print a status line; 0: never.")
    ] = 30.0,
    join: Annotated[
        bool,
        typer.Option("--join", help="Wait for the server of the state folder, in place of starting one."),
    ] = False,
    home: Home = None,
    server: Server = None,
    certs: Certs = None,
    as_json: Json = False,
) -> None:
    """Run a notebook's code cells, or a Python file, and keep its flows running until a signal drains them.

    Cells tagged `notebook-only` are skipped. A flow that the file defines and doesn't start is started. Flows
    run on the server of the state folder, which is started if none runs there (with --join: waited for), or
    on --server with --certs, which is waited for. If a cell fails, the flows started so far are drained, and
    the exit code is 1.

    \b
    Examples:
      pratipad run notebooks/04_house.ipynb
      pratipad run house.py --for 60 --status 5
      pratipad run house.py --certs edge-certs
    """
    from pratipad_nb.session.registry import flows

    _take_for_granted(home, server, certs)
    namespace: Mapping[str, Any] = {}
    with signals() as ending:
        try:
            asyncio.run(_server_is_there(home, certs, join=join))
            # With --json, stdout holds the JSON alone.
            with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
                namespace = _execute(file, patient=join or certs is not None)
            if not flows():
                _nothing_runs(file, namespace)
                return
            ending.expect()
            for flow in flows().values():
                said(f"{flow.name} runs: {flow.notation}")
            _keep(ending, seconds, status, as_json)
        finally:
            _end(namespace, as_json)


def _nothing_runs(file: Path, namespace: Mapping[str, Any]) -> None:
    """Say that no flow runs at the end of the file.

    Raises
    ------
    ProgramError
        If the file defines no flow.
    """
    from pratipad_nb.cli.programs import ProgramError, defined
    from pratipad_nb.session.flow import Flow

    if not defined(namespace, Flow):
        raise ProgramError(
            f"{file} defines no flow. Write one at its top level: house = Flow('Push ~> f ~> Output', "
            "name='house')"
        )
    said("no flow is running at the end of the file, so there is nothing to keep running.")


async def _server_is_there(home: Path | None, certs: Path | None, *, join: bool) -> None:
    """Wait for the server where flows will run, unless they start one."""
    from pratipad_nb.session.defaults import defaults

    server = defaults().server
    if server is None and join:
        await (await started_server(home_folder(home), None)).stop()
    elif server is not None and certs is not None and server.startswith("tls://"):
        await answering_server(server, Credentials.in_folder(certs))


def _take_for_granted(home: Path | None, server: str | None, certs: Path | None) -> None:
    """Let flows that say nothing else run where the options say; the notebook's defaults say the same."""
    from pratipad_nb.session.defaults import Defaults, set_defaults

    folder = home_folder(home)
    if certs is not None and server is None:
        invitation = invitation_in(certs)
        server = invitation.server if invitation else None
    certs = certs.expanduser().absolute() if certs is not None else None
    set_defaults(Defaults(folder, server, certs))
    for name, value in (("HOME", folder), ("SERVER", server), ("CERTS", certs)):
        if value is not None:
            os.environ[f"PRATIPAD_{name}"] = str(value)


def _execute(file: Path, *, patient: bool) -> Mapping[str, Any]:
    if file.suffix == ".ipynb":
        from pratipad_nb.cli.notebooks import execute_notebook

        return execute_notebook(file)
    from pratipad_nb.cli.programs import defined, execute
    from pratipad_nb.session.flow import Flow

    namespace = execute(file, name="__main__")
    for flow in defined(namespace, Flow):
        if flow.endpoint is None:  # never started; a flow that the file has stopped stays stopped
            _start(flow, patient=patient)
    return namespace


def _start(flow: Flow, *, patient: bool) -> None:
    """Start a flow. If the server is another process's, wait out that it goes away, or that the link does.

    Raises
    ------
    PratipadError
        As `Flow.start`.
    """
    told = False
    while True:
        try:
            flow.start()
        except (ConnectionRefused, WaitTimeout) as error:
            if not patient:
                raise
            if not told:
                said(f"{flow.name} is started again until its server answers: {error}")
            told = True
            time.sleep(_LOOK_SECONDS)
        else:
            return


def _keep(ending: Ending, seconds: float | None, status: float, as_json: bool) -> None:
    """Wait for the end, and look at the flows meanwhile.

    Raises
    ------
    FlowError
        If a flow fails.
    """
    from pratipad_nb.session.registry import flows

    begin = time.monotonic()
    following = begin + status
    while running := flows():
        now = time.monotonic()
        if seconds is not None and now - begin >= seconds:
            return
        for flow in running.values():
            if flow.state == "failed":
                raise FlowError(f"flow {flow.name!r} failed: {flow.stats().error}")
        if status > 0 and now >= following:
            following = now + status
            for flow in running.values():
                _tell(flow, as_json)
        left = _LOOK_SECONDS if seconds is None else min(_LOOK_SECONDS, begin + seconds - now)
        if ending.wait(left):
            return


def _tell(flow: Flow, as_json: bool) -> None:
    from pratipad_nb.cli.rate_rows import status_line

    stats = asdict(flow.stats())
    if as_json:
        typer.echo(json.dumps(stats))
    else:
        said(status_line(stats))


def _end(namespace: Mapping[str, Any], as_json: bool) -> None:
    """Close devices first, so that the messages in their outboxes are still accepted, then drain the flows.

    Raises
    ------
    PratipadError
        The last error of closing or draining; the others are written to stderr.
    """
    from pratipad_nb.cli.programs import defined
    from pratipad_nb.device.blocking import Device
    from pratipad_nb.session.registry import flows

    running = list(flows().values())
    failed: list[PratipadError] = []
    for end in (*(each.close for each in defined(namespace, Device)), *(flow.stop for flow in running)):
        try:
            end()
        except PratipadError as error:
            failed.append(error)
    for flow in running:
        _tell(flow, as_json)
    raise_last(failed)
