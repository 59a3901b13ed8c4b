"""Snapshots: what the numbers of many devices may cost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pratipad_nb.runtime.inputs import DeviceCount
from pratipad_nb.runtime.report import Reporter


def edge_with(count: int) -> Any:
    """What a reporter asks an edge for its devices."""
    names = [f"d{n}" for n in range(count)]
    return SimpleNamespace(
        ledger=SimpleNamespace(accounts={}),
        gate=SimpleNamespace(counts={name: DeviceCount() for name in names}),
        presence=SimpleNamespace(connected=set()),
        backward=SimpleNamespace(counts=lambda _: (0, 0)),
        known_devices=names,
    )


@pytest.mark.parametrize(("count", "fresh"), [(1000, True), (1001, False)])
def test_few_devices_are_counted_each_time_and_many_now_and_then(count: int, fresh: bool) -> None:
    edge = edge_with(count)
    reporter = Reporter(edge)
    assert len(reporter._devices()) == count
    edge.gate.counts["d1"].received = 5
    assert (reporter._devices()["d1"].received == 5) is fresh
    reporter._counted -= 1.0
    assert reporter._devices()["d1"].received == 5
