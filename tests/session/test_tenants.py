"""Two tenants with flows and devices of the same names, in one process and one state folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import until

from pratipad_nb import AsyncCloud, AsyncDevice, AsyncFlow, Cloud, Device, Flow, Gateway, flows
from pratipad_nb.errors import FlowError, NotInvited, SettingsError, TransportError, WaitTimeout
from pratipad_nb.settings import Endpoint

HOUSE = "Push <~> same <~> Output"


def same(payload: Any) -> Any:
    return payload


@pytest.fixture(params=["memory", "nats"])
def place(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "memory":
        return {"server": request.getfixturevalue("url")}
    return {"home": request.getfixturevalue("home")}


@pytest.fixture
def two(place: dict[str, Any]) -> Iterator[dict[str, Flow]]:
    """Give the running flow `twins` of each of two tenants, and that of none."""
    with (
        Flow(HOUSE, name="twins", tenant="acme", **place) as acme,
        Flow(HOUSE, name="twins", tenant="globex", **place) as globex,
        Flow(HOUSE, name="twins", **place) as plain,
    ):
        yield {"acme": acme, "globex": globex, "": plain}


def test_flows_of_one_name_run_side_by_side_and_each_gets_its_own_devices_messages(
    two: dict[str, Flow],
) -> None:
    assert sorted(set(flows()) & {"twins", "acme/twins", "globex/twins"}) == [
        "acme/twins",
        "globex/twins",
        "twins",
    ]
    orders: dict[str, list[Any]] = {tenant: [] for tenant in two}
    devices = {
        tenant: Device("room1", receive=orders[tenant].append, tenant=tenant).connect(flow)
        for tenant, flow in two.items()
    }
    for tenant, device in devices.items():
        assert device.connected, device.state  # no device of the name has taken over from another tenant's
        assert device.tenant == tenant
        key = f"{tenant}/twins" if tenant else "twins"
        assert f" of '{key}'" in repr(device)
        assert f"'{key}'" in repr(two[tenant])
        device.push({"of": tenant}).wait(10)
    for tenant, flow in two.items():
        flow.send({"to": tenant}, to="room1")
        with Cloud(flow, reader="desk", tenant=tenant) as cloud:
            assert [message.payload for message in cloud.take(1)] == [{"of": tenant}]
        assert flow.take(1)[0].payload == {"of": tenant}
        assert flow.stats().delivered == 1
    until(lambda: all(orders.values()))
    assert orders == {tenant: [{"to": tenant}] for tenant in two}
    for device in devices.values():
        device.close()
    assert two["acme"].forget()
    assert two["globex"].state == two[""].state == "running"
    with Cloud(two["globex"], reader="late") as cloud:
        cloud.seek("oldest")
        assert [message.payload for message in cloud.take(1)] == [{"of": "globex"}]


def test_a_second_flow_of_a_tenant_is_refused_under_its_name(url: str) -> None:
    with (
        Flow(HOUSE, name="twins", tenant="acme", server=url),
        pytest.raises(FlowError, match="a flow named 'acme/twins' runs in this process already"),
    ):
        Flow(HOUSE, name="twins", tenant="acme", server=url).start()


@pytest.mark.parametrize("theirs", ["globex", ""])
def test_a_device_of_another_tenant_is_refused_before_the_flow_lets_it_in(theirs: str, url: str) -> None:
    with Flow(HOUSE, name="house", tenant=theirs, server=url) as flow:
        whose = f"of the tenant '{theirs}'" if theirs else "of no tenant"
        for device in (Device("room1", tenant="acme"), Gateway("gw", tenant="acme")):
            with pytest.raises(SettingsError, match=rf"is of the tenant 'acme', and .* is {whose}"):
                device.connect(flow)
            assert device.state == "not connected"
        with pytest.raises(SettingsError, match="is of the tenant 'acme'"):
            Device("room1", tenant="acme").connect(flow.endpoint)
        with pytest.raises(SettingsError, match="Readers alone may be of another tenant"):
            Device("room1", tenant="acme").connect(url, flow=f"{theirs}/house")


async def test_by_url_the_tenant_is_the_clients_or_stands_before_the_flow(url: str) -> None:
    async with (
        AsyncFlow(HOUSE, name="house", tenant="acme", server=url) as flow,
        AsyncDevice("room1", tenant="acme") as room1,
        AsyncDevice("room2") as room2,
    ):
        await room1.connect(url, flow="house")
        await room2.connect(url, flow="acme/house")
        await room1.push(1)
        await room2.push(2)
        for cloud in (
            AsyncCloud("house", tenant="acme", server=url, reader="a"),
            AsyncCloud("acme/house", server=url, reader="b"),
            AsyncCloud("house", reader="c", endpoint=flow.endpoint),
        ):
            async with cloud:
                assert {message.payload for message in await cloud.take(2)} == {1, 2}
    with pytest.raises(SettingsError, match="endpoint is of the flow 'acme/house', not of 'globex/house'"):
        AsyncCloud("house", tenant="globex", endpoint=Endpoint(url, "house", tenant="acme"))


def test_a_reader_of_another_tenant_is_a_guest_by_its_name(url: str) -> None:
    with Flow(HOUSE, name="house", tenant="acme", server=url) as flow:
        assert Cloud("acme/house", tenant="globex", server=url, reader="desk").reader == "desk@globex"
        assert Cloud(flow, tenant="globex", reader="desk").reader == "desk@globex"
        assert Cloud(flow, tenant="acme", reader="desk").reader == "desk"
    assert Cloud("/house", tenant="globex", server=url, reader="desk").reader == "desk@globex"
    assert Cloud("house", tenant="globex", server=url, reader="desk").reader == "desk"
    with pytest.raises(SettingsError, match="'notebook@globex' can't name a reader"):
        Cloud("house", server=url, reader="notebook@globex")


def test_kept_messages_of_two_tenants_are_in_files_of_their_own(url: str, tmp_path: Path) -> None:
    for tenant in ("acme", "globex", ""):
        with Device("room1", keep=tmp_path, tenant=tenant) as device:
            device.connect(url, flow="house")
            device.push({"of": tenant})
            device.close(timeout=0)
    kept = sorted(path.name for path in tmp_path.glob("*.sqlite3"))
    assert kept == ["acme~house.room1.sqlite3", "globex~house.room1.sqlite3", "house.room1.sqlite3"]
    with Flow(HOUSE, name="house", tenant="acme", server=url) as flow:
        with Device("room1", keep=tmp_path).connect(flow) as device:
            device.flush(10)
        assert [message.payload for message in flow.take(1)] == [{"of": "acme"}]


# -- sharing a flow with another tenant ----------------------------------------------------------------------


@pytest.mark.parametrize(("owner", "guest"), [("acme", "globex"), ("", "globex"), ("acme", "")])
def test_a_guest_reads_the_output_and_the_counters_and_does_nothing_else(
    owner: str, guest: str, home: Path, tmp_path: Path
) -> None:
    name, orders = f"archive@{guest}", []

    def cloud(folder: str) -> Cloud:
        return Cloud(f"{owner}/shared", reader=name, server=url, certs=tmp_path / folder)

    with Flow("Pull <~> same <~> Output", name="shared", tenant=owner, home=home) as flow:
        with pytest.raises(SettingsError, match="isn't shared with a reader 'archive'"):
            flow.invite(name, tmp_path / "early", role="reader")
        flow.share(guest, reader="archive")
        url = flow.invite(name, tmp_path / "archive", role="reader").url
        with Device("room1", read=lambda: 1, receive=orders.append).connect(flow) as device:
            flow.pull(3).wait()
            with cloud("archive") as first:
                assert [message.payload for message in first.take(2)] == [1, 1]
                assert first.describe().delivery == "durable"
                with pytest.raises(FlowError, match="to be read, and not to be sent orders"):
                    first.send({"led": "on"})
                with pytest.raises(FlowError, match="not for the request 'pull'"):
                    first.pull(1)
            assert device.sent == 3
        second = cloud("archive")
        assert len(second.take(1)) == 1  # where the first stopped
        assert flow.unshare(guest)
        with pytest.raises((TransportError, WaitTimeout)):
            second.take(1, timeout=1)
        with contextlib.suppress(TransportError, WaitTimeout):
            second.close()
        assert not flow.unshare(guest)
        with pytest.raises(NotInvited):
            cloud("archive").take(1)
        with pytest.raises(SettingsError, match="isn't shared with a reader 'archive'"):
            flow.invite(name, tmp_path / "late", role="reader")
        flow.share(guest, reader="archive")
        flow.invite(name, tmp_path / "anew", role="reader")
        with pytest.raises(NotInvited):  # the certificate from before
            cloud("archive").take(1)
        with cloud("anew") as anew:  # its position was forgotten
            assert len(anew.take(3)) == 3
        assert flow.unshare(guest)
    assert orders == []


@pytest.mark.parametrize("tenant", ["acme", ""])
def test_a_flow_is_not_shared_with_its_own_tenant_nor_with_what_is_no_name(tenant: str, url: str) -> None:
    with Flow(HOUSE, name="house", tenant=tenant, server=url) as flow:
        with pytest.raises(SettingsError, match="Name another tenant"):
            flow.share(tenant, reader="archive")
        with pytest.raises(SettingsError, match="Name another tenant"):
            flow.unshare(tenant)
        with pytest.raises(SettingsError, match="can't name a tenant"):
            flow.share("glo.bex", reader="archive")
        with pytest.raises(SettingsError, match="can't name a reader"):
            flow.share("globex", reader="archive@initech")


def test_a_share_survives_the_end_of_the_program(tmp_path: Path) -> None:
    flow = Flow(HOUSE, name="house", tenant="acme", home=tmp_path / "state")
    flow.share("globex", reader="archive")
    flow.stop()
    with (
        Flow(HOUSE, name="house", tenant="acme", home=tmp_path / "state") as again,
        Cloud(again, tenant="globex", reader="archive") as cloud,
    ):
        assert cloud.describe().delivery == "durable"
