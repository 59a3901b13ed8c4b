"""`Outcome` and `Failure`: the results and the failures of one batch call of a processor.

Owns these values, and which part of a traceback is kept. Counting, dead-lettering and sending them is for
`pratipad_nb.runtime`.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from pratipad_nb.calls import worker
from pratipad_nb.message import Message
from pratipad_nb.processors.copying import copied
from pratipad_nb.wording import in_words, printable

__all__ = ["Failure", "Outcome", "sampled"]

#: Most characters of a traceback: the bound keeps a dead letter small.
TRACEBACK_CHARACTERS = 8192

#: Up to so many rows every duration is reported; of more rows every sixteenth, which tells p99 of 2,048 rows
#: well enough.
_ALL_UP_TO = 64
_SAMPLE = 16

_MACHINERY = {
    str(Path(__file__).with_name(name))
    for name in (
        "adapter.py",
        "async_forms.py",
        "copying.py",
        "forms.py",
        "keeping.py",
        "outcome.py",
        "returned.py",
        "typed.py",
    )
} | {str(Path(worker.__file__).with_name(name)) for name in ("call.py", "time_limit.py", "worker.py")}


@dataclass(frozen=True, slots=True)
class Failure:
    """A message whose processing raised, after its last retry.

    Attributes
    ----------
    row
        The message's index among the payloads of the call.
    payload
        A copy of the payload that was given to the call. A plain `process` without retries is given the
        payload itself, for speed: changes in place that `process` made before it raised show here.
    error
        The exception's type and text, as in ``"ValueError: no such unit"``.
    traceback
        The exception's traceback without this package's own frames, at most 8,192 characters of it.
    """

    row: int
    payload: Any
    error: str
    traceback: str

    @classmethod
    def of(cls, row: int, payload: Any, error: BaseException) -> Failure:
        """Return the failure that `error` is for the message in `row`."""
        return cls(row, copied(payload), in_words(error), _traceback(error))


@dataclass(slots=True)
class Outcome:
    """The results and failures of the first `done` rows of a call; the other rows are to be given again.

    Attributes
    ----------
    done
        How many rows, from the first on, were finished: each has its results or its failure.
    payloads
        The results, in order.
    rows
        For each result its row; ``range(done)`` where every row has exactly one result.
    failures
        The rows that failed, in order.
    replies
        Each reply's payload and the message that the reply answers, in order; replies from failed rows too.
    durations
        Seconds that each row took: of all rows if there are up to 64, else of every sixteenth row. A batch
        gives the mean of its rows for each of its calls.
    elapsed
        Seconds that the whole call took.
    retried
        How many times a row was tried again.
    """

    done: int
    payloads: list[Any]
    rows: Sequence[int]
    failures: list[Failure] = field(default_factory=list)
    replies: list[tuple[Any, Message]] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    elapsed: float = 0.0
    retried: int = 0


def sampled(count: int) -> range:
    """Return which of `count` rows report their duration."""
    return range(0, count, 1 if count <= _ALL_UP_TO else _SAMPLE)


def _traceback(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, _users_frames(error.__traceback__))
    except BaseException as again:  # noqa: BLE001 - formatting calls methods of the user's exception
        return f"(its traceback can't be had: {in_words(again)})"
    text = printable("".join(lines), lines=True)
    if len(text) <= TRACEBACK_CHARACTERS:
        return text
    cut = "\n… cut …\n"
    head = TRACEBACK_CHARACTERS // 4  # the end says more: the end has the place and the error
    return text[:head] + cut + text[-(TRACEBACK_CHARACTERS - head - len(cut)) :]


def _users_frames(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename in _MACHINERY:
        trace = trace.tb_next
    return trace
