"""The overflow: messages of a kept outbox that its file couldn't take, in memory.

Owns the messages and their bound, which is that of an outbox in memory. Numbers, receipts and the file are
for `pratipad_nb.device.kept_outbox`.
"""

from __future__ import annotations

from typing import NamedTuple

from pratipad_nb.device.memory_outbox import MAX_HELD_BYTES
from pratipad_nb.device.outbox import MAX_HELD
from pratipad_nb.transport.frames import MAX_MESSAGES

__all__ = ["Overflow", "Waiting"]


class Waiting(NamedTuple):
    """A message that isn't safe yet. `source` is the device behind a gateway, None if there is no gateway."""

    number: int
    time: float
    source: str | None
    payload: bytes


class Overflow:
    """The newest messages of a kept outbox, with consecutive numbers, until they are written or safe.

    Attributes
    ----------
    bytes
        The sum of the payloads' bytes.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._messages: list[Waiting] = []

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def full(self) -> bool:
        """Whether no more messages may be added. At least one message fits, however large."""
        return len(self._messages) >= MAX_HELD or self.bytes >= MAX_HELD_BYTES

    @property
    def all(self) -> list[Waiting]:
        """All messages, the oldest first."""
        return self._messages

    def add(self, message: Waiting) -> None:
        """Add the newest message."""
        self._messages.append(message)
        self.bytes += len(message.payload)

    def read(self, after: int, upto: int, max_bytes: int) -> list[Waiting]:
        """Return the next messages after number `after`, none beyond `upto`, as many as fit a frame."""
        start = after + 1 - self._messages[0].number
        size = 0
        for count, message in enumerate(self._messages[start : start + min(MAX_MESSAGES, upto - after)]):
            size += len(message.payload)
            if count and size > max_bytes:
                return self._messages[start : start + count]
        return self._messages[start : start + min(MAX_MESSAGES, upto - after)]

    def drop(self, upto: int) -> tuple[int, int]:
        """Drop the messages up to number `upto`; return how many, and the sum of their payloads' bytes."""
        if not self._messages:
            return 0, 0
        count = min(len(self._messages), max(0, upto + 1 - self._messages[0].number))
        size = sum(len(message.payload) for message in self._messages[:count])
        del self._messages[:count]
        self.bytes -= size
        return count, size
