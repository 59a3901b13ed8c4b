"""Preparing readers: whoever lets a reader in makes what the reader needs at the server, and may not make.

Owns that this, and its undoing, are done as an edge of the reader's flow. What is made is for
`pratipad_nb.transport.readers`.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from pratipad_nb.errors import NotInvited, WaitTimeout
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.transport.readers import forget_reader, prepare_readers

__all__ = ["forget", "prepare"]

LetIn = Callable[[Party], Awaitable[Credentials]]

#: How often it is tried, for what is there already is made no second time.
_TRIES = 3


async def prepare(url: str, parties: Iterable[Party], let_in: LetIn) -> None:
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
    for edge, names in _readers_by_edge(parties).items():
        for left in reversed(range(_TRIES)):
            try:
                async with _connected(url, edge, let_in) as connection:
                    await prepare_readers(connection, edge.flow, names)
                break
            except (
                NotInvited,
                WaitTimeout,
            ):  # the server starts again, or the edge's certificate was renewed
                if not left:
                    raise


async def forget(url: str, parties: Iterable[Party], let_in: LetIn) -> None:
    """Delete the logs of positions and the consumers of the readers among `parties`; see `prepare`."""
    for edge, names in _readers_by_edge(parties).items():
        async with _connected(url, edge, let_in) as connection:
            for name in names:
                await forget_reader(connection, edge.flow, name)


def _readers_by_edge(parties: Iterable[Party]) -> dict[Party, list[str]]:
    readers: dict[Party, set[str]] = {}
    for party in parties:
        if party.role == "reader":
            readers.setdefault(Party(party.flow, "edge", tenant=party.tenant), set()).add(party.name)
    return {edge: sorted(names) for edge, names in readers.items()}


@contextlib.asynccontextmanager
async def _connected(url: str, edge: Party, let_in: LetIn) -> AsyncIterator[Connection]:
    inbox = f"{edge.inbox}.{secrets.token_hex(8)}"
    connection = await NatsConnection.connect(
        url, await let_in(edge), name="issuer of readers", inbox_prefix=inbox
    )
    try:
        yield connection
    finally:
        await connection.close()
