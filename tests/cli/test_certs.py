from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pratipad_nb.cli.app import app

runner = CliRunner()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRATIPAD_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def certs(*arguments: str, code: int = 0) -> Any:
    result = runner.invoke(app, ["certs", *arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def listed() -> dict[str, dict[str, Any]]:
    rows = map(json.loads, certs("list", "--json").stdout.splitlines())
    return {f"{row['role']} {row['flow']} {row['name']}": row for row in rows}


def test_init_twice_keeps_the_authority(home: Path) -> None:
    certs("init")
    before = (home / "pki/authority/ca.pem").read_bytes()
    answer = json.loads(certs("init", "--json").stdout)
    assert (home / "pki/authority/ca.pem").read_bytes() == before
    assert answer["authority"] == str(home / "pki/authority/ca.pem")
    assert home.stat().st_mode & 0o777 == 0o700


def test_a_folder_holds_what_a_device_needs_and_says_where_to_connect(home: Path, tmp_path: Path) -> None:
    certs("init")
    certs("issue", "device", "room1", "--flow", "house", "--url", "tls://edge.local:4222")
    folder = tmp_path / "room1-certs"
    assert {each.name for each in folder.iterdir()} == {"ca.pem", "cert.pem", "key.pem", "pratipad.json"}
    assert json.loads((folder / "pratipad.json").read_text())["server"] == "tls://edge.local:4222"
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "PRIVATE" not in certs("issue", "device", "room1", "--flow", "house").output


def test_issuing_again_changes_nothing_while_the_certificate_is_young(home: Path, tmp_path: Path) -> None:
    certs("init")
    for role, name in (("device", "room1"), ("edge", "house")):
        arguments = ("issue", role, name, *(("--flow", "house") if role == "device" else ()))
        certs(*arguments)
        before = (tmp_path / f"{name}-certs/cert.pem").read_bytes()
        certs(*arguments)
        assert (tmp_path / f"{name}-certs/cert.pem").read_bytes() == before


@pytest.mark.parametrize(
    "issued", [("device", "room1"), ("reader", "audit"), ("edge", "house"), ("leaf", "barn")]
)
def test_a_folder_is_issued_again_to_its_own_party_alone(
    home: Path, tmp_path: Path, issued: tuple[str, str]
) -> None:
    certs("init")
    of = () if issued[0] == "edge" else ("--flow", "house")
    certs("issue", *issued, *of, "--out", "carried")
    certs("issue", *issued, *of, "--out", "carried")
    before = {path.name: path.read_bytes() for path in (tmp_path / "carried").iterdir()}
    refused = certs("issue", "device", "other", "--flow", "house", "--out", "carried", code=2)
    assert f"it lets the {issued[0]} '{issued[1]}' of 'house' in" in refused.stderr
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "key.pem").write_text("mine")
    assert "not empty" in certs("issue", *issued, *of, "--out", "mine", code=2).stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "carried").iterdir()} == before
    assert (mine / "key.pem").read_text() == "mine"
    assert {key.split()[2] for key in listed()} == {issued[1]}


def test_no_party_is_issued_a_name_of_the_program_s_own(home: Path, tmp_path: Path) -> None:
    certs("init")
    refused = certs("issue", "reader", "notebook", "--flow", "house", code=2)
    assert "a flow's own handle reads under that name" in refused.stderr
    for role in ("device", "reader", "leaf"):
        assert "can't name a" in certs("issue", role, "_uplink", "--flow", "house", code=2).stderr
    assert not list(tmp_path.glob("*-certs"))
    assert listed() == {}


@pytest.mark.parametrize("part", [".", "pki", "server"])
def test_nothing_is_issued_from_a_state_folder_that_others_may_write(
    home: Path, tmp_path: Path, part: str
) -> None:
    certs("init")
    certs("issue", "device", "room1", "--flow", "house")
    (home / part).chmod(0o707)
    refused = certs("issue", "device", "room2", "--flow", "house", code=2)
    assert f"Run: chmod go-w {home / part}" in refused.stderr


def test_who_is_issued_is_listed_until_revoked_without_a_server(home: Path) -> None:
    certs("init")
    certs("issue", "device", "room1", "--flow", "house")
    certs("issue", "reader", "archive", "--flow", "house")
    certs("issue", "edge", "house")
    assert {key for key, row in listed().items() if row["allowed"]} == {
        "device house room1",
        "reader house archive",
        "edge house house",
    }
    certs("revoke", "device", "room1", "--flow", "house")
    certs("revoke", "edge", "house")
    assert listed().keys() == {"reader house archive"}
    assert "archive" in certs("list").stdout


def test_each_folder_of_an_edge_that_is_carried_away_is_listed_with_its_end(home: Path) -> None:
    certs("init")
    for machine in ("north", "south"):
        certs("issue", "edge", "house", "--out", machine)
    rows = [json.loads(line) for line in certs("list", "--json").stdout.splitlines()]
    assert {Path(row["folder"]).name for row in rows} == {"north", "south"}
    assert all(row["until"] and row["allowed"] for row in rows)
    assert not list((home / "pki/carried").rglob("key.pem"))
    certs("revoke", "edge", "house")
    assert certs("list", "--json").stdout == ""


def test_an_authority_of_ones_own_is_taken_once(home: Path, tmp_path: Path) -> None:
    certs("init", "--home", "other")
    own = tmp_path / "other/pki/authority"
    arguments = ("init", "--ca", str(own / "ca.pem"), "--key", str(own / "ca-key.pem"))
    certs(*arguments)
    assert (home / "pki/authority/ca.pem").read_bytes() == (own / "ca.pem").read_bytes()
    assert (home / "pki/authority/ca-key.pem").stat().st_mode & 0o777 == 0o600
    assert "makes every certificate void" in certs(*arguments, code=1).stderr


def test_an_authority_that_is_no_good_is_not_taken(home: Path, tmp_path: Path) -> None:
    certs("init", "--home", "other")
    own = tmp_path / "other/pki/authority"
    shutil.copy(own / "ca.pem", tmp_path / "not-a-key.pem")
    refused = certs("init", "--ca", str(own / "ca.pem"), "--key", str(tmp_path / "not-a-key.pem"), code=1)
    assert str(tmp_path / "not-a-key.pem") in refused.stderr
    assert not home.exists()


def test_files_that_are_not_there_leave_nothing_behind(home: Path, tmp_path: Path) -> None:
    refused = certs("init", "--ca", "nosuch.pem", "--key", "nokey.pem", code=1)
    assert "nosuch.pem can't be read" in refused.stderr
    assert not home.exists()
