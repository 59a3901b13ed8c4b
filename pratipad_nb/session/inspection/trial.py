"""A trial: payloads put through a line of processors, stage by stage, without a flow around the line.

Owns the way through the stages. The results are for `preview` and `shadow`, which read each stage's results
before the next stage runs: a later stage may change the payloads of an earlier stage in place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pratipad_nb.processors import copied
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.stages.stage import Stage
from pratipad_nb.runtime.values.batch import Batch, Source
from pratipad_nb.runtime.values.packing import unsealed
from pratipad_nb.transport.frames import DeadEntry

__all__ = ["through"]


async def through(
    line: Line, source: Source, payloads: list[Any]
) -> AsyncIterator[tuple[Stage, Batch, list[DeadEntry]]]:
    """Put copies of `payloads` through `line`; yield each stage, its results, and its dead letters."""
    payloads = [copied(payload) for payload in payloads]
    count = len(payloads)
    batch = Batch(source, payloads, range(count), count)
    for stage in line.stages:
        parts: list[Batch] = []

        async def collect(part: Batch, parts: list[Batch] = parts) -> None:
            parts.append(part)

        await stage.process(batch, collect)
        results = [unsealed(payload) for part in parts for payload in part.payloads]
        origins = [origin for part in parts for origin in part.origins]
        batch = Batch(source, results, origins, count)
        yield stage, batch, [entry for part in parts for _, entry in part.dead]
