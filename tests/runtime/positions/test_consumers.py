"""Each owner of the input has its own consumer: the acknowledgements of an earlier owner change nothing."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from pratipad_nb.errors import Fenced, TransportError
from pratipad_nb.runtime.positions.lineage import Lineage
from pratipad_nb.runtime.positions.opening import open_input
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.settings import FlowOptions

FLOW = "house"


class Owner:
    """An owner of the input, as a start makes it."""

    def __init__(self, place: Any, *, keeps_state: bool = True) -> None:
        self._place = place
        self._keeps_state = keeps_state

    async def open(self) -> Owner:
        connection = await self._place.connection()
        self.logs = await self._place.logs(connection)
        self.chain = await self._place.chain(connection)
        await self.chain.open()
        self.input = await open_input(
            connection,
            EdgeSettings(FLOW),
            self.logs,
            self.chain,
            Lineage(connection),
            keeps_state=self._keeps_state,
        )
        return self

    @property
    def input_log(self) -> Any:
        return self.logs[self._place.subjects.input_stream]

    async def gets(self, count: int) -> list[Any]:
        got: list[Any] = []
        while len(got) < count:
            got += await self.input.get()
        return got


@pytest.fixture
def push(place: Any) -> Any:
    async def push(*texts: str) -> None:
        connection = await place.connection()
        for text in texts:
            await connection.append(place.subjects.up("room1"), text.encode())

    return push


def texts(deliveries: list[Any]) -> list[str]:
    return [delivery.data.decode() for delivery in deliveries]


async def test_what_an_owner_that_was_replaced_acknowledges_late_still_comes_to_the_new_owner(
    place: Any, push: Any
) -> None:
    old = await Owner(place).open()
    await old.chain.checkpoint({"Tally/0": b"none"}, floor=0)
    await push("1", "2", "3")
    late = await old.gets(3)
    new = await Owner(place).open()
    for delivery in late:
        old.input.acknowledge(delivery)
    with contextlib.suppress(TransportError):  # the question goes behind the acknowledgements
        await old.input.waiting()
    assert texts(await new.gets(3)) == ["1", "2", "3"]
    await new.input.rewind()
    assert texts(await new.gets(3)) == ["1", "2", "3"]
    assert (await new.input.progress()).floor == 0


async def test_an_owner_whose_consumer_a_newer_owner_has_replaced_is_fenced(place: Any) -> None:
    old = await Owner(place).open()
    await Owner(place).open()
    with pytest.raises(Fenced):
        await old.input.get()


async def waits(owner: Owner, count: int) -> bool:
    return (await owner.input.progress()).pending == count


async def test_without_a_state_a_new_owner_begins_behind_what_was_acknowledged(
    place: Any, push: Any, until: Any
) -> None:
    old = await Owner(place, keeps_state=False).open()
    await push("1", "2", "3")
    for delivery in (await old.gets(3))[:2]:
        old.input.acknowledge(delivery)
    await until(lambda: waits(old, 1))
    new = await Owner(place, keeps_state=False).open()
    assert texts(await new.gets(1)) == ["3"]


async def test_a_partition_has_one_consumer_whoever_has_run_it(place: Any) -> None:
    for _ in range(3):
        owner = await Owner(place, keeps_state=False).open()
    assert len(await owner.input_log.consumers()) == 1


async def test_the_consumers_of_other_partitions_stay(place: Any) -> None:
    connection = await place.connection()
    options = FlowOptions(partitions=12)
    logs = await place.logs(connection, options=options)
    chain = await place.chain(connection, options=options)
    await chain.open()
    for partition in (1, 11, 1):
        settings = EdgeSettings(FLOW, partition=partition, options=options)
        await open_input(connection, settings, logs, chain, Lineage(connection), keeps_state=False)
    names = [each.name for each in await logs[place.subjects.input_stream].consumers()]
    assert sorted(name.rpartition("-")[0] for name in names) == ["edge-1", "edge-11"]
