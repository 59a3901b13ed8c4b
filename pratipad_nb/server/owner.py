"""The server's owner, as a client of its own server: the user of the server's system account.

Owns that connection. What the owner asks is for `crowds`, `leaves` and `usage`.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator

from pratipad_nb.server.accounts import OWNER
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.nats import NatsConnection

__all__ = ["as_owner"]


@contextlib.asynccontextmanager
async def as_owner(url: str, owner: Credentials) -> AsyncIterator[NatsConnection]:
    """Connect to the server at `url` with the owner's certificate.

    Raises
    ------
    TransportError, WaitTimeout
        If the server doesn't answer.
    """
    inbox = f"_INBOX.{OWNER}.{secrets.token_hex(8)}"
    connection = await NatsConnection.connect(url, owner, name="owner", inbox_prefix=inbox)
    try:
        yield connection
    finally:
        await connection.close()
