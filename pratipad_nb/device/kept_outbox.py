"""The kept outbox: an outbox on disk, for a device that measures on while its link is down.

Owns which messages are dropped when there is no more room, and the error that their receipts raise. The file
is for `pratipad_nb.device.outbox_file`.
"""

from __future__ import annotations

import heapq
import logging
from collections import deque
from pathlib import Path
from time import time
from typing import ClassVar

from pratipad_nb.device.outbox import KEEP_BYTES, MAX_FRAME_BYTES, MAX_HELD, Outbox, Parcel, tell
from pratipad_nb.device.outbox_file import ROW_BYTES, Dropped, Store
from pratipad_nb.errors import DeviceError, SettingsError

__all__ = ["KeptOutbox"]

log = logging.getLogger(__name__)

#: So many runs of dropped messages are remembered, so that their receipts raise.
_RUNS_REMEMBERED = 64


class KeptOutbox(Outbox):
    """An outbox whose messages are in a file until they are safe.

    A caller that can't wait finds room: the oldest messages are dropped for its message.

    Parameters
    ----------
    device
        The device's name.
    folder
        The folder of the file; each flow and device has a file of its own.
    max_bytes
        The file's bound. When it is passed, the oldest messages that aren't in flight are dropped, a
        sixteenth of the bound at a time.

    Raises
    ------
    SettingsError
        If `max_bytes` is no number of bytes, or too small.
    """

    drops: ClassVar[bool] = True

    def __init__(self, device: str, folder: str | Path, max_bytes: int = KEEP_BYTES) -> None:
        super().__init__(device)
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1 << 16:
            raise SettingsError(f"keep_bytes is {max_bytes!r}; it is a number of bytes, at least 65,536.")
        self._folder = Path(folder).expanduser()
        self._max_file_bytes = max_bytes
        self._store: Store | None = None
        # How many messages stay, and where, once the file is closed.
        self._left, self._where = 0, str(self._folder)
        self._runs: deque[Dropped] = deque(maxlen=_RUNS_REMEMBERED)

    @property
    def unsafe(self) -> int:
        """How many messages are in the file, or were when the file was closed."""
        return self._store.count if self._store is not None else self._left

    @property
    def room(self) -> int:
        """How many more messages may be put in by a caller that can wait.

        Such a caller is an iterable that is drawn from as fast as the flow takes its readings.
        """
        return MAX_HELD - self.unsafe if self._fits(0) else 0

    def _fits(self, size: int) -> bool:
        store = self._store
        if store is None or not store.count:
            return True  # one message fits, however large
        return store.count < MAX_HELD and store.bytes + size + ROW_BYTES <= self._max_file_bytes

    @property
    def kept_in(self) -> str:
        """Path at which messages that aren't safe yet outlive this device."""
        return self._where

    @property
    def mode(self) -> str:
        """The last mode that the flow is known to have had; empty if its mode was never known."""
        return self._store.mode if self._store is not None else ""

    def note_mode(self, mode: str) -> None:
        """Keep the flow's mode for the next start."""
        with self._lock:
            if self._store is not None:
                self._store.note_mode(mode)

    def claim(self, flow: str, epoch: int) -> int:
        """Open the file; see `Outbox.claim`."""
        self._store = Store(self._folder / f"{flow}.{self._device}.sqlite3", epoch, self._max_file_bytes)
        self._where = str(self._store.path)
        self.last = self._store.last
        self.acked = self.taken = self._store.before
        if self._store.count:
            log.info("device %s has %d messages from before to send", self._device, self._store.count)
        return self._store.epoch

    def release(self) -> None:
        """Close the file; the messages in it stay."""
        with self._lock:
            store, self._store = self._store, None
            if store is not None:
                self._left = store.count
                store.close()

    def offer(self, payload: bytes, source: str | None = None, *, patient: bool = False) -> int:
        """Store an encoded payload and return its number; without `patient` there is always room.

        See `Outbox.offer`.
        """
        size = len(payload)
        with self._lock:
            if self._refused is not None or self._store is None or size > self.max_payload:
                raise self._refusal(size)
            if patient and not self._fits(size):
                return 0
            number = self.last + 1
            self._store.add(number, time(), source, payload)
            self.last = number
            dropped = self._store.make_room(self.taken)
            if dropped is not None:
                self._drop(dropped)
            wake = self._idle
            self._idle = False
        if wake:
            self._wake()
        return number

    def _drop(self, dropped: Dropped) -> None:
        """Note the messages that were dropped, and let the waiters for their receipts raise."""
        if not self.dropped:
            log.warning(
                "device %s: its file is full (%d bytes); the oldest messages are dropped from now on. Raise "
                "keep_bytes, or bring the link back.",
                self._device,
                self._max_file_bytes,
            )
        self.dropped += dropped.count
        self.floor = self.taken = dropped.last
        if self._runs and self._runs[-1].last + 1 == dropped.first:
            before = self._runs.pop()
            dropped = Dropped(before.first, dropped.last, before.count + dropped.count)
        self._runs.append(dropped)
        for number, _, future in self._waiters:
            loss = self.loss(number)
            if loss is not None and future.set_running_or_notify_cancel():
                future.set_exception(loss)
        self._waiters = [waiter for waiter in self._waiters if not waiter[2].done()]
        heapq.heapify(self._waiters)

    def loss(self, number: int) -> DeviceError | None:
        """Return the error for message `number` if it was dropped; None if it wasn't."""
        if not any(run.first <= number <= run.last for run in self._runs):
            return None
        return DeviceError(
            f"message {number} of device {self._device!r} was dropped: the file holds {self._max_file_bytes} "
            "bytes and newer messages came while the link was down. Raise keep_bytes."
        )

    def take(self, most: int | None, max_bytes: int = MAX_FRAME_BYTES) -> Parcel | None:
        """Read the next messages for one frame; see `Outbox.take`."""
        with self._lock:
            self._idle = self._store is None or self.taken == self.last
            if self._store is None or self._idle or most == 0:
                return None
            found = self._store.read(self.taken, None if most is None else self.taken + most, max_bytes)
            if found is None:
                return None
            count = len(found.times)
            self.taken = found.last
            sources = [source or "" for source in found.sources]
            # No message of a device has a source, and every message of a gateway has a source.
            gateway = found.sources[0] is not None
            return Parcel(
                found.last - count + 1,
                found.times,
                found.payloads,
                sum(map(len, found.payloads)),
                sources if gateway else None,
            )

    def confirm(self, parcel: Parcel) -> None:
        """Delete `parcel`, which is safe now; see `Outbox.confirm`."""
        with self._lock:
            if self._store is not None:
                self._store.delete(parcel.first, parcel.last, parcel.size)
            due = self._confirmed(parcel.last)
        tell(due)
