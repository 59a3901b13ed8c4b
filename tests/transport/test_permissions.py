"""Permissions, tried on the real server: who may do what, and that all else is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from pratipad_nb.errors import SettingsError
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.settings import NAME_PATTERN, RESERVED_NAMES
from pratipad_nb.transport.permissions import (
    device_user,
    edge_user,
    identity_of,
    inbox_prefix,
    reader_user,
)
from pratipad_nb.transport.subjects import Subjects
from pratipad_nb.transport.tls import client_context

names = st.from_regex(NAME_PATTERN, fullmatch=True).filter(lambda n: n not in RESERVED_NAMES)
HOUSE = Subjects("house")

USERS = {
    "edge": edge_user("house"),
    "room1": device_user("house", "room1"),
    "room2": device_user("house", "room2"),
    "cloud": reader_user("house", "cloud"),
    "garden": edge_user("garden"),
}
INBOXES = {
    "edge": inbox_prefix("house", "edge"),
    "room1": inbox_prefix("house", "device", "room1"),
    "room2": inbox_prefix("house", "device", "room2"),
    "cloud": inbox_prefix("house", "reader", "cloud"),
    "garden": inbox_prefix("garden", "edge"),
}


class Party:
    """One connected party, and what the server has refused it."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.client = Client()
        self.refused: list[str] = []

    async def on_error(self, error: Exception) -> None:
        self.refused.append(str(error))

    async def settle(self) -> None:
        # Twice, for the client's PING overtakes what it has queued.
        await self.client.flush()
        await self.client.flush()

    async def request(self, subject: str, body: object = None) -> dict:
        data = b"" if body is None else json.dumps(body).encode()
        return json.loads((await self.client.request(subject, data, timeout=5)).data)


Connect = Callable[[str], Awaitable[Party]]


@pytest.fixture
async def connect(tmp_path: Path) -> AsyncIterator[Connect]:
    store = CertificateStore.open(tmp_path)
    server = EmbeddedServer(tmp_path / "server", store.server("urn:pratipad:server"))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(server.stop)
        url = await server.start(USERS.values())

        async def connected(who: str) -> Party:
            party = Party(who)
            credentials = store.device("any", who, USERS[who].identity)
            await party.client.connect(
                url,
                tls=client_context(credentials),
                tls_handshake_first=True,
                inbox_prefix=INBOXES[who],
                error_cb=party.on_error,
            )
            stack.push_async_callback(party.client.close)
            return party

        yield connected


async def with_streams(connect: Connect) -> Party:
    edge = await connect("edge")
    for name, subjects in HOUSE.streams.items():
        body = {"name": name, "subjects": list(subjects), "allow_direct": True, "storage": "memory"}
        answer = await edge.request(f"$JS.API.STREAM.CREATE.{name}", body)
        assert "error" not in answer
    return edge


async def test_a_device_s_upload_is_acknowledged_without_any_jetstream_right(connect: Connect) -> None:
    await with_streams(connect)
    room1 = await connect("room1")
    assert await room1.request(HOUSE.up("room1"), {}) == {"stream": "UP_house", "seq": 1}
    await room1.client.publish(HOUSE.hello("room1"), b"")
    for subject in (HOUSE.down("room1"), HOUSE.credit("room1"), HOUSE.credit_all):
        await room1.client.subscribe(subject)
    await room1.settle()
    assert room1.refused == []


async def test_a_device_hears_what_the_edge_sends_it_and_what_it_sends_all(connect: Connect) -> None:
    edge, room1 = await connect("edge"), await connect("room1")
    down = await room1.client.subscribe(HOUSE.down("room1"))
    everyone = await room1.client.subscribe(HOUSE.credit_all)
    await room1.settle()
    await edge.client.publish(HOUSE.down("room1"), b"led on")
    await edge.client.publish(HOUSE.credit_all, b"10")
    assert (await down.next_msg(5)).data == b"led on"
    assert (await everyone.next_msg(5)).data == b"10"


async def test_an_edge_answers_a_reader_s_request(connect: Connect) -> None:
    edge, cloud = await connect("edge"), await connect("cloud")
    control = await edge.client.subscribe(HOUSE.control("cloud"))
    await edge.settle()
    asking = asyncio.ensure_future(cloud.client.request(HOUSE.control("cloud"), b"pull", timeout=5))
    await (await control.next_msg(5)).respond(b"done")
    assert (await asking).data == b"done"


