"""The target of a cloud client: from the arguments that name a flow to the flow's name and an endpoint.

Owns the forms that a cloud client's target may have; `pratipad_nb.device.target` does the same for a device.
Calls a flow by its methods alone, for cloud clients know no `Flow`.
"""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any, cast

from pratipad_nb.errors import SettingsError
from pratipad_nb.settings import Credentials, Endpoint, valid_name, valid_tenant
from pratipad_nb.transport.parties import Party, flow_key

__all__ = ["Target"]


class Target:
    """The flow that a reader reads, and the endpoint of that flow.

    Parameters
    ----------
    flow
        A flow's name, of another tenant's flow with that tenant (``acme/house``), or a flow of this process,
        which lets the reader in.
    reader
        The reader's name.
    tenant
        The reader's tenant; empty: none, or the flow's.
    server, certs, endpoint
        Where the named flow is; only for a flow's name, since a flow knows its own endpoint.

    Attributes
    ----------
    flow
        The flow's name, without a tenant.
    reader
        The reader's name at the flow: of a guest, with its tenant.

    Raises
    ------
    SettingsError
        If no argument says where to connect to, or two do.
    """

    def __init__(
        self,
        flow: Any,
        reader: str,
        server: str | None,
        certs: str | Path | None,
        endpoint: Endpoint | None,
        tenant: str = "",
    ) -> None:
        tenant = valid_tenant(tenant)
        self._let_in = None if isinstance(flow, str) else getattr(flow, "endpoint_for", None)
        self._endpoint: Endpoint | None = None
        party = Party.called("reader", _key(flow, endpoint, tenant), reader, tenant)
        self.flow, self.reader = party.flow, party.name
        if self._let_in is None:
            self._endpoint = _plain(party, server, certs, endpoint)
        else:
            if (server, certs, endpoint) != (None, None, None):
                raise SettingsError(
                    f"server, certs and endpoint go with a flow's name; {flow!r:.100} knows its own. Leave "
                    "them out."
                )

    def __str__(self) -> str:
        return self._endpoint.url if self._endpoint is not None else "its flow's server"

    async def endpoint(self) -> Endpoint:
        """Return the endpoint to connect to; a flow is asked for its endpoint once."""
        if self._endpoint is None:
            self._endpoint = await self._invitation()
        return self._endpoint

    async def _invitation(self) -> Endpoint:
        let_in: Any = self._let_in
        if inspect.iscoroutinefunction(let_in):
            return cast("Endpoint", await let_in("reader", self.reader))
        # On a thread: the synchronous method waits for another thread's event loop.
        return cast("Endpoint", await asyncio.to_thread(let_in, "reader", self.reader))


def _key(flow: Any, endpoint: Endpoint | None, tenant: str) -> str:
    """Return the flow's key as `Party.called` understands it."""
    if getattr(flow, "endpoint_for", None) is not None:
        return f"{getattr(flow, 'tenant', '')}/{flow.name}"
    if not isinstance(flow, str):
        return valid_name(flow, "flow")  # raises an error
    return f"{endpoint.tenant}/{flow}" if endpoint is not None and not tenant and "/" not in flow else flow


def _plain(party: Party, server: str | None, certs: str | Path | None, endpoint: Endpoint | None) -> Endpoint:
    if endpoint is None:
        if server is None:
            raise SettingsError(
                f"it isn't said where the flow {party.key!r} is. Pass server='tls://HOST:PORT' and "
                "certs=FOLDER, or endpoint=…, or the flow itself if it runs in this process."
            )
        credentials = None if certs is None else Credentials.in_folder(certs)
        return Endpoint(server, party.flow, credentials, tenant=party.tenant)
    if server is not None or certs is not None:
        raise SettingsError(
            "endpoint=… names the server and the certificates already; leave out server and certs."
        )
    theirs = flow_key(endpoint.flow, endpoint.tenant)
    if theirs != party.key:
        raise SettingsError(
            f"the endpoint is of the flow {theirs!r}, not of {party.key!r}. Use its own name."
        )
    return endpoint
