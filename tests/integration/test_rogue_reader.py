"""A reader that keeps to no rule but the server's: nothing that it sends harms the flow or another reader.

The rogue is a plain client of nats-py that shows a reader's certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import secrets

import msgspec
import nats
import pytest
from patience import eventually

from pratipad_nb.transport.codec import MAGIC, decode, encode
from pratipad_nb.transport.frames import ControlFrame, ReadFrame
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.rights import own_api
from pratipad_nb.transport.subjects import Subjects
from pratipad_nb.transport.tls import client_context


class Rogue:
    """A client of nats-py with the certificate of the reader ``rogue``, and what the server refused it."""

    def __init__(self, flow):
        self.flow = flow
        self.subjects = Subjects(flow.name)
        self.api = own_api(flow.name)
        self.refused = []

    @contextlib.asynccontextmanager
    async def connected(self):
        endpoint = await self.flow.endpoint_for("reader", "rogue")
        self.client = await nats.connect(
            endpoint.url,
            tls=client_context(endpoint.credentials),
            tls_handshake_first=True,
            inbox_prefix=f"{Party(self.flow.name, 'reader', 'rogue').inbox}.{secrets.token_hex(4)}",
            error_cb=self.on_error,
        )
        try:
            yield self
        finally:
            await self.client.close()

    async def on_error(self, error):
        self.refused.append(str(error))

    async def ask(self, verb, data=b"", **options):
        return json.loads((await self.client.request(f"{self.api}.{verb}", data, timeout=5, **options)).data)

    async def answer(self, frame):
        return (await self.client.request(self.subjects.control("rogue"), frame, timeout=10)).data

    async def settle(self):
        await self.client.flush()
        await self.client.flush()


@pytest.fixture
async def rogue(scenes):
    """A rogue at a flow that has a device and an honest reader, and the proof afterwards that both go on."""
    scene = scenes[1]
    flow = await scene.flow("Push <~> same <~> Output")
    obeyed = []
    device = await scene.device(flow, receive=obeyed.append)
    honest = await scene.cloud(flow, "honest")
    await device.push(1)
    assert await payloads(honest) == [1]
    async with Rogue(flow).connected() as made:
        yield made
    await device.push(2)
    assert await payloads(honest) == [2]
    await flow.send("led on", to="room1")
    await eventually(lambda: obeyed == ["led on"])
    assert flow.state == "running"


async def payloads(cloud):
    return [message.payload for message in await cloud.take(1, timeout=20)]


async def test_a_reader_makes_and_deletes_no_consumer_and_no_stream(rogue):
    output, own = f"OUT_{rogue.flow.name}", f"READ_{rogue.flow.name}:rogue"
    calls = [
        f"CONSUMER.CREATE.{output}.rogue",
        f"CONSUMER.CREATE.{output}.rogue.{rogue.subjects.out_all}",
        f"CONSUMER.DURABLE.CREATE.{output}.rogue",
        f"CONSUMER.CREATE.{output}",
        f"CONSUMER.DELETE.{output}.rogue",
        f"CONSUMER.PAUSE.{output}.rogue",
        f"CONSUMER.UNPIN.{output}.rogue",
        f"CONSUMER.RESET.{output}.honest",
        f"CONSUMER.INFO.{output}.honest",
        f"CONSUMER.MSG.NEXT.{output}.honest",
        f"CONSUMER.LIST.{output}",
        f"STREAM.CREATE.{own}",
        f"STREAM.UPDATE.{own}",
        f"STREAM.DELETE.{own}",
        f"STREAM.PURGE.{own}",
        f"STREAM.MSG.DELETE.{own}",
        f"STREAM.SNAPSHOT.{own}",
        "STREAM.NAMES",
        f"STREAM.INFO.READ_{rogue.flow.name}:honest",
        f"STREAM.MSG.GET.READ_{rogue.flow.name}:honest",
        f"DIRECT.GET.READ_{rogue.flow.name}:honest.{rogue.subjects.read('honest')}",
        f"STREAM.MSG.GET.MARK_{rogue.flow.name}",
        f"STREAM.DELETE.{output}",
        "INFO",
    ]
    for call, prefix in itertools.product(calls, (rogue.api, "$JS.API")):
        before = len(rogue.refused)
        await rogue.client.publish(f"{prefix}.{call}", b"{}")
        await rogue.settle()
        assert len(rogue.refused) == before + 1, f"{prefix}.{call}"


async def test_what_a_reader_s_consumer_delivers_reaches_no_other_party(rogue):
    """By a reply subject, the server delivers entries of the output to the reader's own account alone."""
    subjects, name = rogue.subjects, rogue.flow.name
    heard = []
    edge = rogue.flow._connection
    listening = [
        await edge.subscribe(s, heard.append) for s in (subjects.everything, f"_INBOX.{name}.edge.>")
    ]
    for reply in (
        subjects.order("honest"),
        subjects.order("rogue"),
        subjects.edge_order,
        subjects.mark("partition-0"),
        subjects.out(0),
        subjects.up("room1"),
        subjects.down("room1"),
        subjects.read("honest"),
        subjects.control("rogue"),
        f"$JS.API.STREAM.DELETE.OUT_{name}",
        f"{rogue.api}.CONSUMER.RESET.OUT_{name}.honest",
        f"_INBOX.{name}.edge.x.ack.1",
    ):
        for call, body in (
            (f"CONSUMER.MSG.NEXT.OUT_{name}.rogue", {"batch": 5, "no_wait": True}),
            (f"CONSUMER.RESET.OUT_{name}.rogue", {"seq": 1}),
            (f"DIRECT.GET.OUT_{name}", {"seq": 1}),
            (f"STREAM.MSG.GET.OUT_{name}", {"seq": 1}),
        ):
            await rogue.client.publish(f"{rogue.api}.{call}", json.dumps(body).encode(), reply=reply)
    await rogue.settle()
    await rogue.answer(encode(ControlFrame("describe")))
    kinds = {signal.subject.split(".")[2] for signal in heard if signal.subject.startswith("pratipad.")}
    assert kinds <= {"control", "connected", "disconnected"}
    assert not [signal for signal in heard if signal.subject.startswith("_INBOX")]
    for subscription in listening:
        await subscription.close()


