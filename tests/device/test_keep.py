"""Devices that keep what they measure: no link, links that break, kill -9, and a file that is full."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import eventually

from pratipad_nb import AsyncDevice, AsyncFlow, AsyncGateway, Device
from pratipad_nb.errors import DeviceError, SettingsError
from pratipad_nb.settings import Endpoint

#: A device that pushes 0, 1, 2 … and says each number once `push` has returned.
MEASURING = """
import sys, itertools, time
from pratipad_nb import Credentials, Device, Endpoint
url, folder, keep, run = sys.argv[1:]
where = Endpoint(url, "house", Credentials.in_folder(folder))
device = Device("room1", keep=keep).connect(where)
print("connected", flush=True)
for n in itertools.count():
    device.push({"run": int(run), "n": n})
    print(n, flush=True)
    if n % 50 == 0:
        time.sleep(0.005)
"""


async def kept(edge: Any, folder: Path, **what: Any) -> AsyncDevice:
    return await AsyncDevice("room1", keep=folder, **what).connect(edge.endpoint)


async def measure_and_die(url: str, credentials: Any, keep: Path, run: int, count: int) -> int:
    """Run a device until it has pushed `count`, kill it, and return the last number that it said."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEASURING, url, str(credentials.certificate.parent), str(keep), str(run),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    said = b""
    while not said.strip().isdigit() or int(said) < count:
        said = await child.stdout.readline()
        assert said, "the device ended by itself"
    child.kill()
    rest = (await child.stdout.read()).split(b"\n")
    await child.wait()
    whole = [int(line) for line in rest[:-1] if line]
    return whole[-1] if whole else int(said)


async def test_what_is_safe_is_kept_no_longer(edge: Any, tmp_path: Path) -> None:
    async with await kept(edge, tmp_path) as device:
        for number in range(3000):
            await device.push(number)
        await device.flush()
        assert (device.waiting, device.sent, device.dropped) == (0, 3000, 0)
    assert edge.payloads == list(range(3000))
    assert [path.name for path in tmp_path.iterdir()] == ["house.room1.sqlite3"]


async def test_what_was_left_at_the_end_is_sent_by_the_next_device_under_its_old_numbers(
    edge: Any, tmp_path: Path
) -> None:
    edge.auto = ("demand", 2, "durable")
    device = await kept(edge, tmp_path)
    for number in range(5):
        receipt = await device.push(number)
    await eventually(lambda: len(edge.payloads) == 2)
    await device.close(0.1)  # no error: nothing is given up
    file = tmp_path / "house.room1.sqlite3"
    assert repr(device) == f"<AsyncDevice 'room1' of 'house': closed, 2 sent, 3 waiting (kept in {file})>"
    with pytest.raises(DeviceError, match=r"stay in .*house\.room1\.sqlite3"):
        await receipt
    edge.auto = ("push", -1, "durable")
    edge.owner += 1
    async with await kept(edge, tmp_path) as again:
        assert again.waiting == 3
        await again.push(5)
        await again.flush()
    assert edge.payloads == list(range(6))
    assert edge.numbers == [1, 2, 3, 4, 5, 1]
    assert len({frame.epoch for frame in edge.frames}) == 2


async def test_a_newer_device_of_the_name_takes_the_file_over(edge: Any, tmp_path: Path) -> None:
    edge.auto = None
    await (await kept(edge, tmp_path)).push(1)
    edge.auto = ("push", -1, "durable")
    async with await kept(edge, tmp_path) as again:
        await again.push(2)
        await again.flush()
    assert edge.payloads == [1, 2]


