"""Room: the memory that the messages in flight take, and each device's share.

Owns the counts, and the rule by which a device's messages fit in. How much memory a frame takes is for
`pratipad_nb.transport.codec`, the way in for `gatekeeper`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pratipad_nb.transport.codec import memory_of, most_memory_of
from pratipad_nb.transport.decoded_size import MOST_A_BYTE, size_of_flat

__all__ = ["Place", "Room"]

#: Up to this part of the room, it is no matter how far the most that a frame may take is from what it takes.
_ROOMY = 4


@dataclass(slots=True, eq=False)
class Place:
    """The memory that a frame's messages take, at most, in bytes, and the frame's device.

    `data` is the frame as long as `size` is told by its length alone.
    """

    device: str
    size: int
    data: bytes | None

    @classmethod
    def of(cls, device: str, data: bytes) -> Place:
        """Return the place of the frame `data`."""
        return cls(device, most_memory_of(data), data)

    def tighten(self, payloads: Sequence[Any]) -> None:
        """Tell `size` more closely by the frame's `payloads`, if that takes little time."""
        size = size_of_flat(payloads, self.size // MOST_A_BYTE)
        self.size = self.size if size is None else min(size, self.size)

    def measure(self) -> int:
        """Look into the frame, which takes time; return by how much `size` becomes less."""
        if self.data is None:
            return 0
        rough, self.size, self.data = self.size, memory_of(self.data), None
        return rough - self.size


class Room:
    """The memory for messages in flight.

    A device's messages take at most as much as is then still free: half of `most` if the device is the only
    one, a third if there are two devices that take all they can. So however much some devices send, others
    find room.

    The most that a frame of some length can take is known at once, and fits while few frames are in flight.
    With more of them, the payloads that were decoded tell more closely, if they are as simple as readings
    are. Frames are looked into only if that doesn't fit.

    Parameters
    ----------
    most
        Most bytes that all messages in flight take. A frame that takes more is in flight alone.
    """

    def __init__(self, most: int) -> None:
        self.taken = 0
        self._most = most
        self._by_device: Counter[str] = Counter()
        #: The places in flight that were not looked into, the oldest first.
        self._rough: dict[Place, None] = {}

    def fits(self, place: Place) -> bool:
        """Return whether `place` may be taken.

        Raises
        ------
        FrameError
            If the frame is damaged, or takes more memory than a frame may.
        """
        if self._has(place):
            return True
        place.measure()
        while not self._has(place):
            if not self._rough:
                return False
            self._measure(next(iter(self._rough)))
        return True

    def _has(self, place: Place) -> bool:
        if not self.taken:
            return True
        return self._by_device[place.device] + place.size <= self._most - self.taken

    def _measure(self, taken: Place) -> None:
        less = taken.measure()
        self.taken -= less
        self._by_device[taken.device] -= less
        del self._rough[taken]

    def take(self, place: Place, payloads: Sequence[Any] = ()) -> None:
        """Count messages that are in flight from now on: `payloads`, which were just decoded."""
        if payloads and self.taken + place.size > self._most // _ROOMY:
            place.tighten(payloads)
        self.taken += place.size
        self._by_device[place.device] += place.size
        if place.data is not None:
            self._rough[place] = None

    def release(self, place: Place) -> None:
        """Count messages that are done with."""
        self._rough.pop(place, None)
        self.taken -= place.size
        self._by_device[place.device] -= place.size
        if not self._by_device[place.device]:
            del self._by_device[place.device]
