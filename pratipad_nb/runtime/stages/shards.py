"""Shards: instances of one processor that work on devices of their own, none waiting for another.

Owns which instance sees a key, and the splitting of batches by device. A frame is of one device, so the whole
frame and its position belong to one shard: shards need no common order. Instances that are chosen by a key of
the payload need a common order (see `tracks`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary
from zlib import crc32

from pratipad_nb.runtime.values.batch import Batch, Source
from pratipad_nb.runtime.values.sampling import Followed
from pratipad_nb.settings import gateway_of

__all__ = ["Splitter", "instance_of", "shard_of"]


def shard_of(key: object, shards: int) -> int:
    """Return which of `shards` instances sees the messages of `key`: the same instance in every run."""
    return crc32(str(key).encode(errors="surrogatepass")) % shards


def instance_of(key: object, by: str, instances: int) -> int:
    """Return which of `instances` sees the messages whose value of `by`, the `partition_by`, is `key`.

    A device behind a gateway is with its gateway, whose frames go to one instance as a whole.
    """
    return shard_of(gateway_of(key) if by == "device" and isinstance(key, str) else key, instances)


@dataclass(slots=True)
class _Part:
    """The frames of a source that belong to one shard, as a source of their own.

    Attributes
    ----------
    starts
        The index in the whole source at which each frame begins.
    told
        The `done` of the last batch that the shard was given.
    """

    source: Source
    starts: list[int]
    told: int = 0

    def done(self, done: int) -> int:
        """Return how many of this part's messages lie below index `done` of the whole source."""
        sizes = (len(frame.times) for frame in self.source.frames)
        return sum(min(size, max(0, done - start)) for start, size in zip(self.starts, sizes, strict=True))


class _Division:
    """One source, divided into a part for each shard."""

    def __init__(self, source: Source, shards: int) -> None:
        self.shard_of_frame = [instance_of(frame.device, "device", shards) for frame in source.frames]
        #: For each frame, the index of a message in its part less its index in the whole source.
        self.shift: list[int] = []
        self.parts: list[_Part] = []
        for shard in range(shards):
            mine = [at for at, found in enumerate(self.shard_of_frame) if found == shard]
            part = Source(
                source.flow, [source.frames[at] for at in mine], kind=source.kind, failed=source.failed
            )
            self.parts.append(_Part(part, [source.starts[at] for at in mine]))
        taken = [0] * shards
        for frame, start, shard in zip(source.frames, source.starts, self.shard_of_frame, strict=True):
            self.shift.append(taken[shard] - start)
            taken[shard] += len(frame.times)
        if source.followed is not None:
            self._split_followed(source, source.followed)

    def _split_followed(self, source: Source, followed: Followed) -> None:
        indices: list[list[int]] = [[] for _ in self.parts]
        for index in followed.indices:
            frame = bisect_right(source.starts, index) - 1
            indices[self.shard_of_frame[frame]].append(index + self.shift[frame])
        for part, mine in zip(self.parts, indices, strict=True):
            part.source.followed = Followed(followed.sampler, mine) if mine else None

    def rows(self, batch: Batch) -> Sequence[tuple[Any, int, int]]:
        """Return of every row its payload, its shard, and its origin within the shard's part."""
        rows = []
        starts, frame = batch.source.starts, 0
        for payload, origin in zip(batch.payloads, batch.origins, strict=True):
            while frame + 1 < len(starts) and starts[frame + 1] <= origin:
                frame += 1
            rows.append((payload, self.shard_of_frame[frame], origin + self.shift[frame]))
        return rows


class Splitter:
    """Splits batches among `shards`.

    The invariant: the batches that a shard is given of a source are those of a source of its own, whose
    frames are the shard's frames in their order. Their origins and their `done` never fall, each message is
    in one shard alone, and a shard's `done` is reached once all of its messages below it are complete.

    It holds for these reasons:

    * A frame goes whole to the shard of its device, and frames keep their order. So a message's index in its
      part is the number of the shard's messages before it: indices of a part rise as those of the whole
      source do, and the messages of the part below a `done` of the whole source are the first ones of the
      part.
    * A position is of one device, so one shard alone completes it. No shard needs to know how far another one
      is.
    * A dead letter, and a reply to the message at work, go to the shard of that message's frame. So they are
      sent off no later than the message counts as complete.
    * All slices of a source are split by one `_Division`, for the writer counts by a part's `Source` how far
      it is. Slices of several sources come by turns when the stage before has shards, too. A division lives
      as long as its source is at work in the stage before, so divisions are few.
    """

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._divisions: WeakKeyDictionary[Source, _Division] = WeakKeyDictionary()

    def split(self, batch: Batch) -> list[Batch | None]:
        """Return each shard's part of `batch`; None for a shard to which `batch` says nothing new."""
        division = self._divisions.get(batch.source)
        if division is None:
            division = self._divisions[batch.source] = _Division(batch.source, self._shards)
        payloads: list[list[Any]] = [[] for _ in range(self._shards)]
        origins: list[list[int]] = [[] for _ in range(self._shards)]
        for payload, shard, origin in division.rows(batch):
            payloads[shard].append(payload)
            origins[shard].append(origin)
        parts: list[Batch | None] = []
        for shard, part in enumerate(division.parts):
            done = part.done(batch.done)
            dead = [letter for letter in batch.dead if self._of(letter[1].device) == shard]
            replies = [reply for reply in batch.replies if self._of(reply[1].device) == shard]
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

    def _of(self, device: str) -> int:
        """Return the shard of the frames of `device`, or of the gateway that the device speaks through."""
        return instance_of(device, "device", self._shards)
