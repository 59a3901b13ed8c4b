"""Inputs: where deliveries come from. The input log, or signals in fast delivery, as one interface.

Owns receiving and acknowledging deliveries. Which messages of a delivery are new is for `gatekeeper`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from pratipad_nb.runtime.positions.lineage import Footprint, Lineage
from pratipad_nb.transport.protocol import Connection, Consumer, Delivery, Signal, Subscription

__all__ = ["DurableInput", "FastInput", "Input"]

#: Frames that may stand in the buffer of a fast flow; at full speed that is about a second.
_FAST_BUFFER_FRAMES = 256


class Input(Protocol):
    """A source of deliveries."""

    async def get(self) -> list[Delivery]:
        """Wait for at least one delivery, and return all that have arrived."""

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the server that all of `delivery` is safe."""

    def hold(self) -> None:
        """Tell the server that all deliveries that aren't acknowledged are still being worked on."""

    async def rewind(self) -> None:
        """Have the deliveries that aren't acknowledged sent again, before newer ones."""

    async def waiting(self) -> int:
        """Return how many frames have arrived that `get` hasn't returned."""

    async def close(self) -> None:
        """Stop receiving."""


class DurableInput:
    """The input log's consumer.

    Parameters
    ----------
    lineage
        Says when the log is known to be the log that positions are of. Until then no delivery is returned and
        none acknowledged: the deliveries in flight come again after a reconnect.
    footprint
        Takes note of the newest delivery.
    """

    def __init__(self, consumer: Consumer, lineage: Lineage, footprint: Footprint) -> None:
        self._consumer = consumer
        self._lineage = lineage
        self._footprint = footprint
        self._held: dict[int, Delivery] = {}
        #: Deliveries that have arrived, and wait until the log is known.
        self._arrived: list[Delivery] = []

    async def get(self) -> list[Delivery]:
        """Wait for deliveries; see `Input`."""
        if not self._arrived:
            self._arrived = await self._consumer.get()
        await self._lineage.compared()
        deliveries, self._arrived = self._arrived, []
        self._footprint.note(deliveries[-1])
        self._held.update((delivery.sequence, delivery) for delivery in deliveries)
        return deliveries

    def acknowledge(self, delivery: Delivery) -> None:
        """Take `delivery` off the input log."""
        self._held.pop(delivery.sequence, None)
        if self._lineage.known:
            self._consumer.acknowledge(delivery)

    def hold(self) -> None:
        """Keep the log from sending the deliveries again that are being worked on."""
        self._consumer.hold(list(self._held.values()))

    async def rewind(self) -> None:
        """Start again at the first frame that isn't acknowledged."""
        await self._consumer.rewind()

    async def waiting(self) -> int:
        """Return how many frames the log holds that `get` hasn't returned."""
        return max(0, await self._consumer.unacknowledged() - len(self._held))

    async def close(self) -> None:
        """Stop receiving; the position stays."""
        await self._consumer.close()


class FastInput:
    """Signals in a bounded buffer. A full buffer drops its oldest; the gap in the numbers shows the loss."""

    def __init__(self, wanted: Callable[[str], bool] = lambda _: True) -> None:
        self._wanted = wanted
        self._buffer: deque[Delivery] = deque(maxlen=_FAST_BUFFER_FRAMES)
        self._arrived = asyncio.Event()
        self._subscription: Subscription | None = None

    async def listen(self, connection: Connection, subject: str) -> None:
        """Begin to receive the signals sent to `subject`."""
        self._subscription = await connection.subscribe(subject, self.on_signal)

    def on_signal(self, signal: Signal) -> None:
        """Add `signal` to the buffer; the callback of the subscription."""
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
        """Do nothing: no server waits for the acknowledgement of a signal."""

    def hold(self) -> None:
        """Do nothing: no signal is sent again."""

    async def rewind(self) -> None:
        """Do nothing: no signal is sent again."""

    async def waiting(self) -> int:
        """Return how many frames are in the buffer."""
        return len(self._buffer)

    async def close(self) -> None:
        """Stop receiving."""
        if self._subscription is not None:
            await self._subscription.close()
