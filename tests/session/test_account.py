"""A server that others run: refused where all parties share an account, unless that is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers_by_hand import running

from pratipad_nb import AsyncCloud, AsyncDevice, AsyncFlow, FlowOptions
from pratipad_nb.errors import FlowError, SettingsError
from pratipad_nb.pki.authority import Authority
from pratipad_nb.server.accounts import SYSTEM
from pratipad_nb.transport.parties import Party

PARTIES = (Party("house", "edge"), Party("house", "device", "room1"), Party("house", "reader", "archive"))
SHARED = FlowOptions(security="shared-account")


@pytest.fixture
async def server(tmp_path: Path):
    """A server whose one account is all parties', and their certificates' folders."""
    authority = Authority.open(tmp_path / "authority")
    own = authority.issue("urn:x:server", tmp_path / "own", hosts=("127.0.0.1",), server=True)
    for party in PARTIES:
        authority.issue(party.identity, tmp_path / party.role)
    accounts = {
        SYSTEM: {"users": [{"user": "urn:x:owner"}]},
        "ALL": {"jetstream": "enabled", "users": [{"user": party.identity} for party in PARTIES]},
    }
    async with running(tmp_path / "server", own, accounts) as server:
        yield server


def same(payload):
    return payload


def flow(server, tmp_path: Path, options: FlowOptions) -> AsyncFlow:
    return AsyncFlow(
        "Push <~> same <~> Output",
        name="house",
        namespace={"same": same},
        server=server.url,
        certs=tmp_path / "edge",
        options=options,
    )


async def test_a_server_where_all_share_an_account_is_refused_and_the_ways_out_are_named(server, tmp_path):
    with pytest.raises(FlowError, match=r"the account 'ALL'.*'F_house'.*pratipad server.*shared-account"):
        await flow(server, tmp_path, FlowOptions()).start()


async def test_a_shared_account_that_is_accepted_works_and_is_warned_of(server, tmp_path, caplog):
    async with flow(server, tmp_path, SHARED) as house:
        assert "which is not its own: devices and readers of every flow there can" in caplog.text
        certs = {"server": server.url, "certs": tmp_path / "reader"}
        device = await AsyncDevice("room1").connect(server.url, flow="house", certs=tmp_path / "device")
        async with device, AsyncCloud("house", reader="archive", **certs) as cloud:
            await (await device.push({"n": 1}))
            assert [message.payload for message in await cloud.take(1, timeout=20)] == [{"n": 1}]
        assert house.state == "running"


async def test_a_shared_account_is_for_servers_of_others_and_for_no_tenant(tmp_path):
    with pytest.raises(SettingsError, match="gives each flow accounts of its own"):
        AsyncFlow("Push ~> same ~> Output", namespace={"same": same}, home=tmp_path, options=SHARED)
    with pytest.raises(SettingsError, match="tenant 'acme' needs an account of its own"):
        AsyncFlow(
            "Push ~> same ~> Output",
            namespace={"same": same},
            server="memory://x",
            options=SHARED,
            tenant="acme",
        )
