from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pratipad_nb.cli.app import app
from pratipad_nb.pki.certificates import serial_of
from pratipad_nb.server.admission import Admission
from pratipad_nb.server.config import ServerFiles

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


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    before = files_in(tmp_path / "carried")
    refused = certs("issue", "device", "other", "--flow", "house", "--out", "carried", code=2)
    assert f"it lets the {issued[0]} '{issued[1]}' of 'house' in" in refused.stderr
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "key.pem").write_text("mine")
    assert "not empty" in certs("issue", *issued, *of, "--out", "mine", code=2).stderr
    assert files_in(tmp_path / "carried") == before
    assert (mine / "key.pem").read_text() == "mine"
    assert {key.split()[2] for key in listed()} == {issued[1]}


def test_a_leaf_s_key_goes_through_no_link(home: Path, tmp_path: Path) -> None:
    certs("init")
    certs("issue", "leaf", "barn", "--flow", "house", "--out", "carried")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "carried/garden").symlink_to(tmp_path / "theirs")
    refused = certs("issue", "leaf", "barn", "--flow", "house,garden", "--out", "carried", code=2)
    assert "garden: it is a symbolic link" in refused.stderr
    assert files_in(tmp_path / "theirs") == {}


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


def folder_serial(folder: str) -> str:
    return serial_of(Path(folder) / "cert.pem")


def allowed_serials(home: Path) -> set[str]:
    files = ServerFiles(home / "server")
    return {party.serial for party in Admission(files, lambda: None).register().parties.values()}


@pytest.mark.parametrize(
    ("issued", "party"),
    [
        (("device", "room1", "--flow", "house"), ("device", "room1", "--flow", "house")),
        (("reader", "archive", "--flow", "house"), ("urn:pratipad:house:reader:archive",)),
        (("edge", "house"), ("edge", "house")),
        (("edge", "house", "--tenant", "acme"), ("urn:pratipad:acme/house:edge",)),
    ],
    ids=["device", "reader by its whole name", "edge", "tenant's edge by its whole name"],
)
def test_renewing_makes_a_new_key_and_lets_the_former_certificate_in_until_its_own_end(
    home: Path, issued: tuple[str, ...], party: tuple[str, ...]
) -> None:
    certs("init")
    certs("issue", *issued, "--out", "carried")
    before, key = folder_serial("carried"), Path("carried/key.pem").read_bytes()
    certs("renew", *party, "--out", "carried")
    assert Path("carried/key.pem").read_bytes() != key
    assert allowed_serials(home) == {before, folder_serial("carried")}
    assert len({row["until"] for row in listed().values()}) == 1


def test_an_mqtt_device_stays_one_when_its_certificate_is_renewed(home: Path) -> None:
    certs("init")
    certs("issue", "device", "lamp", "--flow", "house", "--mqtt")
    certs("renew", "device", "lamp", "--flow", "house")
    files = ServerFiles(home / "server")
    parties = Admission(files, lambda: None).register().parties.values()
    assert [party.mqtt for party in parties] == [True, True]


def test_a_leaf_s_certificates_are_renewed_all_together(home: Path) -> None:
    certs("init")
    certs("issue", "leaf", "barn", "--flow", "house,garden")
    before = {folder_serial(f"barn-certs/{flow}") for flow in ("house", "garden")}
    certs("renew", "leaf", "barn", "--flow", "house,garden")
    after = {folder_serial(f"barn-certs/{flow}") for flow in ("house", "garden")}
    assert len(before | after) == 4
    assert allowed_serials(home) == before | after


def test_what_can_t_be_renewed_is_named(home: Path) -> None:
    certs("init")
    assert "nothing to renew" in certs("renew", "device", "lamp", "--flow", "house", code=2).stderr
    for said in (("lamp",), ("device", "a", "b"), ("urn:pratipad:house",), ("robot", "lamp")):
        assert "is no party" in certs("renew", *said, "--flow", "house", code=2).stderr


def test_one_certificate_is_let_in_no_more_by_its_serial_number(home: Path) -> None:
    certs("init")
    certs("issue", "device", "lamp", "--flow", "house", "--out", "stolen")
    stolen = folder_serial("stolen")
    certs("renew", "device", "lamp", "--flow", "house", "--out", "new")
    said = certs("revoke", "--serial", ":".join(f"{stolen:>040}"[n : n + 2] for n in range(0, 40, 2)).upper())
    assert "of the device 'lamp'" in said.stdout
    assert allowed_serials(home) == {folder_serial("new")}
    certs("issue", "device", "lamp", "--flow", "house", "--out", "new")
    assert stolen not in allowed_serials(home)
    assert "is let in there" in certs("revoke", "--serial", stolen, code=2).stderr
    assert "say who" in certs("revoke", code=2).stderr


def test_the_serial_numbers_stand_in_the_list(home: Path) -> None:
    certs("init")
    certs("issue", "device", "lamp", "--flow", "house")
    assert folder_serial("lamp-certs") in certs("list").stdout


def test_an_authority_is_changed_in_two_steps_and_nobody_is_left_behind_unasked(home: Path) -> None:
    certs("init")
    certs("issue", "device", "lamp", "--flow", "house")
    certs("issue", "edge", "house", "--out", "edge")
    begun = certs("rotate")
    assert "to be renewed before  pratipad certs renew urn:pratipad:house:device:lamp" in begun.stdout
    assert "being changed already" in certs("rotate", code=1).stderr
    refused = certs("rotate", "--finish", code=1).stderr
    assert "urn:pratipad:house:device:lamp, urn:pratipad:house:edge" in refused
    certs("renew", "device", "lamp", "--flow", "house")
    certs("renew", "urn:pratipad:house:edge", "--out", "edge")
    assert Path("edge/ca.pem").read_text().count("BEGIN CERTIFICATE") == 2
    certs("rotate", "--finish")
    assert (home / "pki/authority/ca.pem").read_text().count("BEGIN CERTIFICATE") == 1
    assert "isn't being changed" in certs("rotate", "--finish", code=1).stderr


def test_a_change_may_be_finished_by_force_after_a_theft_of_the_authority_s_key(home: Path) -> None:
    certs("init")
    certs("issue", "device", "lamp", "--flow", "house")
    finish_by = json.loads(certs("rotate", "--days", "0", "--json").stdout)
    assert finish_by["left"] == ["urn:pratipad:house:device:lamp"]
    certs("rotate", "--finish", "--force")
