"""Positions: how far each device's messages are dealt with.

Owns the positions in memory: which messages are new, and which epochs are forgotten. Storing them with the
results is for `chain`. The two make delivery durable: nothing lost, nothing doubled, in order, one owner at a
time.

* A **position** is a device, its epoch, and the number of its last message that is dealt with. Numbers run
  without a gap. So a message with a lower number is a repeat, however old the message is, and a number above
  the next one says that messages are missing. An **epoch** is one start of a device. `Positions` says how
  many epochs are kept, and why not all.
* The **output** is one chain: every frame is appended on condition that ours was the newest before it. Every
  frame names the positions it completes, so that neither results nor positions can be stored without the
  other. An edge that another edge has replaced finds its condition broken: the replaced edge is fenced.
* A **checkpoint** holds all positions as they stood at one frame of the output. A start reads the newest
  checkpoint and the output's frames since. The janitor never purges these frames.

The design foresaw a mark per device, written between the output's acknowledgement and the input's. A
checkpoint of all devices, written now and then, does the same: a position that is not in the checkpoint is in
the output since. A checkpoint saves a write per device and frame (with 10,000 devices a second write for
every message) and lets the input be acknowledged at once.

The frames themselves are in `pratipad_nb.transport.frames`. The way from input to output is in `pipeline`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from pratipad_nb.transport.frames import Position

__all__ = ["Admission", "Positions"]

#: Most epochs that are kept of one device, a power of two. A service that is restarted every ten seconds
#: makes 1,024 epochs in three hours.
_MOST_EPOCHS = 1024
#: So many epochs of a device are kept, however many epochs other devices have.
_LEAST_EPOCHS = 8
#: Positions that are kept of all devices together; more only if each device has no more than its
#: `_LEAST_EPOCHS`. A checkpoint, made every second, holds all positions: 65,536 take some 25 ms to write.
_MOST_POSITIONS = 1 << 16


@dataclass(frozen=True, slots=True)
class Admission:
    """The judgement of an arriving frame.

    Attributes
    ----------
    skip
        How many of the frame's first messages are repeats.
    missing
        How many messages between the position and the frame are missing.
    """

    skip: int
    missing: int


class Positions:
    """For every device, and each of its epochs, the number of the last message that is dealt with.

    Each message is taken once, and in order within its epoch, for as long as its epoch is kept, however many
    starts a device has, whatever its clocks say, and however its starts overlap:

    * Epochs are told apart, never compared. The clocks of devices say nothing about which epochs still
      matter.
    * An epoch is forgotten (`forget_unused`) only when its device has more epochs than the limit. The epoch
      whose position moved longest ago goes first, so an epoch that is in use is kept. A checkpoint names a
      device's epochs in the order in which they moved, and the output's frames since follow, so a restart
      forgets the same epochs.
    * The limit is 1,024 epochs a device. It is halved, down to 8, while all devices together have more than
      65,536 positions. So the devices with the most epochs lose epochs first: a device that counts in a new
      epoch with each frame harms itself, and the checkpoint, which has to fit into a frame, stays within
      bounds.
    * A frame whose epoch was forgotten is admitted as new: its messages are delivered once if they weren't
      stored, and a second time if they were. From then on the epoch is kept again, as the epoch that moved
      last.

    To delete an epoch without a risk, the edge would have to know that no frame of that start can arrive any
    more. No device can say so: a start that is killed says nothing, and a kept outbox may come back with its
    epoch after a year. A forgotten epoch puts at risk the messages that were stored and whose acknowledgement
    got lost, for all other messages have left the outbox. And the next frame of a forgotten epoch is taken to
    stand behind a gap.
    """

    def __init__(self, positions: Iterable[Position] = ()) -> None:
        #: Each device's epochs with their numbers, in the order in which the epochs moved.
        self._numbers: dict[str, dict[int, int]] = {}
        #: Devices that have a new epoch since the last `forget_unused`.
        self._grown: set[str] = set()
        self._limit = _MOST_EPOCHS
        #: How many positions of devices there are. The place of a dead letter or a replay (`#…`) is no
        #: device.
        self._count = 0
        self.advance(positions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Positions) and self._numbers == other._numbers

    __hash__ = None  # type: ignore[assignment]

    def number(self, device: str, epoch: int) -> int:
        """Return the number of the last message that is dealt with; 0 if none is."""
        return self._numbers.get(device, {}).get(epoch, 0)

    def admit(self, device: str, epoch: int, first: int, count: int) -> Admission:
        """Return which of the messages `first` … `first + count - 1` are new."""
        last = self.number(device, epoch)
        return Admission(skip=min(count, max(0, last - first + 1)), missing=max(0, first - last - 1))

    def advance(self, positions: Iterable[Position]) -> None:
        """Move on to `positions`; a position that lies behind the known one changes nothing."""
        for device, epoch, number in positions:
            epochs = self._numbers.setdefault(device, {})
            if number <= epochs.get(epoch, 0):
                continue
            if epoch not in epochs:
                self._grown.add(device)
                self._count += not device.startswith("#")
            elif next(reversed(epochs)) != epoch:
                del epochs[epoch]  # added again below, behind all other epochs
            epochs[epoch] = number

    def forget_unused(self) -> list[Position]:
        """Forget the epochs that devices have beyond the limit; return the forgotten positions."""
        forgotten = self._cut(self._grown)
        self._grown.clear()
        while self._count > _MOST_POSITIONS and self._limit > _LEAST_EPOCHS:
            self._limit //= 2
            forgotten += self._cut(self._numbers)
        return forgotten

    def _cut(self, devices: Iterable[str]) -> list[Position]:
        """Forget the epochs that `devices` have beyond the limit; return the forgotten positions."""
        found = [
            (device, epoch, number)
            for device in devices
            if len(epochs := self._numbers.get(device, {})) > self._limit
            for epoch, number in islice(epochs.items(), len(epochs) - self._limit)
        ]
        self.drop(found)
        return found

    def drop(self, positions: Iterable[Position]) -> None:
        """Forget the epochs of `positions`, except epochs that have moved beyond the given number."""
        for device, epoch, number in positions:
            epochs = self._numbers.get(device, {})
            if 0 < epochs.get(epoch, 0) <= number:
                del epochs[epoch]
                self._count -= not device.startswith("#")

    def ahead_of(self, other: Positions) -> int:
        """Return by how many messages these positions are ahead of `other`, summed over all devices."""
        return sum(
            max(0, number - other.number(device, epoch))
            for device, epoch, number in self.all()
            if not device.startswith("#")
        )

    def forget(self, device: str) -> None:
        """Forget all positions of `device`."""
        self.drop((device, epoch, number) for epoch, number in tuple(self._numbers.get(device, {}).items()))
        self._numbers.pop(device, None)

    def of_foreign(self) -> list[Position]:
        """Return the positions of foreign devices, whose messages the edge numbers in epoch 0."""
        return [
            (device, 0, epochs[0])
            for device, epochs in self._numbers.items()
            if 0 in epochs and not device.startswith("#")
        ]

    def all(self) -> list[Position]:
        """Return every position, for a checkpoint."""
        return [
            (device, epoch, number)
            for device, epochs in self._numbers.items()
            for epoch, number in epochs.items()
        ]
