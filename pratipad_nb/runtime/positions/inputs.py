"""Inputs: where deliveries come from. The input log, or signals in fast delivery, as one interface.

Owns receiving and acknowledging deliveries. Which messages of a delivery are new is for `gatekeeper`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from pratipad_nb.errors import Fenced, TransportClosed, TransportError, WaitTimeout
from pratipad_nb.runtime.positions.lineage import Footprint, Lineage
from pratipad_nb.transport.protocol import (
    Connection,
    Consumer,
    ConsumerSpec,
    ConsumerState,
    Delivery,
    Log,
    Signal,
    Subscription,
)

__all__ = ["DurableInput", "FastInput", "Input", "Succession"]

#: Frames, and bytes of frames, that may stand in the buffer of a fast flow. At full speed, so many frames are
#: about a second.
_FAST_BUFFER_FRAMES, _FAST_BUFFER_BYTES = 256, 64 << 20
#: Acknowledged frames are purged early once they fill this part of the log's bound, so that a small log takes
#: new frames at full speed, too; and once they are so many bytes, for a large purge keeps appends waiting.
_SHARE, _MOST_UNPURGED = 8, 32 << 20
#: About what an entry takes in the log besides its data.
_ENTRY_OVERHEAD = 64


class Input(Protocol):
    """A source of deliveries.

    Attributes
    ----------
    due
        Set when so much is acknowledged that it should be purged early.
    """

    due: asyncio.Event

    @property
    def moved(self) -> bool:
        """Whether deliveries were acknowledged that the last `progress` doesn't show."""

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

    async def progress(self) -> ConsumerState:
        """Return how far the input is acknowledged by the server's own account."""

    async def purge(self, through: int) -> None:
        """Delete the frames up to the sequence `through`, which are to come again no more."""

    async def close(self) -> None:
        """Stop receiving."""


