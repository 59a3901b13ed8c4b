"""Stages at work, and batches for them, for the tests of this room."""

from __future__ import annotations

import pytest

from pratipad_nb.dataflow import resolve
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.batch import Batch, InputFrame, Source
from pratipad_nb.runtime.values.packing import unsealed
from pratipad_nb.settings import FlowOptions


class Run:
    """One stage at work, and what it hands on."""

    def __init__(self, notation, slice_seconds=0.05, **names):
        self.line = Line(resolve(notation, names), FlowOptions(slice_seconds=slice_seconds))
        self.out = []

    async def __aenter__(self):
        await self.line.open({})
        return self

    async def __aexit__(self, *_):
        await self.line.close()

    async def emit(self, batch):
        batch.payloads = [unsealed(payload) for payload in batch.payloads]
        self.out.append(batch)

    async def __call__(self, batch, shard=0):
        await self.line.stages[0].process(batch, self.emit, shard)
        return [payload for each in self.out for payload in each.payloads]

    def is_whole(self, count):
        """Whether what was handed on says how far it is without a step back, and ends at the end."""
        done = [batch.done for batch in self.out]
        return done == sorted(done) and done[-1] == count

    @property
    def dead(self):
        return [(step, entry.number, entry.payload) for each in self.out for step, entry in each.dead]


def _source(*counts):
    """Return a source with a frame of so many messages for each of devices d0, d1, …"""
    return Source(
        "house", [InputFrame(f"d{at}", 7, 1, 2.0, [1.0] * count) for at, count in enumerate(counts)]
    )


def _batch_of(payloads, *counts, **more):
    return Batch(
        _source(*(counts or (len(payloads),))), list(payloads), range(len(payloads)), len(payloads), **more
    )


@pytest.fixture(scope="session")
def at_work():
    """Return what makes the first stage of a notation, for ``async with``."""
    return Run


@pytest.fixture(scope="session")
def source():
    """Return what makes a source with a frame of so many messages for each of devices d0, d1, …"""
    return _source


@pytest.fixture(scope="session")
def batch_of():
    """Return what makes a batch of payloads that a source of such frames has."""
    return _batch_of


@pytest.fixture(scope="session")
def halve():
    """Return a processor that fails on odd numbers."""

    def halve(payload):
        if payload % 2:
            raise ValueError("odd")
        return payload // 2

    return halve
