"""The device layer: clients that send readings and run orders, gateways, sensors, actuators and the bus they sit on.

Owns the names of this room. They are imported when they are first used, so that a client costs no driver and a driver
no client: ``from pratipad_nb.device import Device`` needs neither `smbus2` nor `psutil`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pratipad_nb.device.blocking import Device as Device
    from pratipad_nb.device.bme280 import BME280 as BME280
    from pratipad_nb.device.bus import open_bus as open_bus
    from pratipad_nb.device.client import AsyncDevice as AsyncDevice
    from pratipad_nb.device.climate import Climate as Climate
    from pratipad_nb.device.climate import SimulatedRoom as SimulatedRoom
    from pratipad_nb.device.clock import ScaledClock as ScaledClock
    from pratipad_nb.device.gateway import AsyncGateway as AsyncGateway
    from pratipad_nb.device.gateway import Gateway as Gateway
    from pratipad_nb.device.host import HostSensor as HostSensor
    from pratipad_nb.device.led import Blink as Blink
    from pratipad_nb.device.led import Led as Led
    from pratipad_nb.device.receipt import Receipt as Receipt
    from pratipad_nb.device.registers import Register as Register
    from pratipad_nb.device.registers import RegisterSensor as RegisterSensor
    from pratipad_nb.device.registers import RegisterValue as RegisterValue
    from pratipad_nb.device.scd4x import SCD4X as SCD4X
    from pratipad_nb.device.simulated_bus import SimulatedBus as SimulatedBus
    from pratipad_nb.device.simulated_room_bus import room_bus as room_bus

__all__ = [
    "BME280",
    "SCD4X",
    "AsyncDevice",
    "AsyncGateway",
    "Blink",
    "Climate",
    "Device",
    "Gateway",
    "HostSensor",
    "Led",
    "Receipt",
    "Register",
    "RegisterSensor",
    "RegisterValue",
    "ScaledClock",
    "SimulatedBus",
    "SimulatedRoom",
    "open_bus",
    "room_bus",
]

_HOMES = {
    "AsyncDevice": "client",
    "AsyncGateway": "gateway",
    "BME280": "bme280",
    "Blink": "led",
    "Climate": "climate",
    "Device": "blocking",
    "Gateway": "gateway",
    "HostSensor": "host",
    "Led": "led",
    "Receipt": "receipt",
    "Register": "registers",
    "RegisterSensor": "registers",
    "RegisterValue": "registers",
    "SCD4X": "scd4x",
    "ScaledClock": "clock",
    "SimulatedBus": "simulated_bus",
    "SimulatedRoom": "climate",
    "open_bus": "bus",
    "room_bus": "simulated_room_bus",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
