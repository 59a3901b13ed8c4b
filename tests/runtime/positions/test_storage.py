"""A server whose disk gets full: old results go, then messages wait, then results; and all go on."""

from __future__ import annotations

import asyncio

import pytest
from patience import eventually

from pratipad_nb.errors import LogFull
from pratipad_nb.runtime.positions.janitor import Janitor
from pratipad_nb.runtime.positions.opening import open_logs
from pratipad_nb.runtime.positions.storage import StorageWatch
from pratipad_nb.runtime.values.plan import EdgeSettings, fitted, log_specs, reserved_bytes
from pratipad_nb.settings import FlowOptions, Keep, Storage
from pratipad_nb.transport.protocol import ConsumerSpec

MIB = 1 << 20
SHORT = Storage("the disk is full", total=1 << 40, missing=MIB, short=True)
TIGHT = Storage("the disk is full", total=1 << 40, missing=MIB, short=True, tight=True)


async def test_results_wait_while_the_disk_is_tight_and_are_stored_then(edges, push, memory, until):
    edge = await edges.running()
    await push(1)
    await until(lambda: edge.snapshot().delivered == 1)
    memory.broker.store_as(Storage("the disk is full", tight=True))
    await until(lambda: edge.parts.storage.state.tight)
    memory.broker.store_as(Storage(tight=True))  # the input still takes messages
    await push(2, first=2)
    await until(lambda: edge.snapshot().blocked_by)
    assert edge.snapshot().delivered == 1
    memory.broker.store_as(Storage())
    await until(lambda: edge.snapshot().delivered == 2 and not edge.snapshot().blocked_by)


async def test_a_full_disk_is_named_by_a_flow_that_has_nothing_to_store(edges, memory, until):
    edge = await edges.running()
    memory.broker.store_as(TIGHT)
    await until(lambda: edge.snapshot().blocked_by == ("the disk is full",))
    memory.broker.store_as(Storage())
    await until(lambda: edge.snapshot().blocked_by == ())


async def test_an_append_that_the_full_disk_leaves_unanswered_is_made_later_and_once(
    edges, push, memory, until
):
    edge = await edges.running()
    memory.broker.store_as(Storage("the disk is full"))
    pushing = asyncio.create_task(push(*range(10)))
    await until(lambda: edge.snapshot().blocked_by)
    memory.broker.store_as(Storage())
    await pushing
    await until(lambda: edge.snapshot().delivered == 10)
    assert edge.snapshot().repeats == 0


async def test_devices_wait_while_the_disk_is_short_and_may_send_again_when_it_is_not(
    edges, push, memory, until
):
    edge = await edges.running()
    memory.broker.store_as(Storage(missing=1, short=True))
    await until(lambda: edge.parts.storage.state.short)
    with pytest.raises(LogFull):
        await push("x" * 1000)
    memory.broker.store_as(Storage())
    await until(lambda: not edge.parts.storage.state.short)
    await push(1)
    await until(lambda: edge.snapshot().delivered == 1)


async def test_a_run_that_ends_while_the_disk_is_short_lets_devices_send(memory):
    connection = await memory.connection()
    intake = (await memory.logs(connection))[memory.subjects.input_stream].spec
    watch = StorageWatch(connection, intake)
    memory.broker.store_as(Storage(short=True))
    await watch.look()
    with pytest.raises(LogFull):
        await connection.append(memory.subjects.up("room1"), bytes(1000))
    await watch.close()
    await connection.append(memory.subjects.up("room1"), bytes(1000))


async def test_no_log_is_changed_while_the_disk_is_tight(memory):
    connection = await memory.connection()
    intake = (await memory.logs(connection))[memory.subjects.input_stream].spec
    memory.broker.store_as(Storage(short=True, tight=True))
    watch = StorageWatch(connection, intake)
    await watch.look()
    await connection.append(memory.subjects.up("room1"), bytes(1000))
    smaller = EdgeSettings("house", keep=Keep(bytes=MIB))
    logs = await open_logs(connection, log_specs(smaller).values())
    assert logs[memory.subjects.output_stream].spec.max_bytes == Keep().bytes


@pytest.mark.parametrize("readers", [(), ("slow",)])
async def test_what_the_disk_misses_is_deleted_from_the_oldest_results_but_for_what_a_reader_needs(
    memory, readers
):
    connection = await memory.connection()
    output = (await memory.logs(connection))[memory.subjects.output_stream]
    for _ in range(400):
        await connection.append(memory.subjects.out(0), bytes(10_000))
    for name in readers:
        await output.consumer(ConsumerSpec(name, "all"))

    async def all_of_it():
        return 400

    async def begun(reader):
        return True

    janitor = Janitor(output, all_of_it, Keep(), FlowOptions(), begun, lambda: SHORT)
    await janitor.sweep()
    gone = (await output.state()).first - 1
    assert gone == (0 if readers else pytest.approx(105, abs=3))
    assert janitor.blocked_by == tuple(
        f"reader {name!r} is 400 frames behind and the disk is full: let it read, or "
        f"flow.forget_reader({name!r})"
        for name in readers
    )


def test_the_bounds_fit_a_small_disk_and_stay_on_a_large_one():
    settings = EdgeSettings("house")
    assert fitted(settings, 0) == fitted(settings, 1 << 40) == settings
    small = fitted(settings, 64 * MIB)
    assert (small.keep.bytes, small.options.input_bytes) == (16 * MIB, 8 * MIB)
    tight = fitted(EdgeSettings("house", keep=Keep(bytes=MIB)), 64 * MIB)
    assert tight.keep.bytes == MIB


def test_what_a_flow_reserves_is_the_sum_of_its_logs_and_grows_with_its_partitions():
    settings = EdgeSettings("house")
    assert reserved_bytes(settings) == sum(spec.max_bytes for spec in log_specs(settings).values())
    more = EdgeSettings("house", options=FlowOptions(partitions=5))
    assert reserved_bytes(more) - reserved_bytes(settings) == 4 * 16 * MIB


async def test_a_message_is_taken_by_no_log_before_all_others_are_there():
    assert list(log_specs(EdgeSettings("house")))[-1].startswith(("IN", "UP"))


async def test_a_broker_whose_disk_has_room_again_answers_what_waits(memory):
    connection = await memory.connection()
    await memory.logs(connection)
    memory.broker.store_as(TIGHT)
    appending = asyncio.create_task(connection.append(memory.subjects.up("room1"), b"1"))
    await eventually(lambda: connection.storage())
    memory.broker.store_as(Storage())
    assert await appending == 1
