"""Segments: the results of one input frame, as an output frame holds them; cut, split, and freed of what can't travel.

Owns the surgery. Every cut keeps a message's results together, for they are stored at once or not at all. When results are
cut, and where they go, is for `outputs`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import msgspec

from pratipad_nb.errors import PayloadError
from pratipad_nb.runtime.values.batch import Batch, InputFrame
from pratipad_nb.runtime.values.packing import as_text
from pratipad_nb.transport.codec import encode_payload
from pratipad_nb.transport.frames import DeadEntry, FailureNote, Position, Segment

__all__ = ["ends_of", "halves", "segments_of", "take_out_too_large", "take_out_unfit"]

#: What stands where the key of a failing processor would, for a result that can't be stored.
_OUTPUT = "Output"


def segments_of(batch: Batch) -> Iterator[Segment]:
    """Cut a batch's results where their input frames begin."""
    origins, source = batch.origins, batch.source
    at, count = 0, len(origins)
    while at < count:
        frame, offset = source.locate(origins[at])
        start = origins[at] - offset
        end = bisect_left(origins, start + len(frame.times), at)
        yield _segment(frame, origins[at:end], start, batch.payloads[at:end])
        at = end


def _segment(frame: InputFrame, origins: Sequence[int], start: int, payloads: list[Any]) -> Segment:
    """Make the segment of one frame's results; `start` is the frame's first index in its source."""
    offset, count = origins[0] - start, len(origins)
    segment = Segment(
        device=frame.device,
        epoch=frame.epoch,
        first=frame.first + offset,
        received=frame.received,
        times=list(frame.times[offset : offset + count]),
        payloads=payloads,
        retry=frame.retry,
        sources=frame.sources and frame.sources[offset : offset + count],
    )
    one_to_one = isinstance(origins, range) or list(origins) == list(range(origins[0], origins[0] + count))
    if not one_to_one or frame.part:
        segment.times = [frame.times[origin - start] for origin in origins]
        segment.sources = frame.sources and [frame.sources[origin - start] for origin in origins]
        segment.numbers = [frame.first + origin - start for origin in origins]
        segment.parts = [frame.part + part for _, same in groupby(origins) for part, _ in enumerate(same)]
    return segment


def _numbers(segment: Segment) -> Sequence[int]:
    return segment.numbers or range(segment.first, segment.first + len(segment.payloads))


def _slice(segment: Segment, begin: int, end: int) -> Segment:
    return msgspec.structs.replace(
        segment,
        first=_numbers(segment)[begin],
        times=segment.times[begin:end],
        payloads=segment.payloads[begin:end],
        numbers=segment.numbers and segment.numbers[begin:end],
        parts=segment.parts and segment.parts[begin:end],
        sources=segment.sources and segment.sources[begin:end],
    )


def halves(segments: list[Segment]) -> tuple[list[Segment], list[Segment]]:
    """Split what is too much for one frame, never between two results of one message."""
    if len(segments) > 1:
        middle = len(segments) // 2
        return segments[:middle], segments[middle:]
    (segment,) = segments
    numbers = _numbers(segment)
    middle = bisect_left(numbers, numbers[len(numbers) // 2]) or bisect_right(numbers, numbers[0])
    return [_slice(segment, 0, middle)], [_slice(segment, middle, len(numbers))]


def ends_of(segments: list[Segment]) -> list[Position]:
    """Return the positions that these segments complete by themselves; retried dead letters cover no such ones."""
    return [(s.device, s.epoch, _numbers(s)[-1]) for s in segments if not s.retry]


def take_out_unfit(segments: list[Segment]) -> list[tuple[str, DeadEntry]]:
    """Take the payloads that are not JSON-like out of `segments`, and return them as dead letters."""
    unfit: list[tuple[str, DeadEntry]] = []
    for segment in segments:
        for at in reversed(range(len(segment.payloads))):
            try:
                encode_payload(segment.payloads[at])
            except PayloadError as error:
                unfit.append((_OUTPUT, _dead_entry(segment, at, error)))
                _remove(segment, at, at + 1)
    return unfit[::-1]


def take_out_too_large(segments: list[Segment], error: PayloadError) -> list[tuple[str, DeadEntry]]:
    """If all that is left are the results of one message, and still too large, give that up as a dead letter."""
    if len(segments) != 1 or _numbers(segments[0])[0] != _numbers(segments[0])[-1]:
        return []
    first, numbers = segments[0], _numbers(segments[0])
    entry = _dead_entry(first, 0, error)
    _remove(first, 0, len(numbers))
    return [(_OUTPUT, entry)]


def _remove(segment: Segment, begin: int, end: int) -> None:
    if segment.numbers is None:
        segment.numbers = list(_numbers(segment))
    for column in (segment.payloads, segment.times, segment.numbers, segment.parts, segment.sources):
        if column is not None:
            del column[begin:end]


def _dead_entry(segment: Segment, at: int, error: PayloadError) -> DeadEntry:
    note = FailureNote(_OUTPUT, f"PayloadError: {error}", "")
    return DeadEntry(
        segment.device,
        segment.epoch,
        _numbers(segment)[at],
        segment.parts[at] if segment.parts else 0,
        segment.times[at],
        segment.received,
        str(as_text(segment.payloads[at])),
        [note],
        segment.sources[at] if segment.sources else "",
    )
