"""Errors as a notebook shows them: their message in colour, without the frames of this package.

Owns that form. What the message says belongs to whoever raised the error; a `NotationError` brings its own form, with
carets under the fault.
"""

from __future__ import annotations

from typing import TypeVar

from pratipad_nb.errors import PratipadError

__all__ = ["without_frames"]

Error = TypeVar("Error", bound=PratipadError)

_RED, _DIM, _RESET = "\x1b[1;31m", "\x1b[2m", "\x1b[0m"


def without_frames(error: Error) -> Error:
    """Return `error`, made to be shown by IPython as its message alone.

    It keeps its class and stays a true error output: a run of the notebook stops there.
    """
    if not hasattr(error, "_render_traceback_"):
        error._render_traceback_ = lambda: _lines(error)  # type: ignore[attr-defined]
    return error


def _lines(error: PratipadError) -> list[str]:
    first, *rest = (str(error) or "(no message)").split("\n")
    lines = [f"{_RED}{type(error).__name__}{_RESET}: {first}", *rest]
    if error.__cause__ is not None:
        cause = error.__cause__
        lines.append(f"{_DIM}Cause: {type(cause).__name__}: {cause}{_RESET}")
    return lines