async def test_at_the_bound_the_oldest_go_and_everybody_is_told(
    edge: Any, tmp_path: Path, caplog: Any
) -> None:
    edge.auto = None
    device = await kept(edge, tmp_path, keep_bytes=1 << 16)
    receipts = [await device.push(number) for number in range(5000)]
    waiting = asyncio.ensure_future(receipts[2000]._outbox.safe(2001))
    assert device.dropped > 3000
    assert device.dropped + device.waiting == 5000
    assert sum("file is full" in record.message for record in caplog.records) == 1
    for dropped in (receipts[0], receipts[device.dropped - 1]):
        assert not dropped.done
        with pytest.raises(DeviceError, match="was dropped"):
            await dropped
    with pytest.raises(DeviceError, match="was dropped"):
        await waiting
    await edge.grant(-1, mode="push")
    await device.flush()
    assert edge.payloads == list(range(device.dropped, 5000))
    assert edge.numbers[0] == device.dropped + 1
    assert receipts[-1].done
    assert not receipts[0].done
    await device.close()


async def test_who_waits_for_what_is_dropped_later_is_told_then(edge: Any, tmp_path: Path) -> None:
    edge.auto = None
    device = await kept(edge, tmp_path, keep_bytes=1 << 16)
    first = asyncio.ensure_future((await device.push(0))._outbox.safe(1))
    await asyncio.sleep(0)
    for number in range(2000):
        await device.push(number)
    with pytest.raises(DeviceError, match=r"message 1 .* was dropped"):
        await first
    await device.close(0.1)


@pytest.mark.parametrize("size", [0, 1000, True, 1.5, None])
def test_a_bound_that_is_none_is_refused(tmp_path: Path, size: Any) -> None:
    with pytest.raises(SettingsError, match="keep_bytes is"):
        Device("room1", keep=tmp_path, keep_bytes=size)


async def test_a_gateway_keeps_whose_message_each_is(edge: Any, tmp_path: Path) -> None:
    edge.auto = None
    gateway = await AsyncGateway("gw", keep=tmp_path).connect(edge.endpoint)
    await gateway.push(1, device="t1")
    await gateway.push(2)
    await gateway.close(0.05)
    edge.auto = ("push", -1, "durable")
    async with await AsyncGateway("gw", keep=tmp_path).connect(edge.endpoint) as again:
        await again.push(3, device="t2")
    assert [frame.sources for frame in edge.frames] in ([["t1", "", "t2"]], [["t1", ""], ["t2"]])


async def test_a_cut_link_stops_no_push_and_costs_nothing(house: Any, edge: Any, tmp_path: Path) -> None:
    url = house.server.url
    await house.server.stop()
    where = Endpoint(url, "house", house.of_device("room1"))
    device = await AsyncDevice("room1", keep=tmp_path / "keep").connect(where)
    for number in range(20_000):  # more than memory would hold
        await device.push(number)
    await house.server.start(house.users)
    real = await house.edge(type(edge))
    await eventually(lambda: len(real.payloads) >= 20_000, 20)
    await house.server.stop()
    for number in range(20_000, 21_000):
        await device.push(number)
    await house.server.start(house.users)
    await device.flush(20)
    again = await house.edge(type(edge))
    await eventually(lambda: len(real.payloads + again.payloads) >= 21_000, 20)
    seen = dict(zip(real.numbers + again.numbers, real.payloads + again.payloads, strict=True))
    assert [seen[number] for number in sorted(seen)] == list(range(21_000))
    await device.close()
    await real.stop()
    await again.stop()


async def test_a_device_killed_before_there_is_a_server_and_while_it_sends_loses_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    flow = AsyncFlow("Push ~> Same ~> Output", name="house", home=tmp_path, namespace=globals())
    await flow.start()
    where = await flow.endpoint_for("device", "room1")
    url, credentials = where.url, where.credentials
    keep = tmp_path / "keep"
    said = [await measure_and_die(url.rpartition(":")[0] + ":9", credentials, keep, 0, 300)]
    said += [await measure_and_die(url, credentials, keep, run, 400 * run) for run in (1, 2, 3)]
    async with await AsyncDevice("room1", keep=keep).connect(where) as last:
        await last.flush()
        await flow.settled()
    messages = await flow.take(flow.stats().delivered)
    for run, least in enumerate(said):
        mine = [m.payload["n"] for m in messages if m.payload["run"] == run]
        assert mine == list(range(len(mine)))
        assert len(mine) > least
    assert [m.payload["run"] for m in messages] == sorted(m.payload["run"] for m in messages)
    assert len({m.id for m in messages}) == len(messages)
    assert flow.stats().devices["room1"].gaps == 0
    await flow.stop()


