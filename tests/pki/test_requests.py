"""Requests for a new certificate, and what their holder checks of the answer."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from pratipad_nb.errors import CertificateError
from pratipad_nb.pki import store as store_module
from pratipad_nb.pki.authority import Authority
from pratipad_nb.pki.certificates import made_request, read_pair, serial_of
from pratipad_nb.pki.requests import take_answer
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.transport.tls import client_context

LAMP = "urn:pratipad:house:device:lamp"
DOOR = "urn:pratipad:house:device:door"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "authority")


def test_an_answer_is_taken_in_the_place_of_the_present_certificate(
    authority: Authority, tmp_path: Path
) -> None:
    lamp = authority.issue(LAMP, tmp_path / "lamp")
    before = serial_of(lamp.certificate)
    key, request = made_request()
    take_answer(lamp, key, authority.answer(request, LAMP))
    assert serial_of(lamp.certificate) != before
    assert read_pair(lamp.certificate, lamp.key).key.private_numbers() == key.private_numbers()
    assert stat.S_IMODE(lamp.key.stat().st_mode) == 0o600
    client_context(lamp)


def test_a_new_authority_is_taken_from_an_answer_if_the_former_one_vouches_for_it(
    authority: Authority, tmp_path: Path
) -> None:
    lamp = authority.issue(LAMP, tmp_path / "lamp")
    authority.begin_change()
    key, request = made_request()
    answer = authority.answer(request, LAMP)
    with pytest.raises(CertificateError, match="no known authority vouches"):
        take_answer(lamp, key, replace(answer, voucher=b""))
    take_answer(lamp, key, answer)
    assert authority.has_signed(lamp.certificate)
    assert lamp.authority.read_text().count("BEGIN CERTIFICATE") == 2


@pytest.mark.parametrize(
    "spoiled", ["another authority's", "another authority added", "another's", "another key"]
)
def test_an_answer_that_is_not_the_issuer_s_for_this_party_and_key_changes_nothing(
    authority: Authority, tmp_path: Path, spoiled: str
) -> None:
    lamp = authority.issue(LAMP, tmp_path / "lamp")
    before = {path: path.read_bytes() for path in (tmp_path / "lamp").iterdir()}
    forger = Authority.open(tmp_path / "forger")
    forger.begin_change()  # also has a voucher, of its own former authority
    key, request = made_request()
    answer = authority.answer(request, LAMP)
    forged = forger.answer(request, LAMP)
    spoil = {
        "another authority's": forged,
        "another authority added": replace(
            answer, authority=answer.authority + forged.authority, voucher=forged.voucher
        ),
        "another's": authority.answer(request, DOOR),
        "another key": authority.answer(made_request()[1], LAMP),
    }
    with pytest.raises(CertificateError):
        take_answer(lamp, key, spoil[spoiled])
    assert {path: path.read_bytes() for path in (tmp_path / "lamp").iterdir()} == before


def test_what_is_no_request_for_a_key_of_ours_is_refused(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    other = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    good = made_request()[1]
    for request in (b"", b"x" * 5000, good[:-60], other.public_bytes(Encoding.PEM), good.replace(b"A", b"B")):
        with pytest.raises(CertificateError, match=r"no request|no other key"):
            authority.answer(request, LAMP)


def test_a_party_is_answered_once_an_hour_and_keeps_two_certificates_of_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CertificateStore.open(tmp_path)

    def ask() -> list[str]:
        return store.answered("device", "house", "lamp", LAMP, made_request()[1])[1]

    assert ask() == []
    with pytest.raises(CertificateError, match="less than 60 min ago"):
        ask()
    monkeypatch.setattr(store_module, "ASK_AGAIN_SECONDS", 0.0)
    notes = tmp_path / "pki/carried/device/house/lamp"
    (first,) = (serial_of(path) for path in notes.glob("*/cert.pem"))
    assert ask() == []
    assert ask() == [first]
    assert len(list(notes.glob("*/cert.pem"))) == 2