@pytest.mark.parametrize("sequence", [0, 1, 2, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
async def test_a_reader_that_sets_its_consumer_anywhere_harms_itself_alone(rogue, sequence):
    reset = f"CONSUMER.RESET.OUT_{rogue.flow.name}.rogue"
    await rogue.ask(reset, json.dumps({"seq": sequence}).encode())
    await rogue.flow._edge.parts.janitor.sweep()
    assert await rogue.ask(reset, b'{"seq": 1}')
    await rogue.answer(encode(ControlFrame("reader", {"domain": ""})))


async def test_a_position_that_is_none_is_the_reader_s_own_trouble(rogue):
    subjects = rogue.subjects
    for data in (b"", b"\0" * 1000, MAGIC, encode(ReadFrame(1 << 62, -1)), b"x" * (1 << 20)):
        with contextlib.suppress(Exception):
            await rogue.client.request(subjects.read("rogue"), data, timeout=2)
    await rogue.flow._edge.parts.janitor.sweep()
    log = await rogue.flow._connection.find_log(subjects.position_stream("rogue"))
    state = await log.state()
    assert state.messages <= 1
    assert state.bytes <= log.spec.max_bytes


#: Values that no request means.
ODD = [None, True, -1, 1 << 63, math.nan, math.inf, "", "x" * 300, "\0\r\n", b"\xff", [], {}, [[1]], {"a": 1}]


async def test_the_edge_outlives_whatever_a_reader_asks(rogue):
    verbs = {
        "describe": (),
        "pull": ("n", "device"),
        "request": ("request", "timeout"),
        "cancel": ("request",),
        "stats": (),
        "who": (),
        "reader": ("domain", "reader"),
        "__init__": (),
    }
    asked = [
        encode(ControlFrame(verb, arguments))
        for verb, names in verbs.items()
        for odd in ODD
        for arguments in (dict.fromkeys(names, odd), {"other": odd})
    ]
    deep = MAGIC + msgspec.msgpack.encode({"verb": "describe"})[:-1]
    asked += [b"", MAGIC, MAGIC + b"\x91" * 2000, deep, b"\xff" * 100, MAGIC + b"\xc1"]
    answers = await asyncio.gather(*map(rogue.answer, asked))
    assert len(answers) == len(asked)
    assert {decode(answer, ControlFrame).verb for answer in answers} == {"ok", "error"}


async def test_the_edge_outlives_thousands_of_requests_at_once(rogue):
    for _ in range(5000):
        await rogue.client.publish(
            rogue.subjects.control("rogue"),
            encode(ControlFrame("request", {"request": "x", "timeout": 5})),
            reply=f"_INBOX.{rogue.flow.name}.reader.rogue.x",
        )
    await rogue.settle()
