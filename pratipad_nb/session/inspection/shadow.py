"""The shadow: the outputs that would differ if the processors as defined now replaced those that run.

Owns the comparison. Old and new processors are made anew, set up, given the same inputs and torn down again,
on a thread of their own, in the same stages as in a flow. The running flow isn't touched. Both sides begin
without state. Side effects of `setup` and `process` happen here as well. Passing payloads through the stages
is for `trial`, recording inputs for `tape`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any, Protocol

from pratipad_nb.dataflow import Dataflow, resolve
from pratipad_nb.portal import Portal
from pratipad_nb.runtime.edge.replaying import Entry
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.batch import InputFrame, Source
from pratipad_nb.runtime.values.logs import diverted_output
from pratipad_nb.runtime.values.packing import Shown, pack, unpack
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.runtime.values.samples import KEPT, Sample
from pratipad_nb.session.inspection.tape import Tape, checked_tape
from pratipad_nb.session.inspection.trial import through
from pratipad_nb.settings import FlowOptions
from pratipad_nb.tables import Cell, html_table, shown, text_table

__all__ = ["Shadow", "ShadowRow", "shadow_of"]

#: Inputs that go through in one batch.
_BATCH = 2048
#: Most rows of a table; up to `_KEPT` rows are in `rows`.
_SHOWN_ROWS = 20
#: Most rows that are kept: more rows would only show again that everything differs.
_KEPT = 1000

_Packed = bytes | Shown


@dataclass(frozen=True, slots=True)
class ShadowRow:
    """An input whose outputs differ.

    Attributes
    ----------
    device, payload
        The input.
    processor
        The first processor of both sides whose results for the input differ; empty if there is none.
    old, new
        Payloads that reach Output for the input.
    old_error, new_error
        Error of a processor, after the processor's key; empty if there was none.
    """

    device: str
    payload: Any
    processor: str
    old: tuple[Any, ...]
    new: tuple[Any, ...]
    old_error: str
    new_error: str


@dataclass(frozen=True)
class Shadow(Sequence[ShadowRow]):
    """The outputs that differ.

    Attributes
    ----------
    old, new
        The two notations.
    changed
        Keys of the processors that differ, are added or removed.
    compared, differing
        Number of inputs, and number of inputs whose outputs or errors differ.
    rows
        The first 1,000 inputs whose outputs or errors differ.
    """

    old: str
    new: str
    changed: tuple[str, ...]
    compared: int
    differing: int
    rows: tuple[ShadowRow, ...]

    _HEADS = ("device", "input", "at", "old", "new")

    def __getitem__(self, at: Any) -> Any:
        return self.rows[at]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return text_table(self._caption, self._HEADS, self._cells) if self.rows else self._caption

    def _repr_html_(self) -> str:
        return html_table(self._caption, self._HEADS, self._cells)

    @property
    def _caption(self) -> str:
        processors = ", ".join(self.changed) or "no processor"
        rest = f"; the first {_SHOWN_ROWS}" if self.differing > _SHOWN_ROWS else ""
        return (
            f"{processors} changed: {self.differing:,} of {self.compared:,} inputs come out otherwise{rest}"
            if self.compared
            else f"{processors} changed; there was no input to compare"
        )

    @property
    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                row.device,
                shown(row.payload),
                row.processor or "–",
                _came_out(row.old, row.old_error),
                _came_out(row.new, row.new_error),
            )
            for row in self.rows[:_SHOWN_ROWS]
        ]


def _came_out(results: tuple[Any, ...], error: str) -> Cell:
    if error:
        return Cell(f"✗ {error}", fault=True)
    return Cell("\n".join(map(shown, results)) or "nothing")


class _View(Protocol):
    """What is asked of a view of one processor."""

    def samples(self, n: int) -> Sequence[Sample]: ...


class _Flow(Protocol):
    """What is asked of a flow."""

    @property
    def dataflow(self) -> Dataflow: ...
    @property
    def settings(self) -> EdgeSettings: ...
    def __getitem__(self, key: str) -> _View: ...


def shadow_of(flow: _Flow, tape: Tape | None, names: Mapping[str, Any], notation: str | None) -> Shadow:
    """Compare the processors that `flow` runs with those of `notation` in `names`; None: the flow's notation.

    Raises
    ------
    NotationError, ProcessorError
        If the notation is wrong, or a processor can't be set up.
    """
    entries = _followed(flow) if tape is None else list(checked_tape(tape, "shadow").entries())
    old = flow.dataflow
    return _compare(old, resolve(notation or old.notation, names), entries, flow.settings.options)


def _followed(flow: _Flow) -> list[Entry]:
    """Return the last inputs that the first processor's samples hold."""
    first = flow.dataflow.stages[0].steps[0].key
    return [
        (s.message.device, s.message.time, s.message.received, s.inputs[0]) for s in flow[first].samples(KEPT)
    ]


