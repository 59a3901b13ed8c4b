"""Malformed deliveries: kept as dead letters, and only then taken off the input.

Owns the waiting ones, which are bounded: beyond the bound the input waits. Which delivery is malformed is for `gatekeeper`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pratipad_nb.errors import FrameError
from pratipad_nb.transport.frames import DeadEntry, FailureNote, new_epoch
from pratipad_nb.transport.protocol import Delivery
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Malformed"]

#: Deliveries that may wait to be stored. The first bytes of each are kept, so that they are little memory.
_WAITING = 1024
_SHOWN_BYTES = 256


class Malformed:
    """Puts malformed deliveries to the dead letters.

    Parameters
    ----------
    store
        Makes dead letters safe; pairs of a step's key and the entry.
    acknowledge
        Takes a delivery off the input.
    step
        Gives what stands where the key of a failing processor would: the flow's input.
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
        """Have `delivery` stored; waits while too many wait already."""
        await self._waiting.put((delivery, error))

    async def run(self) -> None:
        """Store what was put aside, until cancelled; what isn't stored by then comes again."""
        while True:
            delivery, error = await self._waiting.get()
            step = self._step()
            await self._store([(step, self._entry(delivery, error, step))])
            self._acknowledge(delivery)

    def _entry(self, delivery: Delivery, error: FrameError, step: str) -> DeadEntry:
        note = FailureNote(step, f"FrameError: {error}", "")
        shown = repr(delivery.data[:_SHOWN_BYTES])
        device = self._subjects.device_of(delivery.subject)
        # Fast delivery has no sequences, and of two dead letters with the same id a single one would be listed.
        number = delivery.sequence or new_epoch()
        return DeadEntry(device, 0, number, 0, delivery.time, delivery.time, shown, [note])