class DurableInput:
    """The input log's consumer.

    Parameters
    ----------
    consumer
        The consumer of the whole log, or of one partition.
    input_log
        The log, which keeps acknowledged frames until they are purged.
    spec
        The consumer's name, and the pattern of the partition's frames.
    lineage
        Compares this log, too, and says when it is known to be the log that positions are of. Until then no
        delivery is returned, acknowledged or purged: those in flight come again after a reconnect.
    partitions
        How many partitions share the log's bound.

    Attributes
    ----------
    due
        Set when so much is acknowledged that it should be purged early.
    """

    def __init__(
        self, consumer: Consumer, input_log: Log, spec: ConsumerSpec, lineage: Lineage, partitions: int = 1
    ) -> None:
        self.due = asyncio.Event()
        self._consumer = consumer
        self._log = input_log
        self._spec = spec
        self._lineage = lineage
        self._footprint = Footprint(input_log)
        lineage.add([self._footprint.holder])
        self._share = min(input_log.spec.max_bytes // _SHARE // partitions, _MOST_UNPURGED)
        #: Deliveries that have arrived, and wait until the log is known.
        self._arrived: list[Delivery] = []
        self._held: dict[int, Delivery] = {}
        #: The bytes of frames acknowledged since the last look at the progress, and the newest such frame.
        self._bytes = self._newest = 0
        self._known: ConsumerState | None = None
        self._purged = 0

    @property
    def moved(self) -> bool:
        """Whether deliveries were acknowledged that the last `progress` doesn't show."""
        return self._newest > (self._known.floor if self._known is not None else 0)

    async def get(self) -> list[Delivery]:
        """Wait for deliveries; see `Input`."""
        if not self._arrived:
            self._arrived = await self._next()
        await self._lineage.compared()
        deliveries, self._arrived = self._arrived, []
        self._footprint.note(deliveries[-1])
        self._held.update((delivery.sequence, delivery) for delivery in deliveries)
        return deliveries

    async def _is_replaced(self) -> bool:
        """Return whether another run has a consumer in the place of this one."""
        family, _, _ = self._spec.name.rpartition("-")
        try:
            found = [each.name for each in await self._log.consumers()]
        except (TransportError, WaitTimeout):
            return False
        return self._spec.name not in found and any(name.startswith(f"{family}-") for name in found)

    async def _next(self) -> list[Delivery]:
        try:
            return await self._consumer.get()
        except TransportClosed:
            raise
        except TransportError as error:
            if await self._is_replaced():
                raise Fenced("another edge has taken the input over.") from error
            raise

    def acknowledge(self, delivery: Delivery) -> None:
        """Have `delivery` come again no more, unless the input is set back to a checkpoint."""
        self._held.pop(delivery.sequence, None)
        if not self._lineage.known:
            return
        self._consumer.acknowledge(delivery)
        self._newest = max(self._newest, delivery.sequence)
        self._bytes += len(delivery.data) + _ENTRY_OVERHEAD
        if self._bytes > self._share:
            self.due.set()

    def hold(self) -> None:
        """Keep the log from sending the deliveries again that are being worked on."""
        self._consumer.hold(list(self._held.values()))

    async def rewind(self) -> None:
        """Start again at the first frame that isn't acknowledged."""
        await self._consumer.rewind()

    async def waiting(self) -> int:
        """Return how many frames the log holds that `get` hasn't returned."""
        return max(0, (await self._consumer.state()).pending - len(self._held))

    async def progress(self) -> ConsumerState:
        """Return how far the input is acknowledged by the server's own account, which may be a little old."""
        known = self._known
        if known is None or known.pending or self.moved:
            self._bytes = 0
            known = self._known = await self._consumer.state()
        return known

    async def purge(self, through: int) -> None:
        """Delete the frames up to the sequence `through`."""
        if through > self._purged and self._lineage.known:
            await self._log.purge(through + 1, self._spec.subject)
            self._purged = through

    async def close(self) -> None:
        """Stop receiving; the position stays."""
        await self._consumer.close()


class FastInput:
    """Signals in a bounded buffer. A full buffer drops its oldest; the gap in the numbers shows the loss."""

    def __init__(self, wanted: Callable[[str], bool] = lambda _: True) -> None:
        self.due = asyncio.Event()
        self._wanted = wanted
        self._buffer: deque[Delivery] = deque()
        self._bytes = 0
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
        self._bytes += len(signal.data)
        while len(self._buffer) > _FAST_BUFFER_FRAMES or self._bytes > _FAST_BUFFER_BYTES:
            self._bytes -= len(self._buffer.popleft().data)
        self._arrived.set()

    async def get(self) -> list[Delivery]:
        """Wait for signals; see `Input`."""
        while not self._buffer:
            self._arrived.clear()
            await self._arrived.wait()
        deliveries = list(self._buffer)
        self._buffer.clear()
        self._bytes = 0
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

    @property
    def moved(self) -> bool:
        """Return False: no server waits for acknowledgements."""
        return False

    async def progress(self) -> ConsumerState:
        """Return a progress of no matter: signals have no sequence."""
        return ConsumerState("", 0, 0)

    async def purge(self, through: int) -> None:
        """Do nothing: no signal is stored."""

    async def close(self) -> None:
        """Stop receiving."""
        if self._subscription is not None:
            await self._subscription.close()


class Succession:
    """Tells whether deliveries arrive without a hole, as the consumer numbers them.

    A log's entries are sent in their order, and a rewind lets all unacknowledged entries be sent again. So
    where no delivery is missing since the last rewind, no entry is yet to come that lies before an entry that
    has come.
    """

    def __init__(self) -> None:
        self._series = self._last = 0
        #: The number of the first delivery of the series that came behind a hole.
        self._hole = math.inf
        #: The newest series that a rewind has ended.
        self._ended = -1

    @property
    def whole(self) -> bool:
        """Whether every delivery since the last rewind has arrived, up to the newest."""
        return self._hole == math.inf

    def note(self, delivery: Delivery) -> None:
        """Take note of `delivery`, the newest that has arrived."""
        if delivery.number == 1:
            self._hole = math.inf
        elif not delivery.number or delivery.series != self._series:
            self._hole = 0
        elif delivery.number not in (self._last, self._last + 1):
            self._hole = min(self._hole, delivery.number)
        if delivery.series > self._series:
            self._ended = delivery.series - 1
        self._series, self._last = delivery.series, delivery.number

    def whole_up_to(self, delivery: Delivery) -> bool:
        """Return whether every delivery since the last rewind has arrived, up to `delivery`."""
        return delivery.series == self._series and delivery.number < self._hole

    def rewound(self, delivery: Delivery) -> None:
        """Note that the input was rewound after `delivery` had arrived."""
        if delivery.number:
            self._ended = max(self._ended, delivery.series)

    def comes_again(self, delivery: Delivery) -> bool:
        """Return whether the input was rewound since: then `delivery` comes again, unless it is acknowledged.

        So one rewind serves all deliveries behind a hole, however many of them, and of however many devices.
        """
        return delivery.series <= self._ended
