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
