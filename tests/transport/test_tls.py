"""TLS towards the server: what the probe says, against the real server and against what is none."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from patience import patient

from pratipad_nb.errors import (
    CertificateError,
    ConnectionRefused,
    NotInvited,
    PratipadError,
    SettingsError,
    TransportError,
)
from pratipad_nb.pki.authority import Authority
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.tls import client_context, probe

ROOM1 = Party("house", "device", "room1")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "authority")


@pytest.fixture
def room1(authority: Authority, tmp_path: Path) -> Credentials:
    return authority.issue(ROOM1.identity, tmp_path / "room1")


@pytest.fixture
async def url(authority: Authority, tmp_path: Path) -> AsyncIterator[str]:
    server = EmbeddedServer(tmp_path / "server", server_credentials(authority, tmp_path))
    yield await server.start([ROOM1])
    await server.stop()


def server_credentials(authority: Authority, folder: Path, days: float = 30) -> Credentials:
    return authority.issue("urn:x:server", folder / "certs", hosts=("127.0.0.1",), server=True, days=days)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@contextlib.asynccontextmanager
async def listening(handler: Handler, credentials: Credentials | None = None) -> AsyncIterator[str]:
    """Serve `handler` on a free port, with TLS if there are `credentials`."""
    context = None
    if credentials is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(credentials.certificate, credentials.key)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)  # type: ignore[misc]
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    try:
        yield f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.sleep(0)


async def refusal(url: str, credentials: Credentials, timeout: float = 4.5) -> PratipadError:
    began = time.monotonic()
    with pytest.raises(PratipadError) as caught:
        await probe(url, credentials, timeout)
    assert time.monotonic() - began < patient(5)
    return caught.value


async def test_the_invited_get_in(url: str, room1: Credentials) -> None:
    await probe(url, room1)


async def test_one_server_of_several_is_enough(url: str, room1: Credentials) -> None:
    await probe(f"tls://127.0.0.1:{free_port()},{url}", room1)


async def test_a_certificate_of_another_authority_is_refused_by_name(
    url: str, room1: Credentials, tmp_path: Path
) -> None:
    other = Authority.open(tmp_path / "other").issue(ROOM1.identity, tmp_path / "alien")
    alien = Credentials(room1.authority, other.certificate, other.key)
    error = await refusal(url, alien)
    assert isinstance(error, NotInvited)
    assert "it is another authority's (TLS alert unknown_ca)" in str(error)


async def test_a_server_of_another_authority_is_not_trusted(url: str, tmp_path: Path) -> None:
    alien = Authority.open(tmp_path / "other").issue(ROOM1.identity, tmp_path / "alien")
    error = await refusal(url, alien)
    assert isinstance(error, CertificateError)
    assert "is not one of our authority" in str(error)


async def test_an_expired_certificate_is_refused_by_name(
    url: str, authority: Authority, tmp_path: Path
) -> None:
    expired = authority.issue(ROOM1.identity, tmp_path / "expired", days=-0.5)
    error = await refusal(url, expired)
    assert isinstance(error, NotInvited)
    assert "it has expired" in str(error)


async def test_a_server_s_certificate_lets_nobody_in_as_a_client(
    url: str, authority: Authority, tmp_path: Path
) -> None:
    both = authority.issue(ROOM1.identity, tmp_path / "both", server=True)
    error = await refusal(url, both)
    assert isinstance(error, NotInvited)
    assert "refused our certificate" in str(error)


async def test_a_certificate_that_no_user_has_is_refused_by_name(
    url: str, authority: Authority, tmp_path: Path
) -> None:
    unmapped = authority.issue(Party("house", "device", "room2").identity, tmp_path / "room2")
    error = await refusal(url, unmapped)
    assert isinstance(error, NotInvited)
    assert "knows no user of that name (it says: Authorization Violation)" in str(error)


async def test_a_client_without_a_certificate_is_refused(url: str, room1: Credentials) -> None:
    context = ssl.create_default_context(cafile=room1.authority)
    host, _, port = url.removeprefix("tls://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        await asyncio.wait_for(reader.readline(), 5)
    writer.transport.abort()


def test_the_context_takes_tls_1_2_at_least_and_checks_certificate_and_host(room1: Credentials) -> None:
    context = client_context(room1)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


async def test_an_expired_server_is_named(authority: Authority, room1: Credentials, tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(silent, server_credentials(authority, tmp_path, days=-0.5)) as url:
        error = await refusal(url, room1)
    assert isinstance(error, CertificateError)
    assert "has expired" in str(error)


async def test_a_server_for_another_host_is_named(
    authority: Authority, room1: Credentials, tmp_path: Path
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    other = authority.issue("urn:x:s", tmp_path / "s", hosts=("example.org",), server=True)
    async with listening(silent, other) as url:
        error = await refusal(url, room1)
    assert isinstance(error, CertificateError)
    assert "is for another host" in str(error)


@pytest.mark.parametrize("greeting", [b'INFO {"tls_required":true}\r\n', b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_what_speaks_no_tls_is_named(room1: Credentials, greeting: bytes) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.read()

    async with listening(plain) as url:
        error = await refusal(url, room1)
    assert type(error) is TransportError
    assert "speaks no TLS" in str(error)
    assert "handshake_first" in str(error)


async def test_what_speaks_tls_but_not_nats_is_named(
    authority: Authority, room1: Credentials, tmp_path: Path
) -> None:
    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with listening(http, server_credentials(authority, tmp_path)) as url:
        error = await refusal(url, room1)
    assert "speaks TLS, but not NATS" in str(error)


async def test_one_who_hangs_up_is_named(room1: Credentials) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with listening(hang_up) as url:
        error = await refusal(url, room1)
    assert type(error) is TransportError
    assert "closed the connection during the handshake" in str(error)


async def test_one_who_says_nothing_is_given_up_in_time(room1: Credentials) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with listening(silent) as url:
        error = await refusal(url, room1, timeout=0.2)
    assert isinstance(error, ConnectionRefused)
    assert "did not answer within 0.2 s" in str(error)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def test_nobody_there_is_named(room1: Credentials) -> None:
    error = await refusal(f"tls://127.0.0.1:{free_port()}", room1)
    assert isinstance(error, ConnectionRefused)
    assert "nobody answers at tls://127.0.0.1:" in str(error)


@pytest.mark.parametrize("url", ["nats://127.0.0.1:4222", "127.0.0.1:4222", "tls://", "tls://host:port", ""])
async def test_a_url_without_tls_is_refused_before_anything_is_sent(room1: Credentials, url: str) -> None:
    with pytest.raises(SettingsError, match=r"it is 'tls://HOST:PORT'"):
        await probe(url, room1)


def test_credentials_that_can_t_be_used_are_named(room1: Credentials, tmp_path: Path) -> None:
    other = Authority.open(tmp_path / "other").issue("urn:x:y", tmp_path / "y")
    for broken, says in (
        (
            Credentials(tmp_path / "none.pem", room1.certificate, room1.key),
            r"none\.pem can't be read: No such file",
        ),
        (Credentials(room1.key, room1.certificate, room1.key), "can't be read"),
        (Credentials(room1.authority, room1.certificate, other.key), "can't be used: key values mismatch"),
        (Credentials(room1.authority, tmp_path / "none.pem", room1.key), "can't be used: No such file"),
    ):
        with pytest.raises(CertificateError, match=says):
            client_context(broken)


def test_an_encrypted_key_asks_nobody_for_a_password(room1: Credentials) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(room1.key.read_bytes(), None)
    room1.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(CertificateError, match="the key is encrypted"):
        client_context(room1)
