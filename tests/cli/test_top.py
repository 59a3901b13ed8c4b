from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from pratipad_nb.cli.rate_rows import COLUMNS, status_line, troubles
from pratipad_nb.cli.top import drawn

STATS: dict[str, Any] = {
    "name": "house", "state": "running", "rate": 12345.6, "delivered": 1234567, "in_flight": 1000,
    "waiting": 1000, "dead": 0, "p50": 0.0123, "p99": 0.1234,
    "devices": {"room1": {"connected": True}}, "error": "",
    "blocked_by": ["the link to the server is down"],
    "processors": {"Precipitation": {"state": "running", "rate": 12345.6, "emitted": 1234567, "waiting": 0,
                                     "failed": 0, "p50": 0.0123, "p99": 0.1234}},
}  # fmt: skip


def test_eighty_columns_show_every_heading_and_number_whole() -> None:
    screen = StringIO()
    Console(file=screen, width=80).print(drawn([STATS]))
    lines = screen.getvalue().splitlines()
    assert lines[0].split() == " ".join(COLUMNS).split()
    assert "12,345.6" in lines[1]
    assert "1,234,567" in lines[1]


def test_what_holds_a_flow_up_is_said_as_it_is() -> None:
    assert ", blocked: the link to the server is down" in status_line(STATS)


def edge(host: str, **more: Any) -> dict[str, Any]:
    return {
        "host": host, "pid": 7, "since": 1.0, "state": "running", "partitions": [0, 1], "devices": 8,
        "received": 40, "delivered": 40, "rate": 40.0, "blocked_by": [], "error": "",
    } | more  # fmt: skip


@pytest.mark.parametrize("width", [40, 50, 60, 70, 80, 120])
def test_a_narrow_terminal_leaves_out_columns_and_keeps_names_and_whole_numbers(width: int) -> None:
    screen = StringIO()
    Console(file=screen, width=width).print(drawn([STATS], width))
    lines = screen.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    assert lines[0].split()[:4] == ["flow", "state", "rate/s", "delivered"]
    assert lines[1].split()[:4] == ["house", "running", "12,345.6", "1,234,567"]
    assert "Precip" in lines[2]


def test_each_edge_is_shown_with_its_host_and_what_is_wrong_there() -> None:
    flow = STATS | {"edges": [
        edge("north"), edge("south", blocked_by=["reader 'far' is behind"]),
        edge("west", state="failed", error="has sent no heartbeat", devices=0),
    ]}  # fmt: skip
    screen = StringIO()
    Console(file=screen, width=100).print(drawn([flow], 100))
    text = screen.getvalue()
    assert [line.split()[:4] for line in text.splitlines() if "/7 " in line] == [
        ["north/7", "running", "40.0", "40"],
        ["south/7", "running", "40.0", "40"],
        ["west/7", "failed", "40.0", "40"],
    ]
    assert "house at south/7: blocked: reader 'far' is behind" in text
    assert "house at west/7: has sent no heartbeat" in text


def test_what_blocks_a_flow_is_said_once() -> None:
    reasons = STATS["blocked_by"]
    assert troubles(STATS) == ["house: blocked: the link to the server is down"]
    assert troubles(STATS | {"edges": [edge("north", blocked_by=reasons)]}) == [
        "house at north/7: blocked: the link to the server is down"
    ]
