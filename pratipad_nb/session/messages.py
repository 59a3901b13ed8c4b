"""Messages: the methods of `AsyncFlow` that take messages, send orders and ask for readings.

Owns these methods, a part of `AsyncFlow`. The synchronous methods are in `messages_blocking`, with the
descriptions. Reading is for `pratipad_nb.cloud.reader`; orders and requests are for the running edge.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pratipad_nb.cloud.reader import Reader
from pratipad_nb.errors import TransportClosed
from pratipad_nb.message import Message
from pratipad_nb.request import AsyncRequest
from pratipad_nb.runtime.edge.running import Running
from pratipad_nb.runtime.positions.forwarding import Forwarder
from pratipad_nb.runtime.values.stats import FlowStats
from pratipad_nb.session.ends import ended_meanwhile, not_running, take_cut_short
from pratipad_nb.session.request import AskedHere
from pratipad_nb.settings import checked_wait, valid_reader

__all__ = ["AsyncMessages"]


class AsyncMessages:
    """The part of `AsyncFlow` through which messages come and go."""

    _edge: Running | None
    _reader: Reader | None
    _running: asyncio.Task[None] | None
    _forwarder: Forwarder | None

    if TYPE_CHECKING:

        @property
        def name(self) -> str:
            """The flow's name."""

        def stats(self) -> FlowStats:
            """Return a snapshot of all counters."""

    @property
    def edge(self) -> Running:
        """The running edge."""
        if self._edge is None:
            raise not_running(self)
        return self._edge

    async def take(self, n: int = 1, timeout: float | None = 10.0) -> list[Message]:
        """Return the next `n` messages that reached the cloud."""
        reader = await self._opened_reader()
        try:
            return await reader.take(n, timeout)
        except TransportClosed as error:
            raise take_cut_short(self.name, n) from error

    async def __aiter__(self) -> AsyncIterator[Message]:
        async for message in await self._opened_reader():
            yield message

    async def seek(self, where: Literal["oldest", "newest"]) -> None:
        """Move this handle's position; see `Flow.seek`."""
        await (await self._opened_reader()).seek(where)

    async def _opened_reader(self, timeout: float | None = None) -> Reader:  # noqa: ARG002 - as a Cloud's
        """Return the reader of this handle; raise `FlowError` unless the flow runs."""
        _ = self.edge
        assert self._reader is not None
        return self._reader

    async def send(self, payload: Any, to: str | Sequence[str] | None = None) -> str:
        """Send an order to one device, several devices, or all known devices; return the order's id."""
        return await self.edge.order(payload, to)

    async def pull(self, n: int = 1, device: str | None = None) -> AsyncRequest:
        """Pull: ask for `n` readings."""
        request = self.edge.pull(n, device)
        assert self._running is not None
        return AsyncRequest(self.name, request.id, n, AskedHere(request, self._running))

    async def settled(self, timeout: float | None = 30.0) -> None:
        """Wait until all accepted messages are processed and stored at Output; None waits for ever."""
        seconds = checked_wait(timeout, "settled: timeout")
        try:
            await self.edge.settled(math.inf if seconds is None else seconds)
        except TransportClosed as error:
            what = "what was accepted to be settled was"
            raise ended_meanwhile(self.name, what, "What isn't done is left to the next start().") from error

    async def forget_reader(self, name: str) -> None:
        """Delete a named reader and its position, so that the flow no longer waits for it."""
        await self.edge.forget_reader(valid_reader(name))
        if self._forwarder is not None:
            await self._forwarder.forget_reader(name)
