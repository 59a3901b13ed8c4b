"""The partition that a device belongs to, by the server's own rule.

Owns the hash alone; which edge runs a partition is for `pratipad_nb.runtime.sharing`. The server applies the
hash when it stores a frame (a subject transform of the input log, see
`pratipad_nb.transport.protocol.Partitioning`). An edge computes the same hash, for it has to know beforehand
which devices' orders and credit are its own.
"""

from __future__ import annotations

__all__ = ["partition_of"]

#: FNV-1a, 32 bits: http://www.isthe.com/chongo/tech/comp/fnv/. NATS documents it for `partition()` in its
#: subject mapping; the contract tests compare `partition_of` with the server's results.
_BASIS = 0x811C9DC5
_PRIME = 0x01000193


def partition_of(name: str, partitions: int) -> int:
    """Return the partition, from 0 to ``partitions - 1``, of the device called `name`."""
    if partitions == 1:
        return 0
    found = _BASIS
    for byte in name.encode():
        found = ((found ^ byte) * _PRIME) & 0xFFFFFFFF
    return found % partitions
