"""Starts of one device name: any number, by any clocks, in any overlap, each message comes once, in order."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from patience import eventually

from pratipad_nb import AsyncDevice, AsyncFlow
from pratipad_nb.device.kept_outbox import KeptOutbox
from pratipad_nb.device.memory_outbox import MemoryOutbox
from pratipad_nb.device.takeover import Registry
from pratipad_nb.session.inspection.tape import Recorder
from pratipad_nb.settings import Endpoint
from pratipad_nb.transport.connecting import connect
from pratipad_nb.transport.subjects import Subjects

pytestmark = pytest.mark.timeout(90)

#: A process's device, by a clock that stands still. It pushes when it is told to.
PUSHING = """
import sys, time
time.time = lambda: 1_790_000_000.0
from pratipad_nb import Credentials, Device, Endpoint
url, flow, folder, name = sys.argv[1:]
device = Device("room1").connect(Endpoint(url, flow, Credentials.in_folder(folder)))
print("connected", flush=True)
sys.stdin.readline()
for n in range(200):
    device.push([name, n]).wait(30)
device.close()
"""


class ByClock(MemoryOutbox):
    """The outbox of an earlier version's device: the epoch is the clock's milliseconds since 1970."""

    def __init__(self, epoch: int) -> None:
        super().__init__("room1")
        self._clock = epoch

    def claim(self, flow: str, epoch: int) -> None:
        super().claim(flow, self._clock)


async def started(flow: AsyncFlow, payloads: list[Any], *, epoch: int | None = None, **options: Any) -> None:
    """Start a device of the name, let it push `payloads`, each in a frame of its own, and close it."""
    device = AsyncDevice("room1", **options)
    if epoch is not None:
        device.outbox = ByClock(epoch)
    async with await device.connect(flow):
        for payload in payloads:
            await (await device.push(payload))


async def came(flow: AsyncFlow) -> list[Any]:
    """Return the payloads of all that has come, once nothing more is under way."""
    await flow.settled()
    stats = flow.stats()
    assert stats.devices["room1"].gaps == 0
    return [message.payload for message in await flow.take(stats.delivered)]


async def test_after_eleven_starts_one_whose_clock_stands_behind_is_delivered_once(scene: Any) -> None:
    flow = await scene.flow("Push ~> same ~> Output")
    for start in range(11):
        await started(flow, [[start, n] for n in range(4)], epoch=1_790_000_000_000 + 60_000 * start)
    await started(flow, [[11, n] for n in range(8)], epoch=1_234)
    assert await came(flow) == [[start, n] for start in range(11) for n in range(4)] + [
        [11, n] for n in range(8)
    ]


async def test_a_cell_that_is_run_nine_times_and_more_delivers_once(scene: Any) -> None:
    flow = await scene.flow("Push ~> same ~> Output")
    for start in range(20):
        await started(flow, [[start, n] for n in range(3)])
    assert await came(flow) == [[start, n] for start in range(20) for n in range(3)]


async def test_two_replays_by_a_clock_that_stands_still_are_both_delivered_each_message_with_an_id_of_its_own(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1_790_000_000_000_000_000)
    flow = await scene.flow("Push ~> same ~> Output")
    for name in ("a", "b"):
        recorder = Recorder(flow.name, None, 1 << 20)
        recorder("room1", [100.0] * 3, 200.0, [name] * 3)
        assert await flow.replay(recorder.tape(), speed=None) == 3
    await flow.settled()
    messages = await flow.take(6)
    assert [message.payload for message in messages] == ["a", "a", "a", "b", "b", "b"]
    assert len({message.id for message in messages}) == 6


async def test_a_kept_outbox_that_a_power_cut_set_back_is_delivered_once_after_many_other_starts(
    scene: Any, tmp_path: Path
) -> None:
    flow = await scene.flow("Push ~> same ~> Output")
    outbox = KeptOutbox("room1", tmp_path / "kept")
    outbox.claim(flow.name, 1_700_000_000_000)
    outbox.open(lambda: None)
    for n in range(6):
        outbox.offer(msgspec.msgpack.encode(["kept", n]))
    shutil.copytree(tmp_path / "kept", tmp_path / "before")
    # With one more message the frame has another id, so that the server stores the repeats, too.
    outbox.offer(msgspec.msgpack.encode(["kept", 6]))
    outbox.release()
    await started(flow, [], keep=tmp_path / "kept")
    for start in range(12):
        await started(flow, [[start, 0]])
    await started(flow, [["kept", n] for n in (7, 8)], keep=tmp_path / "before")
    found = await came(flow)
    assert [payload for payload in found if payload[0] == "kept"] == [["kept", n] for n in range(9)]
    assert flow.stats().repeats == 6


async def pushing(endpoint: Endpoint, folder: Path, name: str) -> asyncio.subprocess.Process:
    """Return a process whose device has connected and waits to be told to push."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PUSHING, endpoint.url, endpoint.flow, str(folder), name,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    async with asyncio.timeout(30):
        assert await child.stdout.readline() == b"connected\n"
    return child


