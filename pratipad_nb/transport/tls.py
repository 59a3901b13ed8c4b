"""TLS towards the server: the client's context, and a probe that names the reason of a failure to connect.

Owns both; the server's side of TLS is for `pratipad_nb.server.config`. TLS comes first on every
connection (``handshake_first``): not even the server's greeting is sent in the clear. So the standard
library can try the handshake before the NATS client does, which would retry a refused certificate for
ever and not name the reason.
"""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

from pratipad_nb.errors import (
    CertificateError,
    ConnectionRefused,
    NotInvited,
    PratipadError,
    SettingsError,
    TransportError,
)
from pratipad_nb.settings import Credentials

__all__ = ["PROBE_SECONDS", "client_context", "probe"]

#: Longest time that `probe` takes by default, in seconds: a refusal is to be explained in under 5 s.
PROBE_SECONDS = 4.5

_CONNECT = (
    b'CONNECT {"verbose":false,"pedantic":false,"tls_required":true,"name":"probe","protocol":1}\r\nPING\r\n'
)
_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED in OpenSSL's x509_vfy.h
_NOT_YET = 9  # X509_V_ERR_CERT_NOT_YET_VALID
_OTHER_HOST = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """Return the context of a client that shows its certificate and trusts one authority alone.

    The context allows TLS 1.2 and later.


    Raises
    ------
    CertificateError
        If a file of `credentials` is missing or unreadable, or the key isn't the certificate's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The authority is the anchor itself, also if it is an intermediate authority: its signer is
    # not to be trusted.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(credentials.authority)
    except (OSError, ssl.SSLError) as error:
        raise CertificateError(
            f"the authority's certificate {credentials.authority} can't be read: {_reason(error)}. "
            "Ask for a new certificate folder (`flow.invite(name, folder)`)."
        ) from error
    try:
        # An encrypted key would make OpenSSL ask for its password on the terminal.
        context.load_cert_chain(credentials.certificate, credentials.key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise CertificateError(
            f"the certificate {credentials.certificate} and its key {credentials.key} can't be used: "
            f"{_reason(error)}. Both must be there, readable, unencrypted and belong together; or ask for a "
            "new certificate folder (`flow.invite(name, folder)`)."
        ) from error
    return context


async def probe(
    url: str,
    credentials: Credentials,
    timeout: float = PROBE_SECONDS,
) -> None:
    """Try to connect to `url`, and return if that works.

    That is: TCP and TLS work, and the server says that it knows the user.


    Parameters
    ----------
    url
        ``tls://host:port``, or several such URLs separated by commas, of which one server
        must accept the user.
    credentials
        The user's credentials.
    timeout
        Bound of the whole call, in seconds.

    Raises
    ------
    ConnectionRefused
        If no server answers at `url`.
    CertificateError
        If the files of `credentials` can't be used, or the server's certificate is expired, another
        authority's or another host's.
    NotInvited
        If the server turned the certificate of `credentials` away.
    TransportError
        If the server speaks no TLS or no NATS.
    SettingsError
        If `url` is no such URL.
    """
    context = client_context(credentials)
    targets = [_target(part) for part in url.split(",")]
    failure: PratipadError | None = None
    try:
        async with asyncio.timeout(timeout):
            for host, port in targets:
                try:
                    return await _try(host, port, context, credentials)
                except PratipadError as error:
                    failure = error
    except TimeoutError:
        failure = failure or ConnectionRefused(
            f"{url} did not answer within {timeout:g} s. Check host and port, and that no firewall is "
            "between."
        )
    assert failure is not None
    raise failure


async def _try(host: str, port: int, context: ssl.SSLContext, credentials: Credentials) -> None:
    where = f"tls://{host}:{port}"
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise _distrusted(where, error, credentials) from error
    except ssl.SSLError as error:
        raise _refused(where, error, credentials) from error
    except ConnectionResetError as error:
        raise _hung_up(where) from error
    except OSError as error:
        raise ConnectionRefused(
            f"nobody answers at {where}: {_reason(error)}. Is the server running there? Check host and port."
        ) from error
    try:
        await _greet(reader, writer, where, credentials)
    except ssl.SSLError as error:
        # TLS 1.3: the server's answer to the client's certificate arrives after the handshake.
        raise _refused(where, error, credentials) from error
    except OSError as error:
        raise _hung_up(where) from error
    finally:
        # Not `close`: no data is outstanding, and a polite end would wait for the server's end.
        writer.transport.abort()
        await asyncio.sleep(0)


async def _greet(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str, credentials: Credentials
) -> None:
    """Speak NATS up to the point at which the server has looked for the certificate's user."""
    # The greeting is read before CONNECT is written: bytes that the server hasn't read would make its end
    # reset the connection, and the alert before the end would be lost.
    greeting = await reader.readline()
    if not greeting.startswith(b"INFO "):
        if not greeting:
            raise _hung_up(where)
        raise TransportError(f"{where} speaks TLS, but not NATS. Check the port.")
    writer.write(_CONNECT)
    while line := await reader.readline():
        if line.startswith(b"PONG"):
            return
        if line.startswith(b"-ERR"):
            said = line[4:].strip().decode(errors="replace").strip("'")
            raise NotInvited(
                f"the server at {where} accepts the authority of {credentials.certificate}, but knows no "
                f"user of that name (it says: {said}). The invitation was revoked or is for another server; "
                "ask for a new invitation (`flow.invite(name, folder)`)."
            )
    raise _hung_up(where)


