"""What a party makes others send: attacks with plain clients that version 0.1 was open to, on flows at work.

Each attack leaves the flow, its logs and its other parties whole. The matrix of all rights is
`tests/server/test_matrix.py`; floods and lies within a party's own rights are in `test_starving`.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from typing import Any

import nats
import pytest
from hostile import raw_client
from patience import eventually

from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import Order, OrderFrame, UplinkFrame
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.subjects import Subjects
from pratipad_nb.transport.tls import client_context

pytestmark = pytest.mark.parametrize("scene", ["nats"], indirect=True)

NOTATION = "Push <~> same <~> Output"


@contextlib.asynccontextmanager
async def edge_of(flow):
    """Yield a plain client with the certificate of the flow's edge."""
    endpoint = flow.endpoint
    client = await nats.connect(
        endpoint.url,
        tls=client_context(endpoint.credentials),
        tls_handshake_first=True,
        inbox_prefix=f"{Party(flow.name, 'edge').inbox}.{secrets.token_hex(4)}",
        allow_reconnect=False,
    )
    try:
        yield client
    finally:
        await client.close()


class House:
    """A flow at work, with two honest devices, and a second flow at the same server."""

    def __init__(self, flow, other, room1, room2, orders):
        self.flow, self.other = flow, other
        self.room1, self.room2 = room1, room2
        self.orders = orders
        self._pushed = 0

    async def streams(self) -> dict[str, Any]:
        """Return the configuration of every log of both flows, with its consumers, and its subjects."""
        found = {}
        for flow in (self.flow, self.other):
            async with edge_of(flow) as edge:
                for stream in await edge.jetstream().streams_info():
                    name = stream.config.name
                    consumers = await edge.jetstream().consumers_info(name)
                    found[name] = (
                        stream.config.subjects,
                        {(each.name, each.config.deliver_subject) for each in consumers},
                    )
                    if name.startswith(("ORDER_", "MARK_")):
                        about = {"subjects_filter": ">"}
                        told = await edge.request(f"$JS.API.STREAM.INFO.{name}", json.dumps(about).encode())
                        found[name] += (set(json.loads(told.data)["state"].get("subjects") or {}),)
        return found

    async def is_whole(self) -> None:
        """Assert that readings and orders of the honest devices arrive, once, and after a restart as well."""
        for restart in (False, True):
            if restart:
                await self.flow.stop()
                await self.flow.start()
            numbers = range(self._pushed, self._pushed + 10)
            self._pushed += 10
            for number in numbers:
                await self.room1.push(number)
                await self.room2.push(number)
            got = {"room1": [], "room2": []}
            while sum(map(len, got.values())) < 20:
                for message in await self.flow.take(1):
                    if message.device in got:
                        got[message.device].append(message.payload)
            assert got == {"room1": [*numbers], "room2": [*numbers]}
            await self.flow.send(f"order {self._pushed}", to="room2")
            wanted = self.orders["sent"] = [*self.orders["sent"], f"order {self._pushed}"]
            await eventually(lambda wanted=wanted: self.orders["room2"] == wanted)
        assert self.orders["room1"] == []
        assert (self.flow.state, self.other.state) == ("running", "running")


@pytest.fixture
async def house(scene) -> House:
    flow, other = await scene.flow(NOTATION), await scene.flow(NOTATION)
    orders = {"room1": [], "room2": [], "sent": []}
    rooms = [await scene.device(flow, name, receive=orders[name].append) for name in ("room1", "room2")]
    return House(flow, other, *rooms, orders)


