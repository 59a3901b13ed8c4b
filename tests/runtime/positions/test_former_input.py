"""The input that version 0.1 has stored moves into the log of today, whatever ends the move and when."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from pratipad_nb.cloud.backlog import messages_of
from pratipad_nb.dataflow import resolve
from pratipad_nb.errors import Fenced, FlowError, FrameError, TransportError, Unavailable, WaitTimeout
from pratipad_nb.runtime.edge.edge import Edge
from pratipad_nb.runtime.positions.former_input import FormerInput
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.settings import FlowOptions
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import MarkFrame, OutputFrame, UplinkFrame
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.partitions import partition_of
from pratipad_nb.transport.protocol import ConsumerSpec, LogSpec, Partitioning

DEVICES = [f"room{n}" for n in range(4)]


def stream_of_version_01(partitions):
    config = {
        "name": "IN_house",
        "subjects": ["pratipad.house.up.*"],
        "retention": "workqueue",
        "discard": "new",
        "max_bytes": 1 << 22,
        "max_age": 0,
        "storage": "file",
        "num_replicas": 1,
        "allow_direct": True,
        "duplicate_window": 30_000_000_000,
    }
    if partitions > 1:
        split = f"pratipad.house.in.{{{{partition({partitions},1)}}}}.{{{{wildcard(1)}}}}"
        config["subject_transform"] = {"src": "pratipad.house.up.*", "dest": split}
    return config


class Killed(BaseException):
    """The end of the process that moves the input."""


STREAMS = ("open_log", "delete_log")


def dying_at(connection, call, made, changes=("append", *STREAMS)):
    """Let the process of `connection` die at its n-th change to a log, which is made or not."""
    left = call
    for name in changes:

        def patched(name=name):
            original = getattr(connection, name)

            async def change(*arguments, **more):
                nonlocal left
                left -= 1
                if left == 0 and not made:
                    raise Killed
                result = await original(*arguments, **more)
                if left == 0:
                    raise Killed
                return result

            return change

        setattr(connection, name, patched())


class Stored:
    """What an edge of version 0.1 has left: four devices' frames, some of which it has dealt with.

    Each device has sent the numbers 1 to 6 in three frames, of which the first is at Output and acknowledged.
    Of the second, one number is at Output. A foreign client has sent two texts; the first is at Output, and
    its acknowledgement was lost.
    """

    def __init__(self, place, partitions):
        self.place, self.subjects = place, place.subjects
        self.settings = [
            EdgeSettings("house", options=FlowOptions(partitions=partitions), partition=partition)
            for partition in range(partitions)
        ]

    async def write(self):
        connection = self.connection = await self.place.connection()
        partitions, subjects = len(self.settings), self.subjects
        split = Partitioning(subjects.up_all, subjects.input_root, partitions) if partitions > 1 else None
        if isinstance(connection, NatsConnection):  # the stream as version 0.1 makes it
            await connection._jetstream.call("STREAM.CREATE.IN_house", stream_of_version_01(partitions))
        queue = await connection.open_log(
            LogSpec("IN_house", (subjects.up_all,), 1 << 22, "work", partitioning=split)
        )
        specs = [ConsumerSpec("edge", "each")]
        if split:
            specs = [ConsumerSpec(f"edge-{p}", "each", subjects.input_of(p)) for p in range(partitions)]
        consumers = [await queue.consumer(spec) for spec in specs]
        for first in (1, 3, 5):
            for device in DEVICES:
                await self.send(device, first)
            if first == 1:
                for consumer in consumers:
                    for delivery in await self.all_of(consumer):
                        consumer.acknowledge(delivery)
        foreign = [await connection.append(subjects.up("plain"), text) for text in (b'"old"', b'"new"')]
        self.last = foreign[-1]
        for consumer in consumers:
            await consumer.close()
        covers = [(device, 7, 3) for device in DEVICES] + [("plain", 0, foreign[0])]
        logs = await self.other_logs(connection)
        if partitions > 1:
            await connection.append(subjects.mark("partitions"), encode(MarkFrame(partitions, [])))
        for partition in range(partitions):
            own = [place for place in covers if partition_of(place[0], partitions) == partition]
            frame = OutputFrame("old", 1, own, [])
            await connection.append(subjects.out(partition), encode(frame))
        assert logs

    async def is_killed_at(self, step, made, changes=("append", *STREAMS)):
        """Return whether the move ended at this step; then check that the next start has finished it."""
        await self.write()
        connection = await self.place.connection()
        dying_at(connection, step, made, changes)
        try:
            await (await self.opened(connection=connection)).close()
        except Killed:
            await connection.close()
        else:
            return False
        assert await self.results() == ALL
        assert await self.connection.find_log("IN_house") is None
        for name in self.subjects.streams:
            await self.connection.delete_log(name)
        return True

    async def other_logs(self, connection):
        return [
            await connection.open_log(LogSpec(name, self.subjects.streams[name], 1 << 22, retention))
            for name, retention in (("OUT_house", "log"), ("MARK_house", "latest"))
        ]

    async def send(self, device, first, count=2):
        numbers = list(range(first, first + count))
        frame = UplinkFrame("house", device, 7, first, [1.0] * count, numbers)
        await self.connection.append(self.subjects.up(device), encode(frame))

    async def all_of(self, consumer):
        found = []
        while (await consumer.state()).pending > len(found):
            found += await consumer.get()
        return found

    async def opened(self, settings=None, connection=None):
        connection = connection or await self.place.connection()
        dataflow = resolve("Push ~> same ~> Output", {"same": lambda payload: payload})
        return await Edge.open(connection, dataflow, settings or self.settings[0])

    async def results(self):
        """Let all partitions run until all is at Output, and return what each device's results are."""
        running = [
            (edge := await self.opened(each), asyncio.create_task(edge.run())) for each in self.settings
        ]
        await running[0][0].settled(20)
        for edge, task in running:
            edge.drain()
            await task
            await edge.close()
        found = {}
        output = await self.connection.find_log("OUT_house")
        async for record in output.read(0):
            with contextlib.suppress(FrameError):
                for message in messages_of(decode(record.data, OutputFrame), "house"):
                    found.setdefault(message.device, []).append(message.payload)
        return found


