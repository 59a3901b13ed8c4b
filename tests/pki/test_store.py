"""The store: which folder is whose."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from pratipad_nb.errors import CertificateError, SettingsError
from pratipad_nb.pki.store import CertificateStore


def test_every_party_has_its_folder(tmp_path: Path) -> None:
    store = CertificateStore.open(tmp_path)
    folders = {
        store.server("urn:x:server").certificate.parent,
        store.edge("house", "urn:x:edge").certificate.parent,
        store.device("house", "room1", "urn:x:room1").certificate.parent,
        store.reader("house", "room1", "urn:x:reader").certificate.parent,
    }
    assert {str(f.relative_to(tmp_path)) for f in folders} == {
        "pki/server",
        "pki/edge/house",
        "pki/device/house/room1",
        "pki/reader/house/room1",
    }
    assert stat.S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700


def test_what_stays_here_is_valid_for_a_month_and_what_is_carried_away_for_a_year(tmp_path: Path) -> None:
    store = CertificateStore.open(tmp_path)

    def days(credentials) -> int:
        found = x509.load_pem_x509_certificate(credentials.certificate.read_bytes())
        return (found.not_valid_after_utc - found.not_valid_before_utc).days

    assert days(store.server("urn:x:s")) == days(store.edge("house", "urn:x:e")) == 31
    assert days(store.device("house", "a", "urn:x:d")) == days(store.reader("house", "a", "urn:x:r")) == 398


def test_the_store_knows_who_was_given_one_until_the_flow_is_forgotten(tmp_path: Path) -> None:
    store = CertificateStore.open(tmp_path)
    for flow, name in (("house", "room2"), ("house", "room1"), ("garden", "pond")):
        store.device(flow, name, f"urn:x:{name}")
    assert store.names("house", "device") == ["room1", "room2"]
    assert store.names("house", "reader") == []
    store.forget("house")
    assert store.names("house", "device") == []
    assert store.names("garden", "device") == ["pond"]


def test_a_name_can_t_lead_out_of_the_store(tmp_path: Path) -> None:
    store = CertificateStore.open(tmp_path)
    with pytest.raises(SettingsError):
        store.device("house", "../../x", "urn:x:x")
    with pytest.raises(SettingsError):
        store.forget("..")


def test_a_state_folder_that_can_t_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(CertificateError, match=r"state.* can't be made: .*PRATIPAD_HOME"):
        CertificateStore.open(tmp_path / "state")


def test_importing_the_store_does_not_import_cryptography() -> None:
    script = "import sys, pratipad_nb.pki.store; print('cryptography' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"
