"""The end of a certificate: read without `cryptography`, and the words that warn of it.

Owns both, for a device has no `cryptography`: reading a certificate as a whole is for
`pratipad_nb.pki.certificates`. Every party whose certificate nobody renews warns from `WARNING_DAYS` before
the end on, with these words.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pratipad_nb.errors import CertificateError

__all__ = ["CARRIED_ADVICE", "WARNING_DAYS", "ending", "party_ending", "valid_until"]

#: The advice to who holds a certificate that was issued on another machine.
CARRIED_ADVICE = (
    "Renew it where it was issued (pratipad certs renew) and put the new files in the place of the old ones; "
    "no restart is needed."
)
#: So many days before its end, a certificate that was not renewed is warned of.
WARNING_DAYS = 14.0

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
#: Tags of ASN.1: the explicit version of a certificate, and the two forms of a time.
_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18
_FORMS = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}


def valid_until(certificate: Path) -> datetime:
    """Return when the certificate in a PEM file expires; the first certificate, if there are several.

    Raises
    ------
    CertificateError
        If the file can't be read, or holds no certificate.
    """
    try:
        text = certificate.read_bytes().decode("ascii", "replace")
    except OSError as error:
        raise CertificateError(f"{certificate} can't be read: {error.strerror}.") from error
    try:
        body = text[text.index(_BEGIN) : text.index(_END) + len(_END)]
        return _end_of(ssl.PEM_cert_to_DER_cert(body))
    except (ValueError, IndexError, StopIteration) as error:
        raise CertificateError(f"{certificate} holds no PEM certificate.") from error


def ending(whose: str, until: datetime, now: datetime, advice: str) -> str:
    """Return the warning that a certificate ends, or has ended; empty while its end is far.

    Parameters
    ----------
    whose
        The holder, as in "the certificate of the device 'lamp' ends on 2026-12-05".
    until, now
        The certificate's end, and the present.
    advice
        What to do: a whole sentence.
    """
    left = until - now
    if left > timedelta(days=WARNING_DAYS):
        return ""
    when = f"{until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if left <= timedelta(0):
        return f"the certificate of {whose} ended on {when}. {advice}"
    return f"the certificate of {whose} ends on {when}, in {_in_words(left)}. {advice}"


def party_ending(flow: str, role: str, name: str, until: datetime, now: datetime) -> str:
    """Return the warning that the certificate of a party ends, as `ending`, with the command that renews it.

    `flow` is ``TENANT/FLOW`` where the flow is a tenant's. An edge has no name.
    """
    tenant, _, alone = flow.rpartition("/")
    options = (f" --flow {alone}" if name else "") + (f" --tenant {tenant}" if tenant else "")
    command = f"pratipad certs renew {role} {name or alone}{options}"
    whose = f"the {role} {name!r} of {flow!r}" if name else f"the {role} of {flow!r}"
    return ending(whose, until, now, f"Renew it where it was issued: {command}")


def _in_words(left: timedelta) -> str:
    if left < timedelta(hours=2):
        return f"{max(1, round(left / timedelta(minutes=1)))} min"
    if left < timedelta(days=2):
        return f"{round(left / timedelta(hours=1))} hours"
    return f"{left.days} days"


def _end_of(der: bytes) -> datetime:
    """Return the end of validity of a certificate (RFC 5280, section 4.1)."""
    (signed,) = list(_elements(der))[:1]
    fields = list(_elements(next(_elements(signed[1]))[1]))
    if fields[0][0] == _VERSION:
        fields = fields[1:]
    _begin, (tag, written) = list(_elements(fields[3][1]))  # after serial number, algorithm and issuer
    if tag not in _FORMS:
        raise ValueError(f"a time has no tag {tag}")
    return datetime.strptime(written.decode("ascii"), _FORMS[tag]).replace(tzinfo=UTC)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the contents of each ASN.1 element in `data`."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        if at + length > len(data):
            raise ValueError("an element is cut off")
        yield tag, data[at : at + length]
        at += length
