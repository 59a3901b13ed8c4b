"""The authority: made once, kept private, and what it signs."""

from __future__ import annotations

import contextlib
import re
import ssl
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from disks import small_files_only
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pratipad_nb.errors import CertificateError
from pratipad_nb.pki import authority as authority_module
from pratipad_nb.pki.authority import Authority
from pratipad_nb.pki.certificates import (
    identity_in,
    made_authority,
    made_leaf,
    party_of,
    read_authority,
    read_pair,
    serial_of,
    valid_until,
)
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.tls import client_context

ROOM1 = "urn:pratipad:house:device:room1"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "authority")


@pytest.mark.parametrize("room", [1, 400], ids=["none", "for a key alone"])
def test_a_full_disk_leaves_a_certificate_that_should_be_renewed_in_use_while_it_is_valid(
    authority: Authority, tmp_path: Path, caplog: Any, room: int
) -> None:
    folder = tmp_path / "room1"
    authority.issue(ROOM1, folder, days=0.2)
    before = certificate(folder / "cert.pem")
    with small_files_only(room):
        for _ in range(2):
            client_context(authority.ensure(ROOM1, folder))
    assert certificate(folder / "cert.pem") == before
    assert "File too large" in caplog.text
    assert "valid for now" in caplog.text
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    authority.ensure(ROOM1, folder)
    assert certificate(folder / "cert.pem") != before


def test_a_full_disk_is_named_where_there_is_no_valid_certificate(
    authority: Authority, tmp_path: Path
) -> None:
    with (
        small_files_only(),
        pytest.raises(CertificateError, match=r"can't be written to .*room1: File too large"),
    ):
        authority.ensure(ROOM1, tmp_path / "room1")


def test_an_authority_is_made_once(tmp_path: Path) -> None:
    first = Authority.open(tmp_path / "authority").certificate.read_bytes()
    assert Authority.open(tmp_path / "authority").certificate.read_bytes() == first


def test_two_processes_that_open_at_once_get_the_same_authority(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from pratipad_nb.pki.authority import Authority; sys.stdin.readline();"
        "print(hash(Authority.open(pathlib.Path(sys.argv[1])).certificate.read_bytes()))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, tmp_path / "authority"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONHASHSEED": "0", "PYTHONPATH": str(Path.cwd())},
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert len({process.communicate(timeout=30)[0] for process in processes}) == 1


def test_the_authority_may_sign_leaves_and_nothing_else(authority: Authority) -> None:
    found = certificate(authority.certificate).extensions
    constraints = found.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    usage = found.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature


def test_keys_are_readable_by_their_owner_alone(authority: Authority, tmp_path: Path) -> None:
    room1 = authority.issue(ROOM1, tmp_path / "room1")
    assert mode(tmp_path / "authority") == mode(tmp_path / "room1") == 0o700
    assert mode(tmp_path / "authority" / "ca-key.pem") == mode(room1.key) == 0o600


def test_a_folder_that_was_there_keeps_its_mode(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o755)
    authority.issue(ROOM1, tmp_path / "mine")
    assert mode(tmp_path / "mine") == 0o755


@pytest.mark.parametrize(
    ("server", "usage"), [(False, ExtendedKeyUsageOID.CLIENT_AUTH), (True, ExtendedKeyUsageOID.SERVER_AUTH)]
)
def test_a_leaf_serves_one_side_only(
    authority: Authority, tmp_path: Path, server: bool, usage: x509.ObjectIdentifier
) -> None:
    issued = authority.issue(
        "urn:pratipad:x", tmp_path / "x", hosts=("localhost", "127.0.0.1"), server=server
    )
    found = certificate(issued.certificate)
    assert list(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    key_usage = found.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (key_usage.digital_signature, key_usage.key_cert_sign) == (True, False)


def test_a_leaf_names_its_owner_its_hosts_and_its_issuer(authority: Authority, tmp_path: Path) -> None:
    issued = authority.issue(ROOM1, tmp_path / "x", hosts=("localhost", "::1"))
    found = certificate(issued.certificate)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        f"{ROOM1}#{found.serial_number:x}",
        ROOM1,
    ]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["::1"]
    issuer = certificate(authority.certificate)
    found.verify_directly_issued_by(issuer)
    theirs = found.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert theirs == issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def test_two_certificates_of_one_party_differ_in_their_names_and_agree_in_their_party(
    authority: Authority, tmp_path: Path
) -> None:
    first, second = (authority.issue(ROOM1, tmp_path / name).certificate for name in ("first", "second"))
    assert identity_in(first) == f"{ROOM1}#{serial_of(first)}"
    assert identity_in(first) != identity_in(second)
    assert party_of(identity_in(first)) == party_of(identity_in(second)) == party_of(ROOM1) == ROOM1
    assert serial_of(first) == f"{certificate(first).serial_number:x}"