async def test_no_reader_deletes_a_log_by_where_its_answers_go(house, tmp_path):
    name, other = house.flow.name, house.other.name
    await house.room1.push("before")
    async with raw_client(house.flow, "reader", "desk", tmp_path) as desk:
        before = await house.streams()
        targets = [
            *(f"$JS.API.STREAM.DELETE.{stream}" for stream in before),
            *(f"$JS.API.STREAM.PURGE.{stream}" for stream in before),
            *(f"$JS.{name}.API.STREAM.DELETE.{stream}" for stream in before),
            f"$JS.API.CONSUMER.DELETE.UP_{name}.edge",
            f"pratipad.{name}.mark.partition-0",
            f"pratipad.{other}.mark.partition-0",
            f"pratipad.{name}.order.other",
            f"pratipad.{name}.reply",
            f"pratipad.{name}.down.room1",
        ]
        calls = {
            f"CONSUMER.MSG.NEXT.OUT_{name}.desk": b'{"batch": 1, "no_wait": true}',
            f"STREAM.INFO.OUT_{name}": b"",
            f"STREAM.MSG.GET.OUT_{name}": b'{"seq": 1}',
            f"DIRECT.GET.OUT_{name}": b'{"seq": 1}',
            f"CONSUMER.RESET.OUT_{name}.desk": b'{"seq": 1}',
        }
        for target in targets:
            for call, data in calls.items():
                for prefix in (f"$JS.{name}.API", "$JS.API"):
                    await desk.publish(f"{prefix}.{call}", data, reply=target)
            await desk.publish(f"$JS.ACK.OUT_{name}.desk.1.1.1.1.0", b"+NXT", reply=target)
            await desk.publish(f"pratipad.{name}.read.desk", b"x", reply=target)
        info = await desk.request(f"$JS.{name}.API.STREAM.INFO.OUT_{name}", b"", timeout=5)
        assert json.loads(info.data)["config"]["name"] == f"OUT_{name}"
        assert await house.streams() == before
    await house.flow.take(1)
    await house.is_whole()


async def test_no_reader_has_a_consumer_deliver_anywhere(house, tmp_path):
    name = house.flow.name
    async with raw_client(house.flow, "reader", "desk", tmp_path) as desk:
        before = await house.streams()
        config = {"durable_name": "desk", "ack_policy": "none", "deliver_subject": f"pratipad.{name}.mark.x"}
        pushing = json.dumps({"stream_name": f"OUT_{name}", "config": config}).encode()
        for prefix in (f"$JS.{name}.API", "$JS.API"):
            for call in (
                f"CONSUMER.CREATE.OUT_{name}",
                f"CONSUMER.CREATE.OUT_{name}.desk",
                f"CONSUMER.DURABLE.CREATE.OUT_{name}.desk",
                f"STREAM.CREATE.OUT_{name}",
                f"STREAM.UPDATE.OUT_{name}",
            ):
                await desk.publish(
                    f"{prefix}.{call}", pushing, reply=f"{Party(name, 'reader', 'desk').inbox}.x"
                )
        # Also not by what a reset may be given besides the place.
        told = json.dumps({"seq": 1, "config": config, "deliver_subject": config["deliver_subject"]}).encode()
        await desk.request(f"$JS.{name}.API.CONSUMER.RESET.OUT_{name}.desk", told, timeout=5)
        assert await house.streams() == before
    await house.is_whole()


async def test_no_reader_reads_what_the_edge_keeps(house, tmp_path):
    name, subjects = house.flow.name, Subjects(house.flow.name)
    async with raw_client(house.flow, "reader", "desk", tmp_path) as desk:
        prefixes = (f"$JS.{name}.API", "$JS.API")
        for stream in (subjects.mark_stream, subjects.order_stream, subjects.dead_stream, f"UP_{name}"):
            for prefix in prefixes:
                for call in (f"STREAM.MSG.GET.{stream}", f"DIRECT.GET.{stream}", f"STREAM.INFO.{stream}"):
                    with pytest.raises((nats.errors.TimeoutError, nats.errors.NoRespondersError)):
                        await desk.request(f"{prefix}.{call}", b'{"seq": 1}', timeout=0.02)
        # Neither by the calls that it may make, for another log or subject.
        for body in ({"last_by_subj": subjects.mark("partition-0")}, {"seq": 1, "stream": "MARK"}):
            answer = await desk.request(
                f"$JS.{name}.API.STREAM.MSG.GET.OUT_{name}", json.dumps(body).encode(), timeout=5
            )
            assert "mark" not in json.loads(answer.data).get("message", {}).get("subject", "")
    await house.is_whole()


