"""Bugs: exceptions that are faults of this package, and what becomes of them.

Owns how a bug is told in one line, and `Bugs`, which brings an exception that has no caller (an exception of
a callback, or of a task in the background) to a task that somebody awaits. Every exception that is no
`PratipadError` is a bug: exceptions of users' functions and of libraries are translated where they cross the
boundary of this package.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any, NoReturn

from pratipad_nb.errors import PratipadError
from pratipad_nb.wording import in_words

__all__ = ["Bugs", "described", "explained", "log_bug", "reasons"]

_PACKAGE = str(Path(__file__).parent)
#: Longest text of an exception in the one line that tells of it.
_LONGEST = 300


def reasons(error: BaseException) -> list[BaseException]:
    """Return `error`, or the exceptions that it is a group of, each once."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    found = [reason for each in error.exceptions for reason in reasons(each)]
    return list({id(reason): reason for reason in found}.values())


def described(error: BaseException) -> str:
    """Return one line about `error`, which is a bug."""
    said = " ".join(in_words(error).split())[:_LONGEST]
    return f"a bug in pratipad_nb: {said}{_place(error)}; the traceback is in the log. Please report it."


def _place(error: BaseException) -> str:
    """Return which function of this package `error` came out of first."""
    codes = [frame.f_code for frame, _ in walk_tb(error.__traceback__)]
    ours = [
        code.co_qualname
        for code in codes
        if code.co_filename.startswith(_PACKAGE) and code.co_filename != __file__
    ]
    return f" (in {ours[-1].replace('.<locals>', '')})" if ours else ""


def explained(log: logging.Logger, of: str, error: BaseException) -> str:
    """Return in one line what ended `of`; the tracebacks of bugs go to `log`, at ERROR."""
    words = []
    for reason in reasons(error):
        if isinstance(reason, PratipadError):
            words.append(str(reason))
        else:
            words.append(described(reason))
            log.error("%s: %s", of, words[-1], exc_info=reason)
    return "; ".join(dict.fromkeys(words))


def log_bug(log: logging.Logger, of: str, task: asyncio.Task[Any]) -> None:
    """Log the bug that has ended `task`, which perhaps nobody awaits any more: the end of a done-callback."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        explained(log, of, error)


class Bugs:
    """The first exception of all that is done in its ``with`` blocks, which go on after the block."""

    def __init__(self) -> None:
        self._first: Exception | None = None
        self._trace: TracebackType | None = None
        self._noted = asyncio.Event()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self.note(error)
        return True

    def note(self, error: Exception) -> None:
        """Take `error` for the first exception, unless there is one; on the event loop."""
        if self._first is None:
            self._first, self._trace = error, error.__traceback__
            self._noted.set()

    def note_end(self, task: asyncio.Task[Any]) -> None:
        """Note the exception of `task`, if an exception ended `task`: a task's done-callback."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self.note(error)

    async def raised(self) -> NoReturn:
        """Wait for an exception, and raise it; to every caller, later ones as well."""
        await self._noted.wait()
        assert self._first is not None
        # With its first traceback: raised again and again, the exception would gather the tracebacks of all
        # callers.
        raise self._first.with_traceback(self._trace)