def test_a_certificate_of_version_0_1_stays_good_and_is_named_by_its_identity(
    authority: Authority, tmp_path: Path
) -> None:
    issued = authority.issue(ROOM1, tmp_path / "x")
    before = signed_for_0_1(authority, issued).read_bytes()
    assert authority.ensure(ROOM1, tmp_path / "x").certificate.read_bytes() == before
    assert identity_in(issued.certificate) == ROOM1
    assert serial_of(issued.certificate)


def signed_for_0_1(authority: Authority, issued: Credentials) -> Path:
    """Replace a certificate by what version 0.1 wrote, which names its holder's identity alone."""
    folder = authority.certificate.parent
    signer = read_pair(authority.certificate, folder / "ca-key.pem")
    leaf = read_pair(issued.certificate, issued.key)
    found = leaf.certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(found.subject)
        .issuer_name(found.issuer)
        .public_key(leaf.key.public_key())
        .serial_number(found.serial_number)
        .not_valid_before(found.not_valid_before_utc)
        .not_valid_after(found.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(ROOM1)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    signed = builder.sign(signer.key, hashes.SHA256()).public_bytes(Encoding.PEM)
    issued.certificate.write_bytes(signed)
    return issued.certificate


def test_a_certificate_that_names_no_party_is_refused_by_its_file_s_name(authority: Authority) -> None:
    with pytest.raises(CertificateError, match=r"ca\.pem names no party"):
        identity_in(authority.certificate)


def test_a_long_identity_is_cut_in_the_common_name_and_whole_in_the_alternative_name(
    authority: Authority, tmp_path: Path
) -> None:
    identity = "urn:pratipad:" + "a" * 64 + ":device:" + "b" * 64
    found = certificate(authority.issue(identity, tmp_path / "x").certificate)
    assert found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == identity[:64]
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert identity in names.get_values_for_type(x509.UniformResourceIdentifier)


def test_validity_starts_a_day_back_and_lasts_as_long_as_the_role_asks(
    authority: Authority, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    for server, days in ((True, 30), (False, 397)):
        found = certificate(authority.issue("urn:x:y", tmp_path / "x", server=server).certificate)
        assert abs(found.not_valid_before_utc - (now - timedelta(days=1))) < timedelta(minutes=1)
        assert abs(found.not_valid_after_utc - (now + timedelta(days=days))) < timedelta(minutes=1)


def test_a_leaf_never_outlives_its_authority(authority: Authority, tmp_path: Path) -> None:
    found = certificate(authority.issue(ROOM1, tmp_path / "x", days=36500).certificate)
    assert found.not_valid_after_utc == certificate(authority.certificate).not_valid_after_utc


def test_openssl_accepts_a_leaf_under_its_strictest_rules(authority: Authority, tmp_path: Path) -> None:
    server = authority.issue("urn:pratipad:server", tmp_path / "s", hosts=("localhost",), server=True)
    client = authority.issue(ROOM1, tmp_path / "c")
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(server.certificate, server.key)
    theirs.verify_mode = ssl.CERT_REQUIRED
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ours.load_cert_chain(client.certificate, client.key)
    for context in (theirs, ours):
        context.load_verify_locations(authority.certificate)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        ours.wrap_bio(down, up, server_hostname="localhost"),
        theirs.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(3):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    shown = (("URI", identity_in(client.certificate)), ("URI", ROOM1))
    assert sides[1].getpeercert()["subjectAltName"] == shown  # type: ignore[index]


def test_a_certificate_that_is_still_good_is_used_again(authority: Authority, tmp_path: Path) -> None:
    first = authority.ensure(ROOM1, tmp_path / "x", hosts=("127.0.0.1", "localhost"))
    before = first.certificate.read_bytes()
    authority.ensure(ROOM1, tmp_path / "x", hosts=("localhost", "127.0.0.1"))
    assert first.certificate.read_bytes() == before


def other_identity(authority: Authority, folder: Path) -> Credentials:
    return authority.issue("urn:pratipad:house:device:room2", folder)


def other_hosts(authority: Authority, folder: Path) -> Credentials:
    return authority.issue(ROOM1, folder, hosts=("localhost",))


def other_side(authority: Authority, folder: Path) -> Credentials:
    return authority.issue(ROOM1, folder, server=True)


def other_authority(authority: Authority, folder: Path) -> Credentials:
    return Authority.open(folder.parent / "another").issue(ROOM1, folder)


def nearly_over(authority: Authority, folder: Path) -> Credentials:
    return authority.issue(ROOM1, folder, days=0.4)


def other_key(authority: Authority, folder: Path) -> Credentials:
    issued = authority.issue(ROOM1, folder)
    issued.key.write_bytes(made_authority("x", 1).key_pem())
    return issued


def broken(authority: Authority, folder: Path) -> Credentials:
    issued = authority.issue(ROOM1, folder)
    issued.certificate.write_text("no certificate")
    return issued


@pytest.mark.parametrize(
    "spoil",
    [other_identity, other_hosts, other_side, other_authority, nearly_over, other_key, broken],
    ids=lambda f: f.__name__,
)
def test_a_certificate_that_is_no_longer_good_is_made_anew(
    authority: Authority, tmp_path: Path, spoil
) -> None:
    before = spoil(authority, tmp_path / "x").certificate.read_bytes()
    issued = authority.ensure(ROOM1, tmp_path / "x")
    assert issued.certificate.read_bytes() != before
    after = issued.certificate.read_bytes()
    assert authority.ensure(ROOM1, tmp_path / "x").certificate.read_bytes() == after


def test_a_damaged_authority_says_what_to_do(authority: Authority) -> None:
    authority.certificate.write_text("no certificate")
    with pytest.raises(
        CertificateError, match=r"holds no PEM certificate\. Put the files .* back .* or delete"
    ):
        Authority.open(authority.certificate.parent)


def test_an_authority_without_its_key_is_not_replaced(authority: Authority) -> None:
    (authority.certificate.parent / "ca-key.pem").unlink()
    before = authority.certificate.read_bytes()
    with pytest.raises(CertificateError, match=r"ca-key\.pem can't be read: No such file"):
        Authority.open(authority.certificate.parent)
    assert authority.certificate.read_bytes() == before


def test_an_authority_with_the_key_of_another_is_refused(authority: Authority) -> None:
    (authority.certificate.parent / "ca-key.pem").write_bytes(made_authority("x", 1).key_pem())
    with pytest.raises(CertificateError, match="is not the key of"):
        Authority.open(authority.certificate.parent)


def test_an_expired_authority_says_since_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority_module, "AUTHORITY_DAYS", -0.5)
    Authority.open(tmp_path / "authority")
    with pytest.raises(CertificateError, match=r"is valid from \d{4}.* to \d{4}.*new invitation"):
        Authority.open(tmp_path / "authority")


def test_a_folder_that_can_t_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CertificateError, match=r"file.* can't be made: .*Choose a folder"):
        Authority.open(tmp_path / "file" / "authority")
    authority = Authority.open(tmp_path / "authority")
    with pytest.raises(CertificateError, match=r"can't be written to .*file"):
        authority.issue(ROOM1, tmp_path / "file" / "x")


