"""Arrows are law, tried by clients that keep to no rule but the server's: what a reader can make pass.

The intruders are plain clients of nats-py with a reader's certificate. Where all parties share one account of
a server that others run, the server holds back less. There an intruder is a client with the edge's
certificate, which the server lets publish under every subject of the flow.
"""

from __future__ import annotations

import contextlib
import secrets
import time

import nats
import pytest
from patience import eventually

from pratipad_nb import reply
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import MAX_MESSAGES, ControlFrame, Order, OrderFrame
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.subjects import Subjects
from pratipad_nb.transport.tls import client_context


@contextlib.asynccontextmanager
async def plain_client(flow, role="reader"):
    """A client of nats-py that shows the certificate of the reader ``desk``, or of the edge."""
    endpoint = await flow.endpoint_for(role, "desk") if role == "reader" else flow.endpoint
    party = Party(flow.name, role, "desk" if role == "reader" else "")
    refused = []

    async def on_error(error):
        refused.append(str(error))

    client = await nats.connect(
        endpoint.url,
        tls=client_context(endpoint.credentials),
        tls_handshake_first=True,
        inbox_prefix=f"{party.inbox}.{secrets.token_hex(4)}",
        error_cb=on_error,
    )
    client.refused = refused
    try:
        yield client
    finally:
        await client.close()


def orders(*payloads, to=("room1",), **flags):
    return encode(
        OrderFrame(time.time(), [Order(secrets.token_hex(4), p, list(to)) for p in payloads], **flags)
    )


async def stored(client, flow, data, reader="desk"):
    """Store an order as `reader`, as the server confirms."""
    answer = await client.request(Subjects(flow.name).order(reader), data, timeout=5)
    assert b'"seq"' in answer.data


@pytest.fixture
async def real(request, scenes):
    """The scene at a real server alone."""
    return scenes[1]


class Halves:
    """A processor that leaves half of an order."""

    def process(self, payload):
        return payload

    def backward(self, payload):
        return payload // 2


@pytest.mark.parametrize("flags", [{}, {"reply": True}], ids=["an order", "a reply"])
@pytest.mark.parametrize("notation", ["Push ~> same ~> Output", "Push <~> same ~> Output"])
async def test_a_reader_s_order_frame_reaches_no_device_where_an_arrow_is_one_way(
    real, notation, flags, caplog
):
    flow = await real.flow(notation)
    obeyed = []
    await real.device(flow, receive=obeyed.append)
    async with plain_client(flow) as intruder, plain_client(flow, "edge") as sharing:
        await intruder.publish(Subjects(flow.name).order("desk"), orders(7, **flags))
        await eventually(lambda: intruder.refused)  # by the server
        for _ in range(50):
            await stored(sharing, flow, orders(7, **flags))
    await eventually(lambda: flow.stats().backward.refused == 50)
    assert (obeyed, flow.stats().backward.received, flow.stats().backward.sent) == ([], 0, 0)
    lines = [r.message for r in caplog.records if "refuses entry" in r.message]
    assert len(lines) == 1  # not a line for each
    orders_log = await flow._connection.find_log(Subjects(flow.name).order_stream)
    await eventually(lambda: is_empty(orders_log))


async def is_empty(log):
    return (await log.state()).messages == 0


async def test_a_reader_s_order_that_pretends_to_be_a_reply_passes_no_device_by_a_processor(real):
    flow = await real.flow("Push <~> Halves <~> Output", namespace={"Halves": Halves})
    obeyed = []
    await real.device(flow, receive=obeyed.append)
    await eventually(lambda: "room1" in flow.devices)
    async with plain_client(flow) as intruder:
        await stored(intruder, flow, orders(100, reply=True))
        await stored(intruder, flow, orders(10))
    await eventually(lambda: obeyed)
    assert obeyed == [5]
    assert flow.stats().backward.refused == 1


@pytest.mark.parametrize(
    "data",
    [b"", b"no frame", encode(ControlFrame("describe")), orders(*[0] * (MAX_MESSAGES + 1))],
    ids=["empty", "no frame", "another frame", "too many orders"],
)
async def test_what_is_no_order_is_counted_and_the_orders_behind_it_pass(real, data):
    flow = await real.flow("Push <~> same <~> Output")
    obeyed = []
    await real.device(flow, receive=obeyed.append)
    await eventually(lambda: "room1" in flow.devices)
    async with plain_client(flow) as intruder:
        await stored(intruder, flow, data)
        await stored(intruder, flow, orders("led on"))
    await eventually(lambda: obeyed == ["led on"])
    stats = flow.stats()
    assert stats.backward.refused + stats.unreadable == 1