FORBIDDEN_TO_PUBLISH = {
    "room1": [
        HOUSE.up("room2"),
        HOUSE.hello("room2"),
        HOUSE.down("room1"),
        HOUSE.down("room2"),
        HOUSE.credit("room1"),
        HOUSE.order("cloud"),
        HOUSE.control("cloud"),
        HOUSE.out(0),
        HOUSE.mark("room1"),
        HOUSE.stats,
        "pratipad.garden.up.room1",
        INBOXES["room2"] + ".x",
        "$JS.API.INFO",
        "$JS.API.STREAM.DELETE.UP_house",
        "$JS.API.STREAM.MSG.GET.UP_house",
        "$JS.API.CONSUMER.CREATE.UP_house.x",
        "$JS.ACK.UP_house.edge.1.1.1.1.0",
        "$SYS.REQ.ACCOUNT.PING.CONNZ",
    ],
    "cloud": [
        HOUSE.up("room1"),
        HOUSE.down("room1"),
        HOUSE.out(0),
        HOUSE.read("other"),
        HOUSE.order("other"),
        HOUSE.control("other"),
        HOUSE.edge_order,
        HOUSE.former_order,
        HOUSE.mark("room1"),
        "$JS.API.STREAM.PURGE.OUT_house",
        "$JS.API.STREAM.DELETE.OUT_house",
        "$JS.API.CONSUMER.CREATE.OUT_house.cloud",
        "$JS.API.CONSUMER.CREATE.OUT_house.cloud.pratipad.house.out.*",
        "$JS.API.CONSUMER.DURABLE.CREATE.OUT_house.cloud",
        "$JS.API.CONSUMER.DELETE.OUT_house.cloud",
        "$JS.API.CONSUMER.CREATE.OUT_house.other",
        "$JS.API.CONSUMER.CREATE.OUT_house",
        "$JS.API.CONSUMER.DELETE.OUT_house.other",
        "$JS.API.CONSUMER.MSG.NEXT.OUT_house.other",
        "$JS.API.CONSUMER.CREATE.UP_house.cloud",
        "$JS.API.CONSUMER.RESET.OUT_house.other",
        "$JS.API.STREAM.MSG.GET.MARK_house",
        "$JS.API.STREAM.INFO.MARK_house",
        "$JS.API.DIRECT.GET.MARK_house.pratipad.house.read.cloud",
        "$JS.API.STREAM.CREATE.READ_house:cloud",
        "$JS.API.STREAM.DELETE.READ_house:cloud",
        "$JS.API.STREAM.INFO.READ_house:other",
        "$JS.API.DIRECT.GET.READ_house:other.pratipad.house.read.other",
        "$JS.ACK.OUT_house.other.1.1.1.1.0",
    ],
    "edge": [
        "pratipad.garden.up.room1",
        "$JS.API.STREAM.PURGE.IN_garden",
        "$JS.API.STREAM.MSG.GET.IN_garden",
        "$JS.API.STREAM.LIST",
        "$JS.API.CONSUMER.CREATE.IN_garden.x",
        "$JS.API.CONSUMER.MSG.NEXT.IN_garden.x",
        "$JS.API.DIRECT.GET.IN_garden",
        "$JS.API.ACCOUNT.PURGE.$G",
        "$JS.ACK.IN_garden.x.1.1.1.1.0",
        "$SYS.REQ.SERVER.PING",
        INBOXES["garden"] + ".x",
    ],
}


@pytest.mark.parametrize("who", FORBIDDEN_TO_PUBLISH)
async def test_what_a_party_may_not_publish_is_refused(connect: Connect, who: str) -> None:
    party = await connect(who)
    for subject in FORBIDDEN_TO_PUBLISH[who]:
        party.refused.clear()
        await party.client.publish(subject, b"")
        await party.settle()
        assert party.refused == [f'nats: permissions violation for publish to "{subject.lower()}"'], (
            f"{who} could publish to {subject}"
        )


FORBIDDEN_TO_READ = {
    "room1": [
        HOUSE.down("room2"),
        HOUSE.down_all,
        HOUSE.credit("room2"),
        HOUSE.up("room1"),
        HOUSE.out_all,
        HOUSE.everything,
        HOUSE.stats,
        ">",
        "_INBOX.>",
        INBOXES["room2"] + ".>",
        INBOXES["edge"] + ".>",
        "$JS.>",
        "$SYS.>",
    ],
    "cloud": [HOUSE.up_all, HOUSE.down_all, HOUSE.read_all, HOUSE.everything, ">", INBOXES["edge"] + ".>"],
    "edge": ["pratipad.garden.>", "pratipad.>", ">", "_INBOX.>", INBOXES["room1"] + ".>", "$JS.>", "$SYS.>"],
}


@pytest.mark.parametrize("who", FORBIDDEN_TO_READ)
async def test_what_a_party_may_not_read_is_refused(connect: Connect, who: str) -> None:
    party = await connect(who)
    for subject in FORBIDDEN_TO_READ[who]:
        party.refused.clear()
        await party.client.subscribe(subject)
        await party.settle()
        assert party.refused == [f'nats: permissions violation for subscription to "{subject.lower()}"'], (
            f"{who} could subscribe to {subject}"
        )


async def test_a_device_s_order_stays_unseen_by_another_device(connect: Connect) -> None:
    edge, room2 = await connect("edge"), await connect("room2")
    stolen = await room2.client.subscribe(HOUSE.down("room1"))
    await room2.settle()
    await edge.client.publish(HOUSE.down("room1"), b"secret")
    await edge.settle()
    await room2.settle()
    assert stolen.pending_msgs == 0


