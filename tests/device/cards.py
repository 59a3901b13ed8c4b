"""A device whose card is full, or may only be read: run by `test_full_card`, in a process of its own.

The card is a small filesystem in memory, mounted in this process's own namespace, or, where nothing may be
mounted, a limit of this process on the size of files.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from conftest import Edge
from disks import limit_files
from patience import eventually, factor

from pratipad_nb import AsyncDevice, Device
from pratipad_nb.device import engine, overflow
from pratipad_nb.device.outbox_file import Store
from pratipad_nb.errors import DeviceError
from pratipad_nb.transport.memory import connect_memory
from pratipad_nb.transport.memory_broker import Broker

FILE = "house.room1.sqlite3"
said: list[str] = []


class Mounted:
    """A filesystem of some hundred KiB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], check=True)

    def fill(self) -> None:
        with contextlib.suppress(OSError), (self.folder / "film").open("ab", buffering=0) as file:
            while True:
                file.write(b"x" * 512)

    def make_room(self) -> None:
        (self.folder / "film").unlink()

    def read_only(self, on: bool) -> None:
        mode = "ro" if on else "rw"
        subprocess.run(["mount", "-o", f"remount,{mode}", self.folder], check=True)


class Limited:
    """No file may be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def fill(self) -> None:
        limit_files(1)

    def make_room(self) -> None:
        limit_files()


class Heard(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            said.append(record.getMessage())


def warned() -> int:
    return sum("can't keep messages" in each for each in said)


async def device_on(card: Any, edge: Edge, **what: Any) -> AsyncDevice:
    return await AsyncDevice("room1", keep=card.folder, **what).connect(edge.endpoint)


def once(edge: Edge) -> list[Any]:
    """Return the payloads that an edge passes on: no number of an epoch twice, and each in order."""
    last: dict[int, int] = {}
    passed = []
    for frame in edge.frames:
        for number, payload in enumerate(frame.payloads, frame.first):
            if number > last.get(frame.epoch, 0):
                last[frame.epoch] = number
                passed.append(payload)
    return passed


async def a_full_card_with_the_link_up_stops_no_delivery(card: Any, edge: Edge) -> None:
    async with await device_on(card, edge) as device:
        receipt = await device.push(0)
        assert receipt.kept
        await device.flush()
        card.fill()
        for number in range(1, 3000):
            await device.push(number)
        await device.flush()
        assert edge.payloads == list(range(3000))
        assert edge.numbers == list(range(1, 3001))
        assert device.state == "connected"
        assert warned() == 1
        assert FILE in device.error
        await eventually(lambda: "can't be" in edge.hello.error)
        card.make_room()
        await eventually(lambda: not device.error)
        assert (await device.push(3000)).kept
        await device.flush()
        await eventually(lambda: not edge.hello.error)
    assert edge.payloads == list(range(3001))
    assert warned() == 1


async def what_waits_while_the_card_is_full_is_not_called_kept_and_is_kept_once_there_is_room(
    card: Any, edge: Edge
) -> None:
    edge.auto = None
    device = await device_on(card, edge)
    receipts = [await device.push(number) for number in range(5)]
    card.fill()
    receipts += [await device.push(number) for number in range(5, 10)]
    assert [receipt.kept for receipt in receipts] == [True] * 5 + [False] * 5
    assert (device.waiting, device.unkept) == (10, 5)
    card.make_room()
    await eventually(lambda: device.unkept == 0)
    receipts.append(await device.push(10))
    assert all(receipt.kept for receipt in receipts)
    assert not any(receipt.done for receipt in receipts)
    await device.close(0.01)  # no error: all are in the file
    edge.auto = ("push", -1, "durable")
    async with await device_on(card, edge) as again:
        await again.push(11)
        await again.flush()
    assert edge.payloads == list(range(12))


async def a_device_that_closes_on_a_full_card_says_how_many_are_lost(card: Any, edge: Edge) -> None:
    edge.auto = None
    device = await device_on(card, edge)
    for number in range(5):
        await device.push(number)
    card.fill()
    for number in range(3):
        await device.push(number)
    with pytest.raises(DeviceError, match=r"8 messages .* 3 of them were given up"):
        await device.close(0.01)
    store = Store(card.folder / FILE, 1 << 20)
    assert store.count == 5
    store.close()


async def a_device_starts_on_a_full_card_and_sends_what_was_left_and_what_is_new(
    card: Any, edge: Edge
) -> None:
    edge.auto = None
    device = await device_on(card, edge)
    for number in range(5):
        await device.push(number)
    await device.close(0.01)
    card.fill()
    edge.auto = ("push", -1, "durable")
    for start in (1, 2):
        async with await device_on(card, edge) as again:
            await again.push(f"start {start}")
            await again.flush()
            assert again.waiting == 0
    card.make_room()
    async with await device_on(card, edge) as again:
        await again.push("start 3")
        await again.flush()
    assert once(edge) == [0, 1, 2, 3, 4, "start 1", "start 2", "start 3"]


async def a_device_starts_for_the_first_time_on_a_full_card(card: Any, edge: Edge) -> None:
    card.fill()
    async with await device_on(card, edge) as device:
        first = await device.push(0)
        await device.flush()
        assert first.done
        assert warned() == 1
        card.make_room()
        await eventually(lambda: not device.error)
        await edge.link.delete_log(edge.subjects.input_stream)
        assert (await device.push(1)).kept
        await edge.open_log()
    assert edge.payloads == [0, 1]


async def beyond_the_bound_in_memory_push_waits_for_room_or_the_link(card: Any, edge: Edge) -> None:
    overflow.MAX_HELD = 20
    edge.auto = None
    device = Device("room1", keep=card.folder)
    await asyncio.to_thread(device.connect, edge.endpoint)
    device.push(0)
    card.fill()
    for number in range(1, 21):
        device.push(number)
    stuck = asyncio.ensure_future(asyncio.to_thread(device.push, 21))
    await asyncio.sleep(0.2)
    assert not stuck.done()
    card.make_room()
    assert (await stuck).number == 22
    card.fill()
    for number in range(22, 42):
        device.push(number)
    stuck = asyncio.ensure_future(asyncio.to_thread(device.push, 42))
    await asyncio.sleep(0.05)
    await edge.grant(-1, mode="push")
    await stuck
    await asyncio.to_thread(device.flush)
    assert edge.payloads == list(range(43))
    assert device.dropped == 0
    await asyncio.to_thread(device.close)


async def a_card_that_the_file_itself_has_filled_has_room_again_once_all_is_safe(
    card: Any, edge: Edge
) -> None:
    edge.auto = None
    device = await device_on(card, edge)
    count = 0
    while not device.unkept:
        await device.push("x" * 2000)
        count += 1
    await edge.grant(-1, mode="push")
    await device.flush()
    await eventually(lambda: not device.error)
    assert len(edge.payloads) == count
    assert (await device.push(1)).kept
    await device.close()


async def a_card_that_may_only_be_read_is_done_without_until_it_may_be_written(card: Any, edge: Edge) -> None:
    card.read_only(True)
    device = await device_on(card, edge)
    await device.push(0)
    await device.flush()
    assert "Read-only" in device.error
    card.read_only(False)
    await eventually(lambda: not device.error)
    await edge.link.delete_log(edge.subjects.input_stream)
    assert (await device.push(1)).kept
    await edge.open_log()
    await device.close()
    assert edge.payloads == [0, 1]


async def what_was_left_on_a_card_that_could_not_be_read_is_sent_late_and_once(card: Any, edge: Edge) -> None:
    edge.auto = None
    device = await device_on(card, edge)
    for number in range(5):
        await device.push(number)
    await device.close(0.01)
    edge.auto = ("push", -1, "durable")
    card.read_only(True)
    async with await device_on(card, edge) as again:
        await again.push("new")
        await again.flush()
        await edge.link.delete_log(edge.subjects.input_stream)
        await again.push("newer")
        card.read_only(False)
        await eventually(lambda: not again.error)
        assert (await again.push("newest")).kept
        await edge.open_log()
        await again.flush()
        assert again.waiting == 0
    assert edge.payloads == ["new", "newer", 0, 1, 2, 3, 4, "newest"]
    assert once(edge) == edge.payloads


async def run(kind: str, case: str, folder: Path) -> None:
    said.clear()
    card = {"mounted": Mounted, "limited": Limited}[kind](folder)
    url = f"memory://{case}"
    edge = Edge(await connect_memory(url, name="edge"), url, Broker.named(case))
    await edge.start()
    try:
        async with asyncio.timeout(20):
            await globals()[case](card, edge)
    finally:
        await edge.stop()
        if kind == "limited":
            card.make_room()


def main(kind: str, folder: str, *cases: str) -> int:
    engine._TEND_SECONDS = 0.02
    logging.getLogger("pratipad_nb").addHandler(Heard())
    factor()  # measured before an event loop runs
    bound, failed = overflow.MAX_HELD, 0
    for case in cases:
        overflow.MAX_HELD = bound
        try:
            asyncio.run(run(kind, case, Path(folder) / case))
        except Exception:
            traceback.print_exc()
            print("failed:", case, file=sys.stderr)
            failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
