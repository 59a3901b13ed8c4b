"""Orders that a person types: JSON and a device's name, from the ``%dataflow`` line and from the page.

Owns reading and checking JSON and name, and the sentence that tells the order's fate. Sending the order is
the flow's matter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from pratipad_nb.dataflow.names import nearest
from pratipad_nb.errors import FlowError, SettingsError
from pratipad_nb.runtime.values.stats import DeviceStats
from pratipad_nb.session import Flow

__all__ = ["send_typed"]

_NAMED = 12


def send_typed(flow: Flow, text: str, to: str | None) -> str:
    """Send the order in the JSON `text` to the device `to`, or to all if None; return a sentence on its fate.

    Raises
    ------
    SettingsError
        If `text` is no JSON.
    FlowError
        If the flow knows no such device: a program may send to a device that will connect later, a person has
        mistyped.
    """
    try:
        payload = json.loads(text)
    except ValueError as error:
        raise SettingsError(
            f'{text!r:.80} is no JSON: {error}. Write a map as {{"led": "on"}}, a text in double quotes.'
        ) from None
    if to is None:
        flow.send(payload)
        return "the order goes to all devices that are known."
    device = _known(flow, to)
    flow.send(payload, to=to)
    away = "" if device.connected else " It is away, and gets it when it comes back."
    return f"the order goes to {to}.{away}"


def _known(flow: Flow, name: str) -> DeviceStats:
    """Return the stats of a device, or of the gateway that it is behind."""
    devices = flow.stats().devices
    gateway = devices.get(name.partition(".")[0])
    if gateway is not None and gateway.sources:
        return gateway
    if name in devices:
        return devices[name]
    near = " or ".join(nearest(name, list(devices)))
    raise FlowError(
        f"flow {flow.name!r} knows no device {name!r}: "
        f"{f'did you mean {near}?' if near else _listed(devices)}"
    )


def _listed(devices: Mapping[str, DeviceStats]) -> str:
    if not devices:
        return "none has connected yet."
    names = sorted(devices)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"it knows {', '.join(names[:_NAMED])}{more}."
