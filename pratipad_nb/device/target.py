"""From the target that a user passes to `connect` to an endpoint.

Both ends of a flow turn targets into endpoints: this module does so for a device, and
`pratipad_nb.cloud.target` for a cloud client, which needs the flow's name as well.

Owns the forms that a device's target may have. Uses a flow by its methods alone, for devices know no `Flow`.
Connecting to the endpoint is for `pratipad_nb.transport.connecting`.
"""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

from pratipad_nb.errors import DeviceError, SettingsError
from pratipad_nb.settings import Credentials, Endpoint, valid_name

__all__ = ["find_endpoint", "find_endpoint_blocking"]


async def find_endpoint(target: Any, name: str, flow: str | None, certs: str | Path | None) -> Endpoint:
    """Return the endpoint that `target` means for the device `name`.

    A flow invites the device by its method ``endpoint_for(role, name)``, which may block for some
    milliseconds (a certificate is made) or be a coroutine.

    Raises
    ------
    SettingsError
        If `target` is no flow, endpoint or URL, or `flow` and `certs` don't go with it.
    """
    invite = _invitation(target, flow, certs)
    if invite is None:
        return _plain(target, flow, certs)
    if inspect.iscoroutinefunction(invite):
        return _checked(await invite("device", name), target)
    return _checked(await asyncio.to_thread(invite, "device", name), target)


def find_endpoint_blocking(target: Any, name: str, flow: str | None, certs: str | Path | None) -> Endpoint:
    """Return the endpoint as `find_endpoint` does, in the calling thread, for a `Device`."""
    invite = _invitation(target, flow, certs)
    if invite is None:
        return _plain(target, flow, certs)
    if inspect.iscoroutinefunction(invite):
        raise DeviceError(
            f"{target!r:.100} is asynchronous and belongs to an event loop. Connect an AsyncDevice to it."
        )
    return _checked(invite("device", name), target)


def _invitation(target: Any, flow: str | None, certs: str | Path | None) -> Any:
    if isinstance(target, str):
        return None
    if flow is not None or certs is not None:
        raise SettingsError(
            "flow and certs go with a URL alone: a Flow or an Endpoint knows its own. Leave them out."
        )
    return getattr(target, "endpoint_for", None)


def _plain(target: Any, flow: str | None, certs: str | Path | None) -> Endpoint:
    if not isinstance(target, str):
        return _checked(target if isinstance(target, Endpoint) else getattr(target, "endpoint", None), target)
    if flow is None:
        raise SettingsError(
            f"connecting to {target!r} needs the flow's name, too: connect(url, flow=NAME, certs=…)."
        )
    return Endpoint(
        target, valid_name(flow, "flow"), Credentials.in_folder(certs) if certs is not None else None
    )


def _checked(found: Any, target: Any) -> Endpoint:
    if not isinstance(found, Endpoint):
        raise SettingsError(
            f"{target!r:.100} is nothing to connect to. Pass a Flow, an Endpoint, or a URL like "
            "'tls://host:4222' with flow=NAME and certs=FOLDER."
        )
    return found
