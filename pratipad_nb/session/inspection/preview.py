"""`preview`: the results of each processor for a few payloads, without a server and with nothing stored.

Owns the preview's run and its result. The processors run in the same stages as in a flow; passing payloads
through the stages is for `trial`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pratipad_nb.dataflow import resolve
from pratipad_nb.errors import SettingsError
from pratipad_nb.portal import Portal
from pratipad_nb.processors import copied
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.batch import InputFrame, Source
from pratipad_nb.runtime.values.logs import diverted_output
from pratipad_nb.session.callers import names_for
from pratipad_nb.session.checks import UnknownStep
from pratipad_nb.session.inspection.trial import through
from pratipad_nb.settings import FlowOptions
from pratipad_nb.wording import printable

__all__ = ["Preview", "PreviewStep", "preview"]

_MOST_PAYLOADS = 10_000


@dataclass(frozen=True, slots=True)
class PreviewStep:
    """The results of one processor.

    Attributes
    ----------
    processor
        The processor's key.
    results
        Payloads that go on to the next step (of braces: the payloads as they came).
    failures
        Payload and error of each failure.
    """

    processor: str
    results: list[Any]
    failures: list[tuple[Any, str]]


@dataclass(frozen=True)
class Preview(Mapping[str, PreviewStep]):
    """The steps of a preview, by processor key, in their order; `output` are the payloads at Output."""

    notation: str
    steps: tuple[PreviewStep, ...]
    output: list[Any]

    def __getitem__(self, key: str) -> PreviewStep:
        for step in self.steps:
            if step.processor == key:
                return step
        raise UnknownStep(key, list(self))

    def __iter__(self) -> Iterator[str]:
        return (step.processor for step in self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        lines = [self.notation]
        for step in self.steps:
            lines += [f"  {step.processor}"]
            lines += [f"    {result!r:.100}" for result in step.results]
            lines += [f"    ✗ {payload!r:.60}: {error}" for payload, error in step.failures]
        return printable("\n".join(lines), lines=True)


def preview(notation: str, payloads: Sequence[Any], namespace: Mapping[str, Any] | None = None) -> Preview:
    """Return each step's results for a few payloads. Needs no server and stores nothing.

    Parameters
    ----------
    notation
        The dataflow.
    payloads
        Payloads as a device called "preview" would send them; at most 10,000.
    namespace
        The names in which processors are looked up. Default: the names visible to the caller.

    Raises
    ------
    NotationError
        If the notation is wrong.
    ProcessorError
        If a processor can't be set up.
    """
    dataflow = resolve(notation, names_for(namespace))
    if isinstance(payloads, (str, bytes, Mapping)) or not isinstance(payloads, Iterable):
        raise SettingsError(
            f"preview of {payloads!r:.100}: payloads has to be a list of payloads, for example [{{'n': 1}}]."
        )
    payloads = list(payloads)
    if len(payloads) > _MOST_PAYLOADS:
        raise SettingsError(f"preview of {len(payloads)} payloads; it takes at most {_MOST_PAYLOADS}.")
    with Portal("pratipad preview") as portal, diverted_output():
        return portal.run(_preview(Line(dataflow, FlowOptions()), payloads))


async def _preview(line: Line, payloads: list[Any]) -> Preview:
    steps: list[PreviewStep] = []
    output = payloads
    now = time.time()
    source = Source("preview", [InputFrame("preview", 0, 1, now, [now] * len(payloads))])
    await line.open({})
    try:
        async for stage, batch, dead in through(line, source, payloads):
            output = [copied(payload) for payload in batch.payloads]
            notes = [(copied(entry.payload), note) for entry in dead for note in entry.failures]
            steps += [
                PreviewStep(m.key, output, [(p, n.error) for p, n in notes if n.processor == m.key])
                for m in stage.members
            ]
    finally:
        await line.close()
    return Preview(line.dataflow.notation, tuple(steps), output)
