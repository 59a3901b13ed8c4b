"""Log lines: what this package logs, without the control characters of others.

Owns the handler of the logger ``pratipad_nb``. Lines quote devices, processors, other processes and the
server; an escape sequence in a quoted text would clear or recolour the terminal that shows the log, and a
line break would forge a line. A handler, since the handlers of a program, at the root, get the same record
afterwards.
"""

from __future__ import annotations

import logging

from pratipad_nb.wording import printable

__all__ = ["clean_log_lines"]

_formatter = logging.Formatter()


class _Cleaner(logging.Handler):
    """Makes each record printable before the handlers of the program get it. Writes nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _clean(record)
        except Exception:  # noqa: BLE001 - a wrong argument, which the handler that writes the record reports
            return
        # `logging` shows warnings of a program without any handler on stderr. This handler is none of the
        # program's.
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and not self._others(record.name):
            last.handle(record)

    def _others(self, name: str) -> bool:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


def _clean(record: logging.LogRecord) -> None:
    """Make the text and the traceback of `record` printable."""
    said = record.getMessage()
    if (text := printable(said)) != said:
        record.msg, record.args = text, None
    if record.exc_info and not record.exc_text:
        told = _formatter.formatException(record.exc_info)
        if (text := printable(told, lines=True)) != told:
            record.exc_text = text


def clean_log_lines() -> None:
    """Make all that this package logs from now on printable."""
    logging.getLogger("pratipad_nb").addHandler(_Cleaner())
