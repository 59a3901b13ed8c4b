"""An edge that is ahead of logs that went back begins anew from them, and a second edge is fenced."""

from __future__ import annotations

import asyncio

import pytest
from patience import eventually, patient

from pratipad_nb import Processor
from pratipad_nb.errors import Fenced
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import OutputFrame, UplinkFrame

NOTATION = "Push <~> same <~> Output"


class Sums(Processor):
    def __init__(self):
        self.sum = 0

    def process(self, payload):
        self.sum += payload
        return self.sum

    def snapshot(self):
        return self.sum

    def restore(self, state):
        self.sum = state


async def results(place):
    connection = await place.connection()
    output = await connection.find_log(place.subjects.output_stream)
    frames = [decode(record.data, OutputFrame) async for record in output.read(1)]
    return [payload for frame in frames for segment in frame.segments for payload in segment.payloads]


async def comes(place, *payloads):
    async def same():
        return await results(place) == list(payloads)

    await eventually(same)


async def test_a_running_edge_goes_on_from_a_restored_store(memory, edges, push, caplog):
    edge = await edges.running(NOTATION)
    await push(1, 2)
    await comes(memory, 1, 2)
    backup = memory.broker.copied_store()
    await push(3, 4, first=3)
    await comes(memory, 1, 2, 3, 4)
    memory.broker.restart(backup)
    await push(5, 6, first=5)
    await comes(memory, 1, 2, 5, 6)
    assert edge.state == "running"
    assert "begins anew from its logs, which went back" in caplog.text
    assert edge.snapshot().devices["room1"].gaps == 2


@pytest.mark.parametrize("restart", ["while it is idle", "while it works"])
async def test_inputs_that_came_back_are_worked_on_again(memory, edges, push, restart):
    """The input came back with messages whose results are lost: to the edge's memory they are repeats."""
    await edges.running(NOTATION)
    await push(1)
    await comes(memory, 1)
    before = memory.broker.copied_store()
    frame = UplinkFrame("house", "room1", 1, 2, [0.0] * 2, [2, 3])
    await push(2, 3, first=2)
    await comes(memory, 1, 2, 3)
    # As if the backup had been made before the edge took the frame off the input.
    memory.broker.stop()
    memory.broker._go_back(before)
    log = memory.broker.find_log(memory.subjects.input_stream)
    log.append(memory.subjects.up("room1"), encode(frame), memory.broker.now(), None, None)
    memory.broker.start()
    if restart == "while it works":
        await push(4, first=4)
        await comes(memory, 1, 2, 3, 4)
    else:
        await comes(memory, 1, 2, 3)


async def test_state_goes_back_with_the_logs(memory, edges, push):
    edge = await edges.running("Push ~> Sums ~> Output", {"Sums": Sums})
    await push(1, 10)
    await comes(memory, 1, 11)
    await edge.parts.upkeep.last_checkpoint(edge.line)
    backup = memory.broker.copied_store()
    await push(100, first=3)
    await comes(memory, 1, 11, 111)
    memory.broker.restart(backup)
    await push(1000, first=4)
    await comes(memory, 1, 11, 1011)


async def fenced(running):
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(patient(5)):
            await running
    assert raised.value.split(Fenced)[0] is not None


async def test_a_second_writer_fences_an_edge_that_has_begun_anew(memory, edges, push):
    edge = await edges.opened(NOTATION)
    running = asyncio.create_task(edge.run())
    backup, before = memory.broker.copied_store(), edge.parts
    await push(1)
    await comes(memory, 1)
    memory.broker.restart(backup)
    await eventually(lambda: edge.parts is not before and edge.state == "running")
    chain = await memory.chain()
    await chain.open()
    await push(2, first=2)
    await fenced(running)


async def test_a_writer_that_took_over_while_the_link_was_down_fences_an_idle_edge(memory, edges):
    edge = await edges.opened(NOTATION)
    running = asyncio.create_task(edge.run())
    await eventually(lambda: edge.state == "running")
    backup = memory.broker.copied_store()
    await edge.parts.writer._chain.append([], [])
    memory.broker.stop()
    memory.broker._go_back(backup)
    log = memory.broker.find_log(memory.subjects.output_stream)
    for number in range(1, 5):
        frame = encode(OutputFrame("other", number, [], []))
        log.append(memory.subjects.out(0), frame, memory.broker.now(), None, None)
    memory.broker.start()
    await fenced(running)


