"""A state folder of version 0.1, with one account and a list of users, is carried over with all it has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from patience import eventually
from servers_by_hand import running

from pratipad_nb import AsyncCloud, AsyncDevice, AsyncFlow, FlowOptions
from pratipad_nb.errors import NotInvited
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server.accounts import SYSTEM
from pratipad_nb.settings import Credentials, Endpoint
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.tls import probe

EDGE, ROOM1 = Party("house", "edge"), Party("house", "device", "room1")
ARCHIVE, GONE = Party("house", "reader", "archive"), Party("house", "device", "gone")


def same(payload):
    return payload


def flow(**options) -> AsyncFlow:
    return AsyncFlow("Push <~> same <~> Output", name="house", namespace={"same": same}, **options)


async def stored_by_the_version_before(home: Path, store: CertificateStore) -> dict[Party, Credentials]:
    """Let a flow run in a server's one account, as before there were accounts, and leave its folder."""
    made = {
        EDGE: store.edge("house", EDGE.identity),
        ROOM1: store.device("house", "room1", ROOM1.identity),
        ARCHIVE: store.reader("house", "archive", ARCHIVE.identity),
        GONE: store.device("house", "gone", GONE.identity),
    }
    users = [{"user": party.identity} for party in made]
    accounts = {SYSTEM: {"users": []}, "ALL": {"jetstream": "enabled", "users": users}}
    own = store.server("urn:pratipad:server")
    jetstream = {"store_dir": str(home / "server" / "store")}
    async with running(home / "server", own, accounts, jetstream=jetstream) as server:
        shared = FlowOptions(security="shared-account")
        certs = made[EDGE].certificate.parent
        async with flow(server=server.url, certs=certs, options=shared) as before:
            endpoint = Endpoint(server.url, "house", made[ROOM1])
            async with await AsyncDevice("room1").connect(endpoint) as device:
                for number in range(5):
                    await device.push(number)
                await device.flush()
            reading = Endpoint(server.url, "house", made[ARCHIVE])
            async with AsyncCloud("house", endpoint=reading, reader="archive") as cloud:
                assert [m.payload for m in await cloud.take(3, timeout=20)] == [0, 1, 2]
            await before.send("order", to="room1")
    (home / "server" / "store" / "jetstream" / "ALL").rename(home / "server/store/jetstream/$G")
    (home / "server" / "users.conf").write_text(json.dumps({"authorization": {"users": users[:3]}}))
    return made


async def test_messages_positions_orders_and_certificates_of_a_former_folder_go_on(tmp_path):
    home = tmp_path / "state"
    home.mkdir(mode=0o700)
    made = await stored_by_the_version_before(home, CertificateStore.open(home))
    orders = []
    async with flow(home=home) as house:
        url = house.endpoint.url
        room1 = AsyncDevice("room1", receive=orders.append)
        async with await room1.connect(Endpoint(url, "house", made[ROOM1])) as device:
            await device.push(5)
            reading = Endpoint(url, "house", made[ARCHIVE])
            async with AsyncCloud("house", endpoint=reading, reader="archive") as cloud:
                assert [m.payload for m in await cloud.take(3, timeout=20)] == [3, 4, 5]
            await eventually(lambda: orders == ["order"])
        with pytest.raises(NotInvited):
            await probe(url, made[GONE])
    jetstream = home / "server" / "store" / "jetstream"
    assert not list((jetstream / "$G" / "streams").glob("*_house"))
    assert {"UP_house", "OUT_house"} <= {each.name for each in (jetstream / "F_house" / "streams").iterdir()}
    assert not (home / "server" / "users.conf").exists()  # else a register made anew would list the revoked
