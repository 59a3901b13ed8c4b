from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from typing import Any

import pytest
from patience import until

COUNT = 100

ROOM = """
from pathlib import Path
from pratipad_nb import Device

def readings():
    for value in range(%d):
        yield {"value": value}

note = lambda order: Path("order").write_text(str(order))
rooms = [Device("%s", read=readings(), every=0.005, receive=note)]
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def house(shell: Any) -> Any:
    """A server and a flow, each a process."""
    shell.house()
    shell.server = shell.start("server", "--json")
    shell.said = json.loads(shell.server.says("url"))
    shell.flow = shell.start("run", "house.py", "--status", "0.2", "--json")
    shell.flow.says("house runs")
    return shell


def test_server_run_two_devices_and_cloud_are_five_processes_of_one_flow(house: Any) -> None:
    devices = []
    for name in ("room1", "room2"):
        house.file(f"{name}.py", ROOM % (COUNT, name))
        devices.append(house.start("device", f"{name}.py", "--flow", "house"))
    arguments = ("cloud", "house", "-n", str(2 * COUNT), "--timeout", "30", "--sqlite", "house.db")
    messages = house.json(*arguments)

    for name in ("room1", "room2"):
        mine = [m["payload"]["value"] for m in messages if m["device"] == name]
        assert mine == [2 * value for value in range(COUNT)]
    with sqlite3.connect(house.folder / "house.db") as database:
        assert database.execute("SELECT count(*) FROM messages").fetchone() == (2 * COUNT,)
    database.close()

    (order,) = house.json("cloud", "house", "--send", '{"led": "on"}', "--to", "room1")
    assert order["order"]
    until((house.folder / "order").exists)

    (stats,) = house.json("top", "house", "--once", "--json")
    assert stats["delivered"] == 2 * COUNT
    assert {"room1", "room2"} == set(stats["devices"])
    assert "house" in house("top", "--once").stdout

    nats = house.server_pid()
    for device in devices:
        assert device.end() == 0
        assert f"{COUNT} sent, 0 waiting" in device.says("closed")
    assert house.flow.end() == 0
    last = json.loads(house.flow.out[-1])
    assert (last["state"], last["delivered"]) == ("stopped", 2 * COUNT)
    assert house.server.end() == 0
    assert not is_alive(nats)
    assert not (house.folder / ".pratipad/server/server.json").exists()


def test_a_signal_drains_what_devices_have_sent(house: Any) -> None:
    house.file("room1.py", ROOM % (10_000, "room1"))
    device = house.start("device", "room1.py", "--flow", "house", "--status", "0.1")
    device.says("sent")
    until(lambda: house.flow.out and json.loads(house.flow.out[-1])["delivered"] > 20)
    assert device.end(signal.SIGINT) == 0
    sent = int(device.says("closed").split(" sent")[0].rpartition(" ")[2])
    assert house.flow.end(signal.SIGINT) == 0
    assert json.loads(house.flow.out[-1])["delivered"] == sent


def test_an_issued_folder_is_all_that_a_device_and_a_reader_need(house: Any) -> None:
    (issued,) = house.json("certs", "issue", "device", "room1", "--flow", "house", "--json")
    assert issued["server"] == house.said["url"]
    assert (house.folder / "room1-certs/key.pem").stat().st_mode & 0o777 == 0o600
    house("certs", "issue", "reader", "archive", "--flow", "house", "--out", "archive")
    house.file("room1.py", ROOM % (COUNT, "room1"))
    elsewhere = ("--home", "elsewhere")
    device = house.start("device", "room1.py", "--certs", "room1-certs", "--status", "0.1", *elsewhere)
    messages = house.json("cloud", "house", "--certs", "archive", "-n", "10", "--timeout", "30", *elsewhere)
    assert [m["payload"]["value"] for m in messages] == [2 * value for value in range(10)]
    assert not (house.folder / "elsewhere").exists()

    device.says(f"{COUNT} sent, 0 waiting")  # or closing it would wait in vain for what is left
    house("certs", "revoke", "device", "room1", "--flow", "house")
    device.says("room1: not let in: ")  # it goes on trying: it may be let in again
    assert device.end() == 0
    listed = {(row["role"], row["name"]): row["allowed"] for row in house.json("certs", "list", "--json")}
    assert ("device", "room1") not in listed
    assert listed["reader", "archive"]


def test_an_edge_elsewhere_joins_by_its_folder(shell: Any) -> None:
    shell.house()
    shell("certs", "init")
    server = shell.start("server")
    server.says("home")
    shell("certs", "issue", "edge", "house", "--out", "edge")
    flow = shell.start("run", "house.py", "--certs", "edge", "--home", "elsewhere")
    flow.says("house runs")
    (stats,) = shell.json("top", "--once", "--json")
    assert stats["state"] == "running"
    assert flow.end() == 0
    assert not (shell.folder / "elsewhere").exists()


def test_a_device_waits_for_a_server_that_is_not_there_yet(shell: Any) -> None:
    shell("certs", "init")
    first = shell.start("server")
    first.says("home")
    assert first.end() == 0
    shell("certs", "issue", "device", "room1", "--flow", "house")
    shell.file("room1.py", ROOM % (5, "room1"))
    device = shell.start("device", "room1.py", "--certs", "room1-certs")
    device.says("room1: connecting")
    shell.house()
    flow = shell.start("run", "house.py")  # starts the server itself, on the port of the last start
    flow.says("house runs")
    assert len(shell.json("cloud", "house", "-n", "5", "--timeout", "40")) == 5
    assert device.end() == 0
    assert flow.end() == 0


def test_an_interrupted_cloud_goes_on_where_it_stopped(house: Any) -> None:
    house.file("room1.py", ROOM % (30, "room1"))
    device = house.start("device", "room1.py", "--flow", "house")
    first = house.json("cloud", "house", "-n", "10", "--timeout", "30")
    endless = house.start("cloud", "house")
    until(lambda: len(endless.out) >= 20)
    assert endless.end(signal.SIGINT) == 0
    values = [m["payload"]["value"] for m in [*first, *map(json.loads, endless.out)]]
    assert values == [2 * value for value in range(30)]
    waiting = house.start("cloud", "house", "-n", "1")
    time.sleep(1.0)  # nothing tells when it waits; if it doesn't yet, the signal ends it all the same
    assert waiting.end(signal.SIGINT) in (130, -2)
    done = house("cloud", "house", "-n", "1", "--timeout", "0.5", code=1)
    assert "0 of 1 results" in done.stderr
    assert device.end() == 0


def test_pulled_readings_are_printed_and_then_it_ends(shell: Any) -> None:
    shell.house("meter", "Pull")
    flow = shell.start("run", "meter.py")
    flow.says("meter runs")
    shell.file("room1.py", ROOM % (100, "room1"))
    device = shell.start("device", "room1.py", "--flow", "meter")
    device.says("room1: connected")
    messages = shell.json("cloud", "meter", "--pull", "3", "--timeout", "20")
    assert [m["payload"]["value"] for m in messages] == [0, 2, 4]
    assert device.end() == 0
    assert flow.end() == 0


def test_device_run_and_cloud_wait_for_a_server_that_starts_last(shell: Any) -> None:
    shell.house()
    shell.file("room1.py", ROOM % (3, "room1"))
    waiting = [
        shell.start("device", "room1.py", "--flow", "house"),
        shell.start("cloud", "house", "-n", "3"),
        shell.start("run", "house.py", "--join"),
    ]
    for each in waiting:
        each.says("waiting for a server in")
    shell.start("server").says("tls://")
    device, cloud, flow = waiting
    assert cloud.wait() == 0
    assert [json.loads(line)["payload"]["value"] for line in cloud.out] == [0, 2, 4]
    assert (device.end(), flow.end()) == (0, 0)


@pytest.mark.parametrize("moves", [False, True], ids=["same port", "another port"])
def test_a_server_that_comes_after_a_flow_with_its_own_takes_it_over(
    shell: Any, moves: bool, free_tcp_port: int
) -> None:
    shell.house()
    shell.file("room1.py", ROOM % (10_000, "room1"))
    flow = shell.start("run", "house.py", "--status", "0.1", "--json")
    flow.says("house runs")
    device = shell.start("device", "room1.py", "--flow", "house", "--status", "0.1")
    cloud = shell.start("cloud", "house")
    until(lambda: len(cloud.out) > 20)
    before = shell.server_pid()

    server = shell.start("server", *(("--listen", f"127.0.0.1:{free_tcp_port}") if moves else ()))
    server.says("tls://")
    assert shell.server_pid() != before
    seen = len(cloud.out)
    until(lambda: len(cloud.out) > seen + 50)
    assert device.end() == 0
    sent = int(device.says("closed").split(" sent")[0].rpartition(" ")[2].replace(",", ""))
    until(lambda: len(cloud.out) == sent)
    assert cloud.end(signal.SIGINT) == 0
    values = [json.loads(line)["payload"]["value"] for line in cloud.out]
    assert values == [2 * value for value in range(sent)]

    assert flow.end() == 0
    assert is_alive(shell.server_pid())  # it outlives the flow that was first
    assert "runs the server of" in shell("server", code=1).stderr
    again = shell.start("run", "house.py")
    again.says("house runs")
    assert (again.end(), server.end()) == (0, 0)


def test_a_server_and_a_flow_that_start_at_once_find_each_other(shell: Any) -> None:
    shell.house()
    shell.file("room1.py", ROOM % (COUNT, "room1"))
    for _ in range(2):
        together = [
            shell.start("run", "house.py"),
            shell.start("server"),
            shell.start("device", "room1.py", "--flow", "house"),
        ]
        flow, server, device = together
        server.says("tls://")
        flow.says("house runs")
        assert len(shell.json("cloud", "house", "-n", str(COUNT), "--timeout", "40")) == COUNT
        assert [each.process.poll() for each in together] == [None, None, None]
        assert (device.end(), flow.end(), server.end()) == (0, 0, 0)


def test_a_server_that_would_serve_less_than_the_flow_s_own_says_what_to_do(
    shell: Any, free_tcp_port: int
) -> None:
    shell.house()
    text = (shell.folder / "house.py").read_text().replace("import Flow", "import Flow, FlowOptions")
    options = f'name="house", options=FlowOptions(mqtt="127.0.0.1:{free_tcp_port}")'
    shell.file("house.py", text.replace('name="house"', options))
    flow = shell.start("run", "house.py")
    flow.says("house runs")
    assert "pratipad run FILE --join" in shell("server", code=1).stderr
    assert flow.end() == 0


def test_a_mistyped_flow_is_not_shown_and_lets_nobody_in(house: Any) -> None:
    said = house("top", "hous", "--once", code=1).stderr
    assert "has no flow 'hous'; it has house" in said
    assert {row["flow"] for row in house.json("certs", "list", "--json")} == {"house"}
    reader = house(
        "cloud", "hous", "-n", "1", "--timeout", "0.1", code=1
    ).stderr  # which may come before its flow
    assert "has no flow 'hous' yet; it has house" in reader
    assert "pratipad certs revoke reader cloud --flow hous" in reader


def test_an_order_to_a_device_that_nobody_knows_says_so_and_waits(house: Any) -> None:
    done = house("cloud", "house", "--send", '"x"', "--to", "nobody")
    assert json.loads(done.stdout)["order"]
    assert "knows no device 'nobody' (it knows none); the order waits" in done.stderr
    assert "knows no device yet, so the order reaches nobody" in house("cloud", "house", "--send", "1").stderr


def test_a_device_that_can_not_connect_says_why_once(house: Any) -> None:
    house("certs", "init", "--home", "other")
    (issued,) = house.json(
        "certs",
        "issue",
        "device",
        "room1",
        "--flow",
        "house",
        "--home",
        "other",
        "--url",
        house.said["url"],
        "--json",
    )
    house.file("room1.py", ROOM % (1, "room1"))
    said = house("device", "room1.py", "--certs", issued["folder"], code=1).stderr
    assert said.count("is not one of our authority") == 1