async def test_two_processes_of_one_name_whose_clocks_show_the_same_moment_are_both_delivered(
    scenes: list[Any], tmp_path: Path
) -> None:
    _, at_a_server = scenes
    flow = await at_a_server.flow("Push ~> same ~> Output")
    endpoint = await flow.invite("room1", tmp_path / "room1")
    children = [await pushing(endpoint, tmp_path / "room1", name) for name in "ab"]
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
    for start in range(12):
        await started(flow, [["here", 3 * start + n] for n in range(3)])
    async with asyncio.timeout(60):
        assert [await child.wait() for child in children] == [0, 0]
    found = await came(flow)
    for name, count in (("a", 200), ("b", 200), ("here", 36)):
        assert [n for who, n in found if who == name] == list(range(count))


async def test_a_name_that_python_used_first_and_a_foreign_client_next_is_delivered_once(scene: Any) -> None:
    flow = await scene.flow("Push ~> same ~> Output")
    for start in range(12):
        await started(flow, [[start, 0]])
    link = await connect(await flow.endpoint_for("device", "room1"), role="device", name="room1")
    for n in range(5):
        await link.append(Subjects(flow.name).up("room1"), b"[12, %d]" % n)
    await link.close()
    await started(flow, [[13, 0]])
    assert await came(flow) == [[start, 0] for start in range(12)] + [[12, n] for n in range(5)] + [[13, 0]]


@pytest.mark.parametrize("notation", ["Demand ~> same ~> Output", "Push ~> same ~> Output"])
async def test_an_edge_whose_clock_was_set_back_goes_on_with_devices_that_stayed_connected(
    scene: Any, monkeypatch: pytest.MonkeyPatch, notation: str
) -> None:
    flow = await scene.flow(notation)
    device = await scene.device(flow)
    for n in range(3):
        await (await device.push(n))
    before = time.time_ns()
    for start in range(1, 3):
        await flow.stop()
        monkeypatch.setattr("time.time_ns", lambda start=start: before - start * 3_600_000_000_000)
        await flow.start()
        for n in range(3):
            await device.push(3 * start + n)
        await device.flush(20)
    await flow.settled()
    assert [message.payload for message in await flow.take(9)] == list(range(9))
    assert flow.stats().delivered == 3


async def test_two_devices_of_one_name_that_are_asked_for_what_they_send_are_both_delivered(
    scene: Any,
) -> None:
    class Elsewhere(AsyncDevice):
        """A device that no other of this process takes over, as those of another process."""

        _holders = Registry()

    flow = await scene.flow("Demand ~> same ~> Output", max_demand=20, min_demand=10)
    async with (
        await AsyncDevice("room1").connect(flow) as one,
        await Elsewhere("room1").connect(flow) as other,
    ):
        for n in range(200):
            await one.push(["one", n])
            await other.push(["other", n])
        await one.flush(30)
        await other.flush(30)
        found = await came(flow)
    for name in ("one", "other"):
        assert [n for who, n in found if who == name] == list(range(200))


async def test_of_two_devices_of_one_name_both_run_an_order_once_and_a_pull_is_met_once(scene: Any) -> None:
    class Elsewhere(AsyncDevice):
        """A device that no other of this process takes over, as those of another process."""

        _holders = Registry()

    flow = await scene.flow("Pull <~> same <~> Output")
    run: tuple[list[Any], list[Any]] = ([], [])
    async with (
        await AsyncDevice("room1", read=lambda: "one", receive=run[0].append).connect(flow),
        await Elsewhere("room1", read=lambda: "other", receive=run[1].append).connect(flow),
    ):
        await eventually(lambda: flow.devices)
        for _ in range(3):
            await (await flow.pull(10)).wait(30)
        for order in "ab":
            await flow.send(order, to="room1")
        await eventually(lambda: run == (["a", "b"], ["a", "b"]))
        assert len(await came(flow)) == 30
        assert flow.stats().devices["room1"].orders_sent == 2


async def test_a_flow_that_was_forgotten_and_made_by_a_clock_that_stands_behind_still_sends_orders(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = await scene.flow("Push <~> same <~> Output")
    run: list[Any] = []
    await scene.device(flow, receive=run.append)
    await flow.send("old", to="room1")
    await eventually(lambda: run == ["old"])
    await flow.stop()
    await flow.forget()
    before = time.time_ns()
    monkeypatch.setattr("time.time_ns", lambda: before - 3_600_000_000_000)
    await flow.start()
    for n in range(3):
        await flow.send(n, to="room1")
    await eventually(lambda: run == ["old", 0, 1, 2])
    await eventually(lambda: flow.stats().devices["room1"].orders_run == 3)
