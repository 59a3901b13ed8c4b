"""Malformed deliveries: stored before they are acknowledged, and bounded while they wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pratipad_nb.errors import FrameError
from pratipad_nb.runtime.positions.malformed import Malformed
from pratipad_nb.transport.protocol import Delivery

BOUND = 3


class Shelf:
    """Stores dead letters once `open` is set, and notes what is called in which order."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.trace: list[Any] = []
        self.malformed = Malformed(
            self._store,
            lambda delivery: self.trace.append(("acknowledged", delivery.sequence)),
            lambda: "Push",
            waiting=BOUND,
        )

    async def _store(self, entries: Any) -> None:
        await self.open.wait()
        self.trace += [("stored", step, entry.number) for step, entry in entries]

    async def put(self, sequence: int) -> None:
        delivery = Delivery("pratipad.house.up.room1", b"\xff" * 1000, sequence, 2.0)
        await self.malformed.put_aside(delivery, FrameError("no frame"))


@pytest.fixture
async def shelf() -> Any:
    shelf = Shelf()
    task = asyncio.create_task(shelf.malformed.run())
    yield shelf
    task.cancel()


async def test_a_malformed_delivery_is_acknowledged_only_once_it_is_stored(shelf: Shelf, until: Any) -> None:
    await shelf.put(1)
    await shelf.put(2)
    assert shelf.trace == []
    shelf.open.set()
    await until(lambda: len(shelf.trace) == 4)
    assert shelf.trace == [
        ("stored", "Push", 1),
        ("stored", "Push", 2),
        ("acknowledged", 1),
        ("acknowledged", 2),
    ]


async def test_the_input_waits_while_too_many_wait_to_be_stored(shelf: Shelf, until: Any) -> None:
    put = asyncio.create_task(_put_all(shelf, 10))
    await until(lambda: shelf.malformed.waiting == BOUND)
    assert not put.done()
    shelf.open.set()
    await put
    await until(lambda: len(shelf.trace) == 20)


async def _put_all(shelf: Shelf, count: int) -> None:
    for sequence in range(1, count + 1):
        await shelf.put(sequence)
