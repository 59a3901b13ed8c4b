"""A hostile party: the plain NATS client with an invited party's certificate, and frames as it likes.

`HELLOS` are ways of saying hello that bring a device more than its share, or keep others from theirs.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import nats
from nats.aio.client import Client

from pratipad_nb import AsyncFlow
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.frames import HelloFrame
from pratipad_nb.transport.parties import Party, Role
from pratipad_nb.transport.tls import client_context

__all__ = ["HELLOS", "raw_client", "raw_party"]


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


async def _ignored(_: Exception) -> None:
    """Leave an error to the request that it concerns."""


def _much(flow: str, device: str, turn: int) -> HelloFrame:
    return HelloFrame(flow, device, 1, 0, 10**12)


def _more_and_more(flow: str, device: str, turn: int) -> HelloFrame:
    return HelloFrame(flow, device, 1, 0, 10**12 + turn)


def _readings(flow: str, device: str, turn: int) -> HelloFrame:
    return HelloFrame(flow, device, 1, turn, 0, answers=True)


def _coming_and_going(flow: str, device: str, turn: int) -> HelloFrame:
    return HelloFrame(flow, device, 1, 0, 10**12, leaving=turn % 2 == 1)


def _starting_again(flow: str, device: str, turn: int) -> HelloFrame:
    return HelloFrame(flow, device, turn + 1, 0, 10**12)


def _all_sent_before(flow: str, device: str, turn: int) -> HelloFrame:
    """Say, in a next start, that all was sent that the start before was asked for."""
    start = turn // 20
    return HelloFrame(flow, device, start + 1, 0, 10**12, former=start, former_sent=10**12)


def _all_dropped(flow: str, device: str, turn: int) -> HelloFrame:
    """Say that all was dropped that was asked for."""
    return HelloFrame(flow, device, 1, 0, 10**12, floor=10**6 * (turn // 20))


#: Each makes the hello of a turn: of a flow, a device, and the turn's number.
HELLOS: dict[str, Callable[[str, str, int], HelloFrame]] = {
    "much": _much,
    "more-and-more": _more_and_more,
    "readings": _readings,
    "coming-and-going": _coming_and_going,
    "starting-again": _starting_again,
    "all-sent-before": _all_sent_before,
    "all-dropped": _all_dropped,
}
