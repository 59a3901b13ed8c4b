"""A bus with the sensors of a simulated room: the notebooks use it in place of hardware.

Owns nothing but the putting together. With real sensors on a Raspberry Pi the one line
``bus = room_bus(room)`` becomes ``bus = open_bus(1)``; drivers stay as they are.
"""

from __future__ import annotations

from pratipad_nb.hardware.climate import SimulatedRoom
from pratipad_nb.hardware.simulated_bme280 import SimulatedBME280
from pratipad_nb.hardware.simulated_bus import SimulatedBus
from pratipad_nb.hardware.simulated_scd4x import SimulatedSCD4X

__all__ = ["room_bus"]


def room_bus(room: SimulatedRoom, *, name: str = "simulated") -> SimulatedBus:
    """Return a bus with a BME280 at 0x76 and an SCD41 at 0x62 that measure the air of `room`, by its clock.

    Parameters
    ----------
    room
        The room that the sensors are in.
    name
        The bus's name in errors.
    """
    bus = SimulatedBus(name, clock=room.clock)
    bus.attach(0x76, SimulatedBME280(room, clock=room.clock))
    bus.attach(0x62, SimulatedSCD4X(room, clock=room.clock))
    return bus
