"""Several `pratipad run` of one flow: what differs is refused, and what they count is summed."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from patience import until

HOUSE = """
from pratipad_nb import Flow, FlowOptions

def double(reading):
    return {"value": reading["value"] * 2}

house = Flow("Push ~> double ~> Output", name="house", options=FlowOptions(partitions=PARTITIONS))
"""
ROOMS = """
from pratipad_nb import Device

rooms = [Device(f"room{n}", read=({"value": v} for v in range(10)), every=0.01) for n in range(16)]
"""
pytestmark = pytest.mark.timeout(120)


def test_edges_with_other_partitions_are_refused_and_the_counts_of_all_edges_are_summed(shell: Any) -> None:
    for partitions in (3, 8):
        shell.file(f"house{partitions}.py", HOUSE.replace("PARTITIONS", str(partitions)))
    shell.start("server").says("run a flow here")
    edges = [shell.start("run", "house8.py", "--json", "--status", "0") for _ in range(2)]
    for edge in edges:
        edge.says("house runs")
    top = shell.start("top", "house", "--json", "--every", "0.2")

    def counts() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(top.out[-1])
        return found

    until(lambda: top.out and [len(edge["partitions"]) for edge in counts()["edges"]] == [4, 4])

    refused = shell("run", "house3.py", code=1).stderr
    assert "flow 'house' has run in 8 partitions, and 3 are given" in refused
    assert any(f"process {each.process.pid} on {socket.gethostname()}" in refused for each in edges)
    shell.file("rooms.py", ROOMS)
    devices = shell.start("device", "rooms.py", "--flow", "house")
    until(lambda: counts()["delivered"] == 160)
    top.end()
    stats = counts()
    assert len(stats["devices"]) == 16
    assert sum(edge["devices"] for edge in stats["edges"]) == 16
    assert {edge["pid"] for edge in stats["edges"]} == {each.process.pid for each in edges}
    assert devices.end() == 0

    first, second = edges
    assert first.end() == 0
    last = json.loads(first.out[-1])
    mine = next(edge for edge in stats["edges"] if edge["pid"] == first.process.pid)
    assert last["delivered"] == mine["delivered"] > 0
    assert second.end() == 0
