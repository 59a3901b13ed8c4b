"""Renewal: what a program shows is renewed while it runs, and what can't be is warned of."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from patience import eventually

from pratipad_nb.errors import CertificateError, ServerError
from pratipad_nb.pki.certificates import serial_of
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server import renewal as renewal_module
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.server.renewal import Renewal
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.tls import client_context

SERVER = "urn:pratipad:server"
LAMP = Party("house", "device", "lamp")
HOUR = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    return CertificateStore.open(tmp_path)


@contextlib.asynccontextmanager
async def running(renewal: Renewal) -> AsyncIterator[None]:
    task = asyncio.create_task(renewal.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled(), task.exception()


class Holder:
    """A holder whose certificate is over as often as the test says, and which counts what it was told."""

    def __init__(self, store: CertificateStore, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.told: list[str] = []
        self.refuses = 0
        self.fails = False

    def ensure(self) -> Credentials:
        if self.fails:
            raise CertificateError("the authority is away.")
        return self.store.authority.ensure(LAMP.identity, self.folder)

    async def renewed(self, credentials: Credentials) -> None:
        if self.refuses:
            self.refuses -= 1
            raise ServerError("the server restarts.")
        self.told.append(serial_of(credentials.certificate))

    def replace(self) -> str:
        """Have another process renew the files."""
        return serial_of(self.store.authority.issue(LAMP.identity, self.folder).certificate)

    def keep(self, renewal: Renewal) -> None:
        renewal.keep(
            LAMP.identity,
            "the lamp",
            self.ensure(),
            flow="house",
            ensure=self.ensure,
            renewed=self.renewed,
        )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LOOK_SECONDS", "_AGAIN_SECONDS", "_LEAST_SECONDS"):
        monkeypatch.setattr(renewal_module, name, 0.01)


@pytest.fixture
async def server(store: CertificateStore, tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    ports = [free_port() for _ in range(2)]
    server = EmbeddedServer(
        tmp_path / "server",
        store.server(SERVER),
        mqtt=f"127.0.0.1:{ports[0]}",
        leaves=f"127.0.0.1:{ports[1]}",
    )
    await server.start([LAMP])
    yield server
    await server.stop()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def shown_at(port: int, credentials: Credentials) -> bytes:
    """Return the certificate that the listener at `port` shows."""
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        client_context(credentials).wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        return secure.getpeercert(True) or b""


async def test_every_listener_of_a_server_that_runs_shows_the_renewed_certificate(
    server: EmbeddedServer, store: CertificateStore, quick: None
) -> None:
    lamp = store.device("house", "lamp", LAMP.identity)
    own = store.server(SERVER)
    pid, renewed = server.pid, asyncio.Event()

    async def reload(_credentials: Credentials) -> None:
        await server.reload()
        renewed.set()

    renewal = Renewal(store)
    renewal.keep(SERVER, "the server", own, ensure=lambda: store.server(SERVER), renewed=reload)
    store.authority.issue(
        SERVER, own.certificate.parent, hosts=("127.0.0.1", "::1", "localhost"), server=True
    )
    async with running(renewal), asyncio.timeout(30):
        await renewed.wait()
    expected = ssl.PEM_cert_to_DER_cert(own.certificate.read_text())
    for url in (server.url, server.mqtt_url, server.leaves_url):
        assert await asyncio.to_thread(shown_at, int(url.rpartition(":")[2]), lamp) == expected
    assert server.pid == pid


async def test_a_certificate_that_is_due_is_renewed_and_its_holder_told_once(
    store: CertificateStore, tmp_path: Path, quick: None
) -> None:
    holder = Holder(store, tmp_path / "lamp")
    renewal = Renewal(store)
    holder.keep(renewal)
    store.authority.issue(LAMP.identity, holder.folder, days=0.5)  # 1.5 days in all, of which 0.5 are left
    async with running(renewal):
        await eventually(lambda: bool(holder.told))
        await asyncio.sleep(0.05)
    assert holder.told == [serial_of(holder.folder / "cert.pem")]
    assert renewal.warnings() == ()


async def test_a_holder_is_told_again_of_a_certificate_that_it_could_not_show(
    store: CertificateStore, tmp_path: Path, quick: None
) -> None:
    holder = Holder(store, tmp_path / "lamp")
    renewal = Renewal(store)
    holder.keep(renewal)
    holder.refuses = 2
    serial = holder.replace()
    async with running(renewal):
        await eventually(lambda: holder.told == [serial])
        await eventually(lambda: renewal.warnings() == ())


async def test_a_renewal_that_fails_is_warned_of_at_a_bounded_rate_until_it_succeeds(
    store: CertificateStore, tmp_path: Path, quick: None, caplog: Any
) -> None:
    holder = Holder(store, tmp_path / "lamp")
    renewal = Renewal(store)
    holder.keep(renewal)
    holder.fails = True
    async with running(renewal):
        await eventually(lambda: bool(renewal.warnings()))
        (warning,) = renewal.warnings("house")
        assert "the certificate of the lamp, which ends on " in warning
        assert "is not renewed: the authority is away." in warning
        assert renewal.warnings_of(LAMP.identity) == (warning,)
        assert renewal.warnings("garden") == renewal.warnings_of("urn:pratipad:house:edge") == ()
        await asyncio.sleep(0.1)  # some ten looks
        holder.fails = False
        await eventually(lambda: renewal.warnings() == ())
    assert caplog.text.count("is not renewed") == 1


async def test_looks_are_an_hour_apart_and_closer_before_the_end(
    store: CertificateStore, tmp_path: Path
) -> None:
    holder = Holder(store, tmp_path / "lamp")
    now = datetime.now(UTC)
    renewal = Renewal(store, lambda: now)
    assert renewal._pause() == HOUR
    holder.keep(renewal)
    assert renewal._pause() == HOUR
    now += timedelta(days=397) - timedelta(minutes=30)
    assert renewal._pause() == pytest.approx(600, abs=2)
    now += timedelta(minutes=30)  # over, and the authority away: not in a busy loop
    assert renewal._pause() == HOUR


async def test_a_certificate_of_a_few_seconds_that_is_kept_during_the_rest_ends_the_rest(
    store: CertificateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal_module, "_LEAST_SECONDS", 0.01)
    renewal = Renewal(store)
    async with running(renewal):
        await eventually(lambda: not renewal._woken.is_set())
        holder = Holder(store, tmp_path / "lamp")
        store.authority.issue(LAMP.identity, holder.folder, days=3 / 86400)
        credentials = Credentials.in_folder(holder.folder)
        renewal.keep(LAMP.identity, "the lamp", credentials, ensure=holder.ensure, renewed=holder.renewed)
        await eventually(lambda: bool(holder.told))


async def test_the_issuer_warns_of_what_was_carried_and_names_the_command(
    store: CertificateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None, caplog: Any
) -> None:
    for days, name in ((10, "lamp"), (15, "door"), (-0.5, "attic")):
        monkeypatch.setattr("pratipad_nb.pki.authority.CLIENT_DAYS", days)
        store.device("house", name, Party("house", "device", name).identity)
    store.authority.issue("urn:pratipad:house:leaf:barn", tmp_path / "barn-certs", days=3)
    store.note_carried("leaf", "house", "barn", tmp_path / "barn-certs")
    renewal = Renewal(store)
    async with running(renewal):
        await eventually(lambda: len(renewal.warnings()) == 3)
    lamp = next(each for each in renewal.warnings() if "'lamp'" in each)
    assert lamp.startswith("the certificate of the device 'lamp' of 'house' ends on ")
    assert lamp.endswith(
        "in 9 days. Renew it where it was issued: pratipad certs renew device lamp --flow house"
    )
    assert any("'attic' of 'house' ended on" in each for each in renewal.warnings("house"))
    assert any("pratipad certs renew leaf barn --flow house" in each for each in renewal.warnings("house"))
    assert renewal.warnings("garden") == ()
    assert lamp in caplog.text


async def test_a_newer_certificate_of_the_same_party_ends_the_warning(
    store: CertificateStore, tmp_path: Path, quick: None
) -> None:
    for days, name in ((3, "old"), (300, "new")):
        store.authority.issue("urn:pratipad:house:edge", tmp_path / name, days=days)
        store.note_carried("edge", "house", "", tmp_path / name)
    renewal = Renewal(store)
    async with running(renewal):
        await asyncio.sleep(0.05)
    assert renewal.warnings() == ()


async def test_an_authority_that_ends_is_warned_of_three_months_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    monkeypatch.setattr("pratipad_nb.pki.authority.AUTHORITY_DAYS", 80)
    renewal = Renewal(CertificateStore.open(tmp_path))
    async with running(renewal):
        await eventually(lambda: bool(renewal.warnings()))
    assert "the authority ends on" in renewal.warnings("any")[0]
    assert "pratipad certs rotate" in renewal.warnings("any")[0]


async def test_files_that_are_renewed_elsewhere_are_shown_and_their_end_is_warned_of(
    store: CertificateStore, tmp_path: Path, quick: None
) -> None:
    credentials = store.authority.issue("urn:pratipad:house:leaf:barn", tmp_path / "barn", days=5)
    told: list[str] = []

    async def renewed(found: Credentials) -> None:
        told.append(serial_of(found.certificate))

    renewal = Renewal(store)
    renewal.follow("the leaf of tls://cloud:7422", credentials, renewed=renewed)
    async with running(renewal):
        await eventually(lambda: bool(renewal.warnings()))
        assert "put the new files in the place of the old ones" in renewal.warnings()[0]
        store.authority.issue("urn:pratipad:house:leaf:barn", tmp_path / "barn")
        await eventually(lambda: told == [serial_of(credentials.certificate)])
        await eventually(lambda: renewal.warnings() == ())


async def test_a_change_of_the_authority_that_is_not_finished_in_time_names_who_is_left(
    store: CertificateStore, tmp_path: Path, quick: None
) -> None:
    store.device("house", "lamp", LAMP.identity)
    store.authority.begin_change(days=-1)
    renewal = Renewal(store)
    async with running(renewal):
        await eventually(lambda: bool(renewal.warnings()))
        assert (
            "certificates that were carried away are still of the former authority"
            in renewal.warnings("any")[0]
        )
        assert LAMP.identity in renewal.warnings()[0]
        store.device("house", "lamp", LAMP.identity)
        await eventually(lambda: "Finish it: pratipad certs rotate --finish" in renewal.warnings()[0])
        store.authority.finish_change()
        await eventually(lambda: renewal.warnings() == ())


async def test_a_store_that_is_away_ends_no_renewal(
    store: CertificateStore, tmp_path: Path, quick: None, caplog: Any
) -> None:
    renewal = Renewal(store)
    folder = tmp_path / "pki" / "authority"
    async with running(renewal):
        folder.rename(tmp_path / "away")
        await eventually(lambda: "can't be read" in "".join(renewal.warnings()))
        (tmp_path / "away").rename(folder)
        await eventually(lambda: renewal.warnings() == ())
    assert caplog.text.count("can't be read") == 1


async def test_parties_are_let_in_while_the_server_s_certificate_is_half_renewed(
    server: EmbeddedServer, store: CertificateStore
) -> None:
    """The new key is there and its certificate isn't: the server goes on with the pair that it has."""
    lamp = store.device("house", "lamp", LAMP.identity)
    shown = await asyncio.to_thread(shown_at, int(server.url.rpartition(":")[2]), lamp)
    own = store.server(SERVER)
    key, certificate = own.key.read_bytes(), own.certificate.read_bytes()
    store.authority.issue(
        SERVER, own.certificate.parent, hosts=("127.0.0.1", "::1", "localhost"), server=True
    )
    renewed = own.certificate.read_bytes()
    own.certificate.write_bytes(certificate)
    await server.allow([Party("house", "device", "door")])
    assert await asyncio.to_thread(shown_at, int(server.url.rpartition(":")[2]), lamp) == shown
    reloading = asyncio.create_task(server.reload())
    await asyncio.sleep(0.02)
    own.certificate.write_bytes(renewed)  # the other process is done
    await reloading
    expected = ssl.PEM_cert_to_DER_cert(renewed.decode())
    assert await asyncio.to_thread(shown_at, int(server.url.rpartition(":")[2]), lamp) == expected
    assert key not in server._files.pair.read_bytes()
    assert server._files.pair.stat().st_mode & 0o777 == 0o600


async def test_a_change_of_the_authority_is_followed_at_once(
    store: CertificateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal_module, "_STAMP_SECONDS", 0.01)
    holder = Holder(store, tmp_path / "lamp")
    renewal = Renewal(store)
    holder.keep(renewal)
    async with running(renewal):
        await asyncio.sleep(0.05)
        CertificateStore.open(tmp_path).authority.begin_change()  # as another process does
        await eventually(lambda: len(holder.told) == 1)
    assert store.authority.has_signed(holder.folder / "cert.pem")


async def test_a_holder_that_is_let_in_no_more_is_not_renewed(
    store: CertificateStore, tmp_path: Path, quick: None
) -> None:
    holder = Holder(store, tmp_path / "lamp")
    renewal = Renewal(store)
    asked: list[None] = []
    credentials = holder.ensure()
    renewal.keep(
        LAMP.identity, "the lamp", credentials, ensure=lambda: asked.append(None), renewed=holder.renewed
    )
    async with running(renewal):
        await eventually(lambda: bool(asked))
        await asyncio.sleep(0.05)
    assert asked == [None]
