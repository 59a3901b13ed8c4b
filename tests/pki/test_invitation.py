"""The invitation: whose folder is written anew, and that its key is nobody else's for a moment."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path

import pytest

from pratipad_nb.errors import SettingsError
from pratipad_nb.pki.invitation import INVITATION, Invitation
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.settings import Credentials

ROOM1 = Invitation("device", "room1", "house", "tls://hub.local:4222")
FILES = {"ca.pem", "cert.pem", "key.pem", INVITATION}


@pytest.fixture
def room1(tmp_path: Path) -> Credentials:
    return CertificateStore.open(tmp_path / "state").device("house", "room1", "urn:x:room1")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_key_is_its_owner_s_alone_from_its_first_byte(
    tmp_path: Path, room1: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "chmod", None)
    before = os.umask(0)
    try:
        ROOM1.fill(tmp_path / "carried", room1)
    finally:
        os.umask(before)
    assert contents(tmp_path / "carried").keys() == FILES
    assert 0o600 in modes
    assert set(modes) <= {0o600, 0o644}
    assert stat.S_IMODE((tmp_path / "carried").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "carried/key.pem").stat().st_mode) == 0o600


def test_a_key_that_others_could_read_is_replaced_by_one_that_they_can_not(
    tmp_path: Path, room1: Credentials
) -> None:
    ROOM1.fill(tmp_path / "carried", room1)
    (tmp_path / "carried/key.pem").chmod(0o644)
    with (tmp_path / "carried/key.pem").open("rb") as old:
        ROOM1.fill(tmp_path / "carried", room1)
        assert os.fstat(old.fileno()).st_nlink == 0
    assert stat.S_IMODE((tmp_path / "carried/key.pem").stat().st_mode) == 0o600


def test_no_link_is_followed(tmp_path: Path, room1: Credentials) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "carried").symlink_to(tmp_path / "theirs")
    with pytest.raises(SettingsError, match=r"carried: it is a symbolic link"):
        ROOM1.fill(tmp_path / "carried", room1)
    assert not contents(tmp_path / "theirs")
    (tmp_path / "carried").unlink()
    ROOM1.fill(tmp_path / "carried", room1)
    for name in ("key.pem", "cert.pem", "ca.pem"):
        (tmp_path / "carried" / name).unlink()
        (tmp_path / "carried" / name).symlink_to(tmp_path / "theirs" / name)
    ROOM1.fill(tmp_path / "carried", room1)
    assert not contents(tmp_path / "theirs")
    assert not (tmp_path / "carried/key.pem").is_symlink()
    (tmp_path / "carried" / INVITATION).rename(tmp_path / "theirs" / INVITATION)
    (tmp_path / "carried" / INVITATION).symlink_to(tmp_path / "theirs" / INVITATION)
    with pytest.raises(SettingsError, match=r"has no file pratipad\.json"):
        ROOM1.fill(tmp_path / "carried", room1)


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(ROOM1, name="room2"),
        dataclasses.replace(ROOM1, flow="garden"),
        dataclasses.replace(ROOM1, role="reader"),
    ],
)
def test_a_folder_of_another_party_stays_as_it_is(
    tmp_path: Path, room1: Credentials, other: Invitation
) -> None:
    other.fill(tmp_path / "carried", room1)
    before = contents(tmp_path / "carried")
    with pytest.raises(SettingsError, match=rf"lets the {other.role} '{other.name}' of '{other.flow}' in"):
        ROOM1.fill(tmp_path / "carried", room1)
    assert contents(tmp_path / "carried") == before


def test_a_folder_of_another_authority_stays_as_it_is(tmp_path: Path, room1: Credentials) -> None:
    other = CertificateStore.open(tmp_path / "other").device("house", "room1", "urn:x:room1")
    ROOM1.fill(tmp_path / "carried", other)
    before = contents(tmp_path / "carried")
    with pytest.raises(SettingsError, match="another authority"):
        ROOM1.fill(tmp_path / "carried", room1)
    assert contents(tmp_path / "carried") == before


@pytest.mark.parametrize("name", ["thesis.tex", "key.pem", INVITATION])
def test_a_folder_of_the_user_s_stays_as_it_is(tmp_path: Path, room1: Credentials, name: str) -> None:
    (tmp_path / "carried").mkdir()
    (tmp_path / "carried" / name).write_text("mine")
    with pytest.raises(SettingsError, match=r"carried"):
        ROOM1.fill(tmp_path / "carried", room1)
    assert contents(tmp_path / "carried") == {name: b"mine"}


def test_its_own_folder_is_written_anew_with_what_else_is_there_left_alone(
    tmp_path: Path, room1: Credentials
) -> None:
    ROOM1.fill(tmp_path / "carried", room1)
    (tmp_path / "carried/room1.kept").write_text("readings")
    (tmp_path / "carried/cert.pem").write_text("old")
    moved = dataclasses.replace(ROOM1, server="tls://hub.local:4333")
    moved.fill(tmp_path / "carried", room1)
    assert contents(tmp_path / "carried").keys() == FILES | {"room1.kept"}
    assert (tmp_path / "carried/cert.pem").read_bytes() == room1.certificate.read_bytes()
    assert json.loads((tmp_path / "carried" / INVITATION).read_bytes())["server"] == moved.server


def test_a_leaf_s_folder_is_its_own_whichever_flows_it_passes_on(tmp_path: Path, room1: Credentials) -> None:
    Invitation("leaf", "barn", "house").fill(tmp_path / "carried", room1)
    Invitation("leaf", "barn", "house,garden").fill(tmp_path / "carried", room1)
    assert json.loads((tmp_path / "carried" / INVITATION).read_bytes())["flow"] == "house,garden"


def test_an_error_amid_writing_leaves_the_former_files(
    tmp_path: Path, room1: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    ROOM1.fill(tmp_path / "carried", room1)
    (tmp_path / "carried/cert.pem").write_text("old")
    before = contents(tmp_path / "carried")
    synced = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SettingsError, match=r"can't be written to .*carried: No space left"):
        ROOM1.fill(tmp_path / "carried", room1)
    assert contents(tmp_path / "carried") == before
