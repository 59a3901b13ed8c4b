"""Hellos as they arrive: of each device no more than the edge works on, and the newest counts."""

from __future__ import annotations

import asyncio

import pytest
from patience import eventually

from pratipad_nb.errors import FrameError
from pratipad_nb.runtime.devices.hellos import Hellos
from pratipad_nb.transport.protocol import Signal


class Hall:
    """Hellos, and what was worked on of them; b"bad" is malformed."""

    def __init__(self):
        self.taken = []
        self.hellos = Hellos(lambda device: device != "elsewhere", self._take)

    def _take(self, signal):
        if signal.data == b"bad":
            raise FrameError("no hello")
        self.taken.append((signal.subject.rpartition(".")[2], signal.data))

    def come(self, device, data=b""):
        self.hellos.on_signal(Signal(f"pratipad.house.hello.{device}", data))


@pytest.fixture
async def hall():
    hall = Hall()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(hall.hellos.run())
        yield hall
        running.cancel()


async def test_the_first_hello_is_worked_on_at_once(hall):
    hall.come("room1", b"1")
    assert hall.taken == [("room1", b"1")]


async def test_of_many_hellos_at_once_the_first_and_the_newest_are_worked_on_and_the_rest_is_counted(hall):
    for number in range(100):
        hall.come("room1", b"%d" % number)
    await eventually(lambda: len(hall.taken) == 2)
    assert hall.taken == [("room1", b"0"), ("room1", b"99")]
    assert hall.hellos.dropped == {"room1": 98}


async def test_a_flood_of_one_devices_hellos_costs_few_calls_and_delays_no_other_device(hall):
    loop = asyncio.get_running_loop()
    end = loop.time() + 0.2
    while loop.time() < end:
        for _ in range(50):
            hall.come("hostile")
        hall.come("room1")
        await asyncio.sleep(0.006)
    flood = sum(device == "hostile" for device, _ in hall.taken)
    honest = sum(device == "room1" for device, _ in hall.taken)
    assert flood <= 0.25 / 0.005
    assert "room1" not in hall.hellos.dropped
    assert honest > 0


async def test_a_malformed_hello_is_counted_and_the_next_one_is_worked_on(hall):
    hall.come("room1", b"bad")
    hall.come("room1", b"good")
    await eventually(lambda: hall.taken)
    assert hall.taken == [("room1", b"good")]
    assert hall.hellos.dropped == {"room1": 1}


async def test_a_hello_to_another_partition_is_left_alone(hall):
    hall.come("elsewhere")
    assert (hall.taken, hall.hellos.dropped) == ([], {})
