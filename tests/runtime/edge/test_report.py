"""Snapshots: what the numbers of many devices may cost, and that those of an idle flow are whole."""

from __future__ import annotations

from typing import Any

import pytest

from pratipad_nb.runtime.edge.report import Reporter
from pratipad_nb.runtime.positions.gatekeeper import DeviceCount
from pratipad_nb.runtime.values import metrics


@pytest.mark.parametrize(("count", "fresh"), [(1000, True), (1001, False)])
async def test_few_devices_are_counted_each_time_and_many_now_and_then(
    edges: Any, monkeypatch: pytest.MonkeyPatch, count: int, fresh: bool
) -> None:
    edge = await edges.opened()
    now = 1000.0
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now)
    edge.parts.gate.counts.update({f"d{n}": DeviceCount() for n in range(count)})
    reporter = Reporter(edge.parts)
    assert len(reporter.snapshot().devices) == count
    edge.parts.gate.counts["d1"].received = 5
    assert (reporter.snapshot().devices["d1"].received == 5) is fresh
    now += 60.0
    assert reporter.snapshot().devices["d1"].received == 5


async def test_a_devices_rate_is_what_came_since_it_was_looked_at_and_not_all_that_ever_came(
    edges: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = await edges.opened()
    now = 1000.0
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now)
    count = edge.parts.gate.counts["d"] = DeviceCount(received=5000)
    reporter, seen = Reporter(edge.parts), []
    for _ in range(4):
        reporter.sample_devices()
        seen.append(reporter.snapshot().devices["d"].rate)
        now += 1.0
        count.received += 10
    assert seen == [0.0, 10.0, 10.0, 10.0]


async def test_messages_are_counted_where_they_come_in_at_each_processor_and_at_output(
    edges: Any, push: Any
) -> None:
    def odd(payload: int) -> Any:
        if payload % 2:
            yield payload

    edge = await edges.running("Push ~> odd ~> same ~> Output", {"odd": odd})
    await push(1, 2, 3)
    await push("no number", device="room2")
    await edge.settled(5)
    stats = edge.snapshot()
    assert (stats.received, stats.delivered, stats.dead, stats.in_flight) == (4, 2, 1, 0)
    odds, same = stats.processors["odd"], stats.processors["same"]
    assert (odds.received, odds.emitted, odds.failed) == (4, 2, 1)
    assert (same.received, same.emitted, same.failed) == (2, 2, 0)
    assert {name: device.received for name, device in stats.devices.items()} == {"room1": 3, "room2": 1}
