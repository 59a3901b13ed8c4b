"""The contents of our certificates: written, signed, and read back from files.

Owns the X.509 profile: ECDSA on P-256, an authority that signs leaves and nothing else, leaves that are
either a server's or a client's. Knows no folders and no policy of renewal.

A leaf names its holder twice, as URIs: first ``IDENTITY#SERIAL``, the certificate's own name, then
``IDENTITY``. The server takes the first of the two that is a listed user. A server that lists the names of
certificates keeps a stolen key out although its holder's identity is issued again. A server whose users are
written by hand may list identities. Leaves of version 0.1 have the identity alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pratipad_nb.errors import CertificateError
from pratipad_nb.validity import valid_until

__all__ = [
    "CLOCK_SKEW",
    "Pair",
    "PrivateKey",
    "Profile",
    "has_signed",
    "identity_in",
    "identity_of",
    "made_authority",
    "made_leaf",
    "made_request",
    "party_of",
    "profile_of",
    "read_authority",
    "read_certificate",
    "read_pair",
    "read_pem",
    "read_pems",
    "requested_key",
    "serial_of",
    "signed_by",
    "signed_leaf",
    "to_der",
    "valid_until",
]

#: A certificate is valid from this long before it is made: a board without a buffered clock lags.
CLOCK_SKEW = timedelta(days=1)
#: Upper bound of a common name in RFC 5280, appendix A.1 (ub-common-name).
_LONGEST_NAME = 64
#: Upper bound of a request, in bytes: one for a key on P-256 takes some 350.
_LONGEST_REQUEST = 4096
#: The private keys of all certificates.
PrivateKey = ec.EllipticCurvePrivateKey
#: Between the identity of a certificate's holder and the certificate's serial number: a URI's fragment.
_MARK = "#"


@dataclass(frozen=True, slots=True)
class Profile:
    """The contents of a leaf certificate: its holder's identity, its hosts, and whether it is a server's."""

    identity: str
    hosts: tuple[str, ...] = ()
    server: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Pair:
    """A certificate and its private key. The repr doesn't show the contents."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        """Return the certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """Return the private key as unencrypted PEM (PKCS #8)."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def signature(self, data: bytes) -> bytes:
        """Return the key's signature of `data`."""
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))

    def valid_at(self, moment: datetime) -> bool:
        """Return whether `moment` lies within the certificate's validity."""
        return self.certificate.not_valid_before_utc <= moment <= self.certificate.not_valid_after_utc

    def signed_by(self, authority: Pair) -> bool:
        """Return whether `authority` signed this certificate."""
        return signed_by(self.certificate, authority.certificate)


def signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Return whether `authority` signed `certificate`."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def made_authority(name: str, days: float) -> Pair:
    """Return a new self-signed authority, which may sign leaves and revocation lists, but no authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    until = datetime.now(UTC) + timedelta(days=days)
    builder = (
        _builder(subject, subject, key.public_key(), until, x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Pair(builder.sign(key, hashes.SHA256()), key)


def made_leaf(authority: Pair, profile: Profile, days: float) -> Pair:
    """Return a new leaf certificate with a new key; the certificate never outlives its authority.

    Raises
    ------
    CertificateError
        If the identity or a host can't stand in a certificate.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    return Pair(signed_leaf(authority, profile, days, key.public_key()), key)


def signed_leaf(
    authority: Pair, profile: Profile, days: float, key: ec.EllipticCurvePublicKey
) -> x509.Certificate:
    """Return a new leaf certificate for the holder of `key`; see `made_leaf`."""
    issuer = authority.certificate
    until = min(datetime.now(UTC) + timedelta(days=days), issuer.not_valid_after_utc)
    usage = ExtendedKeyUsageOID.SERVER_AUTH if profile.server else ExtendedKeyUsageOID.CLIENT_AUTH
    serial = x509.random_serial_number()
    builder = (
        _builder(_name(profile.identity), issuer.subject, key, until, serial)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(_alternative_names(profile, serial), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_authority_key_id(issuer), critical=False)
    )
    return builder.sign(authority.key, hashes.SHA256())


def _authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:  # an authority of the user's own need not have one
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)


