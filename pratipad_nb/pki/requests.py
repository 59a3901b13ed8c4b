"""Requests for a new certificate: made by the holder, whose new key never leaves its machine.

Owns the request's form (PKCS #10), what the holder checks of the answer, and the voucher: by it a holder that
trusts the former authority knows the new one, while the authority is changed. Whoever else could answer, an
edge for example, can so make no holder trust an authority of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pratipad_nb.errors import CertificateError
from pratipad_nb.files import write_together
from pratipad_nb.pki.certificates import Pair, identity_of, party_of, read_certificate, signed_by
from pratipad_nb.settings import Credentials

__all__ = ["Answer", "made_request", "requested_key", "take_answer", "vouched"]

_LONGEST = 4096
_HASH = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request: all but `voucher` as PEM.

    Attributes
    ----------
    certificate
        The new certificate.
    authority
        The certificates of all authorities that are trusted, the present one first.
    voucher
        While the authority is changed: the former authority's signature of the present one's certificate.
    """

    certificate: bytes
    authority: bytes
    voucher: bytes = b""


def made_request() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """Return a new key, and the request for its certificate as PEM. The issuer goes by no name in it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "renewal")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return key, request.public_bytes(serialization.Encoding.PEM)


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key that a request asks a certificate for, whose holder has made the request.

    Raises
    ------
    CertificateError
        If `request` is no request, is not signed with its key, or the key is none of P-256.
    """
    try:
        if len(request) > _LONGEST:
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


def vouched(former: Pair, present: Pair) -> bytes:
    """Return the voucher of the `former` authority for the `present` one."""
    return former.key.sign(_vouched_for(present.certificate), _HASH)


def take_answer(credentials: Credentials, key: ec.EllipticCurvePrivateKey, answer: Answer) -> None:
    """Check the answer to the request of `key`, and write it in the place of `credentials`.

    Raises
    ------
    CertificateError
        If the certificate is not for `key`, for another party, or of an authority that `credentials` give no
        reason to trust; nothing is written then. Or if the files can't be written.
    """
    try:
        new = x509.load_pem_x509_certificate(answer.certificate)
        authorities = x509.load_pem_x509_certificates(answer.authority)
        known = x509.load_pem_x509_certificates(credentials.authority.read_bytes())
    except (ValueError, OSError) as error:
        raise CertificateError(
            f"the answer to a request for a certificate can't be used: {error}."
        ) from error
    for authority in authorities:
        if authority not in known and not any(_vouches(each, authority, answer.voucher) for each in known):
            raise CertificateError(
                "the answer to a request for a certificate names an authority for which no known authority "
                "vouches. It is not of who issued the present certificate; nothing was changed."
            )
    mine = party_of(identity_of(read_certificate(credentials.certificate)))
    signed = any(signed_by(new, authority) for authority in authorities)
    if new.public_key() != key.public_key() or party_of(identity_of(new)) != mine or not signed:
        raise CertificateError(
            f"the answer to a request for a certificate is not for {mine} and its new key. Nothing was "
            "changed."
        )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        write_together(
            {
                credentials.key: (private, 0o600),
                credentials.certificate: (answer.certificate, 0o644),
                credentials.authority: (answer.authority, 0o644),
            }
        )
    except OSError as error:
        raise CertificateError(
            f"the new certificate can't be written to {credentials.certificate.parent}: {error.strerror}. "
            "Make room, or make the folder writable."
        ) from error


def _vouches(known: x509.Certificate, authority: x509.Certificate, voucher: bytes) -> bool:
    key = known.public_key()
    if not voucher or not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(voucher, _vouched_for(authority), _HASH)
    except InvalidSignature:
        return False
    return True


def _vouched_for(authority: x509.Certificate) -> bytes:
    # The words keep the signature from being one of anything else that an authority signs.
    return b"pratipad authority " + authority.public_bytes(serialization.Encoding.DER)
