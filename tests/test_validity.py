"""The end of a certificate, read without `cryptography`, and the words that warn of it."""

from __future__ import annotations

import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pratipad_nb.errors import CertificateError
from pratipad_nb.pki.authority import Authority
from pratipad_nb.validity import ending, valid_until

NOW = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize("days", [-0.5, 30, 397, 40 * 365], ids=["over", "a month", "a year", "after 2050"])
def test_the_end_is_read_as_cryptography_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float
) -> None:
    monkeypatch.setattr("pratipad_nb.pki.authority.AUTHORITY_DAYS", 50 * 365)
    issued = Authority.open(tmp_path / "authority").issue("urn:x:y", tmp_path / "x", days=days)
    found = x509.load_pem_x509_certificate(issued.certificate.read_bytes())
    assert valid_until(issued.certificate) == found.not_valid_after_utc


def test_the_first_of_several_certificates_counts(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path / "authority")
    issued = authority.issue("urn:x:y", tmp_path / "x", days=5)
    end = valid_until(issued.certificate)
    issued.certificate.write_bytes(issued.certificate.read_bytes() + authority.certificate.read_bytes())
    assert valid_until(issued.certificate) == end


def test_reading_the_end_needs_no_cryptography(tmp_path: Path) -> None:
    certificate = Authority.open(tmp_path / "authority").certificate
    script = (
        "import sys, pathlib; sys.modules['cryptography'] = None;"
        "from pratipad_nb.validity import valid_until;"
        "print(valid_until(pathlib.Path(sys.argv[1])).timestamp())"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, certificate], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert float(said) == valid_until(certificate).timestamp()


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60), cut=st.integers(0, 700), byte=st.integers(0, 255))
def test_whatever_is_in_the_file_is_a_certificate_or_is_explained(
    tmp_path: Path, data: bytes, cut: int, byte: int
) -> None:
    folder = tmp_path / "authority"
    der = bytearray(ssl.PEM_cert_to_DER_cert(Authority.open(folder).certificate.read_text()))
    changed = bytes(der[: cut % len(der)]) + bytes([byte]) + bytes(der[cut % len(der) + 1 :])
    for body in (data, changed, bytes(der[:cut]) + data):
        path = tmp_path / "any.pem"
        path.write_text(ssl.DER_cert_to_PEM_cert(body))
        try:
            assert valid_until(path).tzinfo is UTC
        except CertificateError as error:
            assert "any.pem holds no PEM certificate" in str(error)  # noqa: PT017 - either is right


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"missing\.pem can't be read: No such file"):
        valid_until(tmp_path / "missing.pem")


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (timedelta(days=14, seconds=1), ""),
        (timedelta(days=14), "ends on 2026-12-15 00:00 UTC, in 14 days. Do."),
        (timedelta(days=1, hours=1), "in 25 hours. Do."),
        (timedelta(minutes=7), "in 7 min. Do."),
        (timedelta(0), "of lamp ended on 2026-12-01 00:00 UTC. Do."),
        (timedelta(days=-60), "ended on 2026-10-02"),
    ],
)
def test_a_certificate_is_warned_of_from_14_days_before_its_end_on(left: timedelta, said: str) -> None:
    words = ending("lamp", NOW + left, NOW, "Do.")
    assert said in words
    assert bool(words) == bool(said)