@pytest.mark.parametrize("mode", ["Push", "Demand"])
async def test_a_flow_goes_on_after_a_device_had_to_drop_and_counts_the_gap(
    tmp_path: Path, mode: str
) -> None:
    flow = AsyncFlow(f"{mode} ~> Same ~> Output", name="house", home=tmp_path, namespace=globals())
    await flow.start()
    where = await flow.endpoint_for("device", "room1")
    device = await AsyncDevice("room1", keep=tmp_path / "keep", keep_bytes=1 << 16).connect(where)
    await device.push(0)
    await device.flush()
    await flow.settled()
    await flow.stop()
    for number in range(1, 5001):
        await device.push(number)
    # What was dropped can't be on its way: the server is gone.
    again = AsyncFlow(f"{mode} ~> Same ~> Output", name="house", home=tmp_path, namespace=globals())
    await again.start()
    await device.flush(20)
    await again.settled()
    assert device.dropped > 3000
    assert again.stats().devices["room1"].gaps == device.dropped
    assert again.stats().received == 5000 - device.dropped
    await device.close()
    await again.stop()


def Same(payload: Any) -> Any:  # noqa: N802 - named as in the notation
    return payload


async def test_a_device_that_starts_without_a_link_measures_as_it_did_before(
    edge: Any, tmp_path: Path
) -> None:
    edge.auto = None
    async with await kept(edge, tmp_path, read=lambda: 1, every=0.005) as device:
        await asyncio.sleep(0.05)
        assert device.waiting == 0  # it has never heard which mode the flow has
    edge.auto = ("push", -1, "durable")
    async with await kept(edge, tmp_path, read=lambda: 2, every=0.005):
        await eventually(lambda: edge.payloads)
    edge.auto, before = None, len(edge.payloads)
    device = await kept(edge, tmp_path, read=lambda: 3, every=0.005)
    await eventually(lambda: device.waiting >= 10)
    await edge.grant(-1, mode="push")
    await eventually(lambda: len(edge.payloads) >= before + 10)
    assert edge.payloads[before:][:10] == [3] * 10
    await device.close()


