"""Pratipad-NB: build an IoT dataflow in a Jupyter notebook, in one line, and see it run.

A map of the package, from the ground up; imports point down only:

============  ======================================================================================
wording       numbers and errors in words, and others' texts without control characters
log_lines     what this package logs, without control characters
errors        the exception tree
forks         what a forked process forgets, and the errors of its handles
bugs          what becomes of an exception that is a fault of this package
leaks         objects that a forked process may not clean up
message       what a reading or an order is once it has arrived
settings      names, credentials, endpoints, options: frozen and checked
backoff       how long to wait before a thing that failed is tried again
portal        an event loop in a thread, for synchronous handles
files         files that two processes may want at once
seldom        log lines at a bounded rate
tables        small tables, as text and as HTML, that values show themselves as
tasks         several pieces of work as one await
calls         the one place where functions of the user are called
request       what `pull` returns: readings that were asked for
notation      ``Push <~> P1 <~> Output``: text to syntax tree and back
processors    what a user writes, adapted to one batch call; ready-made ones
dataflow      what a notation means in a namespace, and its graph
transport     frames, subjects, permissions, NATS, the in-memory transport
pki           the certificate authority
hardware      sensors, actuators and buses, real and simulated
server        the NATS server that comes along: its process, its configuration, who is let in
runtime       what runs a flow at the edge: stages, positions, devices, the edge itself, partitions
device        the device's client, and gateways that speak for many devices
cloud         the cloud's client, data frames, SQLite
session       `Flow`: server, certificates and runtime, composed
testing       the test kit
notebook      magics, live graph, panel
cli           the command line
============  ======================================================================================

The public names are imported when they are first used, so that a device needs no library of a notebook.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pratipad_nb.cloud.client import AsyncCloud as AsyncCloud
    from pratipad_nb.cloud.client import Cloud as Cloud
    from pratipad_nb.device.blocking import Device as Device
    from pratipad_nb.device.client import AsyncDevice as AsyncDevice
    from pratipad_nb.device.gateway import AsyncGateway as AsyncGateway
    from pratipad_nb.device.gateway import Gateway as Gateway
    from pratipad_nb.errors import CertificateError as CertificateError
    from pratipad_nb.errors import DeviceError as DeviceError
    from pratipad_nb.errors import FlowError as FlowError
    from pratipad_nb.errors import Forked as Forked
    from pratipad_nb.errors import FrameError as FrameError
    from pratipad_nb.errors import OneWayError as OneWayError
    from pratipad_nb.errors import PayloadError as PayloadError
    from pratipad_nb.errors import PratipadError as PratipadError
    from pratipad_nb.errors import ProcessorError as ProcessorError
    from pratipad_nb.errors import ServerError as ServerError
    from pratipad_nb.errors import SettingsError as SettingsError
    from pratipad_nb.errors import TakenOver as TakenOver
    from pratipad_nb.errors import TransportError as TransportError
    from pratipad_nb.errors import WaitTimeout as WaitTimeout
    from pratipad_nb.hardware.host import HostSensor as HostSensor
    from pratipad_nb.message import Message as Message
    from pratipad_nb.notation import NotationError as NotationError
    from pratipad_nb.notation import parse as parse
    from pratipad_nb.processors import Deadband as Deadband
    from pratipad_nb.processors import Filter as Filter
    from pratipad_nb.processors import Keyed as Keyed
    from pratipad_nb.processors import Processor as Processor
    from pratipad_nb.processors import Throttle as Throttle
    from pratipad_nb.processors import Window as Window
    from pratipad_nb.processors import every as every
    from pratipad_nb.processors import reply as reply
    from pratipad_nb.session.asynchronous import AsyncFlow as AsyncFlow
    from pratipad_nb.session.flow import Flow as Flow
    from pratipad_nb.session.inspection.preview import preview as preview
    from pratipad_nb.session.inspection.tape import Tape as Tape
    from pratipad_nb.session.registry import flows as flows
    from pratipad_nb.settings import Credentials as Credentials
    from pratipad_nb.settings import Endpoint as Endpoint
    from pratipad_nb.settings import FlowOptions as FlowOptions
    from pratipad_nb.settings import Keep as Keep
    from pratipad_nb.settings import Leaf as Leaf

__all__ = [
    "AsyncCloud",
    "AsyncDevice",
    "AsyncFlow",
    "AsyncGateway",
    "CertificateError",
    "Cloud",
    "Credentials",
    "Deadband",
    "Device",
    "DeviceError",
    "Endpoint",
    "Filter",
    "Flow",
    "FlowError",
    "FlowOptions",
    "Forked",
    "FrameError",
    "Gateway",
    "HostSensor",
    "Keep",
    "Keyed",
    "Leaf",
    "Message",
    "NotationError",
    "OneWayError",
    "PayloadError",
    "PratipadError",
    "Processor",
    "ProcessorError",
    "ServerError",
    "SettingsError",
    "TakenOver",
    "Tape",
    "Throttle",
    "TransportError",
    "WaitTimeout",
    "Window",
    "every",
    "flows",
    "parse",
    "preview",
    "reply",
]

__version__ = "0.1.0"

_HOMES = {
    "AsyncCloud": "cloud.client",
    "AsyncDevice": "device.client",
    "AsyncFlow": "session.asynchronous",
    "AsyncGateway": "device.gateway",
    "CertificateError": "errors",
    "Cloud": "cloud.client",
    "Credentials": "settings",
    "Deadband": "processors",
    "Device": "device.blocking",
    "DeviceError": "errors",
    "Endpoint": "settings",
    "Filter": "processors",
    "Flow": "session.flow",
    "FlowError": "errors",
    "FlowOptions": "settings",
    "Forked": "errors",
    "FrameError": "errors",
    "Gateway": "device.gateway",
    "HostSensor": "hardware.host",
    "Keep": "settings",
    "Keyed": "processors",
    "Leaf": "settings",
    "Message": "message",
    "NotationError": "notation",
    "OneWayError": "errors",
    "PayloadError": "errors",
    "PratipadError": "errors",
    "Processor": "processors",
    "ProcessorError": "errors",
    "ServerError": "errors",
    "SettingsError": "errors",
    "TakenOver": "errors",
    "Tape": "session.inspection.tape",
    "Throttle": "processors",
    "TransportError": "errors",
    "WaitTimeout": "errors",
    "Window": "processors",
    "every": "processors",
    "flows": "session.registry",
    "parse": "notation",
    "preview": "session.inspection.preview",
    "reply": "processors",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(ipython: Any) -> None:
    """Add the magics to a notebook: what ``%load_ext pratipad_nb`` calls."""
    import_module("pratipad_nb.notebook").load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Take the magics away again: what ``%unload_ext pratipad_nb`` calls."""
    import_module("pratipad_nb.notebook").unload(ipython)