def profile_of(certificate: x509.Certificate) -> Profile | None:
    """Return the contents of a leaf certificate, None if it isn't made like ours."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    identities = {party_of(each) for each in names.get_values_for_type(x509.UniformResourceIdentifier)}
    if len(identities) != 1:
        return None
    hosts = [
        *names.get_values_for_type(x509.DNSName),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    ]
    return Profile(identities.pop(), tuple(sorted(hosts)), ExtendedKeyUsageOID.SERVER_AUTH in usage)


def read_pair(certificate: Path, key: Path) -> Pair:
    """Read a certificate and its key from two PEM files.

    Raises
    ------
    CertificateError
        If a file is missing, unreadable or no such PEM, or the two don't belong together.
    """
    found = read_certificate(certificate)
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except OSError as error:
        raise CertificateError(f"{key} can't be read: {error.strerror}.") from error
    except (ValueError, TypeError) as error:
        # Not the error's own text, which could quote the file.
        raise CertificateError(f"{key} holds no unencrypted PEM key.") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise CertificateError(
            f"{key} is no elliptic curve's key; P-256 is one. Make such a pair, and take that."
        )
    if private.public_key() != found.public_key():
        raise CertificateError(f"{key} is not the key of {certificate}.")
    return Pair(found, private)


def read_authority(certificate: Path, key: Path) -> Pair:
    """Read an authority of the user's own from two PEM files.

    Raises
    ------
    CertificateError
        As `read_pair`; or if the authority may not sign certificates, or isn't valid now.
    """
    pair = read_pair(certificate, key)
    found = pair.certificate
    if not pair.valid_at(datetime.now(UTC)):
        raise CertificateError(
            f"{certificate} is valid from {found.not_valid_before_utc:%Y-%m-%d} to "
            f"{found.not_valid_after_utc:%Y-%m-%d}, and today is {datetime.now(UTC):%Y-%m-%d}. Take one that "
            "is valid now."
        )
    if not (_has(found, x509.BasicConstraints, "ca") and _has(found, x509.KeyUsage, "key_cert_sign")):
        raise CertificateError(
            f"{certificate} may sign no certificates. An authority's has the basic constraints CA:TRUE and "
            "the key usage keyCertSign; take such a one, an intermediate authority's for example."
        )
    return pair


def _has(certificate: x509.Certificate, extension: type[x509.ExtensionType], field: str) -> bool:
    """Return whether the certificate has the extension, and its `field` is true."""
    try:
        return bool(getattr(certificate.extensions.get_extension_for_class(extension).value, field))
    except (x509.ExtensionNotFound, ValueError):
        return False


def serial_of(certificate: Path) -> str:
    """Return the serial number of the certificate in a PEM file, in hexadecimal digits.

    Raises
    ------
    CertificateError
        If the file holds no certificate.
    """
    return _written_serial(read_certificate(certificate).serial_number)


def identity_in(certificate: Path) -> str:
    """Return the first name of the certificate in a PEM file: ``IDENTITY#SERIAL``.

    The name of a certificate of version 0.1 is its holder's identity, without a serial number.

    Raises
    ------
    CertificateError
        If the file holds no certificate, or a certificate without such a name.
    """
    found = read_certificate(certificate)
    try:
        return identity_of(found)
    except CertificateError as error:
        raise CertificateError(f"{certificate} {error}") from error


def identity_of(found: x509.Certificate) -> str:
    """Return the first name of a certificate; see `identity_in`.

    Raises
    ------
    CertificateError
        If the certificate has no such name.
    """
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return str(names.get_values_for_type(x509.UniformResourceIdentifier)[0])
    except (x509.ExtensionNotFound, ValueError, IndexError) as error:
        raise CertificateError(
            "names no party: it has no URI among its alternative names. Take a certificate "
            "that `pratipad certs issue` or `flow.invite(name, folder)` has written."
        ) from error


def made_request() -> tuple[PrivateKey, bytes]:
    """Return a new key, and the request for its certificate (PKCS #10) as PEM.

    The issuer goes by no name in a request.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(_name("renewal"))
    return key, request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key that a request asks a certificate for, whose holder has made the request.

    Raises
    ------
    CertificateError
        If `request` is no request, is not signed with its key, or the key is none of P-256.
    """
    try:
        if len(request) > _LONGEST_REQUEST:
            raise ValueError("too long")
        found = x509.load_pem_x509_csr(request)
        key = found.public_key()
        if not found.is_signature_valid:
            raise ValueError("not signed with its key")
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CertificateError(f"that is no request for a certificate: {error}.") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateError("a certificate is made for an elliptic key on P-256, and for no other key.")
    return key


def has_signed(certificate: x509.Certificate, signature: bytes, data: bytes) -> bool:
    """Return whether `signature` is one of `data` by the key of `certificate`."""
    key = certificate.public_key()
    if not signature or not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def read_pems(text: bytes) -> list[x509.Certificate]:
    """Return the certificates in a PEM text; raise `ValueError` if there is none."""
    return x509.load_pem_x509_certificates(text)


def to_der(certificate: x509.Certificate) -> bytes:
    """Return the certificate's encoding."""
    return certificate.public_bytes(serialization.Encoding.DER)


def party_of(identity: str) -> str:
    """Return the identity of a certificate's holder, from the certificate's own name or the identity."""
    return identity.partition(_MARK)[0]


def _written_serial(serial: int) -> str:
    return f"{serial:x}"


def read_pem(text: bytes) -> x509.Certificate:
    """Return the certificate in a PEM text, the first if there are several; raise `CertificateError`."""
    try:
        return x509.load_pem_x509_certificate(text)
    except ValueError as error:
        raise CertificateError("there is no PEM certificate.") from error


def read_certificate(path: Path) -> x509.Certificate:
    """Return the certificate in a PEM file, the first if there are several.

    Raises
    ------
    CertificateError
        If the file can't be read, or holds no certificate.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise CertificateError(f"{path} can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise CertificateError(f"{path} holds no PEM certificate.") from error


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, until: datetime, serial: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(datetime.now(UTC) - CLOCK_SKEW)
        .not_valid_after(until)
    )


def _name(text: str) -> x509.Name:
    if not text:
        raise CertificateError("'' can't be an identity: it has at least one character.")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_LONGEST_NAME])])


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(profile: Profile, serial: int) -> x509.SubjectAlternativeName:
    identity = profile.identity
    if not identity.isascii() or _MARK in identity:
        raise CertificateError(
            f"{identity!r} can't be an identity: it is an ASCII URI without {_MARK!r}, such as "
            "urn:pratipad:house:edge."
        )
    names = (f"{identity}{_MARK}{_written_serial(serial)}", identity)
    uris = [x509.UniformResourceIdentifier(name) for name in names]
    return x509.SubjectAlternativeName([*uris, *_host_names(profile.hosts)])


def _host_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            try:
                names.append(x509.DNSName(host))
            except ValueError as error:
                raise CertificateError(
                    f"{host!r} can't be a host: it is an IP address or an ASCII host name."
                ) from error
    return names
