"""Preparing readers: whoever lets a reader in makes what the reader needs at the server, and may not make.

Owns that this is done as an edge of the reader's flow. What is made is for `pratipad_nb.transport.readers`.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable

from pratipad_nb.errors import WaitTimeout
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.readers import prepare_readers

__all__ = ["prepare"]

#: How often it is tried, for what is there already is made no second time.
_TRIES = 3


async def prepare(
    url: str, parties: Iterable[Party], let_in: Callable[[Party], Awaitable[Credentials]]
) -> None:
    """Make the logs of positions and the consumers of the readers among `parties`.

    Parameters
    ----------
    url
        The server's URL.
    let_in
        Lets an edge in, and returns its certificate.

    Raises
    ------
    TransportError, WaitTimeout
        If the server doesn't answer.
    """
    readers: dict[Party, set[str]] = {}
    for party in parties:
        if party.role == "reader":
            readers.setdefault(Party(party.flow, "edge", tenant=party.tenant), set()).add(party.name)
    for edge, names in readers.items():
        for left in reversed(range(_TRIES)):
            try:
                await _prepare_of(url, edge, sorted(names), await let_in(edge))
                break
            except (
                WaitTimeout
            ):  # a server that starts again, or an edge's certificate that is renewed just now
                if not left:
                    raise


async def _prepare_of(url: str, edge: Party, names: list[str], credentials: Credentials) -> None:
    inbox = f"{edge.inbox}.{secrets.token_hex(8)}"
    connection = await NatsConnection.connect(url, credentials, name="issuer of readers", inbox_prefix=inbox)
    try:
        await prepare_readers(connection, edge.flow, names)
    finally:
        await connection.close()
