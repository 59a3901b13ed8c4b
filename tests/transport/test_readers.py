"""Named readers at the server: their logs and consumers are made once, carried over, and forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from patience import eventually

from pratipad_nb.errors import TransportError
from pratipad_nb.transport.nats_api import JetStream
from pratipad_nb.transport.protocol import Connection, ConsumerSpec, LogSpec
from pratipad_nb.transport.readers import (
    POSITION_BYTES,
    READER_WINDOW,
    carry_positions,
    forget_reader,
    forget_readers,
    known_readers,
    prepare_known_readers,
    prepare_reader,
    prepare_readers,
    reader_consumer,
)
from pratipad_nb.transport.subjects import Subjects

FLOW = "house"
SUBJECTS = Subjects(FLOW)
OUTPUT = LogSpec(SUBJECTS.output_stream, (SUBJECTS.out_all,), 1 << 20, "log")
#: As version 0.1 had it.
MARKS = LogSpec(SUBJECTS.mark_stream, (SUBJECTS.mark_all, SUBJECTS.read_all), 1 << 20, "latest")


@pytest.fixture
async def connection(transport: Any) -> Connection:
    return await transport.connect()


async def position(connection: Connection, reader: str) -> bytes:
    log = await connection.find_log(SUBJECTS.position_stream(reader))
    assert log is not None
    assert log.spec.subjects == (SUBJECTS.read(reader),)
    record = await log.latest(SUBJECTS.read(reader))
    return record.data if record is not None else b""


async def consumers(connection: Connection) -> list[str]:
    log = await connection.find_log(SUBJECTS.output_stream)
    return sorted(state.name for state in await log.consumers()) if log is not None else []


async def stored_by_0_1(connection: Connection, *readers: str) -> None:
    await connection.open_log(MARKS)
    await connection.append(SUBJECTS.mark("partition-0"), b"a mark")
    for reader in readers:
        for data in (b"older", reader.encode()):
            await connection.append(SUBJECTS.read(reader), data)


async def test_a_reader_that_is_let_in_before_the_flow_s_first_start_gets_its_consumer_then(
    connection,
):
    await prepare_readers(connection, FLOW, ["desk", "archive"])
    assert await consumers(connection) == []
    assert await known_readers(connection, FLOW) == ["archive", "desk"]
    await connection.open_log(OUTPUT)
    await connection.append(SUBJECTS.out(0), b"first")
    await prepare_known_readers(connection, FLOW)
    assert await consumers(connection) == ["archive", "desk"]
    log = await connection.find_log(OUTPUT.name)
    assert [each.data for each in await (await log.find_consumer(reader_consumer("desk"))).get()] == [
        b"first"
    ]


async def test_a_reader_that_is_let_in_again_keeps_its_position(connection):
    log = await connection.open_log(OUTPUT)
    await prepare_reader(connection, FLOW, "desk")
    for _ in range(2):
        await connection.append(SUBJECTS.out(0), b"x")
    await connection.append(SUBJECTS.read("desk"), b"here")
    consumer = await log.find_consumer(reader_consumer("desk"))
    consumer.acknowledge((await consumer.get())[0])
    await eventually(lambda: acknowledged(log, 1))
    await prepare_reader(connection, FLOW, "desk")
    assert await position(connection, "desk") == b"here"
    assert await acknowledged(log, 1)


async def acknowledged(log, floor):
    return [state.floor for state in await log.consumers()] == [floor]


async def test_positions_of_version_0_1_are_carried_over_and_marks_stay(connection):
    await stored_by_0_1(connection, "desk", "archive")
    await carry_positions(connection, FLOW)
    assert [await position(connection, name) for name in ("archive", "desk")] == [b"archive", b"desk"]
    marks = await connection.find_log(SUBJECTS.mark_stream)
    assert [record.data async for record in marks.read(1)] == [b"a mark"]
    assert marks.spec.subjects == (SUBJECTS.mark_all,)
    await connection.append(SUBJECTS.read("desk"), b"newer")
    await carry_positions(connection, FLOW)
    assert await position(connection, "desk") == b"newer"


async def test_an_entry_of_version_0_1_that_is_of_no_reader_keeps_no_position_from_being_carried(connection):
    await stored_by_0_1(connection, "desk")
    await connection.append(SUBJECTS.read("desk").replace("desk", "_nobody"), b"?")
    await carry_positions(connection, FLOW)
    assert await position(connection, "desk") == b"desk"


async def test_a_reader_is_let_in_at_a_store_of_version_0_1_that_no_edge_has_opened_yet(connection):
    await stored_by_0_1(connection, "desk")
    await prepare_reader(connection, FLOW, "new")
    assert await position(connection, "desk") == b"desk"
    assert await position(connection, "new") == b""


class KilledError(BaseException):
    """The end of the process, as its tasks see it."""


@pytest.mark.parametrize("transport", ["nats"], indirect=True)
async def test_a_carrying_that_is_killed_anywhere_is_finished_by_the_next_and_loses_and_repeats_nothing(
    transport, monkeypatch
):
    connection, call, most = await transport.connect(), JetStream.call, 0
    while True:
        left = most = most + 1
        await stored_by_0_1(connection, "desk")

        async def killed(self: JetStream, *arguments: Any, **options: Any) -> Any:
            nonlocal left
            answer = await call(self, *arguments, **options)
            left -= 1
            if not left:
                raise KilledError
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(JetStream, "call", killed)
            over = await ended(prepare_reader(connection, FLOW, "desk"))
        await prepare_reader(connection, FLOW, "desk")
        assert await position(connection, "desk") == b"desk", most
        await connection.append(SUBJECTS.read("desk"), b"newer")
        await prepare_reader(connection, FLOW, "desk")
        assert await position(connection, "desk") == b"newer", most
        marks = await connection.find_log(SUBJECTS.mark_stream)
        assert [record.data async for record in marks.read(1)] == [b"a mark"], most
        for name in (SUBJECTS.mark_stream, SUBJECTS.position_stream("desk")):
            await connection.delete_log(name)
        if over:
            break
    assert most > 8


async def ended(work: Any) -> bool:
    """Return whether `work` came to its own end."""
    try:
        await work
    except (KilledError, BaseExceptionGroup):  # a group of such an exception
        return False
    return True


async def test_a_position_that_a_reader_has_moved_since_is_not_overwritten_by_a_late_carrier(connection):
    await stored_by_0_1(connection, "desk")
    marks = await connection.open_log(LogSpec(MARKS.name, (SUBJECTS.mark_all,), 1 << 20, "latest"))
    own = LogSpec(SUBJECTS.position_stream("desk"), (SUBJECTS.read("desk"),), POSITION_BYTES, "latest")
    await connection.take_over(own, marks.spec.name)  # killed before the former entry was deleted
    await connection.append(SUBJECTS.read("desk"), b"newer")
    await carry_positions(connection, FLOW)
    assert await position(connection, "desk") == b"newer"
    assert [record.subject async for record in marks.read(1)] == [SUBJECTS.mark("partition-0")]


async def test_a_consumer_of_version_0_1_stands_where_it_stood_and_can_be_reset_to_the_oldest_entry(
    connection,
):
    log = await connection.open_log(OUTPUT)
    await stored_by_0_1(connection, "desk")
    for number in range(5):
        await connection.append(SUBJECTS.out(0), b"%d" % number)
    former = await log.consumer(ConsumerSpec("desk", "all", max_pending=64, ack_wait=30.0, start=3))
    former.acknowledge((await former.get())[0])
    await eventually(lambda: acknowledged(log, 3))
    await former.close()
    await prepare_known_readers(connection, FLOW)
    assert await acknowledged(log, 3)
    consumer = await log.find_consumer(reader_consumer("desk"))
    await consumer.reset(1)
    assert (await consumer.get())[0].data == b"0"


async def test_a_forgotten_reader_holds_nothing_back_and_may_come_again(connection):
    await connection.open_log(OUTPUT)
    await prepare_readers(connection, FLOW, ["desk", "archive"])
    await connection.append(SUBJECTS.read("desk"), b"here")
    for _ in range(2):
        await forget_reader(connection, FLOW, "desk")
    assert (await known_readers(connection, FLOW), await consumers(connection)) == (["archive"], ["archive"])
    with pytest.raises(TransportError):
        await connection.append(SUBJECTS.read("desk"), b"here", timeout=1.0)
    await prepare_reader(connection, FLOW, "desk")
    assert await position(connection, "desk") == b""


async def test_a_reader_of_version_0_1_that_is_forgotten_does_not_come_back(connection):
    await stored_by_0_1(connection, "desk", "archive")
    await forget_reader(connection, FLOW, "desk")
    await prepare_known_readers(connection, FLOW)
    assert await known_readers(connection, FLOW) == ["archive"]


async def test_all_readers_are_forgotten_with_their_flow(connection):
    await prepare_readers(connection, FLOW, ["desk", "archive"])
    assert await forget_readers(connection, FLOW) == ["READ_house:archive", "READ_house:desk"]
    assert await known_readers(connection, FLOW) == []


async def test_a_reader_s_position_takes_little_room_and_its_next_one_always_fits(connection):
    await prepare_reader(connection, FLOW, "desk")
    log = await connection.find_log(SUBJECTS.position_stream("desk"))
    assert log.spec.max_bytes == POSITION_BYTES
    for number in range(100):
        await connection.append(SUBJECTS.read("desk"), b"%1000d" % number)
    assert (await log.state()).messages == 1
    assert reader_consumer("desk").max_pending == READER_WINDOW
