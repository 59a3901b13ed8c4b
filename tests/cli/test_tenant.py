"""Quotas of a tenant: set and shown by the command, and held against plain clients of the NATS library."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from hostile import raw_party
from nats.aio.client import Client
from nats.js.errors import APIError
from patience import eventually, until
from typer.testing import CliRunner

from pratipad_nb import AsyncFlow, Flow
from pratipad_nb.cli.app import app
from pratipad_nb.errors import SettingsError
from pratipad_nb.settings import Credentials, FlowOptions, Keep
from pratipad_nb.testing import real_server
from pratipad_nb.transport.parties import Party

SMALL = {"keep": Keep(bytes=1 << 20), "options": FlowOptions(input_bytes=1 << 20, order_bytes=1 << 20)}
runner = CliRunner()


def same(payload: Any) -> Any:
    return payload


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with real_server() as folder:
        yield folder


@pytest.fixture(scope="module")
def house(home: Path) -> Iterator[Flow]:
    with Flow("Push ~> same ~> Output", name="house", tenant="acme", home=home, **SMALL) as flow:
        yield flow


def pratipad(*arguments: str, code: int = 0) -> Any:
    result = runner.invoke(app, arguments)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def tenant(home: Path, *options: str, name: str = "acme") -> dict[str, Any]:
    return dict(json.loads(pratipad("tenant", name, *options, "--home", str(home), "--json").stdout))


def raw(url: str, party: Party, folder: Path) -> contextlib.AbstractAsyncContextManager[Client]:
    return raw_party(url, party, Credentials.in_folder(folder))


def test_a_quota_is_set_an_option_at_a_time_shown_and_taken_away(house: Flow, home: Path) -> None:
    at = ("--home", str(home))
    none = tenant(home)
    assert none["flows"] == ["house"]
    assert none["connections"] == {"used": 0, "quota": None}
    assert tenant(home, "--disk", "10GiB", "--devices", "1000")["disk"]["quota"] == 10 << 30
    shown = tenant(home, "--connections", "500")
    assert {what: shown[what]["quota"] for what in ("disk", "connections", "devices")} == {
        "disk": 10 << 30,
        "connections": 500,
        "devices": 1000,
    }
    assert shown["disk"]["used"] > 1 << 20
    text = pratipad("tenant", "acme", *at).stdout
    assert "of 10 GiB" in text
    assert "0 of 1,000" in text
    assert tenant(home, "--disk", "0", "--connections", "0", "--devices", "0") == none
    assert "'much' is no size" in pratipad("tenant", "acme", "--disk", "much", *at, code=2).stderr
    assert "neither a flow nor a quota" in pratipad("tenant", "acmee", *at, code=2).stderr


def test_a_guest_is_issued_a_certificate_and_reads_while_the_flow_is_shared(
    house: Flow, home: Path, tmp_path: Path
) -> None:
    at, folder = ("--home", str(home)), str(tmp_path / "archive")
    issue = ("certs", "issue", "reader", "archive", "--flow", "acme/house", "--tenant", "globex")
    refused = pratipad(*issue, "--out", folder, *at, code=2)
    assert "isn't shared with a reader 'archive' of the tenant 'globex'" in refused.stderr
    assert not Path(folder).exists()
    house.share("globex", reader="archive")
    pratipad(*issue, "--out", folder, *at)
    (tmp_path / "room.py").write_text(
        "from pratipad_nb import Device\nroom = Device('room', read=[{'value': 1}, {'value': 2}])\n"
    )
    pratipad("device", str(tmp_path / "room.py"), "--flow", "house", "--tenant", "acme", "--for", "0.5", *at)
    until(lambda: house.stats().delivered >= 2)
    read = ("-n", "1", "--timeout", "30", "--quiet")  # fails if no result comes in time
    pratipad("cloud", "acme/house", "--tenant", "globex", "--reader", "archive", "--certs", folder, *read)
    pratipad("cloud", "house", "--certs", folder, *read)
    pratipad("cloud", "house", "--tenant", "acme", *read, *at)
    for named in (("--certs", folder), ("house", "--tenant", "acme", *at), ("--tenant", "acme", *at)):
        assert json.loads(pratipad("top", *named, "--json", "--once").stdout)["name"] == "acme/house"
    assert "has no flow of the tenant 'acmee' yet" in pratipad("top", "--tenant", "acmee", *at, code=1).stderr
    assert house.unshare("globex")
    pratipad(*issue, "--out", folder, *at, code=2)


def test_a_quota_holds_while_no_server_runs(tmp_path: Path) -> None:
    pratipad("certs", "init", "--home", str(tmp_path / "state"))
    assert tenant(tmp_path / "state", "--devices", "1")["connections"]["used"] is None
    at = ("--tenant", "acme", "--home", str(tmp_path / "state"), "--out")
    pratipad("certs", "issue", "device", "lamp", "--flow", "house", *at, str(tmp_path / "lamp"))
    refused = pratipad(
        "certs", "issue", "device", "pump", "--flow", "garden", *at, str(tmp_path / "pump"), code=2
    )
    assert "the tenant 'acme' may have 1 devices, and this would be number 2" in refused.stderr
    assert "pratipad certs revoke device NAME --flow FLOW --tenant acme" in refused.stderr
    assert not (tmp_path / "pump").exists()


async def test_connections_beyond_the_quota_are_refused_and_disturb_nobody(
    home: Path, tmp_path: Path
) -> None:
    def quota(*options: str) -> Any:
        return asyncio.to_thread(tenant, home, *options, name="initech")

    def flow(tenant: str) -> AsyncFlow:
        return AsyncFlow("Push ~> same ~> Output", name="house", tenant=tenant, home=home, **SMALL)

    devices = [Party("house", "device", name, "initech") for name in ("one", "two")]
    folders = [tmp_path / party.name for party in devices]
    async with flow("initech") as house, flow("globex") as other, contextlib.AsyncExitStack() as stack:
        for party in devices:
            url = (await house.invite(party.name, tmp_path / party.name)).url
        await other.invite("one", tmp_path / "other")
        await quota("--connections", "2")
        first, second = [
            await stack.enter_async_context(raw(url, party, folder))
            for party, folder in zip(devices, folders, strict=True)
        ]
        assert (await quota())["connections"] == {"used": 2, "quota": 2}
        with pytest.raises((OSError, nats.errors.Error)):
            await stack.enter_async_context(raw(url, devices[0], folders[0]))
        # The other tenant's devices are not counted, and the first two go on.
        theirs = Party("house", "device", "one", "globex")
        others = [await stack.enter_async_context(raw(url, theirs, tmp_path / "other")) for _ in range(3)]
        for client, party in ((first, devices[0]), (second, devices[1])):
            await client.request(f"pratipad.house.up.{party.name}", b"x", timeout=5)
        # A lower quota ends the tenant's connections beyond it, and no other's.
        await quota("--connections", "1")
        await eventually(lambda: [first.is_closed, second.is_closed].count(True) == 1)
        assert not any(client.is_closed for client in others)
        await quota("--connections", "2")
        await eventually(lambda: connects(url, devices[0], folders[0]))


async def connects(url: str, party: Party, folder: Path) -> bool:
    with contextlib.suppress(OSError, nats.errors.Error):
        async with raw(url, party, folder):
            return True
    return False


async def test_devices_beyond_the_quota_are_refused_when_they_are_invited(
    house: Flow, home: Path, tmp_path: Path
) -> None:
    used = (await asyncio.to_thread(tenant, home))["devices"]["used"]
    await asyncio.to_thread(tenant, home, "--devices", str(used + 1))
    try:
        await asyncio.to_thread(house.invite, "last", tmp_path / "last")
        await asyncio.to_thread(house.invite, "last", tmp_path / "again")
        with pytest.raises(SettingsError, match=rf"may have {used + 1} devices"):
            await asyncio.to_thread(house.invite, "beyond", tmp_path / "beyond")
    finally:
        await asyncio.to_thread(tenant, home, "--devices", "0")


async def test_an_edge_stores_no_more_than_the_tenants_disk(house: Flow, home: Path) -> None:
    used = (await asyncio.to_thread(tenant, home))["disk"]["used"]
    await asyncio.to_thread(tenant, home, "--disk", str(used + (1 << 20)))
    try:
        with pytest.raises(SettingsError, match="the logs of the flows of tenant 'acme' may take"):
            await asyncio.to_thread(
                Flow("Push ~> same ~> Output", name="big", tenant="acme", home=home, **SMALL).start
            )
        edge = Party("house", "edge", tenant="acme")
        async with raw(house.endpoint.url, edge, home / "pki" / "edge" / "acme~house") as client:
            stream = client.jetstream()
            with pytest.raises(APIError, match="storage"):
                await stream.add_stream(
                    name="HOARD", subjects=["pratipad.house.hoard"], max_bytes=used + (2 << 20)
                )
    finally:
        await asyncio.to_thread(tenant, home, "--disk", "0")
