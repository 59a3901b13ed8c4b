"""What is no frame ends no reader; a position that can't be read is told, and never guessed."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from patience import eventually

from pratipad_nb.errors import FrameError
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import ControlFrame, OutputFrame, Segment
from pratipad_nb.transport.readers import forget_reader, prepare_reader

pytestmark = pytest.mark.timeout(60)

GARBAGE = {
    "empty": b"",
    "random": bytes(range(256)),
    "another kind": encode(ControlFrame("who")),
    "truncated": encode(OutputFrame("edge", 1, [], []))[:-3],
}


@pytest.fixture(params=GARBAGE.values(), ids=GARBAGE)
def garbage(request: pytest.FixtureRequest) -> bytes:
    return bytes(request.param)


def payloads(messages: Any) -> list[Any]:
    return [message.payload for message in messages]


async def spoil(world: Any, data: bytes, reader: str = "cloud") -> None:
    await prepare_reader(world.edge, world.subjects.flow, reader)
    await world.edge.append(world.subjects.read(reader), data)


async def test_frames_that_are_none_are_skipped_and_counted_and_fill_no_log(
    world: Any, garbage: bytes, caplog: Any
) -> None:
    reader = await world.reader()
    lists = Segment("room1", 7, 1, 0.0, [0.0], ["a", "b"])  # whose columns differ in length
    with caplog.at_level(logging.ERROR):
        await world.append(1)
        for data in (garbage, garbage, encode(OutputFrame("edge", 9, [], [lists]))):
            await world.edge.append(world.subjects.out(0), data)
        await world.append(1)
        assert payloads(await reader.take(2)) == [1, 2]
    assert reader.skipped_frames == 3
    assert len([line for line in caplog.messages if "skips frame" in line]) == 1


async def test_a_reader_whose_position_can_not_be_read_is_told_and_begins_anew_where_it_chooses(
    world: Any, garbage: bytes
) -> None:
    await world.append(*[1] * 5)
    before = await world.reader()
    assert payloads(await before.take(2)) == [1, 2]
    await before.close()
    await spoil(world, garbage)
    reader = await world.reader()
    for _ in range(2):
        with pytest.raises(FrameError, match=r"read\.cloud is no reader's position.*seek\('oldest'\)"):
            await reader.take(1)
    await reader.seek("oldest")
    assert payloads(await reader.take(5)) == [1, 2, 3, 4, 5]


async def test_the_flow_can_forget_a_reader_whose_position_can_not_be_read(
    world: Any, garbage: bytes
) -> None:
    await world.append(1)
    await spoil(world, garbage)
    reader = await world.reader()
    with pytest.raises(FrameError):
        await reader.take(1)
    await forget_reader(world.edge, world.subjects.flow, "cloud")
    await prepare_reader(world.edge, world.subjects.flow, "cloud")
    assert payloads(await reader.take(1)) == [1]


async def test_a_reader_that_has_read_hands_nothing_out_twice_once_its_position_can_not_be_read(
    world: Any, garbage: bytes
) -> None:
    await world.append(*[1] * 5)
    reader = await world.reader()
    assert payloads(await reader.take(2)) == [1, 2]
    await spoil(world, garbage)
    with pytest.raises(FrameError, match="is no reader's position"):
        await reader.take(1)
    await reader.seek("newest")
    await world.append(1)
    assert payloads(await reader.take(1)) == [6]


async def test_a_position_that_can_not_be_read_is_told_in_a_loop_too(world: Any) -> None:
    await world.append(1)
    reader = await world.reader()
    assert (await anext(reader)).payload == 1

    async def told() -> bool:
        await spoil(world, b"?")
        await world.append(1)
        try:
            await anext(reader)
        except FrameError:
            return True
        return False

    await eventually(told)


async def test_other_readers_go_on(world: Any, garbage: bytes) -> None:
    await world.append(*[1] * 3)
    await spoil(world, garbage)
    other = await world.reader("other")
    assert payloads(await other.take(3)) == [1, 2, 3]
