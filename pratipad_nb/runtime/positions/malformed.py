"""Malformed deliveries: stored as dead letters, and only then taken off the input.

Owns the malformed deliveries that wait to be stored. They are bounded: beyond the bound the input waits.
Which delivery is malformed is for `gatekeeper`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pratipad_nb.errors import FrameError
from pratipad_nb.transport.frames import DeadEntry, FailureNote, new_epoch
from pratipad_nb.transport.protocol import Delivery
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Malformed"]

#: Most deliveries that wait to be stored.
_WAITING = 1024
#: So many of a delivery's first bytes are kept in its dead letter.
_SHOWN_BYTES = 256


class Malformed:
    """Stores malformed deliveries as dead letters.

    Parameters
    ----------
    store
        Makes dead letters safe: called with pairs of a step's key and the entry.
    acknowledge
        Takes a delivery off the input.
    step
        Returns the name of the flow's input, which stands in the place of a failing processor's key.
    waiting
        Most deliveries that wait to be stored.
    """

    def __init__(
        self,
        subjects: Subjects,
        store: Callable[[Sequence[tuple[str, DeadEntry]]], Awaitable[None]],
        acknowledge: Callable[[Delivery], None],
        step: Callable[[], str],
        *,
        waiting: int = _WAITING,
    ) -> None:
        self._subjects = subjects
        self._store = store
        self._acknowledge = acknowledge
        self._step = step
        self._waiting: asyncio.Queue[tuple[Delivery, FrameError]] = asyncio.Queue(waiting)

    @property
    def waiting(self) -> int:
        """How many deliveries wait to be stored."""
        return self._waiting.qsize()

    async def put_aside(self, delivery: Delivery, error: FrameError) -> None:
        """Have `delivery` stored; waits while the bound of waiting deliveries is reached."""
        # The traceback of `error` holds all that was decompressed.
        await self._waiting.put((delivery, FrameError(str(error))))

    async def run(self) -> None:
        """Store the deliveries put aside, until cancelled; deliveries not stored by then come again."""
        while True:
            delivery, error = await self._waiting.get()
            step = self._step()
            await self._store([(step, self._entry(delivery, error, step))])
            self._acknowledge(delivery)

    def _entry(self, delivery: Delivery, error: FrameError, step: str) -> DeadEntry:
        note = FailureNote(step, f"FrameError: {error}", "")
        shown = repr(delivery.data[:_SHOWN_BYTES])
        device = self._subjects.device_of(delivery.subject)
        # Fast delivery has no sequences. Of two dead letters with the same id only the later one would be
        # listed.
        number = delivery.sequence or new_epoch()
        return DeadEntry(device, 0, number, 0, delivery.time, delivery.time, shown, [note])
