"""`Outcome` and `Failure`: what one batch call of a processor leaves behind.

Owns these values and what of a traceback is kept. Doesn't decide what becomes of them: counting,
dead-lettering and sending belong to `pratipad_nb.runtime`.
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
from pratipad_nb.wording import in_words, storable

__all__ = ["Failure", "Outcome", "sampled"]

#: The bound keeps a dead letter small.
TRACEBACK_CHARACTERS = 8192

#: Up to so many rows every duration is reported; beyond, every sixteenth, which tells p99 of 2,048 rows well enough.
_ALL_UP_TO = 64
_SAMPLE = 16

_MACHINERY = {
    str(Path(__file__).with_name(name))
    for name in (
        "adapter.py",
        "async_forms.py",
        "copying.py",
        "forms.py",
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
        Its index among the payloads of the call.
    payload
        As it was given to the call. A plain `process` without retries is given this very object, for speed: what
        it changed in place before it raised shows here.
    error
        The exception's type and text, as in ``"ValueError: no such unit"``.
    traceback
        The exception's traceback without our own frames, at most 8,192 characters of it.
    """

    row: int
    payload: Any
    error: str
    traceback: str

    @classmethod
    def of(cls, row: int, payload: Any, error: BaseException) -> Failure:
        """Return the failure that `error` is for the message in `row`."""
        return cls(row, payload, in_words(error), _traceback(error))


@dataclass(slots=True)
class Outcome:
    """What a call has made of the first `done` of its rows; the others are to be given again.

    Attributes
    ----------
    done
        How many rows, from the first on, were finished: they have their results or their failure.
    payloads
        The results, in order.
    rows
        For each result the row it came from; ``range(done)`` where every row has exactly one result.
    failures
        The rows that failed, in order.
    replies
        Payload and the message it answers, in order; those of failed rows are among them.
    durations
        Seconds a message took: all for up to 64 rows, else those of every sixteenth row. A batch gives
        one mean for each of its calls.
    elapsed
        Seconds the whole call took.
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
    except BaseException as again:  # noqa: BLE001 - it looks at much that a user's exception may define
        return f"(its traceback can't be had: {in_words(again)})"
    text = storable("".join(lines))
    if len(text) <= TRACEBACK_CHARACTERS:
        return text
    cut = "\n… cut …\n"
    head = TRACEBACK_CHARACTERS // 4  # the end says more: it has the place and the error
    return text[:head] + cut + text[-(TRACEBACK_CHARACTERS - head - len(cut)) :]


def _users_frames(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename in _MACHINERY:
        trace = trace.tb_next
    return trace
