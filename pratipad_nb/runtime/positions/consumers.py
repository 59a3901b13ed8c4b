"""The consumers of the input log: each owner of a partition has a consumer of its own.

Owns their names, and the change from one owner to the next. An owner that was replaced may go on for a while
without knowing: it is frozen, or its link is down. Its acknowledgements must not reach the consumer of the
new owner. The new owner has the input's last messages sent again, for the sake of its processors' state, and
the old owner would acknowledge them as repeats. So a new owner makes a consumer of its own, from where the
others stand, and deletes the others.
"""

from __future__ import annotations

from collections.abc import Iterable

from pratipad_nb.transport.protocol import Consumer, ConsumerSpec, ConsumerState, Log

__all__ = ["acknowledged", "own_consumer", "partitions_of"]

_NAME = "edge"
#: So much of the owner's name is in its consumer's name.
_OWNER = 12


def _partition_of(name: str) -> int:
    """Return the partition of a consumer: ``edge-3-OWNER``, or of version 0.1 ``edge`` and ``edge-3``."""
    partition = name.split("-")[1:2]
    return int(partition[0]) if partition else 0


def partitions_of(consumers: Iterable[ConsumerState]) -> frozenset[int]:
    """Return the partitions that have consumers."""
    return frozenset(_partition_of(each.name) for each in consumers)


async def acknowledged(input_log: Log, partition: int) -> int:
    """Return the sequence up to which the owners of a partition have acknowledged all entries."""
    others = [each for each in await input_log.consumers() if _partition_of(each.name) == partition]
    return max((each.floor for each in others), default=0)


async def own_consumer(input_log: Log, partition: int, owner: str, subject: str, start: int) -> Consumer:
    """Make the consumer of a new owner from the sequence `start` on, and delete those of earlier owners.

    The consumers of earlier owners go last: their positions are known until ours is stored.
    """
    own = f"{_NAME}-{partition}-{owner[:_OWNER]}"
    consumer = await input_log.consumer(ConsumerSpec(own, "each", subject, start=start))
    for each in await input_log.consumers():
        if _partition_of(each.name) == partition and each.name != own:
            await input_log.forget_consumer(each.name)
    return consumer
