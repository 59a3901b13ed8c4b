"""Processes that fork while they hold open handles, and what becomes of both sides; run by `test_forks`.

Each case prints one line of JSON. It runs with real forks in a process of its own, for pytest has threads.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pratipad_nb import (
    AsyncCloud,
    AsyncDevice,
    AsyncFlow,
    Cloud,
    Device,
    Endpoint,
    Flow,
    Forked,
    Gateway,
    Message,
    flows,
)
from pratipad_nb.cli.exits import run_until_signalled, signals
from pratipad_nb.cloud.sqlite import SQLiteSink

FORK = multiprocessing.get_context("fork")
#: Longest that a child may take, in seconds.
PATIENCE = 30.0


def same(reading: Any) -> Any:
    return reading


def outcome(use: Callable[[], Any]) -> str:
    """Return the error of a use, or what it returned."""
    try:
        return f"returned {use()!r:.80}"
    except Forked:
        return "Forked"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def uses(handle: Any) -> dict[str, str]:
    """Return the outcome of every public attribute of a handle, and of what the language does with it."""
    names = {name for name in dir(type(handle)) if not name.startswith("_")} - {"name"}
    found = {name: outcome(lambda name=name: getattr(handle, name)) for name in names}  # type: ignore[misc]
    for use in ("__enter__", "__aenter__", "__iter__", "__aiter__", "__anext__"):
        if hasattr(type(handle), use):
            found[use] = outcome(lambda use=use: getattr(type(handle), use)(handle))  # type: ignore[misc]
    return {f"{type(handle).__name__}.{name}": said for name, said in found.items() if said != "Forked"}


def in_child(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a child that multiprocessing forks, and that ends by itself."""
    there, here = FORK.Pipe()
    child = FORK.Process(target=lambda: here.send(work()))
    child.start()
    here.close()
    found = there.recv() if there.poll(PATIENCE) else "the child says nothing"
    child.join(PATIENCE)
    if child.exitcode is None:
        child.kill()
    return found if child.exitcode == 0 else f"{found!r}, and the child ended with {child.exitcode}"


def forked(work: Callable[[], Any]) -> int | None:
    """Fork, let the child run `work` and end as a program does; return its exit code."""
    pid = os.fork()
    if pid == 0:
        work()
        sys.exit(3)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    return None


def fallen_off(device: Device, cloud: Cloud) -> int | None:
    """Return the exit code of a child that closes the parent's handles itself, and then ends."""

    def work() -> None:
        for handle in (device, cloud):
            with contextlib.suppress(Forked):
                handle.close()

    return forked(work)


def child_of_all(handles: list[Any], calls: dict[str, Callable[[], Any]], where: Any, home: Path) -> Any:
    """Use the parent's handles, and open new handles, in a child."""
    wrong = {name: said for handle in handles for name, said in uses(handle).items()}
    said = {name: outcome(call) for name, call in calls.items()}
    wrong |= {name: found for name, found in said.items() if found != "Forked"}
    shown = [repr(handle) for handle in handles]
    with Device("room2", keep=home / "keep").connect(where) as device:
        device.push("child")
        device.flush()
    return {"wrong": wrong, "shown": shown, "flows": list(flows())}


def handles(home: Path) -> dict[str, Any]:
    """A flow on a server of its own, with all kinds of handles, and all kinds of children."""
    found: dict[str, Any] = {}
    with Flow("Push <~> same <~> Output", name="house", namespace=globals(), home=home) as flow:
        device = Device("room1", keep=home / "keep").connect(flow)
        gateway = Gateway("gw").connect(flow)
        cloud = Cloud(flow)
        sink = SQLiteSink(home / "house.db")
        where = flow.endpoint_for("device", "room2")
        receipt = device.push(0)
        device.flush()
        messages = cloud.take(1)
        sink.write(messages)
        waiting = threading.Thread(target=lambda: next(iter(cloud)))  # holds the handle's lock
        waiting.start()
        calls: dict[str, Callable[[], Any]] = {
            "push": partial(device.push, 1),
            "behind": partial(gateway.device("t1").push, 1),
            "take": partial(cloud.take, 1),
            "send": partial(flow.send, 1),
            "stop": flow.stop,
            "stats": flow.stats,
            "item": lambda: flow["same"],
            "next": partial(next, iter(cloud)),
            "wait": lambda: receipt._outbox.wait_for(99),
            "rate": lambda: setattr(flow, "rate", 1.0),
            "connect": lambda: Device("room3").connect(flow),
            "cloud": lambda: Cloud(flow).take(1),
        }
        opened = [flow, device, gateway, cloud, sink]
        found["child"] = in_child(lambda: child_of_all(opened, calls, where, home))
        found["sys.exit"] = forked(lambda: None)
        found["falls off"] = fallen_off(device, cloud)
        found["os._exit"] = forked(lambda: os._exit(4))
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=FORK) as pool:
            found["pool"] = list(pool.map(abs, [-1, -2]))
        found["preexec_fn"] = subprocess.run(["true"], preexec_fn=os.getpid).returncode
        found["error"] = in_child(lambda: str(failure(lambda: flow.stats())))
        receipts = [device.push(number) for number in range(1, 20)]
        assert receipts[0].kept
        device.flush()
        waiting.join(PATIENCE)
        found["parent"] = [message.payload for message in flow.take(21)]
        sink.write(messages)
        found["rows"] = len(sink)
        sink.close()
        cloud.close()
        gateway.close()
        device.close()
    found["pid"] = os.getpid()
    return found


