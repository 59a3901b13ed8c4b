"""Which partition a device belongs to: the server's own rule, for who has to know it beforehand.

Owns the hash alone. The server applies it when it stores a frame (a subject transform of the input log, see
`pratipad_nb.transport.protocol.Partitioning`); the edge, which must know whose orders and credit are its business,
computes the same.
"""

from __future__ import annotations

__all__ = ["partition_of"]

#: FNV-1a, 32 bits: http://www.isthe.com/chongo/tech/comp/fnv/. NATS documents it for `partition()` in its subject
#: mapping; the contract tests compare this with what the server does.
_BASIS = 0x811C9DC5
_PRIME = 0x01000193


def partition_of(name: str, partitions: int) -> int:
    """Return the partition, from 0 to ``partitions - 1``, that a device of that name belongs to."""
    if partitions == 1:
        return 0
    found = _BASIS
    for byte in name.encode():
        found = ((found ^ byte) * _PRIME) & 0xFFFFFFFF
    return found % partitions