@pytest.mark.parametrize(
    ("identity", "hosts", "says"),
    [
        ("", (), "can't be an identity"),
        ("urn:ü", (), "ASCII URI"),
        ("urn:x#1", (), "without '#'"),
        ("urn:x:y", ("hö",), "can't be a host"),
    ],
)
def test_what_can_t_stand_in_a_certificate_is_named(
    authority: Authority, tmp_path: Path, identity: str, hosts: tuple[str, ...], says: str
) -> None:
    with pytest.raises(CertificateError, match=says):
        authority.issue(identity, tmp_path / "x", hosts=hosts)


def test_no_repr_and_no_error_shows_a_key(authority: Authority, tmp_path: Path) -> None:
    pair = made_authority("x", 1)
    body = re.sub(r"-+.*?-+|\s", "", pair.key_pem().decode())[:40]
    assert body not in repr(pair)
    assert body not in repr(authority)
    key = authority.certificate.parent / "ca-key.pem"
    key.write_bytes(pair.key_pem()[:-40])
    with pytest.raises(CertificateError) as caught:
        Authority.open(key.parent)
    assert body not in str(caught.value)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_whatever_is_in_the_files_either_opens_or_is_explained(tmp_path: Path, data: bytes) -> None:
    folder = tmp_path / "any"
    folder.mkdir(exist_ok=True)
    (folder / "ca.pem").write_bytes(data)
    (folder / "ca-key.pem").write_bytes(data)
    with pytest.raises(CertificateError):
        Authority.open(folder)


