"""``pratipad server`` for a year in seconds: its own certificate, and those of the parties beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from patience import until
from typer.testing import CliRunner

from pratipad_nb.cli.app import app
from pratipad_nb.errors import PratipadError
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.tls import probe
from pratipad_nb.validity import valid_until

#: Read by every Python process of the shell: certificates of this computer end within two seconds, and those
#: that are carried away within ten days.
SHORT = """
import pratipad_nb.pki.authority, pratipad_nb.server.renewal
pratipad_nb.pki.authority.SERVER_DAYS = 2 / 86400
pratipad_nb.pki.authority.CLIENT_DAYS = 10
pratipad_nb.server.renewal._LEAST_SECONDS = 0.1
"""


@pytest.fixture
def short_lives(shell: Any) -> None:
    shell.file("sitecustomize.py", SHORT)
    beside = os.environ.get("PYTHONPATH", "")
    shell.environment["PYTHONPATH"] = os.pathsep.join([str(shell.folder), *([beside] if beside else [])])


def test_a_server_and_a_flow_beside_it_outlive_the_certificates_that_they_began_with(
    shell: Any, short_lives: None
) -> None:
    server = shell.start("server")
    server.says("end it")
    shell("certs", "issue", "device", "door", "--flow", "house")
    flow = shell.start("run", shell.house(), "--join")
    flow.says("house runs")
    pki = shell.folder / ".pratipad" / "pki"
    certificates = [pki / "listener" / "cert.pem", pki / "edge" / "house" / "cert.pem"]
    ends = [valid_until(each).timestamp() for each in certificates]
    until(lambda: time.time() > max(ends))
    assert "pratipad certs renew device door --flow house" in server.says("'door' of 'house' ends on")
    os.kill(shell.server_pid(), signal.SIGKILL)  # every connection is lost, and comes back
    shell.file("lamp.py", 'from pratipad_nb import Device\nlamp = Device("lamp", read=[{"value": 3}])')
    shell.start("device", "lamp.py", "--flow", "house")
    (result,) = shell.json("cloud", "house", "-n", "1", "--timeout", "30")
    assert result["payload"] == {"value": 6}


def test_an_authority_is_changed_beside_a_server_and_a_flow_that_run(shell: Any) -> None:
    """Devices with certificates of either authority are let in, until the change is finished."""
    certs(shell, "init")
    shell.start("server").says("end it")
    shell.start("run", shell.house(), "--join").says("house runs")
    old = Credentials.in_folder(issued(shell, "old"))
    certs(shell, "rotate")
    new = Credentials.in_folder(issued(shell, "new"))
    url = json.loads((shell.folder / "new-certs/pratipad.json").read_text())["server"]
    for lamp in (old, new):
        asyncio.run(probe(url, lamp))
    certs(shell, "rotate", "--finish", "--force")
    asyncio.run(probe(url, new))
    newest = Credentials.in_folder(issued(shell, "newest"))
    until(lambda: accepted(url, newest))  # the server shows its certificate of the new authority
    asyncio.run(probe(url, new))
    with pytest.raises(PratipadError):
        asyncio.run(probe(url, old))
    os.kill(shell.server_pid(), signal.SIGKILL)
    shell.file("newest.py", 'from pratipad_nb import Device\nnewest = Device("newest", read=[{"value": 3}])')
    shell.start("device", "newest.py", "--certs", "newest-certs")
    (result,) = shell.json("cloud", "house", "-n", "1", "--timeout", "30")
    assert result["payload"] == {"value": 6}


def certs(shell: Any, *arguments: str) -> None:
    """Run `pratipad certs` in this process, which is quicker."""
    done = CliRunner().invoke(app, ["certs", *arguments, "--home", str(shell.folder / ".pratipad")])
    assert done.exit_code == 0, done.output


def issued(shell: Any, name: str) -> Path:
    folder = Path(shell.folder / f"{name}-certs")
    certs(shell, "issue", "device", name, "--flow", "house", "--out", str(folder))
    return folder


def accepted(url: str, credentials: Credentials) -> bool:
    try:
        asyncio.run(probe(url, credentials))
    except PratipadError:
        return False
    return True