def failure(use: Callable[[], Any]) -> Exception | None:
    try:
        use()
    except Exception as error:
        return error
    return None


def inside(home: Path) -> dict[str, Any]:
    """A child that is forked inside the ``with`` blocks of its parent, and leaves them."""
    with (
        Flow("Push <~> same <~> Output", name="house", namespace=globals(), server="memory://inside") as flow,
        Device("room1").connect(flow) as device,
    ):
        if (pid := os.fork()) == 0:
            sys.exit(5)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        device.push(1)
        return {"code": code, "payload": flow.take(1)[0].payload}


def asynchronous(home: Path) -> dict[str, Any]:
    """Handles on an event loop, which the child inherits while it runs."""

    async def main() -> dict[str, Any]:
        flow = AsyncFlow("Pull <~> same <~> Output", name="house", namespace=globals(), home=home)
        async with flow:
            device = await AsyncDevice("room1").connect(flow)
            cloud = AsyncCloud(flow)
            await cloud.connect()
            asked = await cloud.pull(1)
            later = cloud.take

            def child() -> Any:
                said = {
                    "take": outcome(lambda: asyncio.run(later(1))),
                    "push": outcome(lambda: asyncio.run(device.push(1))),
                    "request": outcome(lambda: asyncio.run(asked.cancel())),
                }
                wrong = {name: found for name, found in said.items() if found != "Forked"}
                return wrong | uses(flow) | uses(device) | uses(cloud)

            found = in_child(child)
            await device.push(1)
            taken = await cloud.take(1)
            await cloud.close()
            await device.close()
        return {"wrong": found, "payload": taken[0].payload}

    return asyncio.run(main())


def unopened(home: Path) -> dict[str, Any]:
    """Handles that the parent has made and not opened are the child's to open."""
    flow = Flow("Push <~> same <~> Output", name="house", namespace=globals(), home=home)
    device = Device("room1")

    def child() -> Any:
        with flow, device.connect(flow):
            device.push(1)
            return flow.take(1)[0].payload

    first = in_child(child)
    return {"child": first, "parent": child()}


def in_a_processor(home: Path) -> dict[str, Any]:
    """A processor that forks: the child's output isn't the processor's log."""

    def shout(reading: Any) -> Any:
        child = FORK.Process(target=lambda: print("said by a child", flush=True))
        child.start()
        child.join(PATIENCE)
        print("said by the processor")
        return child.exitcode

    names = {"shout": shout}
    with (
        Flow("Push <~> shout <~> Output", name="house", namespace=names, server="memory://shout") as flow,
        Device("room1").connect(flow) as device,
    ):
        device.push(1)
        return {"code": flow.take(1)[0].payload}


def signalled(home: Path) -> dict[str, Any]:
    """Children of commands that take signals: they end on a signal, and their parent doesn't hear of it."""

    def terminated() -> int | None:
        child = FORK.Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join(PATIENCE)
        code = child.exitcode
        child.kill()
        return code

    async def work() -> int | None:
        code = terminated()
        await asyncio.sleep(0.05)  # in which a signal would cancel this
        return code

    with signals() as ending:
        ending.expect()
        first = terminated()
        heard = ending.number
    return {"codes": [first, run_until_signalled(work())], "heard": heard}


def kept(home: Path) -> None:
    """A device that keeps messages before and after a fork, and is killed."""
    device = Device("room1", keep=home / "keep").connect(Endpoint("memory://nobody", "house"))
    sink = SQLiteSink(home / "house.db")
    for number in range(5):
        device.push(number)
    code = forked(lambda: None)
    for number in range(5, 10):
        device.push(number)
    sink.write([Message(payload=1, id="1", device="room1", time=1.0, received=1.0, flow="house")])
    print(json.dumps({"code": code}), flush=True)
    os._exit(0)


def orphan(home: Path) -> None:
    """A device whose child outlives it: prints the child's process id, then waits."""
    where = json.loads((home / "where").read_text())
    device = Device("room1", keep=home / "keep").connect(where, flow="house", certs=home / "room1")
    device.push(1)
    device.flush()
    child = FORK.Process(target=time.sleep, args=(60,))
    child.start()
    print(json.dumps({"child": child.pid}), flush=True)
    time.sleep(60)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))), flush=True)
