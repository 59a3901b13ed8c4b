"""An edge's server that joins the cloud's as a leaf, by commands alone; and the errors of wrong commands."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from pratipad_nb.cli.leaf import leaf_from
from pratipad_nb.errors import SettingsError
from pratipad_nb.pki.authority import Authority

COUNT = 150

ROOM = f"""
from pathlib import Path
from pratipad_nb import Device

readings = ({{"value": value}} for value in range({COUNT}))
room1 = Device("room1", read=readings, every=0.02, receive=lambda order: Path("order").write_text(str(order)))
"""


@pytest.fixture
def sites(shell: Any, free_tcp_port: int) -> Any:
    """Two state folders with a server each, the edge's a leaf of the cloud's; a flow beside the edge's."""
    shell.cloud_server = ("server", "--home", "cloud", "--leaves", f"127.0.0.1:{free_tcp_port}", "--json")
    shell.cloud = shell.start(*shell.cloud_server)
    said = json.loads(shell.cloud.says("url"))
    assert said["leaves"] == f"tls://127.0.0.1:{free_tcp_port}"
    (issued,) = shell.json("certs", "issue", "leaf", "barn", "--flow", "house", "--home", "cloud", "--json")
    assert issued["server"] == said["leaves"]
    edge = json.loads(
        shell.start("server", "--home", "edge", "--leaf-of", "barn-certs", "--json").says("url")
    )
    assert edge["leaf_of"] == said["leaves"]
    shell.house()
    shell.file("room.py", ROOM)
    shell.start("run", "house.py", "--home", "edge").says("house runs")
    return shell


@pytest.mark.timeout(120)
def test_results_of_the_edge_reach_the_cloud_once_and_in_order_though_its_server_is_killed(
    sites: Any, until: Any
) -> None:
    sites.start("device", "room.py", "--flow", "house", "--home", "edge").says("connected")
    reader = ("cloud", "house", "--home", "cloud", "--timeout", "60", "-n")
    values = [message["payload"]["value"] for message in sites.json(*reader, "10")]

    sites.cloud.end(9)
    top = ("top", "house", "--home", "edge", "--once", "--json")
    until(lambda: sites.json(*top)[0]["delivered"] == COUNT)  # the edge goes on while the cloud is away
    sites.cloud = sites.start(*sites.cloud_server)
    sites.cloud.says("url")

    values += [message["payload"]["value"] for message in sites.json(*reader, str(COUNT - 10))]
    assert values == [2 * value for value in range(COUNT)]


def test_an_order_of_the_cloud_reaches_a_device_at_the_edge(sites: Any, until: Any) -> None:
    sites.start("device", "room.py", "--flow", "house", "--home", "edge").says("connected")
    sites.json("cloud", "house", "--home", "cloud", "-n", "1", "--timeout", "30")
    assert [each["name"] for each in sites.json("top", "--home", "cloud", "--once", "--json")] == ["house"]
    sites.json("cloud", "house", "--home", "cloud", "--send", '{"led": "on"}', "--to", "room1")
    until((sites.folder / "order").exists)


def test_a_leaf_is_listed_and_revoked_by_its_sites_name(shell: Any) -> None:
    shell("certs", "init")
    shell("certs", "issue", "leaf", "barn", "--flow", "house,garden", "--url", "tls://cloud.example:7422")
    assert json.loads((shell.folder / "barn-certs/pratipad.json").read_text())["flow"] == "house,garden"
    (listed,) = shell.json("certs", "list", "--json")
    assert (listed["role"], listed["name"], listed["allowed"]) == ("leaf", "barn", True)
    assert listed["flow"] == "garden,house"
    assert listed["until"] > "2026"
    shell("certs", "revoke", "leaf", "barn")
    assert shell.json("certs", "list", "--json") == []
    assert "no leaf 'barn' is let in" in shell("certs", "revoke", "leaf", "barn", code=2).stderr


@pytest.fixture
def folders(shell: Any) -> Path:
    shell("certs", "init")
    shell("certs", "issue", "device", "room1", "--flow", "house", "--url", "tls://cloud.example:4222")
    shell("certs", "issue", "leaf", "barn", "--flow", "house")
    folder: Path = shell.folder
    return folder


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--leaf-of", "tls://cloud.example:7422"], "goes with --certs DIR"),
        (["--leaf-of", "nowhere"], "nowhere is no certificate folder of a leaf"),
        (["--leaf-of", "nowhere"], "pratipad certs issue leaf NAME"),
        (["--leaf-of", "room1-certs"], "lets the device 'room1' in, and no leaf"),
        (["--leaf-of", "barn-certs"], "doesn't say where to join"),
        (["--leaf-of", "barn-certs", "--certs", "room1-certs"], "Pass one folder, or a URL"),
        (["--leaf-of", "nats://cloud.example:7422", "--certs", "barn-certs"], "There is no link without TLS"),
        (["--certs", "barn-certs"], "--certs goes with --leaf-of"),
        (["--leaf-of", "barn-certs", "--leaves", "127.0.0.1:7422"], "not both"),
        (["--leaves", "7422"], "'7422' is no address to listen on"),
    ],
)
def test_what_can_not_be_joined_is_one_message(shell: Any, arguments: list[str], said: str) -> None:
    assert said in shell("server", *arguments, code=2).stderr


def test_a_leaf_of_no_flow_is_asked_for_which(shell: Any) -> None:
    shell("certs", "init")
    assert "Pass --flow NAME" in shell("certs", "issue", "leaf", "barn", code=2).stderr


def test_a_command_to_copy_quotes_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "barn $1"
    Authority.open(tmp_path / "authority").issue("urn:pratipad:house:leaf:barn", folder / "house")
    with pytest.raises(SettingsError) as caught:
        leaf_from(str(folder), None)
    assert str(caught.value).endswith(f" --certs {shlex.quote(str(folder))}")
