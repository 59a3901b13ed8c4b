"""The device layer: clients that send readings and run orders, and gateways that speak for many devices.

Owns a device's end of a flow, over the contract of `pratipad_nb.transport`. The edge's end is for
`pratipad_nb.runtime.devices`, the cloud's for `pratipad_nb.cloud`.

Exports the drivers of `pratipad_nb.hardware` as well. All names are imported when they are first used, so
that a client costs no driver and a driver no client: ``from pratipad_nb.device import Device`` needs neither
`smbus2` nor `psutil`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pratipad_nb.device.blocking import Device as Device
    from pratipad_nb.device.client import AsyncDevice as AsyncDevice
    from pratipad_nb.device.gateway import AsyncGateway as AsyncGateway
    from pratipad_nb.device.gateway import Gateway as Gateway
    from pratipad_nb.device.receipt import Receipt as Receipt
    from pratipad_nb.hardware.bme280 import BME280 as BME280
    from pratipad_nb.hardware.bus import open_bus as open_bus
    from pratipad_nb.hardware.climate import Climate as Climate
    from pratipad_nb.hardware.climate import SimulatedRoom as SimulatedRoom
    from pratipad_nb.hardware.clock import ScaledClock as ScaledClock
    from pratipad_nb.hardware.host import HostSensor as HostSensor
    from pratipad_nb.hardware.led import Blink as Blink
    from pratipad_nb.hardware.led import Led as Led
    from pratipad_nb.hardware.registers import Register as Register
    from pratipad_nb.hardware.registers import RegisterSensor as RegisterSensor
    from pratipad_nb.hardware.registers import RegisterValue as RegisterValue
    from pratipad_nb.hardware.scd4x import SCD4X as SCD4X
    from pratipad_nb.hardware.simulated_bus import SimulatedBus as SimulatedBus
    from pratipad_nb.hardware.simulated_room_bus import room_bus as room_bus

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
    "AsyncDevice": "device.client",
    "AsyncGateway": "device.gateway",
    "BME280": "hardware.bme280",
    "Blink": "hardware.led",
    "Climate": "hardware.climate",
    "Device": "device.blocking",
    "Gateway": "device.gateway",
    "HostSensor": "hardware.host",
    "Led": "hardware.led",
    "Receipt": "device.receipt",
    "Register": "hardware.registers",
    "RegisterSensor": "hardware.registers",
    "RegisterValue": "hardware.registers",
    "SCD4X": "hardware.scd4x",
    "ScaledClock": "hardware.clock",
    "SimulatedBus": "hardware.simulated_bus",
    "SimulatedRoom": "hardware.climate",
    "open_bus": "hardware.bus",
    "room_bus": "hardware.simulated_room_bus",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"pratipad_nb.{home}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
