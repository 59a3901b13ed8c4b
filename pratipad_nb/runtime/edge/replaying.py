"""Replaying: recorded inputs put through a running flow once more.

Owns how they enter. They are put into the pipeline behind its input, as messages of the devices that sent them then, and
leave at Output like any other:

* They count in an epoch of their own, that of the replay, so that a device's own numbers go on undisturbed and no
  result is taken for a repeat. What they complete is a position of the replay and of no device.
* They pass no input log and ask for no credit, so a replay works with every input, is slowed down by the processors
  alone, and what of it is on its way when the edge is killed is lost: it can be replayed.
* `Message.time` is the recorded one, so that windows of time come out the same; `Message.received` is now.
* What processors answer to them (`reply`) is not sent: devices at work aren't to be moved by what was long ago.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from pratipad_nb.runtime.edge.controls import Controls
from pratipad_nb.runtime.values.batch import Batch, InputFrame, Source
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.runtime.values.samples import Sampler
from pratipad_nb.transport.frames import new_epoch

__all__ = ["Entry", "replay"]

#: Device, its time, when the server got it then, payload.
Entry = tuple[str, float, float, Any]

#: What stands for the device in the positions that a replay completes; no device can be called so.
_PLACE = "#replay"


async def replay(
    controls: Controls,
    settings: EdgeSettings,
    entries: Iterator[Entry],
    speed: float | None,
    *,
    first: float | None = None,
) -> int:
    """Put `entries` through; return how many, once all are taken in.

    Parameters
    ----------
    speed
        1.0: at the pace at which the server got them; 2.0: twice as fast; None: as fast as the processors take them.
    first
        When the server got the first message of the whole tape, if this is a part of one. Default: the first entry's.

    Raises
    ------
    FlowError
        If the flow stops before all are in.
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
        source = Source(settings.name, frames, followed=sampler.choose(len(due.entries)), replayed=True)
        payloads = [payload for *_, payload in due.entries]
        await controls.inject(Batch(source, payloads, range(source.size), source.size))
    return count


class _Due:
    """Entries that go together, and when: on `time.monotonic`'s clock."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.entries: list[Entry] = []


def _by_pace(entries: Iterator[Entry], speed: float | None, most: int, first: float | None) -> Iterator[_Due]:
    """Yield groups of at most `most` entries, none of which is due before the first of its group by a whole tick."""
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
    """Make a frame of each run of one device's entries."""
    now = time.time()
    for device, same in groupby(entries, key=lambda entry: entry[0]):
        times = [entry[1] for entry in same]
        first = numbers.get(device, 0) + 1
        numbers[device] = first + len(times) - 1
        before += len(times)
        yield InputFrame(device, epoch, first, now, times, covers=(_PLACE, epoch, before))
