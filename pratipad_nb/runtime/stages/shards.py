"""Lanes: instances of one processor that work on devices of their own, none waiting for another.

Owns the splitting of batches by device. A frame is of one device, so it goes to one lane whole, and so do its
positions: lanes need no common order. Instances that share by a key of the payload do (see `stage`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pratipad_nb.runtime.stages.stage import lane_of
from pratipad_nb.runtime.values.batch import Batch, Source
from pratipad_nb.runtime.values.samples import Followed

__all__ = ["Splitter"]


@dataclass(slots=True)
class _Share:
    """What one lane has of a source: its frames, where each began in the whole, and how far it was told of."""

    source: Source
    starts: list[int]
    told: int = 0

    def done(self, done: int) -> int:
        """Return how many of this share's messages lie below index `done` of the whole."""
        sizes = (len(frame.times) for frame in self.source.frames)
        return sum(min(size, max(0, done - start)) for start, size in zip(self.starts, sizes, strict=True))


class Splitter:
    """Splits batches among `lanes`; slices of one source are split alike."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._source: Source | None = None
        self._shares: list[_Share] = []
        self._lane_of_frame: list[int] = []
        self._shift: list[int] = []

    def split(self, batch: Batch) -> list[Batch | None]:
        """Return each lane's part of `batch`, None for a lane that it says nothing new to."""
        if batch.source is not self._source:
            self._begin(batch.source)
        payloads: list[list[Any]] = [[] for _ in range(self._lanes)]
        origins: list[list[int]] = [[] for _ in range(self._lanes)]
        for payload, lane, origin in self._rows(batch):
            payloads[lane].append(payload)
            origins[lane].append(origin)
        parts: list[Batch | None] = []
        for lane, share in enumerate(self._shares):
            done = share.done(batch.done)
            dead = [letter for letter in batch.dead if lane_of(letter[1].device, self._lanes) == lane]
            replies = [reply for reply in batch.replies if lane_of(reply[1].device, self._lanes) == lane]
            if done == share.told and not payloads[lane] and not dead and not replies:
                parts.append(None)
                continue
            share.told = done
            parts.append(
                Batch(
                    share.source, payloads[lane], origins[lane], done, replies, dead, batch.stage, batch.only
                )
            )
        return parts

    def _begin(self, source: Source) -> None:
        self._source = source
        self._lane_of_frame = [lane_of(frame.device, self._lanes) for frame in source.frames]
        self._shift = []
        shares = []
        for lane in range(self._lanes):
            mine = [at for at, found in enumerate(self._lane_of_frame) if found == lane]
            share = Source(source.flow, [source.frames[at] for at in mine], replayed=source.replayed)
            shares.append(_Share(share, [source.starts[at] for at in mine]))
        taken = [0] * self._lanes
        for frame, start, lane in zip(source.frames, source.starts, self._lane_of_frame, strict=True):
            self._shift.append(taken[lane] - start)
            taken[lane] += len(frame.times)
        self._shares = shares
        if source.followed is not None:
            self._share_followed(source, source.followed)

    def _share_followed(self, source: Source, followed: Followed) -> None:
        indices: list[list[int]] = [[] for _ in range(self._lanes)]
        for index in followed.indices:
            frame = bisect_right(source.starts, index) - 1
            indices[self._lane_of_frame[frame]].append(index + self._shift[frame])
        for share, mine in zip(self._shares, indices, strict=True):
            share.source.followed = Followed(followed.sampler, mine) if mine else None

    def _rows(self, batch: Batch) -> Sequence[tuple[Any, int, int]]:
        """Return payload, lane and the origin within the lane's share, of every row."""
        rows = []
        starts, frame = batch.source.starts, 0
        for payload, origin in zip(batch.payloads, batch.origins, strict=True):
            while frame + 1 < len(starts) and starts[frame + 1] <= origin:
                frame += 1
            rows.append((payload, self._lane_of_frame[frame], origin + self._shift[frame]))
        return rows
