"""Replaying: recorded inputs put through a running flow once more.

Owns how recorded inputs enter. They are put into the pipeline behind its input, as messages of the devices
that sent them then, and their results leave at Output like any others:

* Replayed messages count in an epoch of the replay's own, so that a device's own numbers go on undisturbed
  and no result is taken for a repeat. They complete a position of the replay, and of no device.
* Replayed messages pass no input log and need no credit. So a replay works with every input and is slowed
  down by the processors alone. Replayed messages that are in flight when the edge is killed are lost, and so
  is what they changed in the state of processors since the last checkpoint: they can be replayed again.
* `Message.time` is the recorded time, so that windows of time come out the same; `Message.received` is now.
* Replies of processors to replayed messages (`reply`) are not sent: old readings mustn't move devices at
  work.

Reading and writing recordings is for `pratipad_nb.session.inspection.tape`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from pratipad_nb.runtime.edge.controls import Controls
from pratipad_nb.runtime.positions.rebuilding import REPLAYED
from pratipad_nb.runtime.values.batch import Batch, InputFrame, Source
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.runtime.values.sampling import Sampler
from pratipad_nb.transport.frames import new_epoch

__all__ = ["Entry", "replay"]

#: Device, the device's time, the time when the server got the message, payload.
Entry = tuple[str, float, float, Any]


async def replay(
    controls: Controls,
    settings: EdgeSettings,
    entries: Iterator[Entry],
    speed: float | None,
    *,
    first: float | None = None,
) -> int:
    """Put `entries` through the flow; return their number once all entries are taken in.

    Parameters
    ----------
    speed
        1.0: at the pace at which the server got the messages; 2.0: twice as fast; None: as fast as the
        processors take them.
    first
        When the server got the first message of the whole recording, if `entries` are a part of it. Default:
        the time of the first entry.

    Raises
    ------
    FlowError
        If the flow stops before all entries are taken in.
    """
    epoch = new_epoch()
    numbers: dict[str, int] = {}
    sampler = Sampler()
    count = 0
    for due in _by_pace(entries, speed, settings.options.batch_messages, first):
        wait = due.at - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        await controls.flowing()
        frames = list(_frames(due.entries, epoch, numbers, count))
        count += len(due.entries)
        source = Source(settings.name, frames, followed=sampler.choose(len(due.entries)), kind="replay")
        payloads = [payload for *_, payload in due.entries]
        await controls.inject(Batch(source, payloads, range(source.size), source.size))
    return count


class _Due:
    """Entries that are put through together, and when they are due, by `time.monotonic`."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.entries: list[Entry] = []


def _by_pace(entries: Iterator[Entry], speed: float | None, most: int, first: float | None) -> Iterator[_Due]:
    """Yield groups of at most `most` entries that are due no later than the first of their group."""
    began = time.monotonic()
    group = _Due(0.0)
    for entry in entries:
        received = entry[2]
        first = received if first is None else first
        at = began + max(0.0, received - first) / speed if speed is not None else 0.0
        if group.entries and (at > group.at or len(group.entries) >= most):
            yield group
            group = _Due(at)
        elif not group.entries:
            group.at = at
        group.entries.append(entry)
    if group.entries:
        yield group


def _frames(
    entries: Sequence[Entry], epoch: int, numbers: dict[str, int], before: int
) -> Iterator[InputFrame]:
    """Yield a frame for each unbroken row of entries of one device."""
    now = time.time()
    for device, same in groupby(entries, key=lambda entry: entry[0]):
        times = [entry[1] for entry in same]
        first = numbers.get(device, 0) + 1
        numbers[device] = first + len(times) - 1
        before += len(times)
        yield InputFrame(device, epoch, first, now, times, covers=(REPLAYED, epoch, before))