def _compare(old: Dataflow, new: Dataflow, entries: Sequence[Entry], options: FlowOptions) -> Shadow:
    """Put `entries` through both dataflows and return the outputs that differ.

    Raises
    ------
    ProcessorError
        If a processor can't be set up.
    """
    with Portal("pratipad shadow") as portal, diverted_output():
        before = portal.run(_run(old, entries, options))
        after = portal.run(_run(new, entries, options))
    difference = old.diff(new)
    common = [step.key for step in new.steps if step.key in before.keys]
    rows: list[ShadowRow] = []
    differing = 0
    for at, (device, _, _, payload) in enumerate(entries):
        was, now = before.fates[at], after.fates[at]
        if _same(was.output, now.output) and was.error == now.error:
            continue
        differing += 1
        if len(rows) < _KEPT:
            first = next((key for key in common if not _same(was.steps.get(key), now.steps.get(key))), "")
            rows.append(
                ShadowRow(
                    device, payload, first, _values(was.output), _values(now.output), was.error, now.error
                )
            )
    changed = (*difference.changed, *difference.added, *difference.removed)
    return Shadow(old.notation, new.notation, changed, len(entries), differing, tuple(rows))


def _values(packed: Sequence[_Packed]) -> tuple[Any, ...]:
    return tuple(map(unpack, packed))


def _same(one: Sequence[_Packed] | None, other: Sequence[_Packed] | None) -> bool:
    """Return whether two results are equal, as bytes or as values (the order of a map's keys is free)."""
    if one is None or other is None or one == other:
        return one == other
    return len(one) == len(other) and all(
        a == b or unpack(a) == unpack(b) for a, b in zip(one, other, strict=True)
    )


@dataclass(slots=True)
class _Fate:
    """The results of each step for one input, and the first error."""

    steps: dict[str, list[_Packed]] = field(default_factory=dict)
    output: list[_Packed] = field(default_factory=list)
    error: str = ""


@dataclass(slots=True)
class _Trial:
    keys: tuple[str, ...]
    fates: list[_Fate]


async def _run(dataflow: Dataflow, entries: Sequence[Entry], options: FlowOptions) -> _Trial:
    trial = _Trial(tuple(step.key for step in dataflow.steps), [])
    line = Line(dataflow, options)
    await line.open({})
    try:
        rest = iter(entries)
        first = 1
        while chunk := list(islice(rest, _BATCH)):
            fates = [_Fate() for _ in chunk]
            await _through(line, Source("shadow", list(_frames(chunk, first))), chunk, fates)
            trial.fates += fates
            first += len(chunk)
    finally:
        await line.close()
    return trial


def _frames(chunk: Sequence[Entry], first: int) -> Iterator[InputFrame]:
    for device, same in groupby(chunk, key=lambda entry: entry[0]):
        run = list(same)
        yield InputFrame(device, 0, first, run[0][2], [entry[1] for entry in run])
        first += len(run)


async def _through(line: Line, source: Source, chunk: Sequence[Entry], fates: list[_Fate]) -> None:
    async for stage, batch, dead in through(line, source, [payload for *_, payload in chunk]):
        for entry in dead:
            note = entry.failures[0]
            fates[entry.number - source.frames[0].first].error = f"{note.processor}: {note.error}"
        for payload, origin in zip(batch.payloads, batch.origins, strict=True):
            packed = pack(payload)
            for member in stage.members:
                fates[origin].steps.setdefault(member.key, []).append(packed)
    for fate in fates:
        fate.output = fate.steps.get(line.stages[-1].members[0].key, []) if line.stages else []
