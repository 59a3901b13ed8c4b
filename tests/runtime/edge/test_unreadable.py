"""An entry of any log of a flow that is no frame is skipped, counted and named, and never ends the flow."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

import pytest

from pratipad_nb.errors import Fenced, FlowError, WaitTimeout
from pratipad_nb.runtime.edge.agreement import Agreement
from pratipad_nb.runtime.edge.forgetting import forget_states
from pratipad_nb.runtime.positions.dead_letters import DeadLetters
from pratipad_nb.runtime.positions.frame_names import last_name
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.settings import FlowOptions
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import (
    MAX_MESSAGES,
    ControlFrame,
    DeadEntry,
    DeadFrame,
    FailureNote,
    MarkFrame,
    Order,
    OrderFrame,
    OutputFrame,
    Segment,
    TermsFrame,
)
from pratipad_nb.transport.origin import Origin
from tests.runtime.conftest import FLOW, Place

pytestmark = pytest.mark.timeout(60)

#: Bytes that no party of this package stores in any of the logs.
GARBAGE = {
    "empty": b"",
    "text": b"hello",
    "random": bytes(range(256)),
    "another version": b"PNB\x07" + bytes(40),
    "another kind": encode(ControlFrame("who")),
    "truncated": encode(OutputFrame("w", 1, [], []))[:-3],
    "damaged": b"PNB\x01" + bytes(40),
}


@pytest.fixture(params=GARBAGE.values(), ids=GARBAGE)
def garbage(request: pytest.FixtureRequest) -> bytes:
    return bytes(request.param)


@pytest.fixture
async def put(memory: Place) -> Callable[..., Any]:
    """Give what stores bytes under a subject, as a foreign client does."""
    connection = await memory.connection()

    async def put(subject: str, *entries: bytes) -> None:
        for data in entries:
            await connection.append(subject, data)

    return put


async def results(memory: Place) -> list[Any]:
    """Return all payloads at Output, in order."""
    logs = await memory.logs(await memory.connection())
    found: list[Any] = []
    async for record in logs[memory.subjects.output_stream].read(0):
        try:
            frame = decode(record.data, OutputFrame)
        except ValueError:
            continue
        found += [payload for segment in frame.segments for payload in segment.payloads]
    return found


# -- results -------------------------------------------------------------------------------------------------


async def test_a_flow_goes_on_behind_an_entry_among_its_results(
    edges: Any, memory: Place, push: Any, put: Any, until: Any, garbage: bytes, caplog: Any
) -> None:
    edge = await edges.running()
    await push(1)
    await until(lambda: edge.snapshot().delivered == 1)
    with caplog.at_level(logging.WARNING):
        await put(memory.subjects.out(0), garbage, garbage)
        await push(2, first=2)
        await until(lambda: edge.snapshot().delivered == 2)
    assert edge.snapshot().unreadable == 2
    assert len([line for line in caplog.messages if "log OUT_house" in line]) == 1
    assert await results(memory) == [1, 2]


async def test_a_start_behind_such_entries_delivers_nothing_twice(
    edges: Any, memory: Place, push: Any, put: Any, until: Any, garbage: bytes
) -> None:
    chain = await memory.chain()
    await chain.open()
    await chain.append([("room1", 1, 2)], [Segment("room1", 1, 1, 0.0, [0.0] * 2, ["one", "two"])])
    await put(memory.subjects.out(0), garbage)
    edge = await edges.running()
    await push("one", "two", "three")
    await until(lambda: edge.snapshot().delivered == 1)
    assert await results(memory) == ["one", "two", "three"]


async def test_an_owner_that_was_replaced_is_fenced_behind_such_an_entry_too(memory: Place, put: Any) -> None:
    older, newer = await memory.chain(), await memory.chain()
    await older.open()
    await newer.open()
    await put(memory.subjects.out(0), b"?")
    with pytest.raises(Fenced):
        await older.append([("room1", 1, 1)], [])
    await newer.append([("room1", 1, 1)], [])
    with pytest.raises(Fenced):
        await older.check_owner()


async def test_a_frame_whose_answer_was_lost_is_found_before_such_an_entry(
    memory: Place, put: Any, monkeypatch: Any
) -> None:
    chain = await memory.chain()
    await chain.open()
    append, calls = chain._connection.append, []

    async def silent(*given: Any, **named: Any) -> int:
        sequence = await append(*given, **named)
        if not calls:
            calls.append(sequence)
            await put(memory.subjects.out(0), b"?")
            raise WaitTimeout("no answer")
        return sequence

    monkeypatch.setattr(chain._connection, "append", silent)
    segment = Segment("room1", 1, 1, 0.0, [0.0], ["one"])
    assert await chain.append([("room1", 1, 1)], [segment]) == calls[0] + 1
    await chain.append([("room1", 1, 2)], [])
    assert await results(memory) == ["one"]
    assert await chain.holder.difference() == ""


async def test_the_last_frame_is_found_before_any_number_of_such_entries(memory: Place, put: Any) -> None:
    chain = await memory.chain()
    await chain.open()
    await chain.append([], [])
    await put(memory.subjects.out(0), *[b"?"] * 1500)
    newest = await chain._output.latest(memory.subjects.out(0))
    assert newest is not None
    assert await last_name(chain._output, newest) == (chain.writer, 2)


async def test_letters_of_a_run_that_ended_are_void_behind_such_an_entry_too(memory: Place, put: Any) -> None:
    chain = await memory.chain()
    await chain.open()
    logs = await memory.logs(connection := await memory.connection())
    letters = DeadLetters(connection, logs[memory.subjects.dead_stream], memory.subjects)
    entry = DeadEntry("room1", 1, 1, 0, 1.0, 1.0, "one", [FailureNote("P1", "no", "")])
    await letters.store([("P1", entry)], chain.next)
    await put(memory.subjects.out(0), b"?")
    again = await memory.chain()
    await again.open()
    await letters.find(lambda _: True, again.before)
    assert letters.count == 0


# -- positions and states ------------------------------------------------------------------------------------


async def test_a_flow_that_runs_stores_its_checkpoint_over_an_entry_that_is_none(
    edges: Any, memory: Place, push: Any, put: Any, until: Any, garbage: bytes
) -> None:
    edge = await edges.running(options=FlowOptions(checkpoint_seconds=0.05))
    await put(memory.subjects.mark("partition-0"), garbage)
    await push(1, 2)
    marks = (await memory.logs(await memory.connection()))[memory.subjects.mark_stream]

    async def mended() -> bool:
        record = await marks.latest(memory.subjects.mark("partition-0"))
        return record is not None and record.data != garbage and edge.snapshot().delivered == 2

    await until(mended)
    assert edge.snapshot().unreadable == 1


async def test_a_start_without_a_readable_checkpoint_knows_all_positions_from_the_whole_output(
    memory: Place, put: Any, garbage: bytes
) -> None:
    first = await memory.chain()
    await first.open()
    for number in range(1, 6):
        await first.append([("room1", 1, number), ("room2", 3, number)], [])
    await first.checkpoint({})
    await put(memory.subjects.mark("partition-0"), garbage)
    again = await memory.chain()
    await again.open()
    assert again.positions == first.positions


async def purged(memory: Place) -> None:
    """Leave an output whose first frames are gone."""
    chain = await memory.chain()
    await chain.open()
    for number in range(1, 6):
        await chain.append([("room1", 1, number)], [])
    await chain.checkpoint({})
    await chain._output.purge(4)


async def test_a_start_that_can_not_know_the_positions_ends_with_what_to_do(
    edges: Any, memory: Place, put: Any, garbage: bytes
) -> None:
    await purged(memory)
    await put(memory.subjects.mark("partition-0"), garbage)
    told = r"entry \d+ of log MARK_house.*no frame before 4.*from a backup, or forget\(\)"
    for _ in range(2):  # and leaves all as it was
        with pytest.raises(FlowError, match=told):
            await edges.opened()


async def test_a_start_whose_checkpoint_is_gone_ends_alike(edges: Any, memory: Place) -> None:
    await purged(memory)
    marks = (await memory.logs(await memory.connection()))[memory.subjects.mark_stream]
    record = await marks.latest(memory.subjects.mark("partition-0"))
    assert record is not None
    await marks.delete(record.sequence)
    with pytest.raises(FlowError, match=r"no checkpoint under .*partition-0.*no frame before 4"):
        await edges.opened()


class Sums:
    """Adds up all numbers."""

    def __init__(self) -> None:
        self.sum = 0

    def process(self, payload: int) -> int:
        self.sum += payload
        return self.sum

    def snapshot(self) -> int:
        return self.sum

    def restore(self, state: int) -> None:
        self.sum = state


SUMS: dict[str, Any] = {"notation": "Push <~> Sums <~> Output", "names": {"Sums": Sums}}


async def summed(edges: Any, push: Any, until: Any) -> None:
    """Let an edge add up 1 and 2, and end."""
    edge = await edges.opened(**SUMS)
    async with asyncio.TaskGroup() as group:
        group.create_task(edge.run())
        await push(1, 2)
        await until(lambda: edge.snapshot().delivered == 2)
        edge.drain()
    await edge.close()


async def test_a_state_is_rebuilt_from_the_whole_input_if_its_checkpoint_can_not_be_read(
    edges: Any, memory: Place, push: Any, put: Any, until: Any, garbage: bytes, monkeypatch: Any
) -> None:
    async def nothing(*_: Any) -> None:
        """Leave the input whole, as it is after little traffic."""

    monkeypatch.setattr("pratipad_nb.runtime.positions.inputs.DurableInput.purge", nothing)
    await summed(edges, push, until)
    await put(memory.subjects.mark("partition-0"), garbage)
    edge = await edges.running(**SUMS)
    await push(10, first=3)
    await until(lambda: edge.snapshot().delivered == 1)
    assert await results(memory) == [1, 3, 13]


async def test_a_state_that_is_lost_is_told_and_a_start_without_it_doubles_nothing(
    edges: Any, memory: Place, push: Any, put: Any, until: Any, garbage: bytes
) -> None:
    await summed(edges, push, until)
    await put(memory.subjects.mark("partition-0"), garbage)
    for _ in range(2):
        with pytest.raises(FlowError, match=r"The states of processors were there.*forget_state\(\)"):
            await edges.opened(**SUMS)
    assert await forget_states(await memory.connection(), FLOW) == ()
    edge = await edges.running(**SUMS)
    await push(1, 2, 10)
    await until(lambda: edge.snapshot().delivered == 1)
    assert await results(memory) == [1, 3, 10]


async def test_nothing_is_deleted_while_another_partitions_checkpoint_can_not_be_read(
    edges: Any, memory: Place, put: Any, garbage: bytes
) -> None:
    edge = await edges.opened(options=FlowOptions(partitions=2))
    await put(memory.subjects.mark("partition-1"), garbage)
    janitor = edge.parts.janitor
    assert janitor is not None
    assert await janitor.checkpointed() == 0
    assert edge.snapshot().unreadable == 1


# -- settings, and the numbering of orders -------------------------------------------------------------------


def agreed(memory: Place, connection: Any, partitions: int) -> Any:
    settings = EdgeSettings(FLOW, options=FlowOptions(partitions=partitions))
    return Agreement.reached(connection, settings, "Push", Origin.here())


async def test_settings_that_can_not_be_read_are_stored_anew(memory: Place, put: Any, garbage: bytes) -> None:
    connection = await memory.connection()
    before = await agreed(memory, connection, 2)
    await put(memory.subjects.mark("edges"), garbage)
    await before.hold()  # an edge that runs goes on
    after = await agreed(memory, connection, 2)
    marks = (await memory.logs(connection))[memory.subjects.mark_stream]
    record = await marks.latest(memory.subjects.mark("edges"))
    assert record is not None
    assert record.sequence == after.number
    assert decode(record.data, TermsFrame).terms["partitions"] == 2


async def test_partitions_whose_record_can_not_be_read_are_those_of_the_checkpoints(
    memory: Place, put: Any, garbage: bytes
) -> None:
    connection = await memory.connection()
    await agreed(memory, connection, 3)
    await memory.logs(connection)
    for partition in range(3):
        await put(memory.subjects.mark(f"partition-{partition}"), encode(MarkFrame(0, [])))
    await put(memory.subjects.mark("edges"), garbage)
    with pytest.raises(FlowError, match="has run in 3 partitions, and 2 are given"):
        await agreed(memory, connection, 2)
    await agreed(memory, connection, 3)


async def test_orders_are_numbered_anew_if_their_numbering_can_not_be_read(
    edges: Any, memory: Place, put: Any, garbage: bytes
) -> None:
    edge = await edges.opened()
    before = edge.parts.backward.epoch
    await edge.close()
    await put(memory.subjects.mark("orders"), garbage)
    again = await edges.opened()
    assert again.parts.backward.epoch not in (0, before)
    assert again.snapshot().unreadable == 1


# -- orders --------------------------------------------------------------------------------------------------


async def test_an_entry_among_the_orders_is_skipped_and_the_next_order_is_sent(
    edges: Any, memory: Place, put: Any, until: Any, garbage: bytes
) -> None:
    edge = await edges.running()
    await put(memory.subjects.edge_order, garbage)
    await edge.order("on", "room1")
    await until(lambda: edge.snapshot().backward.waiting == 1)
    assert (edge.snapshot().unreadable, edge.snapshot().backward.received) == (1, 1)


async def test_more_orders_in_an_entry_than_can_be_numbered_and_orders_too_large_are_refused(
    edges: Any, memory: Place, put: Any, until: Any
) -> None:
    edge = await edges.running()
    many = [Order(f"o{number}", number, ["room1"]) for number in range(MAX_MESSAGES + 1)]
    large = [Order("large", random.Random(1).randbytes(2 << 20), ["room1"])]
    await put(memory.subjects.edge_order, *[encode(OrderFrame(1.0, orders)) for orders in (many, large)])
    await edge.order("on", "room1")
    await until(lambda: edge.snapshot().backward.waiting == 1)
    assert edge.snapshot().backward.refused == 2


# -- dead letters --------------------------------------------------------------------------------------------


async def test_an_entry_among_the_dead_letters_hinders_neither_start_nor_list_nor_retry_nor_clear(
    edges: Any, memory: Place, push: Any, put: Any, until: Any, garbage: bytes
) -> None:
    fails = [True]

    def picky(payload: Any) -> Any:
        if fails[0]:
            raise ValueError("no")
        return payload

    subject, none = memory.subjects.dead("picky"), encode(DeadFrame("picky", 1.0, []))
    await memory.logs(await memory.connection())
    await put(subject, garbage, none)
    edge = await edges.running("Push <~> picky <~> Output", names={"picky": picky})
    await push(1)
    await until(lambda: edge.snapshot().dead == 1)
    await put(subject, garbage)
    assert len(await edge.dead_letters()) == 1
    fails[0] = False
    async with asyncio.timeout(10):
        assert await edge.retry_dead_letters() == 1
        assert await edge.clear_dead_letters() == 0
    assert (edge.snapshot().delivered, edge.snapshot().dead, edge.snapshot().unreadable) == (1, 0, 3)


# -- readings ------------------------------------------------------------------------------------------------


async def test_an_entry_among_the_readings_is_a_dead_letter(
    edges: Any, memory: Place, push: Any, put: Any, until: Any, garbage: bytes
) -> None:
    edge = await edges.running()
    await put(memory.subjects.up("mallory"), garbage)
    await push(1)
    await until(lambda: edge.snapshot().delivered == 1 and edge.snapshot().dead == 1)
    (letter,) = await edge.dead_letters()
    assert (letter.device, edge.snapshot().malformed) == ("mallory", 1)
