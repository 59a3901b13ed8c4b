"""The shares of devices in the room for dead letters: no device takes the room that all devices need.

Owns how much room each device's dead letters take, and which of its newest letters are counted and dropped.
How large all letters together may be, and what waits beyond that, is for `letter_room`. Two kinds of letters
differ in what is lost with them:

* A **malformed** delivery is no message. Its letter only shows a user the delivery's first bytes. So letters
  of malformed deliveries give way to all others: a device may have a third of what the letters of all others
  leave of the first three quarters of the bound (`_MALFORMED`). That is a quarter of the bound for a device
  alone, and something is left for each further device. Such letters never fill the room.
* A **message** that a processor failed on may be mended and retried. So its letter is stored for as long as
  there is room, whichever device the message is from. Once the room is used up, the question is who has used
  it. Every device has an equal share. If what lies within the shares is most of the room (`_WIDESPREAD`), the
  processors fail on messages of many devices: new messages wait, as they do in a flow of one device. Else a
  few devices have used up the room. Then the others go on, and of a device beyond its share the newest
  letters are counted and dropped.

The letter of a message that was retried takes the place of its letter before, and is never dropped.

What is known of the stored letters comes from their frames alone, so a start knows the same as the run
before. The counts of dropped letters begin anew with each run.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pratipad_nb import wording
from pratipad_nb.seldom import Seldom
from pratipad_nb.transport.codec import payload_encoder
from pratipad_nb.transport.frames import DeadEntry, DeadFrame

__all__ = ["LetterShares"]

log = logging.getLogger(__name__)

#: The part of the bound that letters of malformed deliveries may fill, together with all others.
_MALFORMED = 3 / 4
#: Of what the others leave of that part, a device may have such a part.
_PART = 1 / 3
#: If this part of the room lies within the devices' shares, no few devices have used it up.
_WIDESPREAD = 3 / 4
#: So many devices are named in words.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class _Stored:
    """What is known of a stored frame: its step, how many letters it has, and the bytes of each device."""

    step: str
    letters: int
    bytes: Mapping[str, int]


class LetterShares:
    """The devices' shares in one log of dead letters, as one edge knows them for its devices.

    Parameters
    ----------
    flow
        The flow's name, for the log.
    bound, room
        The log's bound, and the size from which on the room is used up, in bytes.

    Attributes
    ----------
    devices
        Returns how many devices have a share in the room.
    dropped
        By device, how many letters were dropped in this run.
    """

    def __init__(self, flow: str, bound: int, room: int) -> None:
        self._flow = flow
        self._bound = bound
        self._room = room
        #: What is known of each frame, by the frame's sequence. A sum alone would go wrong where two edges
        #: delete the same frame, or where a frame was stored whose acknowledgement was lost.
        self._stored: dict[int, _Stored] = {}
        self._bytes: Counter[str] = Counter()
        #: The size of all letters, those of other edges, too.
        self._total = 0
        #: The devices whose malformed deliveries are dropped, and the size of the letter that was too large.
        self._refused: dict[str, int] = {}
        self._line = Seldom()
        self.devices: Callable[[], int] = lambda: 1
        self.dropped: Counter[str] = Counter()

    # -- what is stored --------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many letters are stored."""
        return sum(stored.letters for stored in self._stored.values())

    @property
    def sequences(self) -> set[int]:
        """The sequences of the stored frames."""
        return set(self._stored)

    @property
    def by_step(self) -> Counter[str]:
        """How many letters are stored of each step."""
        found: Counter[str] = Counter()
        for stored in self._stored.values():
            found[stored.step] += stored.letters
        return found

    def note(self, sequence: int, frame: DeadFrame, size: int) -> None:
        """Take note of the stored `frame` of `size` bytes."""
        self.forget(sequence)
        stored = self._stored[sequence] = _Stored(frame.step, len(frame.entries), _by_device(frame, size))
        self._bytes.update(stored.bytes)

    def forget(self, sequence: int) -> None:
        """Take note that the frame `sequence` is deleted, if it was stored."""
        stored = self._stored.pop(sequence, None)
        if stored is not None:
            self._bytes.subtract(stored.bytes)
            for device in stored.bytes:
                if self._bytes[device] <= 0:
                    del self._bytes[device]

    def clear(self) -> None:
        """Forget all stored frames."""
        self._stored.clear()
        self._bytes.clear()

    def total(self, size: int) -> None:
        """Take note of the size of all letters, those of other edges, too."""
        self._total = size

    # -- messages that a processor failed on -----------------------------------------------------------------

    @property
    def used_up(self) -> bool:
        """Whether the room is used up, and not by a few devices: no new message is to be admitted."""
        return self._total >= self._room and not self._by_a_few

    @property
    def _by_a_few(self) -> bool:
        """Whether little of the room lies within the devices' shares."""
        share = self._share
        beyond = sum(size - share for size in self._bytes.values() if size > share)
        return self._total - beyond < self._room * _WIDESPREAD

    @property
    def _share(self) -> int:
        return self._room // max(1, self.devices())

    def drops(self, device: str) -> bool:
        """Return whether the next letter of `device` is dropped; count it if so."""
        dropped = self._is_beyond(device)
        if dropped:
            self._drop(device, 1)
        return dropped

    def _is_beyond(self, device: str) -> bool:
        if self._total < self._room or not device:
            return False
        return self._bytes[device] >= self._share and self._by_a_few

    # -- malformed deliveries --------------------------------------------------------------------------------

    def drops_malformed(self, device: str) -> bool:
        """Return whether the letter of a malformed delivery of `device` is dropped; count it if so.

        A letter of unknown size is held to be as large as the letter that was dropped last.
        """
        size = self._refused.get(device)
        if size is None or self._has_room(device, size):
            self._refused.pop(device, None)
            return False
        self._drop(device, 1)
        return True

    def fitting(self, letters: Iterable[tuple[str, DeadEntry]]) -> list[tuple[str, DeadEntry]]:
        """Return those `letters` of malformed deliveries that have room; count the others."""
        fitting: list[tuple[str, DeadEntry]] = []
        coming: Counter[str] = Counter()
        for step, entry in letters:
            device, size = entry.device, _size(entry)
            if self._has_room(device, coming[device] + size):
                coming[device] += size
                fitting.append((step, entry))
            else:
                self._refused[device] = size
                self._drop(device, 1)
        return fitting

    def _has_room(self, device: str, size: int) -> bool:
        own = self._bytes[device]
        others = max(0, self._total - own)
        return own + size <= (self._bound * _MALFORMED - others) * _PART

    # -- words -----------------------------------------------------------------------------------------------

    def _drop(self, device: str, letters: int) -> None:
        self.dropped[device] += letters
        if told := self._line.note(letters):
            log.warning("flow %s: %s; %d letters were dropped since the last line", self._flow,
                        self._words([device]), told)  # fmt: skip

    @property
    def words(self) -> tuple[str, ...]:
        """Which devices' newest letters are dropped at present, in words; empty if none are."""
        dropping = [device for device in self.dropped if self._drops_now(device)]
        return (self._words(dropping),) if dropping else ()

    def _drops_now(self, device: str) -> bool:
        size = self._refused.get(device)
        return self._is_beyond(device) or (size is not None and not self._has_room(device, size))

    def _words(self, devices: list[str]) -> str:
        named = ", ".join(
            f"{device!r} ({wording.size(self._bytes[device])} are stored, {self.dropped[device]:,} dropped)"
            for device in devices[:_NAMED]
        )
        more = f" and {len(devices) - _NAMED:,} more" if len(devices) > _NAMED else ""
        return (
            f"the share in the dead letters is used up of {wording.counted(len(devices), 'device')}, {named}"
            f"{more}: the newest are counted and dropped, and the others go on; clear_dead_letters() makes "
            "room"
        )


def _by_device(frame: DeadFrame, size: int) -> dict[str, int]:
    """Return how many of the `size` bytes of `frame` are each device's.

    A failed order is of no device.
    """
    devices = {entry.device for entry in frame.entries}
    if len(devices) == 1:
        return dict.fromkeys(devices - {""}, size)
    sizes: Counter[str] = Counter()
    for entry in frame.entries:
        sizes[entry.device] += _size(entry)
    whole = max(1, sizes.total())
    return {device: size * part // whole for device, part in sizes.items() if device}


def _size(entry: DeadEntry) -> int:
    return len(payload_encoder.encode(entry))
