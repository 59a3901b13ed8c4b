"""A hostile party: the plain NATS client with an invited party's certificate, and frames as it likes."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import nats
from nats.aio.client import Client

from pratipad_nb import AsyncFlow
from pratipad_nb.transport.parties import Party, Role
from pratipad_nb.transport.tls import client_context

__all__ = ["raw_client"]


@contextlib.asynccontextmanager
async def raw_client(flow: AsyncFlow, role: Role, name: str, folder: Path) -> AsyncIterator[Client]:
    """Yield a connection of the library `nats`, which the server knows as the party `name`."""
    endpoint = await flow.invite(name, folder / name, role)
    assert endpoint.credentials is not None
    client = await nats.connect(
        endpoint.url,
        tls=client_context(endpoint.credentials),
        tls_handshake_first=True,
        inbox_prefix=f"{Party(flow.name, role, name).inbox}.{secrets.token_hex(4)}",
        allow_reconnect=False,
        error_cb=_ignored,
    )
    try:
        yield client
    finally:
        await client.close()


async def _ignored(_: Exception) -> None:
    """Leave an error to the request that it concerns."""
