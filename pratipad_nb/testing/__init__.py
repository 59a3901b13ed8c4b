"""The test kit: try processors, flows and devices without a server, without hardware, and without waiting.

Owns the names that a user's tests need; most of the implementations are in the rooms that this package runs
on.

=================  ==========================================================================================
memory_server      an in-process stand-in for the server: ``Flow(…, server=url)``, ``Device(…).connect(flow)``
real_server        a state folder of its own with the real embedded server, gone afterwards
ManualClock        a clock that moves only by `advance` and `sleep`
SimulatedBus       an I²C bus of simulated chips, with faults on request
room_bus           a BME280 and an SCD41 in a simulated room
=================  ==========================================================================================

Examples
--------
>>> from pratipad_nb import Device, Flow
>>> from pratipad_nb.testing import memory_server
>>> def double(payload):
...     return payload * 2
>>> with memory_server() as url, Flow("Push ~> double ~> Output", server=url) as flow:
...     with Device("room1").connect(flow) as device:
...         receipt = device.push(21)
...     print(flow.take(1)[0].payload)
42
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pratipad_nb.hardware.clock import ManualClock
from pratipad_nb.hardware.simulated_bus import SimulatedBus
from pratipad_nb.hardware.simulated_room_bus import room_bus

__all__ = ["ManualClock", "SimulatedBus", "memory_server", "real_server", "room_bus"]


@contextmanager
def memory_server() -> Iterator[str]:
    """Yield the URL of a new in-memory server; its stored messages disappear with it."""
    from pratipad_nb.transport.memory_broker import Broker

    name = f"test-{uuid.uuid4().hex}"
    try:
        yield f"memory://{name}"
    finally:
        Broker.forget(name)


@contextmanager
def real_server() -> Iterator[Path]:
    """Yield a new state folder, for ``Flow(…, home=folder)``: the real server, mutual TLS, JetStream."""
    with tempfile.TemporaryDirectory(prefix="pratipad-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "state"
