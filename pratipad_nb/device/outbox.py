"""The outbox: what was pushed and isn't safe yet, and who waits for it.

Owns the numbers of a device's messages, the high-water mark of what is safe, and waiting for it or for room. What they
are held in is `pratipad_nb.device.memory_outbox`'s or, on disk, `pratipad_nb.device.kept_outbox`'s. Any thread may put
something in; one sender takes it out (`pratipad_nb.device.uplink`). Knows neither credit nor transport.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import ClassVar

from pratipad_nb.errors import DeviceError, FlowError, PayloadError, PratipadError, WaitTimeout
from pratipad_nb.transport.frames import MAX_MESSAGES

__all__ = ["KEEP_BYTES", "MAX_FRAME_BYTES", "MAX_HELD", "Outbox", "Parcel", "tell"]

#: Most messages that are pushed and not safe yet by who can wait: four full frames, so that one can be on its way while others fill.
MAX_HELD = 4 * MAX_MESSAGES
#: How much is kept on disk if a device is to keep what it measures and nothing is said: some 600,000 readings of 60 bytes,
#: a week of one a second.
KEEP_BYTES = 64 << 20
#: Where the bytes of a frame's messages stop growing. Longer frames gain nothing and delay what is behind them.
MAX_FRAME_BYTES = 1 << 20
#: Largest payload while no server has said how much it takes: NATS servers take frames of 1 MiB by default.
DEFAULT_PAYLOAD_BYTES = (1 << 20) - (16 << 10)


@dataclass(frozen=True, slots=True)
class Parcel:
    """Consecutive messages for one frame; `first` is the number of the first one. `sources`: a gateway's devices."""

    first: int
    times: list[float]
    payloads: list[bytes]
    size: int
    sources: list[str] | None = None

    @property
    def last(self) -> int:
        """Number of the last one."""
        return self.first + len(self.times) - 1


