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
from pratipad_nb.settings import Credentials, Endpoint
from pratipad_nb.transport.parties import Party

__all__ = ["find_endpoint", "find_endpoint_blocking"]


async def find_endpoint(
    target: Any, name: str, flow: str | None, certs: str | Path | None, tenant: str = ""
) -> Endpoint:
    """Return the endpoint that `target` means for the device `name` of `tenant`.

    A flow invites the device by its method ``endpoint_for(role, name)``, which may block for some
    milliseconds (a certificate is made) or be a coroutine.

    Raises
    ------
    SettingsError
        If `target` is no flow, endpoint or URL, is another tenant's, or `flow` and `certs` don't go with it.
    """
    invite = _invitation(target, name, flow, certs, tenant)
    if invite is None:
        return _plain(target, name, flow, certs, tenant)
    if inspect.iscoroutinefunction(invite):
        return _checked(await invite("device", name), target)
    return _checked(await asyncio.to_thread(invite, "device", name), target)


def find_endpoint_blocking(
    target: Any, name: str, flow: str | None, certs: str | Path | None, tenant: str = ""
) -> Endpoint:
    """Return the endpoint as `find_endpoint` does, in the calling thread, for a `Device`."""
    invite = _invitation(target, name, flow, certs, tenant)
    if invite is None:
        return _plain(target, name, flow, certs, tenant)
    if inspect.iscoroutinefunction(invite):
        raise DeviceError(
            f"{target!r:.100} is asynchronous and belongs to an event loop. Connect an AsyncDevice to it."
        )
    return _checked(invite("device", name), target)


def _invitation(target: Any, name: str, flow: str | None, certs: str | Path | None, tenant: str) -> Any:
    if isinstance(target, str):
        return None
    if flow is not None or certs is not None:
        raise SettingsError(
            "flow and certs go with a URL alone: a Flow or an Endpoint knows its own. Leave them out."
        )
    # Before the flow lets the device in.
    _check_tenant(target, name, tenant)
    return getattr(target, "endpoint_for", None)


def _plain(target: Any, name: str, flow: str | None, certs: str | Path | None, tenant: str) -> Endpoint:
    if not isinstance(target, str):
        found = target if isinstance(target, Endpoint) else getattr(target, "endpoint", None)
        _check_tenant(found, name, tenant)
        return _checked(found, target)
    if flow is None:
        raise SettingsError(
            f"connecting to {target!r} needs the flow's name, too: connect(url, flow=NAME, certs=…)."
        )
    party = Party.called("device", flow, name, tenant)
    credentials = Credentials.in_folder(certs) if certs is not None else None
    return Endpoint(target, party.flow, credentials, tenant=party.tenant)


def _check_tenant(target: Any, name: str, tenant: str) -> None:
    """Raise `SettingsError` if the device is of a tenant, and `target` of none or another."""
    theirs = getattr(target, "tenant", None)
    if tenant and isinstance(theirs, str) and theirs != tenant:
        whose = f"the tenant {theirs!r}" if theirs else "no tenant"
        raise SettingsError(
            f"the device {name!r} is of the tenant {tenant!r}, and {target!r:.100} is of {whose}. Connect "
            "the device to a flow of its tenant."
        )


def _checked(found: Any, target: Any) -> Endpoint:
    if not isinstance(found, Endpoint):
        raise SettingsError(
            f"{target!r:.100} is nothing to connect to. Pass a Flow, an Endpoint, or a URL like "
            "'tls://host:4222' with flow=NAME and certs=FOLDER."
        )
    return found
