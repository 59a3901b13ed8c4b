"""``pratipad device``: the devices that a file defines, connected until a signal ends them.

Owns the devices' life in this process. Needs no more than a device does: with --certs certificates are read,
not made.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pratipad_nb.cli.exits import Ending, raise_last, reported, said, signals
from pratipad_nb.cli.local_state import endpoint_for
from pratipad_nb.cli.options import Certs, FlowName, Home, Server, Tenant
from pratipad_nb.cli.programs import ProgramError, defined, execute
from pratipad_nb.cli.rate_rows import device_line
from pratipad_nb.errors import DeviceError, PratipadError

if TYPE_CHECKING:
    from pratipad_nb.device.blocking import Device

__all__ = ["device"]

#: The file's name as a module: a part below ``if __name__ == "__main__"`` is not run.
_MODULE = "__pratipad_device__"
_LOOK_SECONDS = 0.5


@reported
def device(
    file: Annotated[Path, typer.Argument(metavar="FILE.py", help="A file that defines Device objects.")],
    flow: FlowName = None,
    server: Server = None,
    certs: Certs = None,
    home: Home = None,
    tenant: Tenant = "",
    seconds: Annotated[
        float | None,
        typer.Option(
            "--for", metavar="SECONDS", min=0.0, help="Flush and end after so long.", show_default=False
        ),
    ] = None,
    status: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="How often to print a status line; 0: never.")
    ] = 60.0,
) -> None:
    """Connect the Device objects that a file defines, and keep them connected until a signal ends them.

    The devices wait for a server that doesn't run yet, and reconnect to a server that was away. A signal
    makes the devices send the messages in their outboxes, and close; the exit code is 1 if a message could
    not be sent. With several devices in a file, --certs is the folder of their certificate folders, each
    named as its device.

    \b
    Examples:
      pratipad device room1.py --certs room1-certs
      pratipad device rooms.py --certs certs --server tls://edge.local:4222 --flow house
      pratipad device room1.py --flow house            (beside a running `pratipad server`)
    """
    from pratipad_nb.device.blocking import Device

    with signals() as ending:
        found = defined(execute(file, name=_MODULE), Device)
        if not found:
            raise ProgramError(
                f"{file} defines no device. Write one at its top level: "
                "room1 = Device('room1', read=…, every=1)"
            )
        try:
            for each in found:
                if each.state == "not connected":
                    where = {"flow": flow, "server": server, "certs": certs, "home": home, "tenant": tenant}
                    _connect(each, where)
            ending.expect()
            for each in found:
                said(device_line(each))
            _keep(found, ending, seconds, status)
        finally:
            # A device that couldn't connect has said why.
            _close([each for each in found if each.flow and not each.state.startswith("closed")])


def _connect(device: Device, where: dict[str, Any]) -> None:
    where["tenant"] = where["tenant"] or device.tenant
    device.connect(asyncio.run(endpoint_for("device", device.name, patience=None, **where)))


def _keep(found: list[Device], ending: Ending, seconds: float | None, status: float) -> None:
    """Wait for the end, and look at the devices meanwhile.

    Raises
    ------
    DeviceError
        If a device has failed for good: the server turns it away.
    """
    begin = time.monotonic()
    following = begin + status
    while seconds is None or time.monotonic() - begin < seconds:
        for each in found:
            if each.state.startswith("failed"):
                raise DeviceError(f"device {each.name!r} {each.state}")
        if status > 0 and time.monotonic() >= following:
            following += status
            for each in found:
                said(device_line(each))
        if ending.wait(_LOOK_SECONDS):
            return


def _close(found: list[Device]) -> None:
    failed: list[PratipadError] = []
    for each in found:
        try:
            each.close()
        except PratipadError as error:
            failed.append(error)
        said(device_line(each))
    raise_last(failed)
