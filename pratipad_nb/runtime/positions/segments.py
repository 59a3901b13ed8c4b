"""Segments: the results of one input frame in an output frame; made, split, and freed of unfit payloads.

Owns the surgery. Every cut keeps a message's results together, for the results are stored all at once or not
at all. When results are cut, and what becomes of the pieces, is for `outputs`.
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

#: The name in the place of a failing processor's key, in the dead letter of a result that can't be stored.
_OUTPUT = "Output"


def segments_of(batch: Batch) -> Iterator[Segment]:
    """Yield a segment for each input frame that has results in `batch`."""
    origins, source = batch.origins, batch.source
    at, count = 0, len(origins)
    while at < count:
        frame, offset = source.locate(origins[at])
        start = origins[at] - offset
        end = bisect_left(origins, start + len(frame.times), at)
        yield _segment(frame, origins[at:end], start, batch.payloads[at:end])
        at = end


def _segment(frame: InputFrame, origins: Sequence[int], start: int, payloads: list[Any]) -> Segment:
    """Return the segment of one frame's results; `start` is the frame's first index in its source."""
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
    """Return `segments` in two halves, never split between two results of one message."""
    if len(segments) > 1:
        middle = len(segments) // 2
        return segments[:middle], segments[middle:]
    (segment,) = segments
    numbers = _numbers(segment)
    middle = bisect_left(numbers, numbers[len(numbers) // 2]) or bisect_right(numbers, numbers[0])
    return [_slice(segment, 0, middle)], [_slice(segment, middle, len(numbers))]


def ends_of(segments: list[Segment]) -> list[Position]:
    """Return the positions at the ends of `segments`; a retried dead letter completes none of its device."""
    return [(s.device, s.epoch, _numbers(s)[-1]) for s in segments if not s.retry]


def take_out_unfit(segments: list[Segment]) -> list[tuple[str, DeadEntry]]:
    """Take the payloads that are not JSON-like out of `segments`; return their dead letters."""
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
    """Take out the results of a message if they alone are too large for a frame; return its dead letter.

    Returns an empty list if `segments` have the results of several messages.
    """
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
