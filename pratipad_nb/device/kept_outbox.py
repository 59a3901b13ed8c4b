"""The kept outbox: an outbox on disk, for a device that measures on while its link is down.

Owns what becomes of messages when the disk has no more room, fails, or holds a damaged file, and the errors
that receipts raise then. The file is for `pratipad_nb.device.outbox_file`, messages in memory for
`pratipad_nb.device.overflow`.

The file's messages are older than all messages of the overflow. The overflow is empty but while the file
can't be written. Then a new message goes to the overflow, as to an outbox in memory: `offer` finds no room
once the overflow is full, and the message isn't kept. Once a second (`KeptOutbox.tend`) the overflow is
written to the file in one transaction, and if that succeeds, new messages go to the file again. Nothing
overtakes anything on that way, and every number stays what it was.

A message in the file that no edge could read is dropped and counted: in a frame, it would make the messages
beside it unreadable, too.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import ClassVar

from pratipad_nb.device.outbox import KEEP_BYTES, MAX_FRAME_BYTES, MAX_HELD, Outbox, Parcel, tell
from pratipad_nb.device.outbox_file import (
    COMPANIONS,
    ROW_BYTES,
    Dropped,
    Start,
    Store,
    StoreAway,
    StoreDamaged,
)
from pratipad_nb.device.overflow import Overflow, Waiting
from pratipad_nb.errors import DeviceError, FrameError, SettingsError
from pratipad_nb.files import set_aside
from pratipad_nb.seldom import Seldom
from pratipad_nb.settings import file_key, valid_name
from pratipad_nb.transport.codec import check_payload
from pratipad_nb.transport.frames import new_epoch

__all__ = ["KeptOutbox"]

log = logging.getLogger(__name__)

#: So many runs of lost messages are remembered, so that their receipts raise.
_RUNS_REMEMBERED = 64
#: Seconds between two warnings that messages can't be kept: a disk may be full, and not, many times a minute.
_QUIET_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Loss:
    """Messages `first` to `last` that this device doesn't send, and why, as the end of a sentence."""

    first: int
    last: int
    why: str


