"""Where messages come in: the durable input log, or signals in fast delivery, as one interface.

Owns receiving and acknowledging deliveries. Which messages of a delivery are new is for `gatekeeper`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from pratipad_nb.transport.protocol import Connection, Consumer, Delivery, Signal, Subscription

__all__ = ["DurableInput", "FastInput", "Input"]

#: Frames that may stand in the buffer of a fast flow; at full speed that is about a second.
_FAST_BUFFER_FRAMES = 256


class Input(Protocol):
    """A source of deliveries."""

    async def get(self) -> list[Delivery]:
        """Wait for at least one delivery and return all that are here."""

    def acknowledge(self, delivery: Delivery) -> None:
        """Say that all of `delivery` is safe."""

    def hold(self) -> None:
        """Say that all that was delivered and not acknowledged is still being worked on."""

    async def rewind(self) -> None:
        """Let what isn't acknowledged come again, before anything newer."""

    async def waiting(self) -> int:
        """Return how many frames have arrived that `get` hasn't returned."""

    async def close(self) -> None:
        """Stop receiving."""


class DurableInput:
    """The input log's consumer."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._held: dict[int, Delivery] = {}

    async def get(self) -> list[Delivery]:
        """Wait for deliveries; see `Input`."""
        deliveries = await self._consumer.get()
        self._held.update((delivery.sequence, delivery) for delivery in deliveries)
        return deliveries

    def acknowledge(self, delivery: Delivery) -> None:
        """Take it off the input log."""
        self._held.pop(delivery.sequence, None)
        self._consumer.acknowledge(delivery)

    def hold(self) -> None:
        """Keep the log from delivering again what is being worked on."""
        self._consumer.hold(list(self._held.values()))

    async def rewind(self) -> None:
        """Start again at the first that isn't acknowledged."""
        await self._consumer.rewind()

    async def waiting(self) -> int:
        """Return how many frames the log holds beyond those that `get` has returned."""
        return max(0, await self._consumer.unacknowledged() - len(self._held))

    async def close(self) -> None:
        """Stop receiving; the position stays."""
        await self._consumer.close()


class FastInput:
    """Signals, kept in a bounded buffer: when it is full the oldest go, and the gap in their numbers shows it."""

    def __init__(self, wanted: Callable[[str], bool] = lambda _: True) -> None:
        self._wanted = wanted
        self._buffer: deque[Delivery] = deque(maxlen=_FAST_BUFFER_FRAMES)
        self._arrived = asyncio.Event()
        self._subscription: Subscription | None = None

    async def listen(self, connection: Connection, subject: str) -> None:
        """Begin to receive what is sent to `subject`."""
        self._subscription = await connection.subscribe(subject, self.on_signal)

    def on_signal(self, signal: Signal) -> None:
        """Take a signal in; the callback of the subscription."""
        if not self._wanted(signal.subject):
            return
        self._buffer.append(Delivery(signal.subject, signal.data, 0, time.time()))
        self._arrived.set()

    async def get(self) -> list[Delivery]:
        """Wait for signals; see `Input`."""
        while not self._buffer:
            self._arrived.clear()
            await self._arrived.wait()
        deliveries = list(self._buffer)
        self._buffer.clear()
        return deliveries

    def acknowledge(self, delivery: Delivery) -> None:
        """Nothing waits for it."""

    def hold(self) -> None:
        """Nothing comes again."""

    async def rewind(self) -> None:
        """Nothing comes again."""

    async def waiting(self) -> int:
        """Return how many frames are in the buffer."""
        return len(self._buffer)

    async def close(self) -> None:
        """Stop receiving."""
        if self._subscription is not None:
            await self._subscription.close()
