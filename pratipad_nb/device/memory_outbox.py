"""The outbox in memory: bounded, so that `push` waits while it is full.

Owns the lists that messages are held in, and their bound. The outbox on disk is
`pratipad_nb.device.kept_outbox`.
"""

from __future__ import annotations

from time import time

from pratipad_nb.device.outbox import MAX_FRAME_BYTES, MAX_HELD, Outbox, Parcel, tell
from pratipad_nb.transport.frames import MAX_MESSAGES

__all__ = ["MAX_HELD_BYTES", "MemoryOutbox"]

#: Most bytes of encoded messages that are pushed and not safe yet. A small device can spare so many. A
#: message has 1,024 bytes of it at `MAX_HELD`; a sensor's reading takes about 160.
MAX_HELD_BYTES = 16 << 20


class MemoryOutbox(Outbox):
    """An outbox that ends with its device.

    Parameters
    ----------
    device
        The device's name.
    max_held, max_bytes
        The bound, in messages and in bytes. At least one message fits, however large.
    """

    def __init__(self, device: str, *, max_held: int = MAX_HELD, max_bytes: int = MAX_HELD_BYTES) -> None:
        super().__init__(device)
        self._max_held = max_held
        self._max_bytes = max_bytes
        self._times: list[float] = []
        self._payloads: list[bytes] = []
        self._sources: list[str] = []  # of a gateway's messages; else empty
        self._held_bytes = 0  # of messages that are not taken yet
        self._bytes = 0  # of messages that are not safe yet

    @property
    def unsafe(self) -> int:
        """How many messages are held or in flight."""
        return self.last - self.acked

    @property
    def room(self) -> int:
        """How many more messages may be put in."""
        return self._max_held - self.unsafe if self._bytes < self._max_bytes else 0

    @property
    def kept_in(self) -> str:
        """Empty: messages end with the device."""
        return ""

    @property
    def unkept(self) -> int:
        """How many messages are held or in flight: none of them outlives the device."""
        return self.unsafe

    def is_kept(self, number: int) -> bool:
        """Return whether message `number` is safe."""
        return self.acked >= number

    def tend(self) -> None:
        """Do nothing: no message is kept."""

    @property
    def mode(self) -> str:
        """Empty: the mode is not kept."""
        return ""

    def note_mode(self, mode: str) -> None:
        """Do nothing."""

    def loss(self, number: int) -> None:  # noqa: ARG002 - no message is ever dropped here
        """Return None: no message is ever dropped."""
        return

    def claim(self, flow: str, epoch: int) -> None:  # noqa: ARG002 - no earlier start left messages
        """Number messages in `epoch`."""
        self.epoch = epoch

    def release(self) -> None:
        """Do nothing."""

    def _fits(self, size: int) -> bool:  # noqa: ARG002 - the last message in may pass the bound
        return self.room > 0

    def offer(self, payload: bytes, source: str | None = None, *, patient: bool = False) -> int:  # noqa: ARG002
        """Put in an encoded payload, if there is room; see `Outbox.offer`. Older messages stay."""
        now = time()
        size = len(payload)
        with self._lock:
            if self._refused is not None or size > self.max_payload:
                raise self._refusal(size)
            if self.last - self.acked >= self._max_held or self._bytes >= self._max_bytes:
                return 0
            self.last = number = self.last + 1
            self._times.append(now)
            self._payloads.append(payload)
            if source is not None:
                self._sources.append(source)
            self._held_bytes += size
            self._bytes += size
            wake = self._idle
            self._idle = False
        if wake:
            self._wake()
        return number

    def take(self, most: int | None, max_bytes: int = MAX_FRAME_BYTES) -> Parcel | None:
        """Take the next messages for one frame; see `Outbox.take`."""
        with self._lock:
            held = len(self._times)
            self._idle = held == 0
            count = min(held, MAX_MESSAGES) if most is None else min(held, MAX_MESSAGES, most)
            if count == 0:
                return None
            count, size = self._fitting(count, max_bytes)
            sources = self._sources[:count] or None
            parcel = Parcel(self.taken + 1, self._times[:count], self._payloads[:count], size, sources)
            if count == held:
                self._times, self._payloads, self._sources = [], [], []
            else:
                del self._times[:count], self._payloads[:count], self._sources[:count]
            self.taken += count
            self._held_bytes -= size
            return parcel

    def _fitting(self, count: int, max_bytes: int) -> tuple[int, int]:
        """Return how many of the first `count` messages fit into `max_bytes`, at least 1, and their size."""
        if count == len(self._times) and self._held_bytes <= max_bytes:
            return count, self._held_bytes
        size = 0
        for index in range(count):
            more = len(self._payloads[index])
            if index and size + more > max_bytes:
                return index, size
            size += more
        return count, size

    def confirm(self, parcel: Parcel) -> None:
        """Note that `parcel`, and every message before it, is safe."""
        with self._lock:
            self._bytes -= parcel.size
            due = self._confirmed(parcel.last)
        tell(due)
