"""`flow["P2"]`, a view of one processor of a running flow, and `flow.trace`, the way of one message.

Owns these two views. `pratipad_nb.runtime.values.samples` and `pratipad_nb.runtime.values.logs` keep the
samples and the log lines. A view holds none of them: it reads those of the processors that run now, whatever
was swapped in since the view was made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pratipad_nb.cloud.dataframe import frame
from pratipad_nb.dataflow import Dataflow
from pratipad_nb.errors import FlowError, SettingsError
from pratipad_nb.message import Message
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.logs import LogLine
from pratipad_nb.runtime.values.samples import KEPT, Sample
from pratipad_nb.runtime.values.sampling import PER_SECOND
from pratipad_nb.runtime.values.stats import FlowStats, ProcessorStats
from pratipad_nb.session.checks import UnknownStep
from pratipad_nb.session.inspection.source_text import source_of
from pratipad_nb.session.letters import LetterList
from pratipad_nb.settings import checked_count
from pratipad_nb.tables import Cell, clock, html_table, shown, text_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AsyncStep", "SampleTable", "Step", "Trace", "trace"]

#: Most devices that are named if the wanted device has sent nothing.
_NAMED = 12


class _Handle(Protocol):
    """The part of a flow's handle that a view reads."""

    @property
    def name(self) -> str: ...
    @property
    def dataflow(self) -> Dataflow: ...
    @property
    def lines(self) -> list[Line]: ...
    def stats(self) -> FlowStats: ...


class _Flow(_Handle, Protocol):
    """What `Step` needs of a flow."""

    def pause(self, processor: str | None = None) -> None: ...
    def resume(self, processor: str | None = None) -> None: ...
    def dead_letters(self) -> LetterList: ...


class _AsyncFlow(_Handle, Protocol):
    """What `AsyncStep` needs of a flow."""

    async def pause(self, processor: str | None = None) -> None: ...
    async def resume(self, processor: str | None = None) -> None: ...
    async def dead_letters(self) -> LetterList: ...


class _View:
    """The readable part of `Step` and `AsyncStep`."""

    def __init__(self, handle: _Handle, key: str) -> None:
        handle.dataflow.step(key)
        self._handle = handle
        self.key = key

    def __repr__(self) -> str:
        p = self.stats
        newer = ", its code is newer than what runs" if p.newer else ""
        return (
            f"<{self.key} of {self._handle.name!r}: {p.state}, in {p.received}, out {p.emitted}, failed "
            f"{p.failed}, {p.rate:.3g}/s{newer}>"
        )

    @property
    def source(self) -> str:
        """The source text of the processor that runs; empty if it can't be found."""
        return source_of(self._handle.dataflow.step(self.key).target)

    @property
    def arguments(self) -> dict[str, Any]:
        """The processor's arguments in the notation."""
        return dict(self._handle.dataflow.step(self.key).arguments)

    @property
    def stats(self) -> ProcessorStats:
        """The processor's counters now; of a stopped flow, the counters at its end."""
        return self._handle.stats().processors.get(self.key, ProcessorStats(state="stopped"))

    @property
    def log(self) -> list[LogLine]:
        """The last lines that the processor printed or logged, oldest first; 1,000 at most."""
        return sorted(
            line
            for each in self._handle.lines
            if self.key in each.logs
            for line in each.logs[self.key].lines()
        )

    def samples(self, n: int = 20, *, device: str | None = None) -> list[Sample]:
        """Return the last `n` messages that were followed, with inputs and results, oldest first.

        Up to 50 messages a second are followed (all, at lower rates), and the last 500 are kept.

        Parameters
        ----------
        device
            Only messages of this device.

        Raises
        ------
        SettingsError
            If `n` is no whole number of at least 0.
        """
        if checked_count(n, "samples: n", least=0) == 0:
            return []
        rings = [line.samples[self.key] for line in self._handle.lines if self.key in line.samples]
        if len(rings) == 1 and device is None:
            return rings[0].last(self.key, n)
        found = (s for ring in rings for s in ring.last(self.key, KEPT) if device in (None, s.message.device))
        return sorted(found, key=lambda sample: sample.time)[-n:]

    def show(self, n: int = 20, *, device: str | None = None) -> SampleTable:
        """Return a table of the last `n` messages that were followed: inputs and results side by side."""
        found = tuple(self.samples(n, device=device))
        return SampleTable(self.key, found, "" if found else self._why_none(n, device))

    def _why_none(self, n: int, device: str | None) -> str:
        """Return the reason, in words, why there is no sample to show."""
        if n == 0:
            return "0 messages were asked for"
        others = (
            sorted({sample.message.device for sample in self.samples(KEPT)}) if device is not None else []
        )
        if not others:
            return "nothing has come in"
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        return f"nothing has come in from {device!r}, but from {', '.join(others[:_NAMED])}{more}"

    def frame(self, n: int = KEPT, *, device: str | None = None) -> pd.DataFrame:
        """Return the last `n` messages that were followed as a data frame, a row for each result.

        Columns are ``device``, ``id``, ``error``, then ``in.KEY`` for the input and ``out.KEY`` for the
        result, a column for each key of the payload (a payload that is no map is ``in.value``). The index is
        the time by the device's clock.

        Raises
        ------
        SettingsError
            If pandas isn't installed.
        """
        rows = [(s, result) for s in self.samples(n, device=device) for result in s.results or (None,)]
        table = frame([s.message for s, _ in rows])
        payloads = table.columns[1:]
        table = table.rename(columns={name: f"in.{name}" for name in payloads})
        table.insert(1, "id", [s.message.id for s, _ in rows])
        table.insert(2, "error", [s.error for s, _ in rows])
        out = frame([_with(s.message, result) for s, result in rows])
        for name in out.columns[1:]:
            table[f"out.{name}"] = out[name].array
        return table


