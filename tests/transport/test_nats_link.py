"""The first connect: a server that ends in its midst is tried again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.parties import Party

EDGE = Party("house", "edge")


class Door:
    """A proxy that cuts some connections off between their TLS handshake and the server's first word."""

    def __init__(self, port: int, *, cut: set[int]) -> None:
        self.connections = 0
        self._port = port
        self._cut = cut

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        async with await asyncio.start_server(self._pass, "127.0.0.1", 0) as server:
            yield f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        cut = self.connections in self._cut
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        answers = asyncio.ensure_future(self._copy(there, writer))
        # The client's second flight ends the handshake, after which the server would say its first word.
        await self._copy(reader, back, most=1 if cut else None)
        if cut:
            await reader.read(1 << 16)
        for end in (back, writer):
            end.close()
        await asyncio.gather(answers, return_exceptions=True)

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, most: int | None = None
    ) -> None:
        while most != 0 and (data := await reader.read(1 << 16)):
            most = None if most is None else most - 1
            writer.write(data)
            with contextlib.suppress(ConnectionError):
                await writer.drain()


async def test_a_server_that_ends_between_handshake_and_first_word_is_tried_again(
    tmp_path: Path, certificates: Any
) -> None:
    server = EmbeddedServer(tmp_path, certificates.server)
    url = await server.start([EDGE])
    door = Door(int(url.rpartition(":")[2]), cut={2})  # the first connection is the probe's
    async with door.open() as through:
        link = await NatsConnection.connect(
            through, certificates.edge, name="edge", inbox_prefix=Party("house", "edge").inbox
        )
        assert link.connected
        assert door.connections == 3
        await link.close()
    await server.stop()