async def test_the_replies_of_processors_pass_where_orders_don_t(real):
    def answers(payload, message):
        reply(f"got {payload}", to=message)
        return payload

    flow = await real.flow("Push <~> answers ~> Output", namespace={"answers": answers})
    obeyed = []
    device = await real.device(flow, receive=obeyed.append)
    await device.push(1)
    await eventually(lambda: obeyed == ["got 1"])
    assert flow.stats().backward.refused == 0


async def test_failed_orders_stay_dead_letters_once_an_arrow_is_one_way(scenes):
    scene = scenes[0]

    class Picky(Halves):
        def backward(self, payload):
            raise ValueError("no such LED")

    flow = await scene.flow("Push <~> Picky <~> Output", namespace={"Picky": Picky})
    obeyed = []
    await scene.device(flow, receive=obeyed.append)
    await eventually(lambda: "room1" in flow.devices)
    await flow.send(1, to="room1")
    await eventually(lambda: flow.stats().backward.failed)
    await flow.update("Push ~> same ~> Output", {"same": lambda payload: payload})
    assert await flow.retry_dead_letters() == 0
    assert [letter.payload for letter in await flow.dead_letters()] == [1]
    await flow.update("Push <~> same <~> Output", {"same": lambda payload: payload})
    assert await flow.retry_dead_letters() == 1
    await eventually(lambda: obeyed == [1])


# -- the edge is no deputy -----------------------------------------------------------------------------------


def reply_subjects(flow):
    """Subjects that the edge may publish under, and no reader may."""
    subjects = Subjects(flow.name)
    return [
        subjects.out(0),
        subjects.mark("partition-0"),
        subjects.up("room1"),
        subjects.plain("room1"),
        subjects.down("room1"),
        subjects.credit_all,
        subjects.edge_order,
        subjects.edges,
        f"_INBOX.{flow.name}.edge.x.ack.1",
        f"_INBOX.{flow.name}.reader.other.x.ack.1",
        f"_INBOX.{flow.name}.reader.desk2.x",
        f"_INBOX.{flow.name}.device.room1.x",
        f"$JS.API.STREAM.PURGE.OUT_{flow.name}",
        f"$JS.ACK.UP_{flow.name}.edge.1.1.1.1.0",
    ]


async def test_the_edge_answers_no_request_elsewhere_than_at_an_inbox_of_its_asker(real):
    flow = await real.flow("Push <~> same <~> Output")
    device = await real.device(flow)
    subjects = Subjects(flow.name)
    heard = set()
    listening = [
        await flow._connection.subscribe(subject, lambda signal: heard.add(signal.subject))
        for subject in (subjects.everything, f"_INBOX.{flow.name}.edge.>")
    ]
    async with plain_client(flow) as intruder, plain_client(flow, "edge") as sharing:
        for verb in ("describe", "stats", "who", "nonsense"):
            for subject in reply_subjects(flow):
                for client in (intruder, sharing):
                    await client.publish(subjects.control("desk"), encode(ControlFrame(verb)), reply=subject)
        answer = await intruder.request(subjects.control("desk"), encode(ControlFrame("describe")), timeout=5)
    assert b"Push <~> same <~> Output" in answer.data  # an answer for who asks for itself
    for subscription in listening:
        await subscription.close()
    assert heard & set(reply_subjects(flow)) == set()
    await device.push(1)
    assert [message.payload for message in await flow.take(1)] == [1]
    assert flow._edge._answers.refusals.count == 4 * 4  # the other reply subjects are none, to a connection


async def test_a_device_that_was_there_before_the_way_back_gets_the_orders_that_take_it(scene):
    orders = []
    namespace = {"same": lambda payload: payload}
    flow = await scene.flow("Push ~> same ~> Output")
    await scene.device(flow, "early", receive=orders.append)
    for number in range(2):
        await flow.update("Push <~> same <~> Output", namespace)
        await flow.send(number, to="early")
        await eventually(lambda count=number + 1: len(orders) == count)
        await flow.update("Push ~> same ~> Output", namespace)
    assert orders == [0, 1]
