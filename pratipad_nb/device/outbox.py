"""The outbox: messages that were pushed and aren't safe yet, and the callers that wait for their safety.

Owns the numbers of a device's messages, the number up to which messages are safe, and waiting for that number
or for room. Holding the messages is for `pratipad_nb.device.memory_outbox` or, on disk,
`pratipad_nb.device.kept_outbox`. Any thread may put messages in; one sender takes them out
(`pratipad_nb.device.uplink`). Knows neither credit nor transport.

The invariant: ``acked <= taken <= last``. Messages up to `acked` are safe (or dropped), messages up to
`taken` were given to the sender, messages up to `last` were put in. It holds because numbers are given in
order under the lock, the one sender takes messages in that order, and it has at most one parcel in flight,
which it confirms before it takes the next. So one number in place of a future for each message says which
receipts are done, and `_waiters`, a heap by number, is looked at only as far as messages were confirmed.
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
from pratipad_nb.forks import forked_error, watch
from pratipad_nb.transport.frames import MAX_MESSAGES

__all__ = ["KEEP_BYTES", "MAX_FRAME_BYTES", "MAX_HELD", "Outbox", "Parcel", "tell"]

#: Most messages that callers that can wait put in before the oldest are safe: four full frames, so that one
#: frame can be in flight while others fill.
MAX_HELD = 4 * MAX_MESSAGES
#: Default of `keep_bytes`, the bound of the messages that are kept on disk: some 600,000 readings of 60
#: bytes, a week of one reading a second.
KEEP_BYTES = 64 << 20
#: Most bytes of a frame's messages. Longer frames gain nothing and delay the messages behind them. A frame of
#: so many bytes and their times is never refused for the memory that it takes (`codec.SURE_BODY_BYTES`).
MAX_FRAME_BYTES = 500_000
#: Largest payload until a server has said how much it takes, in bytes: NATS servers take frames of
#: 1 MiB by default.
DEFAULT_PAYLOAD_BYTES = (1 << 20) - (16 << 10)


@dataclass(frozen=True, slots=True)
class Parcel:
    """Consecutive messages of one epoch, for one frame.

    `first` is the number of the first message, `size` the sum of the payloads' bytes. `sources` names the
    device behind a gateway that each message is of; None if the device is no gateway.
    """

    first: int
    times: list[float]
    payloads: list[bytes]
    size: int
    sources: list[str] | None = None

    @property
    def last(self) -> int:
        """Number of the last message."""
        return self.first + len(self.times) - 1

    def halves(self) -> tuple[Parcel, Parcel]:
        """Return the first half of the messages, and the second."""
        middle = len(self.times) // 2
        return self._part(0, middle), self._part(middle, len(self.times))

    def _part(self, begin: int, end: int) -> Parcel:
        payloads = self.payloads[begin:end]
        sources = None if self.sources is None else self.sources[begin:end]
        return Parcel(self.first + begin, self.times[begin:end], payloads, sum(map(len, payloads)), sources)


class Outbox(ABC):
    """Encoded payloads, numbered from 1, until they are safe. Subclasses hold the payloads.

    Parameters
    ----------
    device
        The device's name, for errors.

    Attributes
    ----------
    acked
        Number up to which all messages are safe.
    taken
        Number up to which all messages have been given to the sender.
    last
        Number of the newest message.
    error
        Why messages can't be sent any more; None while they can.
    drops
        Whether the oldest messages are dropped for the newest, so that a caller that can't wait needn't.
    dropped
        How many messages were dropped since the device was made.
    floor
        Number up to which no message is sent any more, even if it never was sent.
    epoch
        The epoch of the messages that are sent now.
    base
        Number before the first message of `epoch`: in frames and signals, that message is number 1.
    lossy
        Whether any message was put in that is not sent; `loss` knows which.
    trouble
        Why messages can't be kept at present; empty while they can, and in an outbox that keeps none.
    max_payload
        Size of the largest payload that the server takes, in bytes.
    """

    drops: ClassVar[bool] = False
    trouble: str = ""
    lossy: bool = False

    def __init__(self, device: str) -> None:
        self.acked = 0
        self.taken = 0
        self.last = 0
        self.error: PratipadError | None = None
        self.dropped = 0
        self.floor = 0
        self.epoch = 0
        self.base = 0
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
        watch(self)

    def _find_forked(self) -> bool:
        # Not stranded by its class: `Receipt.done` asks it, and `push` is bound to it.
        self._lock = threading.Lock()
        if self._loop_thread:
            self._waiters = []
            self.error = self._refused = forked_error(f"device {self._device!r}")
        return False

    # -- for subclasses: holding messages --------------------------------------------------------------------

    @property
    @abstractmethod
    def unsafe(self) -> int:
        """How many messages are held or in flight."""

    @property
    @abstractmethod
    def room(self) -> int:
        """How many more messages may be put in without dropping others."""

    @property
    @abstractmethod
    def kept_in(self) -> str:
        """Path at which messages that aren't safe yet outlive this device; empty if they end with it."""

    @property
    @abstractmethod
    def unkept(self) -> int:
        """How many messages are neither safe nor kept: they end with this device."""

    @abstractmethod
    def is_kept(self, number: int) -> bool:
        """Return whether message `number` outlives this device: it is kept, or safe."""

    @abstractmethod
    def tend(self) -> None:
        """Keep what can be kept by now, and force it to the disk. Called once a second, and at the end."""

    @property
    @abstractmethod
    def mode(self) -> str:
        """The flow's mode in an earlier start, or noted since; empty if none is kept."""

    @abstractmethod
    def note_mode(self, mode: str) -> None:
        """Keep the flow's mode for the next start, if this outbox keeps messages."""

    @abstractmethod
    def loss(self, number: int) -> DeviceError | None:
        """Return the error for message `number` if it was dropped, so will never be safe; else None."""

    @abstractmethod
    def claim(self, flow: str, epoch: int) -> None:
        """Get ready to number messages for the flow with the key `flow` in `epoch`.

        Messages of earlier starts that are kept are sent first, in their own epochs.

        Raises
        ------
        DeviceError
            If another device has the file open, or the file may not be read and written.
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
            The device behind a gateway that `payload` is from, "" for the gateway itself: always given by a
            gateway, never by another device.
        patient
            Whether the caller can wait, so that no older message is to be dropped for `payload`.

        Raises
        ------
        PayloadError
            If `payload` is larger than a frame may be.
        DeviceError, NotInvited
            If the device isn't connected, is closed or has failed.
        """

    @abstractmethod
    def take(self, most: int | None, max_bytes: int = MAX_FRAME_BYTES) -> Parcel | None:
        """Take and return the next messages for one frame, at most `most` (None: any number).

        Return None if there is no message to take. If no message is held, the next `offer` wakes the sender.
        If the messages of one epoch have all been sent, `take` goes on with the next `epoch`, and returns
        None.
        """

    @abstractmethod
    def confirm(self, parcel: Parcel) -> None:
        """Note that `parcel`, and every message before it, is safe."""

    @abstractmethod
    def _fits(self, size: int) -> bool:
        """Return whether a payload of `size` bytes may be put in without dropping messages."""

    # -- numbers as frames and signals have them -------------------------------------------------------------

    @property
    def sent_of_epoch(self) -> int:
        """How many messages of `epoch` have been given to the sender."""
        return max(0, self.taken - self.base)

    @property
    def put_of_epoch(self) -> int:
        """How many messages were put in since `epoch` began."""
        return max(0, self.last - self.base)

    @property
    def waiting_of_epoch(self) -> int:
        """How many messages of `epoch` are held and not yet in flight."""
        return self.waiting

    @property
    def present(self) -> bool:
        """Whether messages that are put in now belong to `epoch`."""
        return True

    # -- life ------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many messages are held and not yet in flight."""
        return self.last - self.taken

    @property
    def is_shut(self) -> bool:
        """Whether payloads are refused."""
        return self._refused is not None

    def open(self, wake: Callable[[], object]) -> None:
        """Take payloads from now on.

        `wake` is called, on the running loop, when a payload is put in while the sender is idle.
        """
        loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._wake = lambda: loop.call_soon_threadsafe(wake)
        self._refused = None

    def shut(self, reason: PratipadError) -> None:
        """Refuse payloads from now on; messages that were put in before are still sent."""
        with self._lock:
            self._refused = self._refused or reason

    def fail(self, error: PratipadError) -> None:
        """Note that messages can't be sent any more, and why; the first reason stays."""
        with self._lock:
            if self.error is not None:
                return
            self.error = self._refused = error
            waiters, self._waiters = self._waiters, []
        for _, _, future in waiters:
            if future.set_running_or_notify_cancel():
                future.set_exception(_anew(error))

    # -- for callers that push -------------------------------------------------------------------------------

    def _refusal(self, size: int) -> PratipadError:
        if self._refused is not None:
            return _anew(self._refused)
        return PayloadError(
            f"a payload of device {self._device!r} takes {size} bytes; at most {self.max_payload} travel to "
            "this server in one message. Split it, or send a reference to it."
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
        """Return once `room` is above 0; raise the reason if it never will be."""
        while self.room <= 0:
            await asyncio.wrap_future(self._when_fits(0))

    def _when_fits(self, size: int) -> Future[None]:
        """Return a future that the next `confirm` completes; done at once if `size` bytes fit by now."""
        future: Future[None] = Future()
        with self._lock:
            if self.error is not None:
                future.set_exception(_anew(self.error))
            elif self._fits(size):
                future.set_result(None)
            else:
                self._await(0, future)
        return future

    # -- for callers that wait -------------------------------------------------------------------------------

    def wait_for(self, number: int, timeout: float | None = None) -> None:
        """Block until all messages up to `number` are safe; see `Receipt.wait`."""
        self._refuse_on_loop()
        future = self._when_safe(number)
        try:
            future.result(timeout)
        except TimeoutError as error:
            if future.done():
                raise
            raise WaitTimeout(
                f"message {number} of device {self._device!r} is not safe after {timeout} s: {self.unsafe} "
                "messages wait and stay in the outbox. Is the server there and the flow running?"
            ) from error
        finally:
            future.cancel()

    def _refuse_on_loop(self) -> None:
        if threading.get_ident() == self._loop_thread:
            raise FlowError(
                f"device {self._device!r} can't be waited for on its own event loop, which would last for "
                "ever. Use AsyncDevice and await the receipt."
            )

    async def safe(self, number: int) -> None:
        """Return once all messages up to `number` are safe; raise the reason if they never will be."""
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
        """Have `future` completed by the `confirm` of message `number`; 0: by the next `confirm`."""
        self._tidy()
        heapq.heappush(self._waiters, (number, next(self._order), future))

    def _tidy(self) -> None:
        """Now and then drop cancelled waiters, so that polling leaves no futures behind."""
        if len(self._waiters) >= self._tidy_at:
            self._waiters = [waiter for waiter in self._waiters if not waiter[2].cancelled()]
            heapq.heapify(self._waiters)
            self._tidy_at = max(64, 2 * len(self._waiters))

    def _confirmed(self, last: int) -> list[Future[None]]:
        """Note that all messages up to `last` are safe, and return the futures to complete.

        Called with the lock held. The caller completes the futures by `tell`, without the lock: a callback of
        theirs may need it.
        """
        self.acked = last
        due = []
        while self._waiters and self._waiters[0][0] <= last:
            due.append(heapq.heappop(self._waiters)[2])
        return due


def tell(due: list[Future[None]]) -> None:
    """Complete the futures in `due`, whose messages are safe now."""
    for future in due:
        if future.set_running_or_notify_cancel():
            future.set_result(None)


def _anew(error: PratipadError) -> PratipadError:
    """Return a copy to raise: an instance raised again would gather the tracebacks of all raisers."""
    copied = type(error)(*error.args)
    copied.__cause__ = error.__cause__
    return copied
