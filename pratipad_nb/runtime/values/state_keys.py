"""State keys: the names under which the states of instances are stored in a checkpoint.

Owns the names alone. What a state is, and how states are divided among instances, is for
`pratipad_nb.runtime.stages`.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["StateKey"]


class StateKey(NamedTuple):
    """The name of one instance's state. ``str()`` gives the text, ``processor/number/instances``.

    Attributes
    ----------
    processor
        The processor's key.
    number
        The number of the instance, from 0 on.
    instances
        How many instances the processor had. 0 in the stores of version 0.1, which have no such number.
    """

    processor: str
    number: int
    instances: int = 0

    def __str__(self) -> str:
        return f"{self.processor}/{self.number}/{self.instances}"

    @classmethod
    def parse(cls, text: str) -> StateKey:
        """Return the key that `text` means."""
        processor, *numbers = text.split("/")
        return cls(processor, *map(int, numbers))
