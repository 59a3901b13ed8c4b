"""Three machines, as network namespaces with cables between them, and nothing but the command line on each.

A pulled cable differs from a process that dies: nobody is told, and connections look whole for a while.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CUT_SECONDS = 15.0
COUNT = 250
ROOM = f"""
from pathlib import Path
from pratipad_nb import Device

readings = ({{"value": value}} for value in range({COUNT}))
room1 = Device("room1", read=readings, every=0.1, receive=lambda order: Path("order").write_text(str(order)))
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def why_not() -> str:
    """Return why this machine allows no network namespaces; empty if it does."""
    if shutil.which("ip") is None:
        return "there is no `ip` (Debian: iproute2)"
    name = f"pnb{os.getpid()}"
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        return f"no network namespaces: {error.stderr.decode().strip()}"
    ip("netns", "delete", name)
    return ""


class Hosts:
    """Machines by name, each a namespace and a folder; joined by cables that can be pulled."""

    def __init__(self, folder: Path, make_shell: Any) -> None:
        self._folder = folder
        self._make_shell = make_shell
        self._id = os.getpid()
        self.shells: dict[str, Any] = {}

    def host(self, name: str) -> Any:
        ip("netns", "add", self._of(name))
        ip("-n", self._of(name), "link", "set", "lo", "up")
        (self._folder / name).mkdir()
        shell = self._make_shell(self._folder / name, ("ip", "netns", "exec", self._of(name)))
        self.shells[name] = shell
        return shell

    def cable(self, number: int, one: str, other: str) -> None:
        """Lay a cable: `one` is 10.77.NUMBER.1 at it, `other` 10.77.NUMBER.2."""
        ends = [(one, f"to-{other}"), (other, f"to-{one}")]
        (host, end), (peer, far) = ends
        ip(
            "-n",
            self._of(host),
            "link",
            "add",
            end,
            "type",
            "veth",
            "peer",
            "name",
            far,
            "netns",
            self._of(peer),
        )
        for last, (name, interface) in enumerate(ends, 1):
            ip("-n", self._of(name), "address", "add", f"10.77.{number}.{last}/24", "dev", interface)
            ip("-n", self._of(name), "link", "set", interface, "up")

    def pull(self, one: str, other: str) -> None:
        ip("-n", self._of(one), "link", "set", f"to-{other}", "down")

    def plug(self, one: str, other: str) -> None:
        ip("-n", self._of(one), "link", "set", f"to-{other}", "up")

    def _of(self, name: str) -> str:
        return f"pnb{self._id}-{name}"

    def close(self) -> None:
        for shell in self.shells.values():
            shell.close()
        for name in self.shells:
            ip("netns", "delete", self._of(name))


@pytest.fixture
def hosts(tmp_path: Path, make_shell: Any) -> Iterator[Hosts]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    made = Hosts(tmp_path, make_shell)
    try:
        yield made
    finally:
        made.close()


def carry(folder: str, source: Any, target: Any) -> None:
    """Copy a certificate folder from one machine to another."""
    shutil.copytree(source.folder / folder, target.folder / folder)


@pytest.mark.timeout(180)
def test_the_uplink_is_pulled_for_a_while_and_nothing_is_lost(hosts: Hosts, until: Any) -> None:
    room, barn, cloud = hosts.host("room"), hosts.host("barn"), hosts.host("cloud")
    hosts.cable(1, "room", "barn")
    hosts.cable(2, "barn", "cloud")

    cloud.start("server", "--leaves", "10.77.2.2:7422").says("leaves")
    cloud("certs", "issue", "leaf", "barn", "--flow", "house")
    carry("barn-certs", cloud, barn)
    barn.start("server", "--listen", "10.77.1.2:4222", "--leaf-of", "barn-certs").says("leaf of")
    barn.house()
    barn.start("run", "house.py").says("house runs")
    barn("certs", "issue", "device", "room1", "--flow", "house")
    carry("room1-certs", barn, room)
    room.file("room.py", ROOM)
    room.start("device", "room.py", "--certs", "room1-certs").says("connected")

    reader = ("cloud", "house", "--timeout", "100", "-n")
    values = [message["payload"]["value"] for message in cloud.json(*reader, "20")]
    hosts.pull("barn", "cloud")
    time.sleep(CUT_SECONDS)  # how long the cable is out is what is tried
    (stats,) = barn.json("top", "house", "--once", "--json")
    assert stats["delivered"] > len(values) + CUT_SECONDS * 5  # the edge went on meanwhile
    hosts.plug("barn", "cloud")

    values += [message["payload"]["value"] for message in cloud.json(*reader, str(COUNT - 20))]
    assert values == [2 * value for value in range(COUNT)]
    cloud.json("cloud", "house", "--send", '{"led": "on"}', "--to", "room1")
    until((room.folder / "order").exists)


@pytest.mark.timeout(120)
def test_a_devices_cable_is_pulled_and_what_it_measured_meanwhile_arrives_in_order(hosts: Hosts) -> None:
    room, barn = hosts.host("room"), hosts.host("barn")
    hosts.cable(1, "room", "barn")
    barn.start("server", "--listen", "10.77.1.2:4222").says("server")
    barn.house()
    barn.start("run", "house.py").says("house runs")
    barn("certs", "issue", "device", "room1", "--flow", "house")
    carry("room1-certs", barn, room)
    room.file("room.py", ROOM.replace("every=0.1", "every=0.05, keep='kept'"))
    room.start("device", "room.py", "--certs", "room1-certs").says("connected")

    reader = ("cloud", "house", "--timeout", "60", "-n")
    values = [message["payload"]["value"] for message in barn.json(*reader, "20")]
    hosts.pull("barn", "room")
    time.sleep(CUT_SECONDS / 2)
    hosts.plug("barn", "room")
    values += [message["payload"]["value"] for message in barn.json(*reader, str(COUNT - 20))]
    assert values == [2 * value for value in range(COUNT)]
