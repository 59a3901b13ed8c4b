"""`Keyed`: what `snapshot` returns if a processor's state follows the keys of its messages.

Owns the value and its checks alone. Dividing keyed states among instances is for
`pratipad_nb.runtime.stages`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from pratipad_nb.errors import ProcessorError

__all__ = ["Keyed"]


@dataclass(frozen=True, slots=True, eq=False)
class Keyed(Mapping[Any, Any]):
    """State that follows its keys: `snapshot` returns a `Keyed`, and `restore` gets a plain `dict`.

    The keys are those by which messages are spread over instances: the names of devices where the
    processor's `partition_by` is ``"device"``, else values of the payload's key of that name. With another
    `concurrency` each instance's `restore` gets the keys of the messages that the instance will see. A device
    behind a gateway is with its gateway's instance. State that isn't `Keyed` stays with its instance, so
    that another `concurrency` is refused.

    Parameters
    ----------
    mapping
        The state of each key: any JSON-like value. A key is a `str`, an `int` or ``None``, and comes back as
        it was. Give the processor's own mapping, not a copy, if `expire` is given.
    expire
        Seconds after which a key whose state has not changed is deleted: from `mapping` itself, so that the
        processor's own mapping stays bounded, and from what is stored. The seconds are those in which the
        flow ran, by this computer's clock and not by the messages' times. So a key may be deleted a second
        late, and a replay or a restart after a `kill -9` may delete a key at another message. ``None`` by
        default: no key is deleted.

    Raises
    ------
    ProcessorError
        If `mapping` is no mapping, or `expire` is no positive number, or `expire` is given for a mapping that
        no key can be deleted from.

    Examples
    --------
    >>> class Count(Processor):
    ...     def __init__(self):
    ...         self.counts = {}
    ...     def process(self, payload, message):
    ...         self.counts[message.device] = self.counts.get(message.device, 0) + 1
    ...         return payload | {"count": self.counts[message.device]}
    ...     def snapshot(self):
    ...         return Keyed(self.counts, expire=86400)
    ...     def restore(self, state):
    ...         self.counts = state
    """

    mapping: Mapping[Any, Any]
    _: KW_ONLY
    expire: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.mapping, Mapping):
            raise ProcessorError(
                f"Keyed({self.mapping!r:.80}): it takes a mapping from each key to its state, for example "
                "Keyed(self.counts)."
            )
        if self.expire is None:
            return
        number = isinstance(self.expire, (int, float)) and not isinstance(self.expire, bool)
        if not number or not 0 < self.expire < math.inf:
            raise ProcessorError(
                f"Keyed: expire is {self.expire!r}; it is a number of seconds greater than 0 after which a "
                "key whose state has not changed is deleted, or None."
            )
        if not isinstance(self.mapping, MutableMapping):
            raise ProcessorError(
                f"Keyed: no key can be deleted from a {type(self.mapping).__name__}, as expire="
                f"{self.expire!r} asks for. Give the processor's own dict."
            )

    def __getitem__(self, key: Any) -> Any:
        return self.mapping[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.mapping)

    def __len__(self) -> int:
        return len(self.mapping)