async def test_readings_at_a_pace_go_on_beyond_what_memory_would_hold_and_an_iterable_waits(
    edge: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("pratipad_nb.device.kept_outbox.MAX_HELD", 20)
    edge.auto = None
    fast = await kept(edge, tmp_path / "fast", read=range(1000))
    await edge.grant(-1, mode="push")
    await fast.flush()
    await fast.close()
    house = await kept(edge, tmp_path, read=lambda: 1, every=0.002)
    await edge.link.delete_log(edge.subjects.input_stream)  # nothing is taken any more
    await edge.grant(-1, mode="push")
    await eventually(lambda: house.waiting > 60)
    await house.close(0.05)
    stuck = await kept(edge, tmp_path / "fast", read=range(1000))
    await edge.grant(-1, mode="push")
    await eventually(lambda: stuck.waiting == 20)
    await asyncio.sleep(0.1)
    assert stuck.waiting == 20
    await stuck.close(0.05)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_iterable_waits_at_the_bound_of_bytes_and_nothing_of_it_is_dropped(
    edge: Any, tmp_path: Path, asynchronous: bool
) -> None:
    drawn = []

    def large() -> Iterator[str]:
        for number in range(40):
            drawn.append(number)
            yield f"{number:05}" * (1000 if number % 2 else 100)

    async def large_later() -> AsyncIterator[str]:
        for each in large():
            yield each

    edge.auto = None
    await edge.link.delete_log(edge.subjects.input_stream)  # nothing is taken yet
    read = large_later() if asynchronous else large()
    device = await kept(edge, tmp_path, read=read, keep_bytes=1 << 16)
    device.outbox.max_payload = (
        10_000  # so that not all of it is on its way in one frame, where nothing can be dropped
    )
    await edge.grant(-1, mode="push")
    await eventually(lambda: len(drawn) == 24)
    receipt = await device.push(
        "can't wait" * 900
    )  # which drops some, and is no end of the device's readings
    await eventually(lambda: device.dropped)
    dropped = device.dropped
    await edge.open_log()
    await eventually(lambda: len(drawn) == 40)
    await device.flush()
    await receipt
    assert device.dropped == dropped
    assert len(edge.payloads) == 41 - dropped
    await device.close()


async def test_an_iterable_that_waits_for_room_holds_up_no_close(edge: Any, tmp_path: Path) -> None:
    edge.auto = None
    await edge.link.delete_log(edge.subjects.input_stream)
    device = await kept(edge, tmp_path, read=("x" * 10_000 for _ in range(100)), keep_bytes=1 << 16)
    await edge.grant(-1, mode="push")
    await eventually(lambda: device.waiting == 6)
    async with asyncio.timeout(3):
        await device.close(0.1)
    assert device.dropped == 0


async def test_a_device_that_starts_while_the_server_is_away_measures_as_it_did_before(
    house: Any, edge: Any, tmp_path: Path
) -> None:
    real = await house.edge(type(edge))
    where = Endpoint(house.server.url, "house", house.of_device("room1"))
    keep = tmp_path / "keep"
    async with await AsyncDevice("room1", keep=keep, read=lambda: 1, every=0.005).connect(where):
        await eventually(lambda: real.payloads)
    await real.stop()
    await house.server.stop()
    device = await AsyncDevice("room1", keep=keep, read=lambda: 2, every=0.005).connect(where)
    await eventually(lambda: device.waiting >= 10)
    assert device.state == "connecting"
    await house.server.start(house.users)
    again = await house.edge(type(edge))
    await eventually(lambda: again.payloads.count(2) >= 10, 20)
    await device.close()
    await again.stop()


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def of_another_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE state (mood TEXT)")
    file.close()


def a_folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


@pytest.mark.parametrize("damage", [garbage, halved, of_another_program, a_folder])
async def test_a_damaged_file_is_moved_aside_and_named_and_the_device_goes_on(
    edge: Any, tmp_path: Path, caplog: Any, damage: Callable[[Path], None]
) -> None:
    edge.auto = None
    device = await kept(edge, tmp_path)
    for number in range(500):
        await device.push(f"{number:0100}")
    await device.close(0.01)
    damage(tmp_path / "house.room1.sqlite3")
    edge.auto = ("push", -1, "durable")
    async with await kept(edge, tmp_path) as again:
        assert (await again.push("new")).kept
        await again.flush()
        assert (again.error, again.unkept) == ("", 0)
    assert edge.payloads == ["new"]
    aside = next(path for path in tmp_path.iterdir() if "damaged-20" in path.name)
    warned = [each.getMessage() for each in caplog.records if str(aside) in each.getMessage()]
    assert len(warned) == 1
    assert "house.room1.sqlite3 can't be opened" in warned[0]
    assert not list(tmp_path.glob("house.room1.sqlite3-*"))


async def test_a_file_that_is_damaged_while_the_device_runs_is_counted_and_replaced(
    edge: Any, tmp_path: Path
) -> None:
    edge.auto = None
    device = await kept(edge, tmp_path)
    receipts = [await device.push(f"{number:02000}") for number in range(3000)]  # more than SQLite caches
    file = tmp_path / "house.room1.sqlite3"
    with file.open("r+b") as stream:
        stream.seek(100_000)
        stream.write(os.urandom(file.stat().st_size - 100_000))
    await edge.grant(-1, mode="push")
    await eventually(lambda: device.dropped)
    last = await device.push("new")
    await last
    await eventually(lambda: not device.error)
    assert (await device.push("newer")).kept
    await device.flush()
    got = len(edge.payloads) - 2
    assert edge.payloads == [f"{number:02000}" for number in range(got)] + ["new", "newer"]
    assert got + device.dropped == 3000
    assert all(receipt.done for receipt in receipts[:got])
    with pytest.raises(DeviceError, match=r"was in a file that is damaged: .*sqlite3 can't be (read|cut)"):
        await receipts[got]
    assert not receipts[-1].kept
    assert list(tmp_path.glob("house.room1.sqlite3.damaged-*"))
    await device.close()


def spoilt(*what: tuple[str, object, int]) -> Callable[[Path], None]:
    """Return what sets a column of a message, by its number, to a value that no device writes."""

    def spoil(path: Path) -> None:
        with sqlite3.connect(path) as file:
            for column, value, number in what:
                file.execute(f"UPDATE messages SET {column} = ? WHERE number = ?", (value, number))
        file.close()

    return spoil


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (spoilt(("payload", b"\xc1", 3), ("payload", b"", 4)), {2, 3}),
        (spoilt(("payload", b"\x92\x01", 1), ("payload", b"\xd4\x05\x00", 10)), {0, 9}),
        (spoilt(("time", float("inf"), 5), ("payload", b"\xa2\xff\xff", 6)), {4, 5}),
        (spoilt(*[("payload", b"\xc1", number) for number in range(1, 11)]), set(range(10))),
    ],
)
async def test_a_message_in_the_file_that_no_edge_can_read_takes_no_other_with_it(
    edge: Any, tmp_path: Path, caplog: Any, damage: Callable[[Path], None], lost: set[int]
) -> None:
    edge.auto = None
    device = await kept(edge, tmp_path)
    for number in range(10):
        await device.push(number)
    await device.close(0.01)
    damage(tmp_path / "house.room1.sqlite3")
    edge.auto = ("push", -1, "durable")
    async with await kept(edge, tmp_path) as again:
        assert (await again.push("new")).kept
        await again.flush()
        assert (again.dropped, again.waiting) == (len(lost), 0)
    assert edge.payloads == [number for number in range(10) if number not in lost] + ["new"]
    assert len([line for line in caplog.messages if "can't be read and is dropped" in line]) == 1


