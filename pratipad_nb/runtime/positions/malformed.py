"""Malformed deliveries: stored as dead letters, and only then taken off the input.

Owns the malformed deliveries that wait to be stored. They are bounded: beyond the bound the input waits.
Which delivery is malformed is for `gatekeeper`. How many letters a device may have is for `letter_shares`: a
delivery beyond its device's share is counted, and taken off the input without a letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pratipad_nb.errors import FrameError
from pratipad_nb.transport.frames import DeadEntry, FailureNote, new_epoch
from pratipad_nb.transport.protocol import Delivery

__all__ = ["Malformed", "sender_of"]

#: Most deliveries that wait to be stored.
_WAITING = 1024
#: Most deliveries whose letters are stored together.
_TOGETHER = 128
#: So many of a delivery's first bytes are kept in its dead letter, and so many characters of the reason.
_SHOWN_BYTES, _SHOWN_REASON = 256, 512


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
    drops
        Returns whether a device has used up its share of the dead letters: its delivery is counted there, and
        gets no letter.
    waiting
        Most deliveries that wait to be stored.
    """

    def __init__(
        self,
        store: Callable[[Sequence[tuple[str, DeadEntry]]], Awaitable[None]],
        acknowledge: Callable[[Delivery], None],
        step: Callable[[], str],
        drops: Callable[[str], bool] = lambda _: False,
        *,
        waiting: int = _WAITING,
    ) -> None:
        self._store = store
        self._acknowledge = acknowledge
        self._step = step
        self._drops = drops
        self._waiting: asyncio.Queue[tuple[Delivery, FrameError]] = asyncio.Queue(waiting)

    @property
    def waiting(self) -> int:
        """How many deliveries wait to be stored."""
        return self._waiting.qsize()

    async def put_aside(self, delivery: Delivery, error: FrameError) -> None:
        """Have `delivery` stored; waits while the bound of waiting deliveries is reached."""
        if self._drops(sender_of(delivery)):
            self._acknowledge(delivery)
        else:
            # The traceback of `error` holds all that was decompressed.
            await self._waiting.put((delivery, FrameError(str(error))))

    async def run(self) -> None:
        """Store the deliveries put aside, until cancelled; deliveries not stored by then come again."""
        while True:
            together = [await self._waiting.get()]
            while len(together) < _TOGETHER and not self._waiting.empty():
                together.append(self._waiting.get_nowait())
            step = self._step()
            await self._store([(step, _entry(delivery, error, step)) for delivery, error in together])
            for delivery, _ in together:
                self._acknowledge(delivery)


def _entry(delivery: Delivery, error: FrameError, step: str) -> DeadEntry:
    note = FailureNote(step, f"FrameError: {error!s:.{_SHOWN_REASON}}", "")
    shown = repr(delivery.data[:_SHOWN_BYTES])
    # Fast delivery has no sequences. Of two dead letters with the same id only the later one would be listed.
    number = delivery.sequence or new_epoch()
    return DeadEntry(sender_of(delivery), 0, number, 0, delivery.time, delivery.time, shown, [note])


def sender_of(delivery: Delivery) -> str:
    """Return the name of the device in the subject of `delivery`, also if no device can have such a name."""
    return delivery.subject.rpartition(".")[2]
