"""The counters of several partitions as those of one flow."""

from __future__ import annotations

from pratipad_nb.runtime.sharing.merging import merged
from pratipad_nb.runtime.values.stats import DeviceStats, FlowStats


def test_a_device_that_two_partitions_know_has_its_messages_added_up_and_its_connections_not() -> None:
    device = DeviceStats(connected=True, received=3, connections=1)
    parts = [FlowStats("house", devices={"room1": device}) for _ in range(2)]
    found = merged(parts, FlowStats("house"), state="running", error="").devices["room1"]
    assert (found.received, found.connections, found.connected) == (6, 1, True)
