from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from pratipad_nb.cli.rate_rows import COLUMNS, status_line
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