def reading(flow, device, number):
    return encode(UplinkFrame(flow.name, device, 7, number, [1.0], ["forged"]))


async def test_no_device_forges_by_where_its_acknowledgements_go(house, tmp_path):
    flow, name = house.flow, house.flow.name
    before = await house.streams()
    targets = [
        f"pratipad.{name}.out.0",
        f"pratipad.{house.other.name}.out.0",
        f"pratipad.{house.other.name}.up.room1",
        *(f"pratipad.{name}.mark.{mark}" for mark in ("partition-0", "room1", "x")),
        *(f"pratipad.{name}.up.{device}" for device in ("room1", "room2", "never-invited")),
        *(f"pratipad.{name}.{kind}.room2" for kind in ("plain", "down", "credit", "hello")),
        f"pratipad.{name}.credit._all",
        f"pratipad.{name}.order.desk",
        f"pratipad.{name}.order",
        f"pratipad.{name}.reply",
        f"pratipad.{name}.dead.same",
        f"pratipad.{name}.edges",
        f"pratipad.{name}.control.desk",
        f"$JS.API.STREAM.DELETE.OUT_{name}",
        f"$JS.ACK.UP_{name}.edge.1.1.1.1.0",
    ]
    async with edge_of(flow) as edge:
        heard: dict[str, list[bytes]] = {}

        async def hear(message):
            heard.setdefault(message.subject, []).append(message.data)

        await edge.subscribe(f"pratipad.{name}.>", cb=hear)
        await edge.flush()
        async with raw_client(flow, "device", "intruder", tmp_path) as intruder:
            up, hello = f"pratipad.{name}.up.intruder", f"pratipad.{name}.hello.intruder"
            for number, target in enumerate(targets):
                await intruder.publish(up, reading(flow, "intruder", number), reply=target)
                await intruder.publish(hello, b"hello", reply=target)
                await intruder.publish(up, b"", reply=target, headers={"Nats-Trace-Dest": target})
            await intruder.request(up, reading(flow, "intruder", len(targets)), timeout=5)
        assert await house.streams() == before
        await edge.flush()
        forged = [
            data for each in heard.values() for data in each if b'"stream"' in data and b'"seq"' in data
        ]
        assert forged == []
    await house.flow.settled(5)
    assert set(flow.stats().devices) <= {"room1", "room2", "intruder"}
    await house.is_whole()


async def test_no_device_s_message_id_drops_another_s_reading(house, tmp_path):
    flow, name = house.flow, house.flow.name
    async with raw_client(flow, "device", "intruder", tmp_path) as intruder:
        # Ids that other frames might have: of a device, an epoch and a number.
        ids = [
            f"{device}.{epoch}.{n}" for device in ("room1", "room2") for epoch in (1, 7) for n in range(40)
        ]
        for message_id in ids:
            headers = {"Nats-Msg-Id": message_id}
            await intruder.publish(f"pratipad.{name}.up.intruder", b"", headers=headers)
        async with edge_of(flow) as edge:
            headers_of_others = []

            async def hear(message):
                headers_of_others.append(message.headers)

            for room in ("room1", "room2"):
                await edge.subscribe(f"pratipad.{name}.up.{room}", cb=hear)
            await edge.flush()
            await house.is_whole()
            # The memory of ids, which the server doesn't do without, holds none of an honest device.
            assert headers_of_others
            assert not any("Nats-Msg-Id" in (headers or {}) for headers in headers_of_others)


