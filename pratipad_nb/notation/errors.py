"""`NotationError`: the problems of a notation, each with its place and the text to write instead.

Owns how a fault is described (`Problem`) and shown (source line, carets, hints). Finding faults is for the
parser and, for the meaning of names, for `pratipad_nb.dataflow`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from pratipad_nb.errors import PratipadError

__all__ = ["NotationError", "Problem", "Span", "a_kind", "located", "rendered", "shown"]

#: Longest part of a source line that is shown, in columns: so many fit beside a notebook's margin.
WIDTH = 100
#: Most problems that are shown in full; a notation of a thousand wrong arrows needs no thousand excerpts.
SHOWN_PROBLEMS = 10

_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_BOLD, _RED, _CYAN, _RESET = "\x1b[1m", "\x1b[1;31m", "\x1b[36m", "\x1b[0m"


class Span(NamedTuple):
    """A place in a text: offsets in characters, from `start` up to but not including `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault, before it is shown.

    Attributes
    ----------
    message
        The fault, as a sentence without its full stop.
    span
        The fault's place.
    expected
        The text that may stand in this place; empty where the message is enough.
    hint
        The text to write instead; empty where it can't be guessed.
    """

    message: str
    span: Span
    expected: str = ""
    hint: str = ""


class NotationError(PratipadError):
    """A notation is wrong.

    Holds every problem that was found. `message`, `line`, `column` and `span` are those of the first problem
    in the text; ``str()`` shows all problems (the first `SHOWN_PROBLEMS` in full), each with its source line
    and carets. IPython prints this text alone, without a traceback.

    Parameters
    ----------
    text
        The whole notation.
    problems
        The problems that were found; at least one.
    """

    def __init__(self, text: str, problems: Iterable[Problem]) -> None:
        self.text = text
        self.problems = tuple(sorted(problems, key=lambda problem: problem.span))
        # Exactly the parameters, so that the error can be pickled and sent to another process.
        super().__init__(text, self.problems)

    @property
    def message(self) -> str:
        """The message of the first problem, without its place."""
        return self.problems[0].message

    @property
    def span(self) -> Span:
        """Offsets of the first problem in `text`."""
        return self.problems[0].span

    @property
    def line(self) -> int:
        """Line of the first problem, counted from 1."""
        return located(self.text, self.span.start)[0]

    @property
    def column(self) -> int:
        """Column of the first problem in characters, counted from 1."""
        return located(self.text, self.span.start)[1]

    def __str__(self) -> str:
        return "\n".join(self._lines(colour=False))

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython prints in place of a traceback."""
        first, *rest = self._lines(colour=True)
        return [f"{_RED}{type(self).__name__}{_RESET}: {first}", *rest]

    def _lines(self, *, colour: bool) -> list[str]:
        lines: list[str] = []
        for problem in self.problems[:SHOWN_PROBLEMS]:
            lines += ([""] if lines else []) + _problem_lines(self.text, problem, colour=colour)
        more = len(self.problems) - SHOWN_PROBLEMS
        return [*lines, "", f"… and {more} more"] if more > 0 else lines


def rendered(text: str, problem: Problem) -> str:
    """Return the lines that show `problem`: message, source line, carets, expected text, hint."""
    return "\n".join(_problem_lines(text, problem, colour=False))


def located(text: str, offset: int) -> tuple[int, int]:
    """Return line and column of `offset` in `text`, both counted from 1."""
    line, start = 1, 0
    for line_break in _LINE_BREAK.finditer(text, 0, offset):
        line, start = line + 1, line_break.end()
    return line, offset - start + 1


def shown(text: str, limit: int = 40) -> str:
    """Return `text` fit for a message: one line, no control characters, at most `limit` characters."""
    text = " ".join(text.split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(map(_visible, text))


def a_kind(value: object) -> str:
    """Return the type of `value` with an article: ``"a list"``, ``"an int"``."""
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeio' else 'a'} {kind}"


def _problem_lines(text: str, problem: Problem, *, colour: bool) -> list[str]:
    def tint(code: str, part: str) -> str:
        return f"{code}{part}{_RESET}" if colour else part

    line, column = located(text, problem.span.start)
    lines = [f"{tint(_BOLD, problem.message)} (line {line}, column {column})"]
    if text.strip():
        source, carets = _excerpt(text, problem.span)
        lines += [f"    {source}", f"    {carets[0]}{tint(_RED, carets[1])}"]
    if problem.expected:
        lines.append(f"  expected: {problem.expected}")
    if problem.hint:
        lines.append(f"  {tint(_CYAN, 'hint')}: {problem.hint}")
    return lines


def _excerpt(text: str, span: Span) -> tuple[str, tuple[str, str]]:
    """Return the source line of `span`, and below it the space before the carets and the carets."""
    begin = span.start - located(text, span.start)[1] + 1
    line_break = _LINE_BREAK.search(text, begin)
    end = line_break.start() if line_break else len(text)
    left, right = "", ""
    if span.start - begin > WIDTH * 2 // 3:
        begin, left = span.start - WIDTH // 2, "…"
    if end - begin > WIDTH:
        end, right = begin + WIDTH, "…"
    before, under = text[begin : span.start], text[span.start : min(span.end, end)]
    # A tab stays a tab in both lines, so that the carets stand right for any width of a tab.
    space = "".join("\t" if character == "\t" else " " * _columns(character) for character in left + before)
    source = left + "".join(map(_visible, text[begin:end])) + right
    return source, (space, "^" * max(1, sum(map(_columns, under))))


def _visible(character: str) -> str:
    return character if character.isprintable() or character == "\t" else "�"


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