class Outbox(ABC):
    """Encoded payloads, numbered from 1, until they are safe; what they are held in is for those who derive from it.

    Parameters
    ----------
    device
        Its name, for errors.

    Attributes
    ----------
    acked, taken, last
        Number up to which all is safe; up to which all has been given to the sender; of the newest.
    error
        Why nothing more can be sent, once that is so.
    drops
        Whether the oldest make room for the newest, so that nobody who can't wait has to.
    dropped
        How many messages were dropped since the device was made.
    floor
        Number up to which nothing more is sent, though it may never have been.
    max_payload
        The largest payload that travels.
    """

    drops: ClassVar[bool] = False

    def __init__(self, device: str) -> None:
        self.acked = 0
        self.taken = 0
        self.last = 0
        self.error: PratipadError | None = None
        self.dropped = 0
        self.floor = 0
        self.max_payload = DEFAULT_PAYLOAD_BYTES
        self._device = device
        self._lock = threading.Lock()
        self._idle = False
        self._wake: Callable[[], object] = lambda: None
        self._loop_thread = 0
        self._refused: PratipadError | None = DeviceError(
            f"device {device!r} isn't connected to a flow yet. Call connect(flow) first."
        )
        self._waiters: list[tuple[int, int, Future[None]]] = []
        self._tidy_at = 64
        self._order = itertools.count()

    # -- what they are held in ----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def unsafe(self) -> int:
        """How many are held or on their way."""

    @property
    @abstractmethod
    def room(self) -> int:
        """How many more may be put in without anything being dropped for them."""

    @property
    @abstractmethod
    def kept_in(self) -> str:
        """Where what isn't safe yet outlives this device; empty: nowhere."""

    @property
    @abstractmethod
    def mode(self) -> str:
        """The flow's mode when this outbox last heard of it, if it has kept that."""

    @abstractmethod
    def note_mode(self, mode: str) -> None:
        """Keep the flow's mode for the next start, if anything is kept."""

    @abstractmethod
    def loss(self, number: int) -> DeviceError | None:
        """Return what says that a message was dropped, so that it never will be safe; None if it wasn't."""

    @abstractmethod
    def claim(self, flow: str, epoch: int) -> int:
        """Get ready to number messages for `flow`, and return their epoch: `epoch`, or an earlier one that goes on.

        Raises
        ------
        DeviceError
            If that can't be.
        """

    @abstractmethod
    def release(self) -> None:
        """Give back what `claim` took."""

    @abstractmethod
    def offer(self, payload: bytes, source: str | None = None, *, patient: bool = False) -> int:
        """Put in an encoded payload and return its number, 0 if there is no room.

        Parameters
        ----------
        source
            Which device behind a gateway it is from, "" for the gateway itself: always given by a gateway, never by
            another device.
        patient
            Whether it can wait, so that nothing older is to be dropped for it.

        Raises
        ------
        PayloadError
            If it is larger than a frame may be.
        DeviceError, NotInvited
            If the device isn't connected, is closed or has failed.
        """

    @abstractmethod
    def take(self, most: int | None, max_bytes: int = MAX_FRAME_BYTES) -> Parcel | None:
        """Take the next messages for one frame, at most `most` (None: any number); None if there is nothing to take.

        With nothing held, the next `offer` wakes the sender.
        """

    @abstractmethod
    def confirm(self, parcel: Parcel) -> None:
        """Note that `parcel`, and all before it, is safe."""

    @abstractmethod
    def _fits(self, size: int) -> bool:
        """Return whether a payload of `size` bytes may be put in without anything being dropped for it."""

    # -- life ---------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many are held and not yet on their way."""
        return self.last - self.taken

    @property
    def is_shut(self) -> bool:
        """Whether payloads are refused."""
        return self._refused is not None

    def open(self, wake: Callable[[], object]) -> None:
        """Take payloads from now on; `wake` is called, on the running loop, when one comes while the sender is idle."""
        loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._wake = lambda: loop.call_soon_threadsafe(wake)
        self._refused = None

    def shut(self, reason: PratipadError) -> None:
        """Refuse payloads from now on; what is in goes on its way."""
        with self._lock:
            self._refused = self._refused or reason

    def fail(self, error: PratipadError) -> None:
        """Note that nothing more can be sent, and why; the first reason stays."""
        with self._lock:
            if self.error is not None:
                return
            self.error = self._refused = error
            waiters, self._waiters = self._waiters, []
        for _, _, future in waiters:
            if future.set_running_or_notify_cancel():
                future.set_exception(_anew(error))

    # -- for those who push -------------------------------------------------------------------------------------

    def _refusal(self, size: int) -> PratipadError:
        if self._refused is not None:
            return _anew(self._refused)
        return PayloadError(
            f"a payload of device {self._device!r} takes {size} bytes; at most {self.max_payload} travel to this "
            "server in one message. Split it, or send a reference to it."
        )

    def put(self, payload: bytes, source: str | None = None, *, patient: bool = False) -> int:
        """Put in an encoded payload, blocking while there is no room; return its number. See `offer`."""
        while not (number := self.offer(payload, source, patient=patient)):
            self._refuse_on_loop()
            self._when_fits(len(payload)).result()
        return number

    async def put_soon(self, payload: bytes, source: str | None = None, *, patient: bool = False) -> int:
        """Put in an encoded payload, waiting while there is no room; return its number. See `offer`."""
        while not (number := self.offer(payload, source, patient=patient)):
            await asyncio.wrap_future(self._when_fits(len(payload)))
        return number

    async def has_room(self) -> None:
        """Return once `room` is above 0; raise why it never will be."""
        while self.room <= 0:
            await asyncio.wrap_future(self._when_fits(0))

    def _when_fits(self, size: int) -> Future[None]:
        """Return a future for when something was confirmed; done at once if `size` bytes fit by now."""
        future: Future[None] = Future()
        with self._lock:
            if self.error is not None:
                future.set_exception(_anew(self.error))
            elif self._fits(size):
                future.set_result(None)
            else:
                self._await(0, future)
        return future

    # -- for those who wait -------------------------------------------------------------------------------------

    def wait_for(self, number: int, timeout: float | None = None) -> None:
        """Block until all up to `number` is safe; see `Receipt.wait`."""
        self._refuse_on_loop()
        future = self._when_safe(number)
        try:
            future.result(timeout)
        except TimeoutError as error:
            if future.done():
                raise
            raise WaitTimeout(
                f"message {number} of device {self._device!r} is not safe after {timeout} s: {self.unsafe} wait. It "
                "stays on its way; is the server there and the flow running?"
            ) from error
        finally:
            future.cancel()

    def _refuse_on_loop(self) -> None:
        if threading.get_ident() == self._loop_thread:
            raise FlowError(
                f"device {self._device!r} can't be waited for on its own event loop, which would last for ever. "
                "Use AsyncDevice and await the receipt."
            )

    async def safe(self, number: int) -> None:
        """Return once all up to `number` is safe; raise why it never will be."""
        if self.acked < number or self.loss(number) is not None:
            await asyncio.wrap_future(self._when_safe(number))

    def _when_safe(self, number: int) -> Future[None]:
        future: Future[None] = Future()
        with self._lock:
            if (loss := self.loss(number)) is not None:
                future.set_exception(loss)
            elif self.acked >= number:
                future.set_result(None)
            elif self.error is not None:
                future.set_exception(_anew(self.error))
            else:
                self._await(number, future)
        return future

    def _await(self, number: int, future: Future[None]) -> None:
        """Have `future` done by the `confirm` of `number`; 0: by the next one."""
        self._tidy()
        heapq.heappush(self._waiters, (number, next(self._order), future))

    def _tidy(self) -> None:
        """Drop waiters that have given up, now and then, so that polling leaves nothing behind."""
        if len(self._waiters) >= self._tidy_at:
            self._waiters = [waiter for waiter in self._waiters if not waiter[2].cancelled()]
            heapq.heapify(self._waiters)
            self._tidy_at = max(64, 2 * len(self._waiters))

    def _confirmed(self, last: int) -> list[Future[None]]:
        """Note, with the lock held, that all up to `last` is safe; returns who waits for that, to be told without it."""
        self.acked = last
        due = []
        while self._waiters and self._waiters[0][0] <= last:
            due.append(heapq.heappop(self._waiters)[2])
        return due


def tell(due: list[Future[None]]) -> None:
    """Let those go on who waited for what is safe now."""
    for future in due:
        if future.set_running_or_notify_cancel():
            future.set_result(None)


def _anew(error: PratipadError) -> PratipadError:
    """Return a copy to raise: one instance raised again and again would gather the tracebacks of all its raisers."""
    copied = type(error)(*error.args)
    copied.__cause__ = error.__cause__
    return copied
