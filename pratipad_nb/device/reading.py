"""Reading: takes readings from the user's `read`, when they are due and wanted.

Owns the four kinds of `read` (callable or iterable, blocking or asynchronous), the schedule, and the handling
of failed readings. Holding readings until they are sent is for `pratipad_nb.device.outbox`.

When is a reading taken? In Push mode: at every tick of `every`. In Pull and Demand mode: when the edge has
granted more messages than were pushed, at a tick of `every` if it is given. Before an edge has named the
mode: not yet, except by a device with `keep` whose flow was in Push mode when the device last knew the mode.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterable, Callable, Iterable
from functools import partial
from typing import Any

from pratipad_nb.calls import Worker, awaited, is_async
from pratipad_nb.device.credit import Credit
from pratipad_nb.device.outbox import Outbox
from pratipad_nb.errors import DeviceError
from pratipad_nb.transport.codec import encode_payload
from pratipad_nb.wording import in_words

__all__ = ["Reading", "Source", "checked_every"]

log = logging.getLogger(__name__)

#: Seconds between two readings of a callable in Push mode without `every`, and after a failed reading.
DEFAULT_EVERY = 1.0
#: How long a call of `read` in progress may take to end once the device is being closed, in seconds.
_PATIENCE = 1.0
#: Most readings in one hop to the worker's thread: amortises the hop to under 1 µs each.
_AT_ONCE = 256


def checked_every(every: object) -> float | None:
    """Return `every` if it is None or a finite number of seconds above 0, else raise `DeviceError`."""
    if every is None:
        return None
    if isinstance(every, bool) or not isinstance(every, (int, float)) or not 0 < every < math.inf:
        raise DeviceError(f"every is {every!r}; it is the seconds between two readings, a number above 0.")
    return float(every)


class Source:
    """The user's `read`, of any kind, as a source of single values.

    Raises
    ------
    DeviceError
        If `read` is neither callable nor iterable.
    """

    def __init__(self, read: object) -> None:
        self.callable = callable(read)
        self.is_async = is_async(read) if self.callable else isinstance(read, AsyncIterable)
        self._next: Callable[[], Any]
        if callable(read):
            self._next = read
        elif isinstance(read, AsyncIterable):
            self._next = aiter(read).__anext__
        elif isinstance(read, Iterable) and not isinstance(read, (str, bytes, bytearray, dict)):
            self._next = iter(read).__next__
        else:
            raise DeviceError(
                f"read is {read!r:.200} of type {type(read).__name__}; it is a callable without arguments "
                "that returns a reading, or an iterable of readings (asynchronous or not)."
            )

    def draw(self, count: int, outbox: Outbox, wanted: Callable[[], bool], *, patient: bool) -> bool:
        """Draw `count` values, blocking; return False if there are no more.

        Parameters
        ----------
        wanted
            Returns whether there is still a use for a further value.
        patient
            Whether to wait for room for a value, rather than drop an older message.
        """
        for drawn in range(count):
            if drawn and not wanted():
                break
            try:
                value = self._next()
            except StopIteration:
                if self.callable:  # a function has no end: this is an error
                    raise
                return False
            outbox.put(encode_payload(value), patient=patient)
        return True

    async def draw_soon(
        self, count: int, outbox: Outbox, wanted: Callable[[], bool], *, patient: bool
    ) -> bool:
        """Draw `count` values, awaiting each; return False if there are no more. See `draw`."""
        for drawn in range(count):
            if drawn and not wanted():
                break
            try:
                value = await awaited(self._next())
            except StopAsyncIteration:
                if self.callable:
                    raise
                return False
            await outbox.put_soon(encode_payload(value), patient=patient)
        return True


def _always() -> bool:
    return True


class Reading:
    """Draws readings from `source` into `outbox`.

    Parameters
    ----------
    changed
        Called when a read error appears or clears.

    Attributes
    ----------
    error
        The error of the last reading; empty if that reading succeeded.
    failed
        How many readings have failed.
    exhausted
        Whether the iterable has ended.
    """

    def __init__(
        self,
        device: str,
        source: Source,
        every: float | None,
        outbox: Outbox,
        credit: Credit,
        changed: Callable[[], None],
    ) -> None:
        self.error = ""
        self.failed = 0
        self.exhausted = False
        self._device = device
        self._source = source
        self._every = every
        self._outbox = outbox
        self._credit = credit
        self._changed = changed
        self._granted = asyncio.Event()
        self._worker = Worker(
            f"read-{device}",
            on_loop=source.is_async,
            owner=f"device {device!r}: read",
            kind=DeviceError,
            patience=_PATIENCE,
        )
        self._due = -math.inf

    def granted(self) -> None:
        """Look at the credit again; on the event loop."""
        self._granted.set()

    async def run(self) -> None:
        """Take readings until there are no more."""
        while not self.exhausted:
            every = self._pace()
            try:
                count = await self._wanted()
                every = self._pace()
                await self._until_due(every)
                self.exhausted = not await self._draw(1 if every else count, patient=every is None)
            except Exception as error:  # noqa: BLE001 - the user's code, or a sensor, must not end the device
                if self._outbox.is_shut:  # the device is being closed, which is no fault of the reading
                    self.exhausted = True
                    break
                self._failed(error)
                if every is None:
                    self._due = asyncio.get_running_loop().time() + DEFAULT_EVERY
            else:
                self._succeeded()
        self._changed()

    @property
    def answers(self) -> bool:
        """Whether asking may bring a reading: not while a reading that was asked for fails and is retried."""
        return not self.exhausted and not (self.error and self._credit.left(self._outbox.put_of_epoch) != 0)

    async def close(self, patience: float) -> None:
        """End the thread, if there is one; a call in progress gets `patience` seconds."""
        await self._worker.close(patience)

    def _pace(self) -> float | None:
        if self._every is None and self._source.callable and not self._credit.asked:
            return DEFAULT_EVERY
        return self._every

    async def _draw(self, count: int, *, patient: bool) -> bool:
        draw = self._source.draw_soon if self._source.is_async else self._source.draw
        # What was asked for may be taken back while readings are drawn.
        wanted = (lambda: self._left() != 0) if self._credit.asked else _always
        call = partial(draw, count, self._outbox, wanted, patient=patient)
        more: bool = await self._worker.call(call)
        return more

    async def _wanted(self) -> int:
        """Wait until there is a use for at least one reading, and return for how many."""
        while True:
            self._granted.clear()
            left, room = self._left(), self._outbox.room
            if left == 0:
                await self._granted.wait()
            elif room > 0:
                return min(_AT_ONCE, room, left or _AT_ONCE)
            elif self._outbox.drops and self._pace() is not None:
                return 1  # a timed reading is taken at its time, even if older messages are dropped for it
            else:
                await self._outbox.has_room()

    def _left(self) -> int | None:
        """Return how many readings there is a use for; None: without limit."""
        if self._credit.known:
            return self._credit.left(self._outbox.put_of_epoch)
        # A device with `keep` measures before the flow has answered, too, if the mode was Push
        # in its last start.
        return None if self._outbox.mode == "push" else 0

    async def _until_due(self, every: float | None) -> None:
        """Wait for the next tick, on a grid that doesn't drift. Ticks that were missed are not made up."""
        now = asyncio.get_running_loop().time()
        if now < self._due:
            await asyncio.sleep(self._due - now)
        if every is not None:
            self._due = now if self._due == -math.inf else self._due
            missed = max(0.0, asyncio.get_running_loop().time() - self._due) // every
            self._due += (missed + 1) * every

    def _failed(self, error: Exception) -> None:
        new = in_words(error)[:500]
        self.failed += 1
        if not self.error:
            log.warning("device %s: a reading failed and is skipped: %s", self._device, new, exc_info=error)
        if new != self.error:
            self.error = new
            self._changed()

    def _succeeded(self) -> None:
        if self.error:
            log.info("device %s: readings work again", self._device)
            self.error = ""
            self._changed()
