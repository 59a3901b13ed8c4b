"""Closing a NATS connection: in time and without leftovers, whatever state its link is in."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pratipad_nb.errors import WaitTimeout
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.parties import Party

EDGE = Party("house", "edge")


@contextlib.asynccontextmanager
async def cut_links(folder: Path, certificates: Any, count: int) -> AsyncIterator[tuple[list[Any], int]]:
    """Open connections, then stop their server; gives them, and the port that nobody listens on any more."""
    server = EmbeddedServer(folder, certificates.server)
    url = await server.start([EDGE])
    links = []
    for number in range(count):
        prefix = f"{Party('house', 'edge').inbox}.{number}"
        link = await NatsConnection.connect(url, certificates.edge, name="edge", inbox_prefix=prefix)
        await link.subscribe("pratipad.house.stats", lambda _: None)
        links.append(link)
    await server.stop()
    yield links, int(url.rpartition(":")[2])


def tls_protocols() -> list[Any]:
    """Return what asyncio keeps for each TLS link: buffers of half a megabyte."""
    return [each for each in gc.get_objects() if type(each) is SSLProtocol]


async def close_at(link: NatsConnection, moment: float) -> None:
    await asyncio.sleep(moment)
    await link.publish("pratipad.house.stats", b"never sent")
    async with asyncio.timeout(4):
        await link.close()


async def test_with_the_link_down_every_close_ends_and_leaves_no_task(
    tmp_path: Path, certificates: Any
) -> None:
    before = asyncio.all_tasks()
    async with cut_links(tmp_path, certificates, 60) as (links, _):
        await asyncio.gather(*(close_at(link, 1.2 * index / 60) for index, link in enumerate(links)))
    assert asyncio.all_tasks() == before


async def test_a_flush_on_a_link_whose_tls_has_ended_says_that_the_link_is_down(
    tmp_path: Path, certificates: Any
) -> None:
    async with cut_links(tmp_path, certificates, 1) as (links, _):
        (link,) = links
        tls = link._client._transport._io_writer.transport
        tls.close()
        tls.close()
        with pytest.raises(WaitTimeout, match="the link went down"):
            await link.flush()
        await link.close()


async def test_the_memory_of_a_closed_links_tls_is_freed_at_once(tmp_path: Path, certificates: Any) -> None:
    server = EmbeddedServer(tmp_path, certificates.server)
    url = await server.start([EDGE])
    gc.collect()
    gc.disable()  # what is in a cycle would wait for it
    try:
        before = len(tls_protocols())
        for number in range(5):
            prefix = f"{Party('house', 'edge').inbox}.{number}"
            link = await NatsConnection.connect(url, certificates.edge, name="edge", inbox_prefix=prefix)
            assert len(tls_protocols()) == before + 1
            await link.close()
            del link
            assert len(tls_protocols()) == before
    finally:
        gc.enable()
        await server.stop()


async def test_a_server_that_never_ends_the_handshake_holds_up_no_close(
    tmp_path: Path, certificates: Any
) -> None:
    before = asyncio.all_tasks()
    async with cut_links(tmp_path, certificates, 10) as (links, port):
        silent = Silent()
        server = await asyncio.get_running_loop().create_server(lambda: silent, "127.0.0.1", port)
        await asyncio.gather(*(close_at(link, 1.5 * index / 10) for index, link in enumerate(links)))
        server.close()
        silent.close()
    assert asyncio.all_tasks() == before


class Silent(asyncio.Protocol):
    """Takes connections and says nothing."""

    def __init__(self) -> None:
        self._transports: list[Any] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transports.append(transport)

    def close(self) -> None:
        for transport in self._transports:
            transport.abort()