async def test_the_edge_of_another_flow_sees_and_forges_nothing_by_streams_of_its_own(house):
    name, other = house.flow.name, house.other.name
    before = await house.streams()
    async with edge_of(house.other) as intruder:
        mine = {
            "sourced": {"sources": [{"name": f"OUT_{name}"}, {"name": f"MARK_{name}"}]},
            "mirrored": {"mirror": {"name": f"OUT_{name}"}},
            "abroad": {"sources": [{"name": f"OUT_{name}", "external": {"api": f"$JS.{name}.API"}}]},
            "named": {"subjects": [f"pratipad.{name}.>"]},
            "republished": {
                "subjects": [f"pratipad.{other}.x.*"],
                "republish": {
                    "src": f"pratipad.{other}.x.*",
                    "dest": f"pratipad.{name}.up.{{{{wildcard(1)}}}}",
                },
            },
        }
        for stream, config in mine.items():
            asked = json.dumps({"name": stream, "max_bytes": 1 << 20, **config}).encode()
            created = await intruder.request(f"$JS.API.STREAM.CREATE.{stream}", asked, timeout=5)
            assert "error" not in json.loads(created.data)
        consumer = {"deliver_subject": f"pratipad.{name}.mark.partition-0", "ack_policy": "none"}
        asked = json.dumps({"stream_name": f"UP_{other}", "config": consumer}).encode()
        await intruder.request(f"$JS.API.CONSUMER.CREATE.UP_{other}", asked, timeout=5)
        await intruder.publish(f"pratipad.{other}.x.room1", b"forged")
        await intruder.publish(f"pratipad.{other}.up.room1", reading(house.flow, "room1", 1))
        await house.is_whole()
        for stream in mine:
            info = await intruder.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=5)
            # The edge's own message reached these: the others hold nothing, for the other flow's don't.
            own = stream in ("named", "republished")
            assert json.loads(info.data)["state"]["messages"] == own, stream
            await intruder.request(f"$JS.API.STREAM.DELETE.{stream}", b"", timeout=5)
    after = await house.streams()
    assert {each: after[each][0] for each in before} == {each: before[each][0] for each in before}


async def test_the_edge_of_another_flow_learns_of_no_connection_but_its_own_flow_s(house):
    async with edge_of(house.other) as intruder:
        kind = "devices"
        answer = await intruder.request(f"pratipad.{house.other.name}.presence.{kind}", b'{"auth": true}')
        assert json.loads(answer.data)["data"]["connections"] == []
        for subject in (
            "$SYS.REQ.SERVER.PING.CONNZ",
            "$SYS.REQ.ACCOUNT.PING.CONNZ",
            f"$SYS.REQ.ACCOUNT.D_{house.flow.name}.CONNZ",
            f"pratipad.{house.flow.name}.presence.{kind}",
        ):
            with pytest.raises((nats.errors.TimeoutError, nats.errors.NoRespondersError)):
                await intruder.request(subject, b'{"auth": true}', timeout=0.05)
    await house.is_whole()


async def test_no_reader_of_a_one_way_flow_has_a_device_obey(scene, tmp_path):
    flow = await scene.flow("Push ~> same ~> Output")
    orders: list[Any] = []
    device = await scene.device(flow, "room1", receive=orders.append)
    name = flow.name
    async with raw_client(flow, "reader", "desk", tmp_path) as desk:
        for number, reply in enumerate((False, True)):
            frame = encode(OrderFrame(1.0, [Order(f"{number}", "on", ["room1"])], reply=reply))
            for subject in ("order.desk", "order", "reply", "down.room1", "plain.room1"):
                with pytest.raises((nats.errors.TimeoutError, nats.errors.NoRespondersError)):
                    await desk.request(f"pratipad.{name}.{subject}", frame, timeout=0.02)
                # As the answer to what the reader may ask.
                await desk.publish(f"pratipad.{name}.read.desk", frame, reply=f"pratipad.{name}.{subject}")
        await desk.flush()
    for number in range(10):
        await device.push(number)
    got = []
    while len(got) < 10:
        got += [message.payload for message in await flow.take(1)]
    assert (got, orders) == ([*range(10)], [])
    assert (flow.stats().backward.refused, flow.state) == (0, "running")
