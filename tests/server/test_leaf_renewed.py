"""A leaf whose certificate is renewed elsewhere and carried over: shown without a restart of its server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path

import pytest

from pratipad_nb.pki.certificates import serial_of
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server import renewal as renewal_module
from pratipad_nb.server.accounts import OWNER
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.server.renewal import Renewal
from pratipad_nb.settings import Credentials, Leaf
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.parties import Party

BARN = Party("house", "leaf", "barn")
SERVER = "urn:pratipad:server"


async def test_a_leaf_shows_renewed_files_and_its_former_certificate_is_cut_off_in_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal_module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(renewal_module, "_LEAST_SECONDS", 0.01)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    cloud, site = (CertificateStore.open(tmp_path / each) for each in ("cloud", "site"))
    owner = cloud.owner(OWNER)
    above = EmbeddedServer(
        tmp_path / "cloud/server", cloud.server(SERVER), leaves=f"127.0.0.1:{port}", owner=owner
    )
    former = cloud.authority.issue(BARN.identity, tmp_path / "barn")
    first = BARN.with_serial(serial_of(former.certificate))
    await above.start([first, Party("house", "edge")])
    below = EmbeddedServer(
        tmp_path / "site/server", site.server(SERVER), leaf_of=Leaf(above.leaves_url, former)
    )
    await below.start([Party("house", "edge")])
    shown: list[str] = []

    async def reload(found: Credentials) -> None:
        await below.reload()
        shown.append(serial_of(found.certificate))

    renewal = Renewal(site)
    renewal.follow("the leaf", former, renewed=reload)
    renewing = asyncio.create_task(renewal.run())
    asker = await NatsConnection.connect(above.url, owner, name="owner", inbox_prefix=f"_INBOX.{OWNER}")

    async def links() -> int:
        answer = json.loads(await asker.request("$SYS.REQ.SERVER.PING.LEAFZ", b"", 5))
        return len(answer["data"].get("leafs") or ())

    try:
        async with asyncio.timeout(30):
            while not await links():
                await asyncio.sleep(0.02)
            new = cloud.authority.issue(BARN.identity, tmp_path / "barn")
            second = BARN.with_serial(serial_of(new.certificate))
            await above.allow([second])
            while shown != [second.serial]:
                await asyncio.sleep(0.02)
            await above.revoke(first)
            # Cut off, the link comes back: with the certificate that is let in.
            while not await links():
                await asyncio.sleep(0.02)
            await above.revoke(BARN)
            async with asyncio.timeout(2):
                while await links():
                    await asyncio.sleep(0.02)
    finally:
        renewing.cancel()
        await asyncio.wait({renewing})
        await asker.close()
        await below.stop()
        await above.stop()
