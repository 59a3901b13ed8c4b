"""Samples: some messages as they came into each processor and as they left it, for the inspector.

Owns what is kept of a followed message, and the bound: each processor keeps at most `KEPT` messages and
`KEPT_BYTES` (encoded; payloads are decoded when they are looked at). The same messages are kept at every
processor, so that a message's way through the flow can be followed. The choice of messages is for `sampling`.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pratipad_nb.message import Message
from pratipad_nb.runtime.values.batch import Batch
from pratipad_nb.runtime.values.packing import Shown, pack, unpack
from pratipad_nb.runtime.values.sampling import Followed
from pratipad_nb.transport.frames import message_id

__all__ = ["KEPT", "KEPT_BYTES", "Sample", "Samples", "following"]

#: Most messages, and bytes, that a processor keeps: ten seconds at the full rate, and too little memory to
#: matter.
KEPT = 500
KEPT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """One message at one processor.

    Attributes
    ----------
    message
        The message as it came in.
    inputs
        All payloads of the message that came in: several if a generator before made several results of one
        message. `message.payload` is the first.
    results
        The results of the processor: one from a plain function, any number from a generator, none after a
        failure; in braces, the payload as it goes on.
    error, traceback
        The exception that the processor raised and its traceback; empty if it raised none.
    time
        When the processor was done with the message, in seconds since 1970-01-01 UTC.
    version
        How many times the processor's code had been swapped by then.
    """

    message: Message
    inputs: tuple[Any, ...]
    results: tuple[Any, ...]
    error: str
    traceback: str
    time: float
    version: int = 0


@dataclass(slots=True)
class _Kept:
    """A sample as it is kept. `origin` is the device whose numbers count the message, which may be a gateway.

    `device` is the full name of the device that the message is from.
    """

    origin: str
    device: str
    epoch: int
    number: int
    sent: float
    received: float
    flow: str
    inputs: list[bytes | Shown]
    results: list[bytes | Shown] = field(default_factory=list)
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)
    index: int = 0
    time: float = 0.0
    source: str = ""

    @property
    def id(self) -> str:
        return message_id(self.origin, self.epoch, self.number)


class Samples:
    """The last samples of one processor. Written on the flow's loop, read from any thread."""

    def __init__(self) -> None:
        self._ring: deque[tuple[_Kept, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._ring)

    def last(self, key: str, count: int) -> list[Sample]:
        """Return the last `count` samples, oldest first, as the processor `key` saw them."""
        return (
            [_sample(kept, key, version) for kept, version in list(self._ring)[-count:]] if count > 0 else []
        )

    def find(self, key: str, message_id: str) -> Sample | None:
        """Return the sample of the message `message_id`; None if it wasn't followed, or is too old."""
        for kept, version in reversed(list(self._ring)):
            # The id of one of several results is the id of the message, followed by the result's part.
            if message_id == kept.id or message_id.startswith(kept.id + "-"):
                return _sample(kept, key, version)
        return None

    def add(self, kept: _Kept, version: int) -> None:
        """Keep a sample, and drop the oldest samples beyond the bounds."""
        self._ring.append((kept, version))
        self._bytes += _size(kept)
        while len(self._ring) > KEPT or (self._bytes > KEPT_BYTES and len(self._ring) > 1):
            self._bytes -= _size(self._ring.popleft()[0])


def _size(kept: _Kept) -> int:
    return sum(map(len, kept.inputs)) + sum(map(len, kept.results))


def _sample(kept: _Kept, key: str, version: int) -> Sample:
    inputs = tuple(unpack(each) for each in kept.inputs)
    message = Message(
        payload=inputs[0],
        id=kept.id,
        device=kept.source or kept.device,
        time=kept.sent,
        received=kept.received,
        flow=kept.flow,
    )
    error, traceback = kept.failures.get(key, ("", ""))
    results = tuple(unpack(each) for each in kept.results)
    return Sample(message, inputs, results, error, traceback, kept.time, version)


def following(
    batch: Batch, rings: Mapping[str, tuple[Samples, int]], emit: Callable[[Batch], Awaitable[None]]
) -> Callable[[Batch], Awaitable[None]]:
    """Return an `emit` that also notes the results of the followed messages of `batch` at one stage.

    Parameters
    ----------
    rings
        For each processor of the stage, its samples and its version.
    """
    followed = batch.source.followed
    if followed is None:
        return emit
    began = time.perf_counter()
    pending = deque(_begin(batch, followed))
    followed.sampler.spend(time.perf_counter() - began)
    if not pending:
        return emit

    async def noting(part: Batch) -> None:
        if pending:
            began = time.perf_counter()
            if part.dead:
                _note_failures(part, pending)
            # A message's results are handed on all at once, in the part whose `done` lies beyond the message.
            while pending and pending[0].index < part.done:
                _finish(pending.popleft(), part, rings)
            followed.sampler.spend(time.perf_counter() - began)
        await emit(part)

    return noting


def _begin(batch: Batch, followed: Followed) -> list[_Kept]:
    found = []
    origins, source = batch.origins, batch.source
    for index in followed.indices:
        begin, end = bisect_left(origins, index), bisect_right(origins, index)
        if begin == end:
            continue
        frame, offset = source.locate(index)
        found.append(
            _Kept(
                frame.device,
                source.device(index),
                frame.epoch,
                frame.first + offset,
                frame.times[offset],
                frame.received,
                source.flow,
                [pack(payload) for payload in batch.payloads[begin:end]],
                index=index,
                source=frame.source(offset),
            )
        )
    return found


def _note_failures(part: Batch, pending: Sequence[_Kept]) -> None:
    for _, entry in part.dead:
        for kept in pending:
            if (kept.number, kept.epoch, kept.origin) == (entry.number, entry.epoch, entry.device):
                kept.failures |= {note.processor: (note.error, note.traceback) for note in entry.failures}


def _finish(kept: _Kept, part: Batch, rings: Mapping[str, tuple[Samples, int]]) -> None:
    begin, end = bisect_left(part.origins, kept.index), bisect_right(part.origins, kept.index)
    kept.results = [pack(payload) for payload in part.payloads[begin:end]]
    kept.time = time.time()
    for ring, version in rings.values():
        ring.add(kept, version)