def _distrusted(
    where: str, error: ssl.SSLCertVerificationError, credentials: Credentials
) -> CertificateError:
    if error.verify_code in (_EXPIRED, _NOT_YET):
        state = "has expired" if error.verify_code == _EXPIRED else "is not valid yet"
        return CertificateError(
            f"the certificate of the server at {where} {state}. Restart the flow there, which renews it, and "
            "check the clocks of both machines."
        )
    if error.verify_code in _OTHER_HOST:
        return CertificateError(
            f"the certificate of the server at {where} is for another host ({error.verify_message}). Use the "
            "host's name as in its certificate, or have that name added to it."
        )
    return CertificateError(
        f"the server at {where} is not one of our authority {credentials.authority} "
        f"({error.verify_message}). Another server runs there, or the certificate folder is another "
        "server's; ask for a new folder (`flow.invite(name, folder)`)."
    )


#: Reasons of OpenSSL that mean "the other side talks, but no TLS".
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")
_ALERTS = {
    "CERTIFICATE_REQUIRED": "no certificate was shown to it",
    "UNKNOWN_CA": "it is another authority's",
    "CERTIFICATE_EXPIRED": "it has expired or is not valid yet (check this machine's clock)",
    "CERTIFICATE_REVOKED": "it was revoked",
    "BAD_CERTIFICATE": "it is not acceptable there: another authority's, or not for a client",
}


def _refused(where: str, error: ssl.SSLError, credentials: Credentials) -> TransportError:
    reason = error.reason or ""
    for alert, meaning in _ALERTS.items():
        if reason.endswith(alert):
            return NotInvited(
                f"the server at {where} refused our certificate {credentials.certificate}: {meaning} (TLS "
                f"alert {alert.lower()}). Ask for a new certificate folder (`flow.invite(name, folder)`)."
            )
    if reason in _NO_TLS:
        return TransportError(
            f"{where} speaks no TLS. Check the port; a NATS server of your own needs `handshake_first: true` "
            "in its tls block, for we say nothing in the clear."
        )
    if "ALERT" in reason:
        return NotInvited(
            f"the server at {where} ended the TLS handshake: {reason.lower().replace('_', ' ')}. It takes "
            f"certificates of its own authority and TLS 1.2 or later; we showed {credentials.certificate}."
        )
    if "EOF" in reason:
        return _hung_up(where)
    return TransportError(f"the TLS handshake with {where} failed: {_reason(error)}.")


def _hung_up(where: str) -> TransportError:
    return TransportError(
        f"{where} closed the connection during the handshake. Check that it is a NATS server with TLS, and "
        "its log."
    )


def _target(url: str) -> tuple[str, int]:
    parts = urlsplit(url.strip())
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "tls" or not host:
        raise SettingsError(
            f"{url!r} is no server's URL; it is 'tls://HOST:PORT', for example tls://127.0.0.1:4222."
        )
    return host, 4222 if port is None else port


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