#: Nothing of what was at Output comes again, and all else comes in order.
ALL = {device: [4, 5, 6] for device in DEVICES} | {"plain": ["new"]}


@pytest.fixture(params=[1, 3])
async def stored(place, request):
    stored = Stored(place, request.param)
    await stored.write()
    return stored


@pytest.fixture
async def remembered(memory):
    stored = Stored(memory, 3)
    await stored.write()
    return stored


async def test_what_an_earlier_version_has_stored_and_not_acknowledged_is_at_output_once(stored):
    assert await stored.results() == ALL
    assert await stored.connection.find_log("IN_house") is None
    await stored.send(DEVICES[0], 7)
    await stored.connection.append(stored.subjects.up("plain"), b'"newest"')
    assert await stored.results() == ALL | {DEVICES[0]: [4, 5, 6, 7, 8], "plain": ["new", "newest"]}


async def test_a_message_of_a_foreign_client_gets_a_number_behind_all_that_were_given(stored):
    edge = await stored.opened()
    await edge.close()
    log = await stored.connection.find_log(stored.subjects.input_stream)
    assert (await log.state()).first > stored.last


async def test_entries_that_are_no_frames_or_of_no_device_do_not_keep_the_others_from_moving(remembered):
    connection, subjects = remembered.connection, remembered.subjects
    await connection.append(subjects.up("plain"), b"PNB\x00?")
    await connection.append(subjects.up("plain").replace("plain", "_all"), b"1")
    assert await remembered.results() == ALL
    assert await connection.find_log("IN_house") is None


@pytest.mark.parametrize("made", [True, False])
async def test_a_move_that_is_killed_at_any_of_its_steps_is_finished_by_the_next_start(memory, made):
    for step in range(1, 200):
        stored = Stored(memory, 3)
        if not await stored.is_killed_at(step, made):
            assert step > 20  # each frame's copy is a step
            return


@pytest.mark.parametrize("place", ["nats"], indirect=True)
async def test_at_a_server_each_change_of_a_stream_may_be_the_last_one(place):
    step = 4  # before, the streams of the output and the positions are opened
    while await Stored(place, 1).is_killed_at(step, True, STREAMS):
        step += 1
    assert step > 8


async def test_what_devices_send_during_the_move_comes_behind_what_is_moved(remembered):
    connection = await remembered.place.connection()
    append, sent = connection.append, []

    async def appended(subject, data, **more):
        if "moving" in subject and len(sent) < 60:
            with contextlib.suppress(TransportError, Unavailable):
                await remembered.send(DEVICES[0], 7 + len(sent), 1)
                sent.append(7 + len(sent))
        return await append(subject, data, **more)

    connection.append = appended
    await (await remembered.opened(connection=connection)).close()
    assert len(sent) > 5
    await remembered.send(DEVICES[0], 7 + len(sent), 1)
    assert await remembered.results() == ALL | {DEVICES[0]: [4, 5, 6, *sent, 7 + len(sent)]}


async def test_a_large_input_moves_though_the_new_log_has_a_smaller_bound(remembered):
    frame = UplinkFrame("house", DEVICES[0], 7, 7, [1.0], ["x" * 700_000])
    for number in (7, 8, 9):
        frame.first = number
        await remembered.connection.append(remembered.subjects.up(DEVICES[0]), encode(frame))
    remembered.settings = [
        EdgeSettings("house", options=FlowOptions(partitions=3, input_bytes=1 << 20), partition=partition)
        for partition in range(3)
    ]
    assert len((await remembered.results())[DEVICES[0]]) == 6


async def test_the_other_partitions_wait_for_the_first_ones_edge(remembered):
    waiting = asyncio.create_task(remembered.opened(remembered.settings[1]))
    assert not (await asyncio.wait({waiting}, timeout=0.1))[0]
    await (await remembered.opened()).close()
    await (await asyncio.wait_for(waiting, 20)).close()
    assert await remembered.results() == ALL


async def test_who_waits_in_vain_for_the_first_partition_is_told(remembered, monkeypatch):
    monkeypatch.setattr("pratipad_nb.runtime.positions.former_input._PATIENCE", 0.0)
    with pytest.raises(WaitTimeout, match="waits to be moved by the edge that runs partition 0"):
        await remembered.opened(remembered.settings[1])


def moved(stored, check_owner):
    async def none(*_):
        return False

    return FormerInput(stored.connection, stored.settings[0], is_stored=none, check_owner=check_owner).move()


async def test_whoever_is_replaced_amid_the_move_leaves_it_to_the_other(remembered):
    async def replaced():
        raise Fenced("another edge")

    with pytest.raises(Fenced):
        await moved(remembered, replaced)
    assert await remembered.results() == ALL


async def test_a_move_beside_an_edge_of_the_earlier_version_is_refused(remembered):
    async def acknowledges():
        queue = await remembered.connection.find_log("IN_house")
        await queue.delete((await queue.state()).first)

    with pytest.raises(FlowError, match="seems to run"):
        await moved(remembered, acknowledges)
