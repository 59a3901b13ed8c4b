"""A year in seconds: certificates that end while a flow runs, at a real server."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import nats
import psutil
import pytest
from patience import eventually, factor
from typer.testing import CliRunner

from pratipad_nb import AsyncCloud, AsyncDevice, AsyncFlow
from pratipad_nb.cli.app import app
from pratipad_nb.errors import CertificateError, NotInvited
from pratipad_nb.pki import authority
from pratipad_nb.pki.authority import Authority
from pratipad_nb.pki.certificates import identity_of, made_request, read_pem, serial_of
from pratipad_nb.server import renewal
from pratipad_nb.server.admission import Admission
from pratipad_nb.server.config import ServerFiles
from pratipad_nb.server.joined import JoinedServer
from pratipad_nb.settings import Credentials, Endpoint
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.connecting import connect
from pratipad_nb.transport.frames import RenewedFrame, RenewFrame
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.tls import client_context, probe
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


async def test_a_device_renews_its_carried_certificate_over_its_own_connection(tmp_path: Path) -> None:
    """The key is new, the former certificate is let in, and the new one is shown at the next reconnect."""
    certs = tmp_path / "lamp"
    async with AsyncFlow("Push ~> same ~> Output", name="house", home=tmp_path / "home") as flow:
        await flow.invite("lamp", certs)
        lamp = AsyncDevice("lamp")
        await lamp.connect(flow.endpoint.url, flow="house", certs=certs)
        key, former = (certs / "key.pem").read_bytes(), serial_of(certs / "cert.pem")
        await lamp.renew()
        assert (certs / "key.pem").read_bytes() != key
        with pytest.raises(CertificateError, match="less than 60 min ago"):
            await lamp.renew()
        server = JoinedServer(tmp_path / "home/server")
        await server.start()
        party = Party("house", "device", "lamp")
        assert party.with_serial(former).user in server.register.parties
        await server.revoke(party.with_serial(former))  # from now on only the new one is let in
        await lamp.push(1)
        await lamp.flush()
        assert (await flow.take(1))[0].payload == 1
        await server.stop()
        await lamp.close()


async def test_a_device_whose_certificate_ends_soon_renews_it_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certs = tmp_path / "lamp"
    async with AsyncFlow("Push ~> same ~> Output", name="house", home=tmp_path / "home") as flow:
        with monkeypatch.context() as patch:
            patch.setattr(authority, "CLIENT_DAYS", 10)
            await flow.invite("lamp", certs)
        async with AsyncDevice("lamp") as lamp:
            await lamp.connect(flow.endpoint.url, flow="house", certs=certs)
            await eventually(lambda: lamp.warnings == ())
        assert valid_until(certs / "cert.pem").timestamp() > time.time() + 300 * 86400


async def test_a_revoked_device_is_cut_off_in_two_seconds_and_may_be_invited_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same program and to the same folder; what was stolen before stays out."""
    monkeypatch.setattr(renewal, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(renewal, "_LEAST_SECONDS", 0.1)
    certs, stolen, home = tmp_path / "lamp", tmp_path / "stolen", tmp_path / "home"
    async with AsyncFlow("Push ~> same ~> Output", name="house", home=home) as flow:
        await flow.invite("lamp", certs)
        shutil.copytree(certs, stolen)
        async with AsyncDevice("lamp") as lamp:
            await lamp.connect(flow.endpoint.url, flow="house", certs=certs)
            arguments = ["certs", "revoke", "device", "lamp", "--flow", "house", "--home", str(home)]
            done = await asyncio.to_thread(CliRunner().invoke, app, arguments)
            assert done.exit_code == 0, done.output
            async with asyncio.timeout(2 * factor()):
                while lamp.connected:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # some looks of the renewal, which lets nobody in
            assert not (home / "pki/device/house/lamp").exists()
            await flow.invite("lamp", certs)
            await eventually(lambda: lamp.connected)
            await lamp.push(1)
            assert (await flow.take(1))[0].payload == 1
        with pytest.raises(NotInvited):
            await probe(flow.endpoint.url, Credentials.in_folder(stolen))


async def test_no_device_gets_another_s_certificate(tmp_path: Path) -> None:
    """A raw client of the device `lamp` asks in the name of `door`, and to `door`'s inbox."""
    certs = tmp_path / "lamp"
    async with AsyncFlow("Push ~> same ~> Output", name="house", home=tmp_path / "home") as flow:
        await flow.invite("lamp", certs)
        refused: list[str] = []

        async def on_error(error: Exception) -> None:
            refused.append(str(error))

        client = await nats.connect(
            flow.endpoint.url,
            tls=client_context(Credentials.in_folder(certs)),
            tls_handshake_first=True,
            inbox_prefix=Party("house", "device", "lamp").inbox,
            error_cb=on_error,
        )
        request = encode(RenewFrame(made_request()[1]))
        await client.publish("pratipad.house.renew.door", request, reply="_INBOX.house.device.door.x")
        await eventually(lambda: any("renew.door" in each.lower() for each in refused))
        await client.publish("pratipad.house.renew.lamp", b"no frame", reply="x")
        said = decode(
            (await client.request("pratipad.house.renew.lamp", request, timeout=10)).data, RenewedFrame
        )
        named = Party.parse(identity_of(read_pem(said.certificate)))
        assert named is not None
        assert (named.role, named.name) == ("device", "lamp")
        await client.close()
