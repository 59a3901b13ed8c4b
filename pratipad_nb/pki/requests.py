"""Requests for a new certificate: made by the holder, whose new key never leaves its machine.

Owns what the holder checks of the answer, and the voucher: by it a holder that trusts the former authority
knows the new one, while the authority is changed. Whoever else could answer, an edge for example, can so make
no holder trust an authority of its own. The form of a request is for `pratipad_nb.pki.certificates`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pratipad_nb.errors import CertificateError
from pratipad_nb.files import write_together
from pratipad_nb.pki.certificates import (
    Pair,
    PrivateKey,
    has_signed,
    identity_of,
    party_of,
    read_certificate,
    read_pems,
    signed_by,
    to_der,
)
from pratipad_nb.settings import Credentials

__all__ = ["Answer", "take_answer", "vouched"]

#: Keeps a voucher from being the signature of anything else that an authority signs.
_VOUCHED = b"pratipad authority "


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


def vouched(former: Pair, present: Pair) -> bytes:
    """Return the voucher of the `former` authority for the `present` one."""
    return former.signature(_VOUCHED + to_der(present.certificate))


def take_answer(credentials: Credentials, key: PrivateKey, answer: Answer) -> None:
    """Check the answer to the request of `key`, and write it in the place of `credentials`.

    Raises
    ------
    CertificateError
        If the certificate is not for `key`, for another party, or of an authority that `credentials` give no
        reason to trust; nothing is written then. Or if the files can't be written.
    """
    try:
        (new,), authorities = read_pems(answer.certificate), read_pems(answer.authority)
        known = read_pems(credentials.authority.read_bytes())
    except (ValueError, OSError) as error:
        raise CertificateError(
            f"the answer to a request for a certificate can't be used: {error}."
        ) from error
    for authority in authorities:
        told = _VOUCHED + to_der(authority)
        if authority not in known and not any(has_signed(each, answer.voucher, told) for each in known):
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
    try:
        write_together(
            {
                credentials.key: (Pair(new, key).key_pem(), 0o600),
                credentials.certificate: (answer.certificate, 0o644),
                credentials.authority: (answer.authority, 0o644),
            }
        )
    except OSError as error:
        raise CertificateError(
            f"the new certificate can't be written to {credentials.certificate.parent}: {error.strerror}. "
            "Make room, or make the folder writable."
        ) from error