async def test_an_edge_begins_anew_though_the_store_vanished(memory, edges, push, caplog):
    edge = await edges.running(NOTATION)
    await push(1, 2)
    await comes(memory, 1, 2)
    before = edge.parts
    memory.broker.restart({})
    await eventually(lambda: edge.parts is not before)
    assert "is gone" in caplog.text
    await push(3, first=3)
    await comes(memory, 3)
    assert edge.snapshot().devices["room1"].gaps == 2


async def test_a_flow_that_is_forgotten_while_the_link_stands_is_not_begun_anew(memory, edges, push):
    edge = await edges.opened(NOTATION)
    running = asyncio.create_task(edge.run())
    await push(1)
    await comes(memory, 1)
    connection = await memory.connection()
    for name in memory.subjects.streams:
        await connection.delete_log(name)
    with pytest.raises(ExceptionGroup, match="unhandled"):
        async with asyncio.timeout(patient(5)):
            await running


async def test_pauses_rates_and_taps_outlive_the_new_beginning(memory, edges, push, caplog):
    edge = await edges.running(NOTATION)
    tapped = []
    with edge.tapped(lambda device, times, received, payloads: tapped.extend(payloads)):
        backup = memory.broker.copied_store()
        await push(1)
        await comes(memory, 1)
        edge.set_rate(7)
        edge.pause()
        memory.broker.restart(backup)
        await eventually(lambda: "begins anew" in caplog.text and edge.state == "paused")
        await push(2, first=2)
        assert edge.parts.limit.allowed == 7
        edge.resume()
        await comes(memory, 2)
        assert tapped == [1, 2]


async def test_an_edge_that_drains_when_its_logs_go_back_ends(memory, edges, push):
    edge = await edges.opened(NOTATION)
    running = asyncio.create_task(edge.run())
    backup = memory.broker.copied_store()
    await push(1)
    await comes(memory, 1)
    memory.broker.restart(backup)
    edge.drain()
    async with asyncio.timeout(patient(5)):
        await running


async def test_an_edge_started_afterwards_goes_on_from_a_restored_store(memory, edges, push):
    first = await edges.opened(NOTATION)
    running = asyncio.create_task(first.run())
    await push(1, 2)
    await comes(memory, 1, 2)
    backup = memory.broker.copied_store()
    await push(3, 4, first=3)
    await comes(memory, 1, 2, 3, 4)
    running.cancel()
    await asyncio.wait({running})
    await first.close()
    memory.broker.restart(backup)
    await edges.running(NOTATION)
    await push(5, first=5)
    await comes(memory, 1, 2, 5)


@pytest.mark.parametrize("running", [True, False], ids=["a running edge", "an edge started afterwards"])
async def test_an_input_that_went_back_alone_loses_no_later_message_of_a_foreign_device(
    memory, edges, running, caplog
):
    edge = await edges.opened(NOTATION)
    task = asyncio.create_task(edge.run())
    connection = await memory.connection()
    backup = memory.broker.copied_store()
    for number in range(1, 5):
        await connection.append(memory.subjects.up("mqtt"), b"%d" % number)
    await comes(memory, 1, 2, 3, 4)
    if not running:
        edge.drain()
        await task
        await edge.close()
    now = memory.broker.copied_store()
    stream = memory.subjects.input_stream
    memory.broker.restart({**now, stream: backup[stream]})
    if running:
        await eventually(lambda: "begins anew" in caplog.text)
    else:
        edge = await edges.opened(NOTATION)
        task = asyncio.create_task(edge.run())
    for number in range(5, 7):
        await connection.append(memory.subjects.up("mqtt"), b"%d" % number)
    await comes(memory, 1, 2, 3, 4, 5, 6)
    edge.drain()
    await task
