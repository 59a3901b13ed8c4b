"""``pratipad server`` for a year in seconds: its own certificate, and those of the parties beside it."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from patience import until

from pratipad_nb.validity import valid_until

#: Read by every Python process of the shell: certificates of this computer end within two seconds.
SHORT = """
import pratipad_nb.pki.authority, pratipad_nb.server.renewal
pratipad_nb.pki.authority.SERVER_DAYS = 2 / 86400
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
    flow = shell.start("run", shell.house(), "--join")
    flow.says("house runs")
    pki = shell.folder / ".pratipad" / "pki"
    certificates = [pki / "listener" / "cert.pem", pki / "edge" / "house" / "cert.pem"]
    ends = [valid_until(each).timestamp() for each in certificates]
    until(lambda: time.time() > max(ends))
    os.kill(shell.server_pid(), signal.SIGKILL)  # every connection is lost, and comes back
    shell.file("lamp.py", 'from pratipad_nb import Device\nlamp = Device("lamp", read=[{"value": 3}])')
    shell.start("device", "lamp.py", "--flow", "house")
    (result,) = shell.json("cloud", "house", "-n", "1", "--timeout", "30")
    assert result["payload"] == {"value": 6}


def test_a_server_warns_of_what_was_carried_away_and_ends(shell: Any) -> None:
    shell("certs", "init")
    shell.file("sitecustomize.py", "import pratipad_nb.pki.authority as a; a.CLIENT_DAYS = 10")
    shell.environment["PYTHONPATH"] = os.pathsep.join([str(shell.folder), os.environ.get("PYTHONPATH", "")])
    shell("certs", "issue", "device", "lamp", "--flow", "house")
    server = shell.start("server")
    assert "pratipad certs renew device lamp --flow house" in server.says("'lamp' of 'house' ends on")
