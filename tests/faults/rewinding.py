"""A rewind by a stranger: every consumer of a flow's input logs is set back to what is not acknowledged.

All that is in flight at the edges is sent to them once more. The server does the same when a link breaks;
here it comes while everything runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.errors import Error

from pratipad_nb.settings import Credentials
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.subjects import Subjects
from pratipad_nb.transport.tls import client_context

__all__ = ["rewind_inputs"]

_API = "$JS.API"
# Of a TLS connection that ends, asyncio says that an answer of the client's library has no effect.
logging.getLogger("asyncio").setLevel(logging.ERROR)
#: How long the server may take to answer, in seconds; the hunt may have taken it away.
_SECONDS = 2.0


def rewind_inputs(url: str, flow: str, certs: Path) -> None:
    """Rewind all consumers of the input of `flow`; a server that is away is left alone."""
    with contextlib.suppress(Error, OSError, TimeoutError):
        asyncio.run(asyncio.wait_for(_rewind(url, flow, certs), 3 * _SECONDS))


async def _rewind(url: str, flow: str, certs: Path) -> None:
    client = await nats.connect(
        url,
        tls=client_context(Credentials.in_folder(certs)),
        tls_handshake_first=True,
        inbox_prefix=f"{Party(flow, 'edge').inbox}.hunt",
        allow_reconnect=False,
        connect_timeout=_SECONDS,
        error_cb=_ignored,
    )
    try:
        stream = Subjects(flow).input_stream
        for name in await _consumers(client, stream):
            await client.request(f"{_API}.CONSUMER.RESET.{stream}.{name}", b"", timeout=_SECONDS)
    finally:
        await client.close()


async def _consumers(client: Client, stream: str) -> list[str]:
    answer = await client.request(f"{_API}.CONSUMER.LIST.{stream}", b"", timeout=_SECONDS)
    return [each["name"] for each in json.loads(answer.data).get("consumers") or ()]


async def _ignored(_: Exception) -> None:
    """Leave an error to the request that it concerns."""
