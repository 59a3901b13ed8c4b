"""A server that can't do a thing now is told from a server that says that there is no such log."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from nats import errors as nats_errors
from patience import eventually, patient

from pratipad_nb.errors import Fenced, LogFull, ServerFull, TransportError, Unavailable, WaitTimeout
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.nats_errors import refused, sequence_of, translated
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.protocol import ConsumerSpec, LogSpec
from pratipad_nb.transport.subjects import Subjects, stream_of

SUBJECTS = Subjects("house")
ORDER, OUT, UP = SUBJECTS.order("archive"), SUBJECTS.out(0), SUBJECTS.up("room1")
ORDERS = LogSpec(SUBJECTS.order_stream, (SUBJECTS.order_all,), 1 << 20, "log", 0.0)
OUTPUT = LogSpec(SUBJECTS.output_stream, (SUBJECTS.out_all,), 1 << 20, "log", 0.0)
#: The log of orders while it takes none: nobody answers an append, though the log is there.
DEAF = dataclasses.replace(ORDERS, subjects=(SUBJECTS.dead_all,))

Connect = Callable[..., Any]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    credentials = CertificateStore.open(tmp_path).server("urn:pratipad:server", ("127.0.0.1",))
    running = EmbeddedServer(tmp_path / "server", credentials)
    users = [Party("house", "edge"), Party("house", "device", "room1"), Party("house", "reader", "archive")]
    await running.start(users)
    yield running
    await running.stop()


@pytest.fixture
async def connect(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Connect]:
    store = CertificateStore.open(tmp_path)
    async with contextlib.AsyncExitStack() as stack:

        async def made(user: Party, credentials: Any, prefix: str) -> NatsConnection:
            connection = await NatsConnection.connect(
                server.url, credentials, name="test", inbox_prefix=prefix
            )
            stack.push_async_callback(connection.close)
            return connection

        async def open_as(role: str) -> NatsConnection:
            if role == "edge":
                user = Party("house", "edge")
                return await made(user, store.edge("house", user.identity), Party("house", "edge").inbox)
            if role == "device":
                user = Party("house", "device", "room1")
                credentials = store.device("house", "room1", user.identity)
                return await made(user, credentials, Party("house", "device", "room1").inbox)
            user = Party("house", "reader", "archive")
            credentials = store.reader("house", "archive", user.identity)
            return await made(user, credentials, Party("house", "reader", "archive").inbox)

        yield open_as


@pytest.fixture
async def edge(connect: Connect) -> NatsConnection:
    return await connect("edge")


async def is_waiting(task: asyncio.Task[Any]) -> bool:
    await asyncio.wait({task}, timeout=0.5)
    return not task.done()


async def test_an_append_that_nobody_answers_waits_for_the_log_that_is_there(edge: NatsConnection) -> None:
    await edge.open_log(DEAF)
    append = asyncio.create_task(edge.append(ORDER, b"x", timeout=20))
    assert await is_waiting(append)
    log = await edge.open_log(ORDERS)
    assert await append == 1
    assert (await log.state()).messages == 1


async def test_a_direct_read_that_nobody_answers_waits_for_the_log_that_is_there(
    edge: NatsConnection,
) -> None:
    log = await edge.open_log(OUTPUT)
    await edge.append(OUT, b"x")
    config = (await edge._jetstream.call(f"STREAM.INFO.{OUTPUT.name}"))["config"]
    await edge._jetstream.call(f"STREAM.UPDATE.{OUTPUT.name}", config | {"allow_direct": False})
    read = asyncio.create_task(log.latest(OUT))
    assert await is_waiting(read)
    await edge._jetstream.call(f"STREAM.UPDATE.{OUTPUT.name}", config)
    record = await read
    assert record is not None
    assert record.data == b"x"


async def test_an_append_that_nobody_answers_ends_with_its_time(edge: NatsConnection) -> None:
    await edge.open_log(DEAF)
    begin = time.monotonic()
    with pytest.raises(Unavailable, match="ending or starting"):
        await edge.append(ORDER, b"x", timeout=0.5)
    assert 0.3 <= time.monotonic() - begin < patient(5)


async def test_a_log_that_the_server_does_not_have_is_said_to_be_missing_at_once(
    edge: NatsConnection,
) -> None:
    log = await edge.open_log(OUTPUT)
    await edge.delete_log(OUTPUT.name)
    begin = time.monotonic()
    for work in (
        edge.append(OUT, b""),
        log.latest(OUT),
        log.state(),
        log.consumer(ConsumerSpec("cloud", "all")),
    ):
        with pytest.raises(TransportError, match="never started there, or was forgotten"):
            await work
    assert time.monotonic() - begin < patient(4)


@pytest.mark.parametrize(("role", "subject"), [("device", UP), ("reader", ORDER)])
async def test_who_may_not_ask_for_a_log_takes_its_silence_for_a_moment_s(
    connect: Connect, role: str, subject: str
) -> None:
    party = await connect(role)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await party.append(subject, b"x", timeout=2)
    await (await connect("edge")).open_log(
        LogSpec(SUBJECTS.input_stream, (SUBJECTS.up_all,), 1 << 20, "work", 0.0)
        if role == "device"
        else ORDERS
    )
    assert await party.append(subject, b"x") == 1


async def test_a_device_does_not_ask_what_it_may_not(connect: Connect, server: EmbeddedServer) -> None:
    device = await connect("device")
    with pytest.raises(Unavailable):
        await device.append(UP, b"x")
    await device.flush()
    assert not [line for line in server.log if "Violation" in line]


async def test_a_rewind_of_a_consumer_that_is_gone_says_so_at_once(edge: NatsConnection) -> None:
    log = await edge.open_log(OUTPUT)
    consumer = await log.consumer(ConsumerSpec("cloud", "all"))
    consumer.pause()  # as with the link down: the server's word that it was deleted is not heard
    await consumer._subscription.close()
    await log.forget_consumer("cloud")
    with pytest.raises(TransportError, match="was deleted"):
        await asyncio.wait_for(consumer.rewind(), patient(4))


async def test_a_receiver_that_is_cancelled_while_it_asks_for_more_loses_no_delivery(
    edge: NatsConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await edge.open_log(OUTPUT)
    consumer = await log.consumer(ConsumerSpec("cloud", "all", max_pending=4))
    await edge.append(OUT, b"1")
    await consumer.get()
    await edge.append(OUT, b"2")
    await eventually(lambda: consumer._buffer)
    asks, sends = asyncio.Event(), consumer._link.publish

    async def slow(*arguments: Any, **options: Any) -> None:
        asks.set()
        await asyncio.sleep(0.05)
        await sends(*arguments, **options)

    consumer._under_way = 0  # the request has been served: `get` asks for more
    monkeypatch.setattr(consumer._link, "publish", slow)
    receiving = asyncio.create_task(consumer.get())
    await asks.wait()
    receiving.cancel()
    await asyncio.wait({receiving})
    async with asyncio.timeout(patient(5)):
        (delivery,) = await consumer.get()
    assert (delivery.data, delivery.number) == (b"2", 2)


@pytest.mark.parametrize("code", [10004, 10007, 10008, 10009, 10118, 10119, 10158, 10194, 10195])
def test_what_passes_by_itself_is_waited_out(code: int) -> None:
    error = {"err_code": code, "description": "not now"}
    assert isinstance(refused("STREAM.INFO.OUT_house", error), Unavailable)
    with pytest.raises(WaitTimeout, match="not now"):
        sequence_of(OUT, json.dumps({"error": error}).encode())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (10071, Fenced),
        (10077, LogFull),
        (10023, ServerFull),
        (10047, ServerFull),
        (10052, TransportError),
        (None, TransportError),
    ],
)
def test_what_does_not_pass_is_not(code: int | None, kind: type[TransportError]) -> None:
    error = {"err_code": code, "description": "no"}
    with pytest.raises(kind):
        sequence_of(OUT, json.dumps({"error": error}).encode())
    assert isinstance(refused("STREAM.UPDATE.OUT_house", error), TransportError)


def test_a_buffer_that_is_full_because_the_link_is_down_passes_by_itself() -> None:
    assert isinstance(translated(nats_errors.OutboundBufferLimitError(), "publishing"), Unavailable)


@pytest.mark.parametrize(
    ("subject", "stream"),
    [
        (OUT, "OUT_house"),
        (ORDER, "ORDER_house"),
        (SUBJECTS.mark("partition-0"), "MARK_house"),
        (SUBJECTS.read("archive"), "READ_house:archive"),
        (SUBJECTS.dead("f#2"), "DEAD_house"),
        (UP, ""),
        (SUBJECTS.sent, ""),
        (SUBJECTS.stats, ""),
        ("elsewhere", ""),
    ],
)
def test_the_stream_of_a_subject_is_known(subject: str, stream: str) -> None:
    assert stream_of(subject) == stream