def test_a_pair_knows_who_signed_it() -> None:
    from pratipad_nb.pki.certificates import Profile

    ours, other = made_authority("ours", 10), made_authority("other", 10)
    leaf = made_leaf(ours, Profile(ROOM1), 5)
    assert leaf.signed_by(ours)
    assert not leaf.signed_by(other)


def test_a_certificate_file_tells_when_it_expires(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path)
    days = valid_until(authority.certificate) - datetime.now(UTC)
    assert days > timedelta(days=300)
    with pytest.raises(CertificateError, match="can't be read"):
        valid_until(tmp_path / "missing.pem")


def own_authority(
    folder: Path,
    *,
    ca: bool = True,
    usage: bool = True,
    named: bool = True,
    days: int = 30,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
) -> tuple[Path, Path]:
    """Write an intermediate authority, signed by a root that nobody keeps, as a user may have one."""
    root = made_authority("root", 3650)
    key = key or ec.generate_private_key(ec.SECP384R1())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "intermediate")]))
        .issuer_name(root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
    )
    if usage:
        signing = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(signing, critical=True)
    if named:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    files = folder / "my-ca.pem", folder / "my-ca-key.pem"
    files[0].write_bytes(builder.sign(root.key, hashes.SHA256()).public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@pytest.mark.parametrize("named", [True, False], ids=["with a key identifier", "without one"])
def test_an_intermediate_authority_of_ones_own_is_trusted_by_itself(tmp_path: Path, named: bool) -> None:
    pair = read_authority(*own_authority(tmp_path, named=named))
    authority = Authority.take(tmp_path / "authority", pair)
    server = authority.issue("urn:x:server", tmp_path / "server", hosts=("127.0.0.1",), server=True)
    room1 = authority.issue(ROOM1, tmp_path / "room1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    context.load_verify_locations(room1.authority)
    handshake(client_context(room1), context)
    assert Authority.open(tmp_path / "authority").ensure(ROOM1, tmp_path / "room1") == room1


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """Shake hands in memory; raises what the client says of the server's certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (ours, theirs):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert ours.getpeercert()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"ca": False, "usage": False}, "CA:TRUE"),
        ({"usage": False}, "keyCertSign"),
        ({"days": -3}, "is valid from"),
        ({"key": rsa.generate_private_key(65537, 2048)}, "no elliptic curve's key"),
    ],
    ids=["no authority", "may not sign", "over", "RSA"],
)
def test_what_is_no_authority_is_refused_by_its_files_name(
    tmp_path: Path, what: dict[str, Any], said: str
) -> None:
    with pytest.raises(CertificateError, match=said) as refused:
        read_authority(*own_authority(tmp_path, **what))
    assert "my-ca" in str(refused.value)
