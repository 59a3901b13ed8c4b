"""The state of the hunted flow's processor: what it has to be behind each message, in the order of a device.

The processor counts and adds up each device's messages. It comes before the processor that fails on poisoned
messages. So a poisoned message is in the state from its place on, and its result, which comes late, bears the
state of its place. What a device's values are, the hunt knows beforehand.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["POISON_EVERY", "REPLY_EVERY", "Key", "Result", "State", "States", "value_of"]

#: Every so many messages of a device's start, a message is poisoned: a processor fails on it until mended.
POISON_EVERY = 97
#: Every so many messages of a device's start, a processor answers the device.
REPLY_EVERY = 50


def value_of(start: int, number: int) -> int:
    """Return the value in a message."""
    return (start * 31 + number * 7919) % 1000


class Key(NamedTuple):
    """A message. Of one device, keys rise in the order of its pushes."""

    device: str
    start: int
    number: int

    @property
    def poisoned(self) -> bool:
        """Whether a processor fails on the message until the processor is mended."""
        return self.number % POISON_EVERY == 0

    @property
    def answered(self) -> bool:
        """Whether a processor answers the message."""
        return self.number % REPLY_EVERY == 0


class State(NamedTuple):
    """How many messages of a device the processor has seen, and the sum of their values."""

    count: int = 0
    total: int = 0

    def after(self, key: Key) -> State:
        """Return the state behind one more message."""
        return State(self.count + 1, self.total + value_of(key.start, key.number))


class Result(NamedTuple):
    """A message at Output, and the processor's state behind it."""

    key: Key
    state: State


class States:
    """Compares the states of one reader's results with what they have to be."""

    def __init__(self) -> None:
        #: The latest message of each device that came in order, and the state behind it.
        self._latest: dict[str, tuple[Key, State]] = {}
        #: The states behind messages that were poisoned, and have not come yet.
        self._late: dict[Key, State] = {}

    def exact(self, result: Result) -> bool:
        """Whether the state of a result is what it has to be; what follows is compared with this result."""
        key, state = result
        if key.poisoned and key in self._late:
            return self._late.pop(key) == state
        latest, before = self._latest.get(key.device, (Key(key.device, key.start, 0), State()))
        if key < latest:
            return key.poisoned  # its start ended with it, and nobody saw what was before it
        self._latest[key.device] = key, state
        return any(
            self._follows(result, since, begun) for since, begun in self._beginnings(key, latest, before)
        )

    def _beginnings(self, key: Key, latest: Key, before: State) -> list[tuple[Key, State]]:
        """Return where the messages between `latest` and `key` can begin.

        Nobody knows whether a poisoned message at the end of an earlier start has been seen.
        """
        if key.start == latest.start:
            return [(latest, before)]
        first, unseen = Key(key.device, key.start, 0), latest._replace(number=latest.number + 1)
        if not unseen.poisoned:
            return [(first, before)]
        return [(first, before), (first, before.after(unseen))]

    def _follows(self, result: Result, since: Key, state: State) -> bool:
        """Whether a result follows from the state behind `since`, with the poisoned messages between them."""
        late: dict[Key, State] = {}
        for number in range(since.number + 1, result.key.number):
            key = since._replace(number=number)
            if key.poisoned:
                late[key] = state = state.after(key)
        if state.after(result.key) != result.state:
            return False
        self._late |= late
        return True