async def test_an_edge_may_use_all_of_jetstream_on_its_own_streams(connect: Connect) -> None:
    edge = await with_streams(connect)
    await edge.request(HOUSE.up("room1"), {})
    consumer = {"durable_name": "edge", "ack_policy": "explicit"}
    for verb, body in [
        ("INFO", None),
        ("STREAM.INFO.UP_house", None),
        ("STREAM.UPDATE.UP_house", {"name": "UP_house", "subjects": [HOUSE.up_all], "storage": "memory"}),
        ("STREAM.MSG.GET.UP_house", {"seq": 1}),
        ("CONSUMER.CREATE.UP_house.edge", {"stream_name": "UP_house", "config": consumer}),
        ("CONSUMER.INFO.UP_house.edge", None),
        ("CONSUMER.NAMES.UP_house", None),
        ("CONSUMER.LIST.UP_house", None),
        ("CONSUMER.RESET.UP_house.edge", None),
        ("CONSUMER.PAUSE.UP_house.edge", {}),
        ("CONSUMER.DELETE.UP_house.edge", None),
        ("STREAM.MSG.DELETE.UP_house", {"seq": 1}),
        ("STREAM.PURGE.UP_house", None),
        ("STREAM.DELETE.UP_house", None),
    ]:
        answer = await edge.request(f"$JS.API.{verb}", body)
        assert "error" not in answer, f"{verb}: {answer}"
    await edge.client.publish(HOUSE.mark("room1"), b"7")
    await edge.settle()
    direct = await edge.client.request(f"$JS.API.DIRECT.GET.MARK_house.{HOUSE.mark('room1')}", timeout=5)
    assert direct.data == b"7"
    assert edge.refused == []


async def test_an_edge_sees_who_is_connected(connect: Connect) -> None:
    edge = await connect("edge")
    await connect("room1")
    answer = await edge.request("$SYS.REQ.ACCOUNT.PING.CONNZ", {"auth": True})
    seen = {entry["authorized_user"] for entry in answer["data"]["connections"]}
    assert USERS["room1"].identity in seen


async def test_a_reader_reads_the_output_from_a_position_of_its_own(connect: Connect) -> None:
    edge, cloud = await with_streams(connect), await connect("cloud")
    await edge.request(HOUSE.out(0), {"n": 1})
    config = {"name": "cloud", "durable_name": "cloud", "ack_policy": "all"}
    body = {"stream_name": "OUT_house", "config": config}
    assert "error" not in await edge.request("$JS.API.CONSUMER.CREATE.OUT_house.cloud", body)
    body = {"name": "READ_house:cloud", "subjects": [HOUSE.read("cloud")], "allow_direct": True}
    assert "error" not in await edge.request("$JS.API.STREAM.CREATE.READ_house:cloud", body)
    for verb in (
        "STREAM.INFO.OUT_house",
        "STREAM.INFO.READ_house:cloud",
        "CONSUMER.INFO.OUT_house.cloud",
        "CONSUMER.RESET.OUT_house.cloud",
    ):
        assert "error" not in await cloud.request(f"$JS.API.{verb}")
    # The old style, for a message of a stream keeps its subject, by which the new one would
    # tell answers apart.
    got = await cloud.client.request(
        "$JS.API.CONSUMER.MSG.NEXT.OUT_house.cloud", b'{"batch":1}', timeout=5, old_style=True
    )
    assert json.loads(got.data) == {"n": 1}
    await cloud.client.request(got.reply, b"+ACK", timeout=5)
    assert (await cloud.request(HOUSE.read("cloud"), {"at": 1}))["stream"] == "READ_house:cloud"
    again = await cloud.client.request(
        "$JS.API.DIRECT.GET.OUT_house", b'{"seq": 1}', timeout=5, old_style=True
    )
    assert json.loads(again.data) == {"n": 1}
    own = await cloud.client.request(f"$JS.API.DIRECT.GET.READ_house:cloud.{HOUSE.read('cloud')}", timeout=5)
    assert json.loads(own.data) == {"at": 1}
    assert (await cloud.request(HOUSE.order("cloud"), {}))["stream"] == "ORDER_house"
    for subject in (HOUSE.out_all, HOUSE.stats):
        await cloud.client.subscribe(subject)
    await cloud.settle()
    assert cloud.refused == []


@given(a=st.tuples(names, names), b=st.tuples(names, names))
def test_two_parties_share_neither_identity_nor_inbox(a: tuple[str, str], b: tuple[str, str]) -> None:
    parties = {(flow, role, name) for flow, name in (a, b) for role in ("device", "reader")}
    parties |= {(flow, "edge", "") for flow, _ in (a, b)}
    assert len({identity_of(*party) for party in parties}) == len(parties)  # type: ignore[arg-type]
    inboxes = [inbox_prefix(*party) + "." for party in parties]  # type: ignore[arg-type]
    assert not [1 for one in inboxes for other in inboxes if one != other and one.startswith(other)]


@pytest.mark.parametrize("build", [device_user, reader_user])
def test_a_name_that_would_widen_the_permissions_is_refused(build: Callable[[str, str], object]) -> None:
    for flow, name in (("*", "a"), ("house", "*"), ("house", ">"), ("house", ""), ("", "a")):
        with pytest.raises(SettingsError):
            build(flow, name)
