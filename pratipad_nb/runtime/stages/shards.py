"""Shards: instances of one processor that work on devices of their own, none waiting for another.

Owns the splitting of batches by device. A frame is of one device, so it goes to one shard whole, and so do its
positions: shards need no common order. Instances that share by a key of the payload do (see `stage`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pratipad_nb.runtime.stages.stage import shard_of
from pratipad_nb.runtime.values.batch import Batch, Source
from pratipad_nb.runtime.values.samples import Followed

__all__ = ["Splitter"]


@dataclass(slots=True)
class _Part:
    """What one shard has of a source: its frames, where each began in the whole, and how far it was told of."""

    source: Source
    starts: list[int]
    told: int = 0

    def done(self, done: int) -> int:
        """Return how many of this part's messages lie below index `done` of the whole."""
        sizes = (len(frame.times) for frame in self.source.frames)
        return sum(min(size, max(0, done - start)) for start, size in zip(self.starts, sizes, strict=True))


class Splitter:
    """Splits batches among `shards`; slices of one source are split alike."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._source: Source | None = None
        self._parts: list[_Part] = []
        self._shard_of_frame: list[int] = []
        self._shift: list[int] = []

    def split(self, batch: Batch) -> list[Batch | None]:
        """Return each shard's part of `batch`, None for a shard that it says nothing new to."""
        if batch.source is not self._source:
            self._begin(batch.source)
        payloads: list[list[Any]] = [[] for _ in range(self._shards)]
        origins: list[list[int]] = [[] for _ in range(self._shards)]
        for payload, shard, origin in self._rows(batch):
            payloads[shard].append(payload)
            origins[shard].append(origin)
        parts: list[Batch | None] = []
        for shard, part in enumerate(self._parts):
            done = part.done(batch.done)
            dead = [letter for letter in batch.dead if shard_of(letter[1].device, self._shards) == shard]
            replies = [reply for reply in batch.replies if shard_of(reply[1].device, self._shards) == shard]
            if done == part.told and not payloads[shard] and not dead and not replies:
                parts.append(None)
                continue
            part.told = done
            parts.append(
                Batch(
                    part.source,
                    payloads[shard],
                    origins[shard],
                    done,
                    replies,
                    dead,
                    batch.stage,
                    batch.only,
                )
            )
        return parts

    def _begin(self, source: Source) -> None:
        self._source = source
        self._shard_of_frame = [shard_of(frame.device, self._shards) for frame in source.frames]
        self._shift = []
        parts = []
        for shard in range(self._shards):
            mine = [at for at, found in enumerate(self._shard_of_frame) if found == shard]
            part = Source(source.flow, [source.frames[at] for at in mine], replayed=source.replayed)
            parts.append(_Part(part, [source.starts[at] for at in mine]))
        taken = [0] * self._shards
        for frame, start, shard in zip(source.frames, source.starts, self._shard_of_frame, strict=True):
            self._shift.append(taken[shard] - start)
            taken[shard] += len(frame.times)
        self._parts = parts
        if source.followed is not None:
            self._split_followed(source, source.followed)

    def _split_followed(self, source: Source, followed: Followed) -> None:
        indices: list[list[int]] = [[] for _ in range(self._shards)]
        for index in followed.indices:
            frame = bisect_right(source.starts, index) - 1
            indices[self._shard_of_frame[frame]].append(index + self._shift[frame])
        for part, mine in zip(self._parts, indices, strict=True):
            part.source.followed = Followed(followed.sampler, mine) if mine else None

    def _rows(self, batch: Batch) -> Sequence[tuple[Any, int, int]]:
        """Return payload, shard and the origin within the shard's part, of every row."""
        rows = []
        starts, frame = batch.source.starts, 0
        for payload, origin in zip(batch.payloads, batch.origins, strict=True):
            while frame + 1 < len(starts) and starts[frame + 1] <= origin:
                frame += 1
            rows.append((payload, self._shard_of_frame[frame], origin + self._shift[frame]))
        return rows