async def test_messages_in_a_file_that_can_not_be_read_hold_up_no_others_and_come_once_it_can_be_read(
    edge: Any, tmp_path: Path
) -> None:
    edge.auto = None
    device = await kept(edge, tmp_path)
    receipts = [await device.push(f"{number:02000}") for number in range(3000)]
    file = tmp_path / "house.room1.sqlite3"
    with Path(os.devnull).open("ab") as unreadable:
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if entry.resolve().name.startswith(file.name):
                    os.dup2(unreadable.fileno(), int(entry.name))
    edge.auto = ("push", -1, "durable")
    await edge.grant(-1, mode="push")
    waiting = asyncio.ensure_future(receipts[-1]._outbox.safe(3000))
    with pytest.raises(DeviceError, match="stays in a file that can't be read at present"):
        await waiting
    await device.push("new")
    await eventually(lambda: not device.error)
    await device.flush()
    await eventually(lambda: len(edge.payloads) == 3001)
    got = edge.payloads.index("new")
    assert edge.payloads == [f"{n:02000}" for n in range(got)] + ["new"] + [
        f"{n:02000}" for n in range(got, 3000)
    ]
    assert device.waiting == 0
    await device.close()


@pytest.mark.parametrize("mode", ["Demand", "Pull"])
async def test_what_was_left_and_what_is_new_is_asked_for_in_its_order(tmp_path: Path, mode: str) -> None:
    flow = AsyncFlow(f"{mode} <~> Same <~> Output", name="house", home=tmp_path, namespace=globals())
    await flow.start()
    where = await flow.endpoint_for("device", "room1")
    await flow.stop()
    for start in range(3):
        device = await AsyncDevice("room1", keep=tmp_path / "keep").connect(where)
        for number in range(5):
            await device.push(5 * start + number)
        await device.close(0.01)
    await flow.start()
    async with await AsyncDevice("room1", keep=tmp_path / "keep").connect(where) as last:
        await last.push(15)
        if mode == "Pull":
            await flow.pull(9)
            await flow.pull(7)
        await last.flush()
        await flow.settled()
    assert [message.payload for message in await flow.take(16)] == list(range(16))
    assert flow.stats().devices["room1"].gaps == 0
    await flow.stop()
