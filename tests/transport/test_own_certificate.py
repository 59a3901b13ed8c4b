"""A connection's own certificate: renewed files are shown at the next reconnect, and an end is warned of."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from patience import eventually, factor

from pratipad_nb.pki.authority import Authority
from pratipad_nb.pki.certificates import serial_of
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.own_certificate import OwnCertificate
from pratipad_nb.transport.parties import Party

LAMP = Party("house", "device", "lamp")


@dataclass(frozen=True)
class House:
    authority: Authority
    server: EmbeddedServer
    folder: Path

    def issue(self, days: float | None = None) -> Credentials:
        return self.authority.issue(LAMP.identity, self.folder / "lamp", days=days)

    async def allow(self, credentials: Credentials) -> Party:
        party = LAMP.with_serial(serial_of(credentials.certificate))
        await self.server.allow([party])
        return party

    async def connect(self, credentials: Credentials, **options: Any) -> NatsConnection:
        return await NatsConnection.connect(
            self.server.url, credentials, name="device lamp", inbox_prefix=LAMP.inbox, **options
        )


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    authority = Authority.open(tmp_path / "authority")
    own = authority.issue("urn:pratipad:server", tmp_path / "own", hosts=("127.0.0.1",), server=True)
    server = EmbeddedServer(tmp_path / "server", own)
    await server.start()
    yield House(authority, server, tmp_path)
    await server.stop()


async def test_renewed_files_are_shown_at_the_next_reconnect(house: House) -> None:
    before = await house.allow(house.issue())
    link = await house.connect(Credentials.in_folder(house.folder / "lamp"))
    back = asyncio.Event()
    link.on_reconnect(back.set)
    await house.allow(house.issue())
    await house.server.revoke(before)  # ends the connection: from now on only the new certificate is let in
    async with asyncio.timeout(10 * factor()):
        await back.wait()
    await link.close()


async def test_while_new_files_are_half_copied_the_certificate_read_before_is_shown(
    house: House, caplog: Any
) -> None:
    credentials = house.issue()
    party = await house.allow(credentials)
    link = await house.connect(credentials)
    shutil.copy(house.authority.certificate.parent / "ca-key.pem", credentials.key)
    await house.server.revoke(party)
    await eventually(lambda: not link.connected)
    await house.server.allow([party])
    await eventually(lambda: link.connected)
    assert "goes on with the certificate that was read before" in caplog.text
    await link.close()


async def test_a_certificate_that_nobody_renews_is_warned_of_by_the_connection_and_its_log(
    house: House, caplog: Any
) -> None:
    credentials = house.issue(days=10)
    await house.allow(credentials)
    link = await house.connect(credentials)
    (warning,) = link.warnings
    assert warning.startswith("the certificate of device lamp ends on ")
    assert "in 9 days. Renew it where it was issued (pratipad certs renew)" in warning
    assert warning in caplog.text
    await link.close()


async def test_what_another_part_renews_is_warned_of_by_that_part_alone(house: House, caplog: Any) -> None:
    credentials = house.issue(days=10)
    await house.allow(credentials)
    link = await house.connect(credentials, renewed=lambda: ("the disk is full",))
    assert link.warnings == ("the disk is full",)
    assert "ends on" not in caplog.text
    await link.close()


async def test_the_end_is_logged_once_a_day_also_by_a_clock_that_went_back(
    house: House, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pratipad_nb.transport.own_certificate._LOOK_SECONDS", 1e-3)
    now = datetime.now(UTC)
    clock = iter([now + timedelta(days=days) for days in (0, 0, 0.5, 0.5, -3, -3)])
    last = now + timedelta(days=20)
    own = OwnCertificate(house.issue(days=10), "device lamp", now=lambda: next(clock, last))
    own.watch()
    await eventually(lambda: "ended on" in caplog.text)
    own.close()
    assert sum("ends on" in record.getMessage() for record in caplog.records) == 2
    assert own.valid_until > now.timestamp()


async def test_renewed_files_end_the_warning(house: House) -> None:
    credentials = house.issue(days=10)
    own = OwnCertificate(credentials, "device lamp")
    own.watch()
    assert own.warnings
    house.issue()
    own.context()
    assert own.warnings == ()
    own.close()