class Step(_View):
    """A view of one processor of a flow, as `flow[key]` returns it."""

    def __init__(self, handle: _Flow, key: str) -> None:
        super().__init__(handle, key)
        self._flow = handle

    def pause(self) -> None:
        """Let the processor begin no further message; new messages wait before it."""
        self._flow.pause(self.key)

    def resume(self) -> None:
        """Let the processor go on."""
        self._flow.resume(self.key)

    def dead_letters(self) -> LetterList:
        """Return the messages that the processor failed on, with error and traceback, oldest first."""
        return self._flow.dead_letters().of(self.key)


class AsyncStep(_View):
    """The asynchronous twin of `Step`."""

    def __init__(self, handle: _AsyncFlow, key: str) -> None:
        super().__init__(handle, key)
        self._flow = handle

    async def pause(self) -> None:
        """Let the processor begin no further message."""
        await self._flow.pause(self.key)

    async def resume(self) -> None:
        """Let the processor go on."""
        await self._flow.resume(self.key)

    async def dead_letters(self) -> LetterList:
        """Return the messages that the processor failed on."""
        return (await self._flow.dead_letters()).of(self.key)


def _with(message: Message, payload: Any) -> Message:
    return Message(
        payload={} if payload is None else payload,
        id=message.id,
        device=message.device,
        time=message.time,
        received=message.received,
        flow=message.flow,
    )


@dataclass(frozen=True)
class SampleTable(Sequence[Sample]):
    """Samples of one processor, as a table in a notebook."""

    key: str
    samples: tuple[Sample, ...]
    why_none: str = "nothing has come in"

    _HEADS = ("time", "device", "in", "out")

    def __getitem__(self, at: Any) -> Any:
        return self.samples[at]

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return text_table(self._caption, self._HEADS, list(map(_row, self.samples)))

    def _repr_html_(self) -> str:
        return html_table(self._caption, self._HEADS, list(map(_row, self.samples)))

    @property
    def _caption(self) -> str:
        if not self.samples:
            return f"{self.key}: {self.why_none}"
        count = len(self.samples)
        last = "the last message that was" if count == 1 else f"the last {count} messages that were"
        return f"{self.key}: {last} followed"


def _row(sample: Sample) -> tuple[str, ...]:
    return (clock(sample.message.time), sample.message.device, *_in_out(sample))


def _in_out(sample: Sample) -> tuple[str, str]:
    came = Cell("\n".join(map(shown, sample.inputs)))
    if sample.error:
        return came, Cell(f"✗ {sample.error}", fault=True)
    return came, Cell("\n".join(map(shown, sample.results)) or "nothing")


@dataclass(frozen=True)
class Trace(Mapping[str, Sample | None]):
    """One message's way: by processor key, the sample of the message there; None where it didn't come.

    Attributes
    ----------
    message
        The message as it came from the device.
    """

    message: Message
    steps: tuple[tuple[str, Sample | None], ...]

    _HEADS = ("processor", "in", "out")

    def __getitem__(self, key: str) -> Sample | None:
        for own, sample in self.steps:
            if own == key:
                return sample
        raise UnknownStep(key, list(self))

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        return text_table(self._caption, self._HEADS, self._rows)

    def _repr_html_(self) -> str:
        return html_table(self._caption, self._HEADS, self._rows)

    @property
    def _caption(self) -> str:
        return f"{self.message.id}, {clock(self.message.time)} by the clock of {self.message.device}"

    @property
    def _rows(self) -> list[tuple[str, ...]]:
        return [(key, *(_in_out(sample) if sample else ("–", "–"))) for key, sample in self.steps]


def _found(handle: _Handle, key: str, wanted: str) -> Sample | None:
    rings = [line.samples[key] for line in handle.lines if key in line.samples]
    return next((sample for ring in rings if (sample := ring.find(key, wanted)) is not None), None)


def trace(handle: _Handle, message: Message | str) -> Trace:
    """Return the results of each processor for `message`, given as `take` returned it, or by its id.

    Raises
    ------
    FlowError
        If the message wasn't followed, or is not among the last 500.
    """
    if not isinstance(message, (str, Message)):
        raise SettingsError(
            f"trace({message!r:.100}): it follows one message, given as take() has returned it, or its id."
        )
    wanted = message if isinstance(message, str) else message.id
    found = [(step.key, _found(handle, step.key, wanted)) for step in handle.dataflow.steps]
    first = next((sample for _, sample in found if sample is not None), None)
    if first is None:
        raise FlowError(
            f"message {wanted!r} of flow {handle.name!r} wasn't followed, or is too long ago: {PER_SECOND} "
            f"messages a second are followed, and the last {KEPT} kept. `flow[KEY].samples()` returns those."
        )
    return Trace(first.message, tuple(found))
