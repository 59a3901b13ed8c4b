"""The change of an authority: both are trusted for a while, and then the new one alone."""

from __future__ import annotations

import contextlib
import shutil
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pratipad_nb.errors import CertificateError
from pratipad_nb.pki import signers as signers_module
from pratipad_nb.pki.authority import Authority
from pratipad_nb.pki.certificates import made_authority, read_pair
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.tls import client_context

LAMP = "urn:pratipad:house:device:lamp"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "authority")


def trusted(certificates: Path) -> int:
    return certificates.read_text().count("BEGIN CERTIFICATE")


def meet(client: Credentials, server: Credentials) -> None:
    """Have a client and a server shake hands in memory, each by its own files alone."""
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(server.certificate, server.key)
    theirs.load_verify_locations(server.authority)
    theirs.verify_mode = ssl.CERT_REQUIRED
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client_context(client).wrap_bio(to_client, to_server, server_hostname="localhost"),
        theirs.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert sides[1].getpeercert()


def server(authority: Authority, folder: Path) -> Credentials:
    return authority.ensure("urn:pratipad:server", folder / "server", hosts=("localhost",), server=True)


def test_during_a_change_old_and_new_parties_meet_the_server_and_afterwards_new_ones_alone(
    authority: Authority, tmp_path: Path
) -> None:
    old = authority.issue(LAMP, tmp_path / "old")
    meet(old, server(authority, tmp_path))
    authority.begin_change()
    new = authority.issue(LAMP, tmp_path / "new")
    own = server(authority, tmp_path)
    for client in (old, new):
        meet(client, own)
    assert trusted(new.authority) == trusted(own.authority) == 2
    authority.finish_change()
    own = server(authority, tmp_path)
    assert trusted(own.authority) == 1
    meet(new, own)
    meet(authority.issue(LAMP, tmp_path / "newest"), own)
    with pytest.raises(ssl.SSLError):
        meet(old, own)


def test_a_client_s_certificate_of_the_former_authority_is_made_anew_and_is_good_then(
    authority: Authority, tmp_path: Path
) -> None:
    authority.issue(LAMP, tmp_path / "lamp")
    authority.begin_change()
    renewed = authority.ensure(LAMP, tmp_path / "lamp").certificate.read_bytes()
    assert authority.has_signed(tmp_path / "lamp/cert.pem")
    assert authority.ensure(LAMP, tmp_path / "lamp").certificate.read_bytes() == renewed


def test_another_process_s_change_is_heeded_without_a_restart(authority: Authority, tmp_path: Path) -> None:
    elsewhere = Authority.open(tmp_path / "authority")
    finish_by = elsewhere.begin_change(days=7)
    assert authority.finish_by == finish_by
    assert abs(finish_by - datetime.now(UTC) - timedelta(days=7)) < timedelta(minutes=1)
    assert elsewhere.has_signed(authority.issue(LAMP, tmp_path / "lamp").certificate)
    elsewhere.finish_change()
    assert authority.finish_by is None
    assert trusted(authority.issue(LAMP, tmp_path / "lamp").authority) == 1


def test_an_authority_of_one_s_own_takes_the_place(authority: Authority, tmp_path: Path) -> None:
    mine = made_authority("mine", 100)
    authority.begin_change(mine)
    assert authority.has_signed(authority.issue(LAMP, tmp_path / "lamp").certificate)
    assert read_pair(authority.certificate, tmp_path / "authority/ca-key.pem").certificate == mine.certificate


def test_a_second_change_waits_for_the_first(authority: Authority) -> None:
    with pytest.raises(CertificateError, match="isn't being changed"):
        authority.finish_change()
    authority.begin_change()
    with pytest.raises(CertificateError, match="Finish that change first"):
        authority.begin_change()


def test_the_former_key_is_private_and_goes_with_the_change(authority: Authority, tmp_path: Path) -> None:
    authority.begin_change()
    former = tmp_path / "authority/former"
    assert stat.S_IMODE(former.stat().st_mode) == 0o700
    assert stat.S_IMODE((former / "ca-key.pem").stat().st_mode) == 0o600
    authority.finish_change()
    assert not former.exists()


def test_a_crash_between_the_new_key_and_its_certificate_loses_no_authority(
    authority: Authority, tmp_path: Path
) -> None:
    before = authority.certificate.read_bytes()
    authority.begin_change()
    authority.certificate.write_bytes(before)  # as if the rename of ca.pem had not been done
    found = Authority.open(tmp_path / "authority")
    assert found.certificate.read_bytes() == before
    assert found.finish_by is None
    assert found.begin_change() > datetime.now(UTC)


def test_a_crash_before_the_new_pair_is_written_is_no_change(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(signers_module, "_write", crash)
        with pytest.raises(KeyboardInterrupt):
            authority.begin_change()
    found = Authority.open(tmp_path / "authority")
    assert found.finish_by is None
    assert trusted(found.issue(LAMP, tmp_path / "lamp").authority) == 1
    found.begin_change()
    assert found.finish_by is not None


def test_the_store_names_the_parties_that_a_change_leaves_behind(tmp_path: Path) -> None:
    store = CertificateStore.open(tmp_path)
    store.device("house", "lamp", LAMP)
    for name in ("old", "new"):
        folder = tmp_path / name
        store.authority.issue("urn:pratipad:house:edge", folder)
        store.note_carried("edge", "house", "", folder)
        if name == "old":
            store.authority.begin_change()
            assert store.left_behind() == [LAMP, "urn:pratipad:house:edge"]
    assert store.left_behind() == [LAMP]
    store.device("house", "lamp", LAMP)
    assert store.left_behind() == []


def test_the_certificates_of_servers_follow_a_change_with_their_names(tmp_path: Path) -> None:
    store = CertificateStore.open(tmp_path)
    own = store.server("urn:pratipad:server", ("localhost", "hub.local"))
    store.authority.begin_change()
    store.renew_servers()
    assert trusted(own.authority) == 2
    store.authority.finish_change()
    store.renew_servers()
    assert store.authority.has_signed(own.certificate)
    assert store.server("urn:pratipad:server", ("localhost", "hub.local")) == own
    shutil.rmtree(own.authority.parent)
    store.renew_servers()
    assert not own.authority.exists()
