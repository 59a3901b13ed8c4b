"""Renewing a device's certificate over its own connection, where `cryptography` is installed.

Owns the request, and when a device asks by itself: once its certificate ends within 14 days, and once an hour
until an answer came. The issuer answers, at the flow's edge, if the edge's computer holds the authority.
"""

from __future__ import annotations

import asyncio
import logging

from pratipad_nb.errors import CertificateError, PratipadError
from pratipad_nb.settings import Endpoint
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import RenewedFrame, RenewFrame
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.transport.subjects import Subjects

__all__ = ["keep_renewed", "renewed"]

log = logging.getLogger(__name__)

_ASK_SECONDS = 10.0
#: Seconds between two looks at the certificate's end.
_LOOK_SECONDS = 3600.0


async def renewed(link: Connection, endpoint: Endpoint, name: str) -> None:
    """Replace the certificate of the device `name` by a new one with a new key.

    The device shows the new certificate at its next reconnect. The former one is let in until its own end.

    Raises
    ------
    CertificateError
        If there is no certificate, `cryptography` isn't installed, the issuer refuses, or the answer can't be
        used. Nothing is changed then.
    WaitTimeout
        If nobody answers: the flow doesn't run, or its computer doesn't hold the authority.
    """
    if endpoint.credentials is None:
        raise CertificateError(f"device {name!r} has no certificate that could be renewed.")
    if endpoint.renewed is not None:
        raise CertificateError(f"the certificate of device {name!r} is renewed by the flow, in this program.")
    try:
        # Imported here: a device needs `cryptography` for nothing else.
        from pratipad_nb.pki.certificates import made_request
        from pratipad_nb.pki.requests import Answer, take_answer
    except ModuleNotFoundError as error:
        raise CertificateError(
            f"a device makes no new key without {error.name}. Install it (pip install cryptography), or "
            "renew the certificate where it was issued: pratipad certs renew"
        ) from error
    key, request = await asyncio.to_thread(made_request)
    subject = Subjects(endpoint.flow).renew(name)
    said = decode(await link.request(subject, encode(RenewFrame(request)), _ASK_SECONDS), RenewedFrame)
    if said.error:
        raise CertificateError(f"device {name!r} got no new certificate: {said.error}")
    answer = Answer(said.certificate, said.authority, said.voucher)
    await asyncio.to_thread(take_answer, endpoint.credentials, key, answer)
    link.refresh()


async def keep_renewed(link: Connection, endpoint: Endpoint, name: str) -> None:
    """Ask for a new certificate, for ever, whenever the present one ends soon and no other part renews it."""
    while True:
        if endpoint.renewed is None and link.warnings:
            try:
                await renewed(link, endpoint, name)
            except PratipadError as error:
                log.info("device %s: %s", name, error)
        await asyncio.sleep(_LOOK_SECONDS)
