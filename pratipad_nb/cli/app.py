"""The commands of ``pratipad``, put together.

Owns the commands' order and the text above them. Each command is a module of its own, whose heavy imports
happen when it runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from pratipad_nb.cli.certs import certs
from pratipad_nb.cli.check import check
from pratipad_nb.cli.cloud import cloud
from pratipad_nb.cli.device import device
from pratipad_nb.cli.run import run
from pratipad_nb.cli.server import server
from pratipad_nb.cli.tenant import tenant
from pratipad_nb.cli.top import top

__all__ = ["app"]

_HELP = """Run, watch and check dataflows without a notebook.

\b
The house of the tutorial as five processes:
  pratipad server
  pratipad run house.ipynb
  pratipad device room1.py --flow house
  pratipad device room2.py --flow house
  pratipad cloud house

\b
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a newer reader of the same name reads now, 130 or 143
interrupted before it was done. `server`, `run`, `device` and an endless `cloud` end by a signal: 0 if all
was drained.
Environment: PRATIPAD_HOME, PRATIPAD_SERVER, PRATIPAD_CERTS, PRATIPAD_FLOW, PRATIPAD_TENANT stand for
--home, --server, --certs, --flow, --tenant.
"""

app = typer.Typer(
    name="pratipad",
    no_args_is_help=True,
    # Plain help: importing the library that draws boxes would take longer than all else.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from pratipad_nb import __version__

        typer.echo(f"pratipad {__version__}")
        raise typer.Exit


@app.callback(help=_HELP)
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options of ``pratipad`` itself."""


for _command, _short in (
    (server, "Run the NATS server."),
    (run, "Run a notebook or a Python file, and keep its flows running."),
    (device, "Connect the devices that a file defines."),
    (cloud, "Print a flow's results as JSON lines; send orders."),
    (top, "Show the rates of flows."),
    (tenant, "Set and show what a tenant may have."),
    (check, "Check notations without running anything."),
):
    app.command(short_help=_short)(_command)
app.add_typer(certs, name="certs")
