"""Logs: the output of processors goes to a log of each processor, and not into the cell that happens to run.

Owns the logs' bounds, and the diversion of ``sys.stdout``, ``sys.stderr`` and `logging` while a flow runs.
Showing a log is for the inspector.

A context variable names the log: `logging_to` sets the variable around a processor's methods, and a `Worker`
carries it to the thread. So output is told apart by its processor, not by the thread, and user code outside
of processors is not affected. (Threads that a processor starts itself have no such context: their output is
not diverted.)

`logging` is diverted where a logger hands a record to its handlers, in `logging.Logger.callHandlers`, as
error trackers do it, and not by a handler at the root. A root handler would keep ``logging.basicConfig`` of a
cell from doing anything, silence the last-resort handler, and miss loggers with handlers of their own, which
would show the record in the cell as well.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import time
from typing import Any, Final, NamedTuple

from pratipad_nb.forks import forget_in_child

__all__ = ["LogLine", "ProcessorLog", "current_log", "diverted_output", "logging_to"]

#: The longest line that is kept, in characters; a longer line, or a line that never ends, is cut into such
#: pieces.
LINE_CHARACTERS: Final = 4096

_formatter = logging.Formatter("%(name)s: %(message)s")


class LogLine(NamedTuple):
    """One line of a processor's log.

    Attributes
    ----------
    time
        When the line was written, in seconds since 1970-01-01 UTC.
    stream
        ``"stdout"``, ``"stderr"``, or the level of a log record, as in ``"WARNING"``.
    text
        The line without its end; at most 4,096 characters.
    """

    time: float
    stream: str
    text: str


class ProcessorLog:
    """The last lines that a processor printed or logged. Safe to use from any thread.

    Parameters
    ----------
    most
        How many lines are kept; the oldest go. 1,000 lines fill some screens, and bound a log to 4 MB at the
        very worst.
    """

    def __init__(self, most: int = 1000) -> None:
        self._lines: deque[LogLine] = deque(maxlen=most)
        self._begun: dict[str, str] = {}
        self._lock = threading.Lock()
        self.total = 0
        """How many lines were ever written."""

    def write(self, stream: str, text: str) -> None:
        """Add text of a stream, in any pieces; a line is complete at its line break."""
        with self._lock:
            *complete, begun = (self._begun.pop(stream, "") + text).split("\n")
            while len(begun) > LINE_CHARACTERS:
                complete.append(begun[:LINE_CHARACTERS])
                begun = begun[LINE_CHARACTERS:]
            if begun:
                self._begun[stream] = begun
            self._add(stream, complete)

    def record(self, level: str, text: str) -> None:
        """Add the complete text of a log record."""
        with self._lock:
            self._add(level, text.split("\n"))

    def lines(self) -> list[LogLine]:
        """Return the lines, oldest first, incomplete lines last."""
        with self._lock:
            begun = [LogLine(time(), stream, text) for stream, text in self._begun.items()]
            return [*self._lines, *begun]

    def _add(self, stream: str, lines: list[str]) -> None:
        now = time()
        for line in lines:
            for start in range(0, len(line) or 1, LINE_CHARACTERS):
                self._lines.append(LogLine(now, stream, line[start : start + LINE_CHARACTERS]))
                self.total += 1


#: The log of the processor whose code runs in this context; None outside of processors.
current_log: ContextVar[ProcessorLog | None] = ContextVar("pratipad_current_log", default=None)


@contextmanager
def logging_to(log: ProcessorLog | None) -> Iterator[None]:
    """Let the output inside the block go to `log`, if `diverted_output` is in force."""
    before = current_log.get()
    current_log.set(log)
    try:
        yield
    finally:
        current_log.set(before)


@contextmanager
def diverted_output() -> Iterator[None]:
    """Divert the output of processors to their logs inside the block.

    Blocks may be nested and overlap, on any thread. The end of the last block ends the diversion. A stream
    that other code has put in the place of ours by then (as ``contextlib.redirect_stdout`` does) is left
    alone.
    """
    _diversion.begin()
    try:
        yield
    finally:
        _diversion.end()


class _Stream:
    """Stands for ``sys.stdout`` or ``sys.stderr``.

    Writes of a processor go to its log, all other writes to the original stream.
    """

    __slots__ = ("_name", "_original")

    _name: str
    _original: Any

    def __init__(self, name: str, original: Any) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_original", original)

    @property
    def write(self) -> Callable[[str], int]:
        """The original's own `write` outside of processors: the look-up of `write` decides about the target.

        IPython reads the attribute when a cell begins, sets a function that calls the read value, and sets
        the read value back when the cell ends. A method of ours in that place would call itself for ever,
        since every attribute set here is set on the original.
        """
        if current_log.get() is None:
            return self._original.write  # type: ignore[no-any-return]
        return self._divert

    def _divert(self, text: str) -> int:
        log = current_log.get()
        if log is None or not isinstance(text, str):
            return self._original.write(text)  # type: ignore[no-any-return]
        log.write(self._name, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if current_log.get() is None:
            self._original.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._original, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._original, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._original)

    def __repr__(self) -> str:
        return repr(self._original)


class _Diversion:
    """Counts the blocks that need the diversion; the first block installs it, the last one removes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._call_handlers: Any = None
        self._ours: Any = None

    def begin(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._install()

    def end(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._remove()

    def _install(self) -> None:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            # There is no stream under pythonw; and other code may have put a stream of ours back after its
            # removal.
            if stream is not None and type(stream) is not _Stream:
                setattr(sys, name, _Stream(name, stream))
        if logging.Logger.callHandlers is not self._ours:
            self._call_handlers, self._ours = _diverting(logging.Logger.callHandlers)
        logging.Logger.callHandlers = self._ours  # type: ignore[method-assign]

    def _remove(self) -> None:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if type(stream) is _Stream:
                setattr(sys, name, object.__getattribute__(stream, "_original"))
        if logging.Logger.callHandlers is self._ours:
            logging.Logger.callHandlers = self._call_handlers  # type: ignore[method-assign]


def _diverting(call_handlers: Any) -> tuple[Any, Any]:
    def divert(logger: logging.Logger, record: logging.LogRecord) -> None:
        log = current_log.get()
        if log is None:
            call_handlers(logger, record)
            return
        try:
            text = _formatter.format(record)
        except Exception as error:  # noqa: BLE001 - as in `logging`: a wrong format string stops no program
            text = f"{record.name}: {record.msg!r} with {record.args!r} can't be formatted: {error}"
        log.record(record.levelname, text)

    return call_handlers, divert


_diversion = _Diversion()


def _forget_diversion() -> None:
    """Let what a forked child prints go where the program prints: its parent's logs are not the child's."""
    global _diversion
    _diversion._remove()  # noqa: SLF001 - of this module
    _diversion = _Diversion()  # another thread may have held the lock
    current_log.set(None)


forget_in_child(_forget_diversion)
