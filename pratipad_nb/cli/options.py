"""Options that several commands have, with their environment variables and help.

Owns the options' spelling. Their meaning belongs to the commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Certs", "FlowName", "Home", "Json", "Server", "Tenant"]

Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        envvar="PRATIPAD_HOME",
        metavar="DIR",
        help="The state folder. Default: .pratipad in the current folder.",
        show_default=False,
    ),
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="PRATIPAD_SERVER",
        metavar="URL",
        help="An existing server, as tls://HOST:4222. Default: what the certificate folder says, "
        "or the server of the state folder.",
        show_default=False,
    ),
]
Certs = Annotated[
    Path | None,
    typer.Option(
        "--certs",
        envvar="PRATIPAD_CERTS",
        metavar="DIR",
        help="A certificate folder, as `pratipad certs issue` writes it.",
        show_default=False,
    ),
]
FlowName = Annotated[
    str | None,
    typer.Option(
        "--flow",
        envvar="PRATIPAD_FLOW",
        metavar="NAME",
        help="The flow's name. Default: what the certificate folder says.",
        show_default=False,
    ),
]
Tenant = Annotated[
    str,
    typer.Option(
        "--tenant",
        envvar="PRATIPAD_TENANT",
        metavar="NAME",
        help="The tenant of the device or reader, and of its flow. Another tenant's flow is TENANT/FLOW, "
        "for a reader with which it is shared.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one value a line.")]
