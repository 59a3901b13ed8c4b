"""A hostile party: the plain NATS client with an invited party's certificate, and frames as it likes."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import nats
from nats.aio.client import Client

from pratipad_nb import AsyncFlow
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.parties import Party, Role
from pratipad_nb.transport.tls import client_context

__all__ = ["raw_client", "raw_party"]


@contextlib.asynccontextmanager
async def raw_client(flow: AsyncFlow, role: Role, name: str, folder: Path) -> AsyncIterator[Client]:
    """Yield a connection of the library `nats`, which the server knows as the party `name`."""
    endpoint = await flow.invite(name, folder / name, role)
    assert endpoint.credentials is not None
    async with raw_party(endpoint.url, Party(flow.name, role, name), endpoint.credentials) as client:
        yield client


@contextlib.asynccontextmanager
async def raw_party(
    url: str, party: Party, credentials: Credentials, errors: list[str] | None = None
) -> AsyncIterator[Client]:
    """Yield a connection of the library `nats` for `party`; the server's errors go to `errors`."""

    async def noted(error: Exception) -> None:
        if errors is not None:
            errors.append(str(error))

    client = await nats.connect(
        url,
        tls=client_context(credentials),
        tls_handshake_first=True,
        inbox_prefix=f"{party.inbox}.{secrets.token_hex(4)}",
        allow_reconnect=False,
        error_cb=noted,
    )
    try:
        yield client
    finally:
        await client.close()