class KeptOutbox(Outbox):
    """An outbox whose messages are in a file until they are safe.

    A caller that can't wait finds room: the oldest messages are dropped for its message. While the file can't
    be written, every caller waits for room.

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
        self._path = self._folder
        self._max_file_bytes = max_bytes
        self._store: Store | None = None
        self._overflow = Overflow()
        #: The epochs of the messages that are not sent yet, the first of which is `epoch`.
        self._starts: list[Start] = []
        #: How many messages stay in the file, which is closed.
        self._left = 0
        #: The numbers of the messages in flight, and how many of them, the first, are in no file any more.
        self._flight = range(0)
        self._strays = 0
        self._released = False
        self._warn_after = 0.0
        self._mode = ""
        self._losses: deque[_Loss] = deque(maxlen=_RUNS_REMEMBERED)
        self._line = Seldom()

    def _find_forked(self) -> bool:
        store, self._store = self._store, None
        if store is not None:
            self._left = store.count
            store.abandon()
        self._released = True
        return super()._find_forked()

    # -- how it stands ---------------------------------------------------------------------------------------

    @property
    def unsafe(self) -> int:
        """How many messages are held or in flight; once the outbox is released, how many were left."""
        in_file = self._store.count if self._store is not None else self._left
        return in_file + self._strays + len(self._overflow)

    @property
    def unkept(self) -> int:
        """How many messages are in the overflow."""
        return len(self._overflow)

    def is_kept(self, number: int) -> bool:
        """Return whether message `number` is in the file, or safe."""
        if self.loss(number) is not None:
            return False
        stray = number in self._flight[: self._strays]
        return number <= self.acked or (not stray and number <= self.last - len(self._overflow))

    @property
    def room(self) -> int:
        """How many more messages may be put in by a caller that can wait.

        Such a caller is an iterable that is drawn from as fast as the flow takes its readings.
        """
        return MAX_HELD - self.unsafe if self._fits(0) else 0

    def _fits(self, size: int) -> bool:
        if self._overflow.full or self.unsafe >= MAX_HELD:
            return False
        store = self._store
        if store is None or not store.count:
            return True  # one message fits, however large
        return store.bytes + size + ROW_BYTES <= self._max_file_bytes

    @property
    def kept_in(self) -> str:
        """Path at which messages that aren't safe yet outlive this device, but for `unkept` messages."""
        return str(self._path)

    @property
    def mode(self) -> str:
        """The last mode that the flow is known to have had; empty if its mode was never known."""
        return self._mode

    @property
    def waiting_of_epoch(self) -> int:
        """How many messages of `epoch` are held and not yet in flight."""
        return max(0, self._end - self.taken)

    @property
    def present(self) -> bool:
        """Whether messages that are put in now belong to `epoch`."""
        return len(self._starts) < 2

    @property
    def _end(self) -> int:
        """Number of the last message of `epoch` so far."""
        return self.last if self.present else self._starts[1].first - 1

    # -- opening and closing ---------------------------------------------------------------------------------

    def claim(self, flow: str, epoch: int) -> None:
        """Open the file; see `Outbox.claim`. A file that can't be used at present is done without for now."""
        self._path = self._folder / f"{file_key(flow)}.{self._device}.sqlite3"
        self._starts = [Start(1, epoch, 0)]
        self._released = False
        try:
            store = self._opened()
        except StoreAway as error:
            self._lament(error)
        else:
            self._store, self._mode = store, store.mode
            self.last = store.last
            self.acked = self.taken = store.before
            self._starts = [*store.starts, Start(store.last + 1, epoch, store.last)]
            store.begin(self._starts)
            self._tell_left(store.count)
        self._turn()

    def _opened(self) -> Store:
        """Open the file; a damaged file is moved aside for a new file."""
        try:
            return Store(self._path, self._max_file_bytes)
        except StoreDamaged as error:
            self._move_aside(error)
        return Store(self._path, self._max_file_bytes)

    def _move_aside(self, error: StoreDamaged) -> None:
        try:
            aside = set_aside(self._path, also=COMPANIONS)
        except OSError as failure:
            raise StoreAway(f"{error} The file can't be moved aside: {failure.strerror}.") from error
        log.warning(
            "device %s: %s The file was moved aside to %s, and the device goes on with a new file. Messages "
            "that are only in the damaged file are not sent.",
            self._device,
            error,
            aside,
        )

    def _tell_left(self, count: int) -> None:
        if count:
            log.info("device %s has %d messages from before to send", self._device, count)

    def release(self) -> None:
        """Close the file; the messages in it stay."""
        with self._lock:
            self._released = True
            store, self._store = self._store, None
            if store is not None:
                self._left = store.count
                store.close()

    def note_mode(self, mode: str) -> None:
        """Keep the flow's mode for the next start."""
        with self._lock:
            self._mode = mode
            if self._store is not None:
                try:
                    self._store.note_mode(mode)
                except (StoreAway, StoreDamaged) as error:
                    self._fall_back(error)

    # -- a file that can't be used ---------------------------------------------------------------------------

    def _lament(self, error: DeviceError) -> None:
        """Note why messages can't be kept; say so when that begins."""
        now = monotonic()
        if not self.trouble and now > self._warn_after:
            self._warn_after = now + _QUIET_SECONDS
            log.warning(
                "device %s can't keep messages: %s Until the file can be written again, messages are held in "
                "memory, `push` waits while the memory's bound is reached, and messages that aren't safe are "
                "lost if the device ends. The device tries again every second.",
                self._device,
                error,
            )
        self.trouble = str(error)

    def _fall_back(self, error: DeviceError, *, reading: bool = False) -> None:
        """Go on in memory after `error`; without the messages in the file if the file can't be read."""
        damaged = isinstance(error, StoreDamaged)
        if damaged:
            self.trouble = str(error)  # moving the file aside is said below
        else:
            self._lament(error)
        if self._store is None or not (reading or damaged):
            return
        store, self._store = self._store, None
        store.close()
        in_flight = len(range(self._flight.start, min(self._flight.stop, store.last + 1))) - self._strays
        self._strays += in_flight
        first, self.taken = self.taken + 1, max(self.taken, store.last)
        if isinstance(error, StoreDamaged):
            self.floor = self.taken
            self.dropped += store.count - in_flight
            self._lose(_Loss(first, store.last, f"was in a file that is damaged: {error}"))
            try:
                self._move_aside(error)
            except StoreAway as failure:
                self.trouble = ""
                self._lament(failure)
            return
        # The file's messages may come later, in their epoch, so messages that come before them
        # need another epoch.
        self._starts = [Start(store.last + 1, new_epoch(), store.last)]
        why = f"stays in a file that can't be read at present, and is sent once the file can be read: {error}"
        self._lose(_Loss(first, store.last, why))

    def tend(self) -> None:
        """Write the overflow to the file if that is possible by now, and force the file to the disk."""
        with self._lock:
            if self._released:
                return
            try:
                store = self._store
                if store is None:
                    store = self._adopt(self._opened())
                elif self.trouble:
                    self._write_overflow(store)
                store.sync(try_out=bool(self.trouble))
            except (StoreAway, StoreDamaged) as error:
                self._fall_back(error)
                self._give_room_back(error)
                return
            except DeviceError as error:
                self._lament(error)
                return
            if not self.trouble:
                return
            self.trouble = ""
            wake, self._idle = self._idle, False
            due = self._confirmed(self.acked)
        log.info("device %s keeps messages in %s again", self._device, self._path)
        if wake:
            self._wake()
        tell(due)

    def _adopt(self, store: Store) -> Store:
        """Go on with `store`, and return it.

        Messages that `store` holds come behind the messages that were put in meanwhile.
        """
        last, starts = self.last, self._starts
        if store.count:
            up = last - store.before
            moved = [
                Start(max(each.first + up, last + 1), each.epoch, each.base + up) for each in store.starts
            ]
            starts = [each for each in starts if each.first <= last] + moved
            starts.append(Start(store.last + up + 1, new_epoch(), store.last + up))
        store.begin(starts)
        try:
            store.add_all(self._overflow.all, above=last if store.count else None)
            store.note_mode(self._mode or store.mode)
        except BaseException as error:
            store.close()
            if isinstance(error, StoreDamaged):
                self._move_aside(error)
            raise
        self._tell_left(store.count - len(self._overflow))
        self._overflow.drop(last)
        self._store, self._starts, self._mode = store, starts, store.mode
        self.last = max(last, store.last)
        return store

    def _write_overflow(self, store: Store) -> None:
        """Write the messages of the overflow, a frame's worth at a time, and delete safe messages."""
        store.delete(self.acked, 0, 0)
        while self._overflow:
            first = self._overflow.all[0].number
            messages = self._overflow.read(first - 1, self.last, MAX_FRAME_BYTES)
            store.add_all(messages)
            self._overflow.drop(messages[-1].number)

    def _give_room_back(self, error: DeviceError) -> None:
        """Delete the file if the disk is full and the file holds only messages that are safe by now."""
        store = self._store
        if store is None or store.count or not isinstance(error, StoreAway) or not error.full:
            return
        self._store = None
        try:
            store.remove()
        except DeviceError as failure:
            self._lament(failure)

    def _lose(self, loss: _Loss) -> None:
        """Note messages that are not sent, and let the waiters for their receipts raise."""
        if loss.last < loss.first:
            return
        self.lossy = True
        before = self._losses[-1] if self._losses else None
        if before is not None and before.last + 1 == loss.first and before.why == loss.why:
            self._losses.pop()
            loss = _Loss(before.first, loss.last, loss.why)
        self._losses.append(loss)
        for number, _, future in self._waiters:
            error = self.loss(number)
            if error is not None and future.set_running_or_notify_cancel():
                future.set_exception(error)
        self._waiters = [waiter for waiter in self._waiters if not waiter[2].done()]
        heapq.heapify(self._waiters)

    def loss(self, number: int) -> DeviceError | None:
        """Return the error for message `number` if it was dropped; None if it wasn't."""
        for loss in self._losses:
            if loss.first <= number <= loss.last:
                return DeviceError(f"message {number} of device {self._device!r} {loss.why}")
        return None

    # -- messages --------------------------------------------------------------------------------------------

    def offer(self, payload: bytes, source: str | None = None, *, patient: bool = False) -> int:
        """Store an encoded payload and return its number; without `patient`, the file always has room.

        See `Outbox.offer`.
        """
        size = len(payload)
        with self._lock:
            if self._refused is not None or size > self.max_payload:
                raise self._refusal(size)
            if self._overflow.full or (patient and not self._fits(size)):
                return 0
            number = self._hold(Waiting(self.last + 1, time(), source, payload))
            wake = self._idle
            self._idle = False
        if wake:
            self._wake()
        return number

    def _hold(self, message: Waiting) -> int:
        """Write a message to the file, or else put the message into the overflow; return its number."""
        store = self._store
        if store is not None and not self.trouble:
            try:
                store.add(message)
                self.last = message.number
                dropped = store.make_room(self.taken)
            except (StoreAway, StoreDamaged) as error:
                self._fall_back(error)
            else:
                if dropped is not None:
                    self._drop(dropped)
        if self.last < message.number:  # not in the file
            self.last = message.number
            self._overflow.add(message)
        return message.number

    def _drop(self, dropped: Dropped) -> None:
        """Note messages that were dropped for want of room."""
        if not self.dropped:
            log.warning(
                "device %s: its file is full (%d bytes); the oldest messages are dropped from now on. Raise "
                "keep_bytes, or bring the link back.",
                self._device,
                self._max_file_bytes,
            )
        self.dropped += dropped.count
        self.floor = self.taken = dropped.last
        why = (
            f"was dropped: the file holds {self._max_file_bytes} bytes and newer messages came while the "
            "link was down. Raise keep_bytes."
        )
        self._lose(_Loss(dropped.first, dropped.last, why))

    def take(self, most: int | None, max_bytes: int = MAX_FRAME_BYTES) -> Parcel | None:
        """Take the next messages for one frame; see `Outbox.take`."""
        with self._lock:
            while not self._turn():
                self._idle = self.taken == self.last
                if self._idle or most == 0:
                    return None
                found = self._next(most, max_bytes)
                if found is None:
                    continue
                if found and found[0].number == self.taken + 1:
                    return self._parcel(found)
                # The messages in between were dropped by an earlier start.
                after = found[0].number - 1 if found else self._end
                if most is not None:
                    most = max(0, most - max(0, after - self.taken))
                self.floor = self.taken = max(self.taken, after)
            return None

    def _turn(self) -> bool:
        """Go on with the next epoch if all messages of `epoch` were taken; return whether that was so."""
        while len(self._starts) > 1 and self.taken >= self._starts[1].first - 1:
            del self._starts[0]
        start = self._starts[0]
        changed = start.epoch != self.epoch
        self.epoch, self.base = start.epoch, start.base
        return changed

    def _next(self, most: int | None, max_bytes: int) -> list[Waiting] | None:
        """Return the next messages of `epoch`; None if the file has to be done without from now on."""
        store = self._store
        if store is not None and self.taken < store.last:
            try:
                return self._readable(store, store.read(self.taken, self._end, most, max_bytes))
            except (StoreAway, StoreDamaged) as error:
                self._fall_back(error, reading=True)
                return None
        upto = self._end if most is None else min(self._end, self.taken + most)
        return self._overflow.read(self.taken, upto, max_bytes)

    def _readable(self, store: Store, found: list[Waiting]) -> list[Waiting] | None:
        """Return the first messages of `found` that an edge can read; None if the first was dropped."""
        for at, message in enumerate(found):
            fault = _fault_of(message)
            if not fault:
                continue
            if at:
                return found[:at]
            self.floor = self.taken = message.number
            self.dropped += 1
            self._lose(_Loss(message.number, message.number, f"can't be read in {self._path}: {fault}"))
            if told := self._line.note():
                log.warning(
                    "device %s: message %d in %s can't be read and is dropped: %s; %d since the last line",
                    self._device,
                    message.number,
                    self._path,
                    fault,
                    told,
                )
            store.discard(message)
            return None
        return found

    def _parcel(self, found: list[Waiting]) -> Parcel:
        self.taken = found[-1].number
        self._flight = range(found[0].number, found[-1].number + 1)
        # No message of a device has a source, and every message of a gateway has a source.
        gateway = found[0].source is not None
        return Parcel(
            found[0].number,
            [each.time for each in found],
            [each.payload for each in found],
            sum(len(each.payload) for each in found),
            [each.source or "" for each in found] if gateway else None,
        )

    def confirm(self, parcel: Parcel) -> None:
        """Delete `parcel`, which is safe now; see `Outbox.confirm`."""
        with self._lock:
            due = self._confirmed(parcel.last)
            in_overflow, _ = self._overflow.drop(parcel.last)
            in_file = parcel.payloads[self._strays : len(parcel.payloads) - in_overflow]
            self._strays, self._flight = 0, range(0)
            if self._store is not None and in_file:
                try:
                    self._store.delete(parcel.last, len(in_file), sum(map(len, in_file)))
                except (StoreAway, StoreDamaged) as error:
                    self._fall_back(error)
        tell(due)


def _fault_of(message: Waiting) -> str:
    """Return why no edge could read a frame with `message`; empty if an edge can."""
    try:
        check_payload(message.payload)
        if message.source:
            valid_name(message.source, "device")
    except (FrameError, SettingsError) as error:
        return str(error)
    return "" if math.isfinite(message.time) else f"its time is {message.time}"
