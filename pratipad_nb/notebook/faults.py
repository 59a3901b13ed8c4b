"""Errors as a notebook shows them: their message in colour, without the frames of this package.

Owns that form, for magics and for calls in a cell. The message belongs to the code that raised the error; a
`NotationError` brings its own form, with carets under the fault.

IPython asks an exception for its form by the method ``_render_traceback_``. While the extension is loaded our
errors have that method, so that a ``house.take(3)`` that is called too early shows the line of the cell and
the message, and not ten frames of waiting. A handler set by `set_custom_exc` would be the shell's only
handler, and in the way of a user's own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import IPython

import pratipad_nb
from pratipad_nb.errors import PratipadError
from pratipad_nb.wording import in_words

__all__ = ["hang_in", "take_out", "without_frames"]

Error = TypeVar("Error", bound=PratipadError)

_RED, _DIM, _RESET = "\x1b[1;31m", "\x1b[2m", "\x1b[0m"
_ASKED = "_render_traceback_"


def _folder(module: Any) -> str:
    return str(Path(module.__file__).parent)


_OURS = _folder(pratipad_nb)
_SHELL = _folder(IPython)
#: Folders of the frames between a user's call of this package and this package's call of the user's code.
_BETWEEN = (_OURS, _SHELL, _folder(asyncio), _folder(concurrent.futures), str(threading.__file__))


def hang_in(shell: Any) -> None:
    """Let `shell` show our errors without our frames."""
    setattr(PratipadError, _ASKED, lambda error: _rendered(shell, error))


def take_out() -> None:
    """Let the shell show our errors as any other error again."""
    if _ASKED in vars(PratipadError):
        delattr(PratipadError, _ASKED)


def without_frames(error: Error, before: str = "", after: str = "") -> Error:
    """Return `error`, which IPython will show as its message alone, with `before` and `after` around that.

    The error keeps its class and stays a true error output: a run of the notebook stops at it.
    """
    own: Any = getattr(error, _ASKED, None)
    if _brings_its_own(error):
        told = [f"{before}{after.strip()}"] if before or after else []
        setattr(error, _ASKED, lambda: [*own(), *told])
    else:
        setattr(error, _ASKED, lambda: _lines(error, before, after))
    return error


def _brings_its_own(error: PratipadError) -> bool:
    ours = vars(PratipadError).get(_ASKED)
    return _ASKED in vars(error) or getattr(type(error), _ASKED, None) is not ours


def _lines(error: PratipadError, before: str = "", after: str = "") -> list[str]:
    first, *rest = f"{before}{str(error) or '(no message)'}{after}".split("\n")
    lines = [f"{_RED}{type(error).__name__}{_RESET}: {first}", *rest]
    return lines if error.__cause__ is None else [*lines, *_cause_lines(error.__cause__)]


def _cause_lines(cause: BaseException) -> list[str]:
    """Return the cause's message and, if the cause is from a user's code, its last line there."""
    lines = [f"{_DIM}Cause: {in_words(cause)}{_RESET}"]
    frames = [] if isinstance(cause, PratipadError) else _of_the_user(cause.__traceback__)
    if frames:
        at = traceback.extract_tb(frames[-1], 1)[0]
        lines.append(f"{_DIM}  in {at.name}, line {at.lineno}: {at.line}{_RESET}")
    return lines


def _rendered(shell: Any, error: PratipadError) -> list[str]:
    """Return the lines to show: the user's frames down to our call, the message, its cause in user's code."""
    called = _chain(_down_to_us(error.__traceback__))
    if called is None:
        return _lines(error)
    lines = _structured(shell, error, called)
    cause = error.__cause__
    if cause is None:
        return lines
    place = None if isinstance(cause, PratipadError) else _chain(_of_the_user(cause.__traceback__))
    if place is None:
        return [*lines, *_cause_lines(cause)]
    return [*lines, f"\n{_DIM}It was caused here:{_RESET}", *_structured(shell, cause, place)]


def _structured(shell: Any, error: BaseException, frames: TracebackType) -> list[str]:
    """Return the frames and the message as the shell formats them, without the error's cause."""
    cause, suppressed = error.__cause__, error.__suppress_context__
    error.__cause__ = None  # suppresses the context, too
    try:
        found = shell.InteractiveTB.structured_traceback(type(error), error, frames, tb_offset=0)
    finally:
        error.__cause__ = cause
        error.__suppress_context__ = suppressed
    return list(found)


def _walk(trace: TracebackType | None) -> Iterator[tuple[TracebackType, str]]:
    while trace is not None:
        yield trace, trace.tb_frame.f_code.co_filename
        trace = trace.tb_next


def _down_to_us(trace: TracebackType | None) -> list[TracebackType]:
    """Return the user's frames, which are above the first of ours."""
    found = []
    for each, file in _walk(trace):
        if file.startswith(_OURS):
            break
        if not file.startswith(_SHELL):
            found.append(each)
    return found


def _of_the_user(trace: TracebackType | None) -> list[TracebackType]:
    """Return the frames of code that this package has called."""
    return [each for each, file in _walk(trace) if not file.startswith(_BETWEEN)]


def _chain(frames: list[TracebackType]) -> TracebackType | None:
    trace: TracebackType | None = None
    for each in reversed(frames):
        trace = TracebackType(trace, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return trace
