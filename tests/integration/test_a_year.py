"""A year in seconds: certificates that end while a flow runs, at a real server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from patience import eventually

from pratipad_nb import AsyncCloud, AsyncDevice, AsyncFlow
from pratipad_nb.pki import authority
from pratipad_nb.pki.authority import Authority
from pratipad_nb.pki.certificates import serial_of
from pratipad_nb.server import renewal
from pratipad_nb.server.admission import Admission
from pratipad_nb.server.config import ServerFiles
from pratipad_nb.server.joined import JoinedServer
from pratipad_nb.settings import Credentials, Endpoint
from pratipad_nb.transport.connecting import connect
from pratipad_nb.transport.parties import Party
from pratipad_nb.validity import valid_until

#: A certificate of so many days ends within two seconds.
SHORT = 2 / 86400


def same(payload: object) -> object:
    return payload


@pytest.fixture
def short_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority, "SERVER_DAYS", SHORT)
    monkeypatch.setattr(authority, "CLIENT_DAYS", SHORT)
    monkeypatch.setattr(renewal, "_LEAST_SECONDS", 0.1)


def over(certificate: Path) -> Callable[[], bool]:
    """Return a condition: the certificate that stands in the file now has ended."""
    end = valid_until(certificate)
    return lambda: datetime.now(UTC) > end


def end_server() -> None:
    (server,) = (each for each in psutil.Process().children() if each.name() == "nats-server")
    os.kill(server.pid, signal.SIGKILL)


async def test_a_flow_and_its_parties_outlive_the_certificates_that_they_began_with(
    tmp_path: Path, short_lives: None
) -> None:
    """Every connection is lost after the first certificates' end: all come back, with nothing lost."""
    flow = AsyncFlow("Push ~> same ~> Output", name="house", home=tmp_path)
    async with flow, AsyncDevice("lamp") as lamp, AsyncCloud(flow, reader="archive") as cloud:
        await lamp.connect(flow)
        pki = tmp_path / "pki"
        ends = [
            over(pki / each / "cert.pem")
            for each in ("server", "edge/house", "device/house/lamp", "reader/house/archive")
        ]
        await lamp.push(1)
        assert (await cloud.take(1))[0].payload == 1
        await eventually(lambda: all(each() for each in ends))
        end_server()
        await lamp.push(2)
        assert (await cloud.take(1))[0].payload == 2
        assert flow.stats().warnings == lamp.warnings == cloud.warnings == ()
        listed = Admission(ServerFiles(tmp_path / "server"), lambda: None).register().parties.values()
        assert len([party for party in listed if party.role == "edge"]) == 1


async def test_the_picture_and_stats_warn_of_each_party_that_nobody_renews(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "CLIENT_DAYS", 10)
    monkeypatch.setattr(renewal, "_LEAST_SECONDS", 0.1)
    parties = {"lamp": "device", "archive": "reader"}
    async with AsyncFlow("Push ~> same ~> Output", name="house", home=tmp_path / "home") as flow:
        for name, role in parties.items():
            await flow.invite(name, tmp_path / name, role)  # type: ignore[arg-type]
        url = flow.endpoint.url
        cloud = AsyncCloud("house", reader="archive", server=url, certs=tmp_path / "archive")
        async with AsyncDevice("lamp") as lamp, cloud:
            await lamp.connect(url, flow="house", certs=tmp_path / "lamp")
            assert "of device lamp ends on" in lamp.warnings[0]
            assert "of reader archive ends on" in cloud.warnings[0]
            await eventually(lambda: len(flow.stats().warnings) == 2)
            for each, (name, role) in zip(sorted(flow.stats().warnings), parties.items(), strict=True):
                assert f"the certificate of the {role} {name!r} of 'house' ends on" in each
                assert each.endswith(f"pratipad certs renew {role} {name} --flow house")
                assert each in repr(flow.stats())


async def test_an_edge_with_a_certificate_from_elsewhere_warns_of_its_own(tmp_path: Path) -> None:
    home, certs = tmp_path / "home", tmp_path / "edge"
    async with AsyncFlow("Push ~> same ~> Output", name="house", home=home) as flow:
        edge = Party("house", "edge")
        issued = Authority.open(home / "pki/authority").issue(edge.identity, certs, days=5)
        server = JoinedServer(home / "server")
        await server.start([edge.with_serial(serial_of(issued.certificate))])
        name, url = "house", flow.endpoint.url
        connection = await connect(Endpoint(url, name, Credentials.in_folder(certs)), role="edge", name="")
        assert "the certificate of edge ends on" in connection.warnings[0]
        await connection.close()
        await server.stop()
