"""Small tables for a notebook's cell: as text, and as HTML where the front end shows HTML.

Owns the form of tables, and not their content. Tables take JupyterLab's own colours, so that they follow its
theme, and contain no script. Cells may hold texts of others, whose markup and control characters are escaped.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pratipad_nb.wording import printable

__all__ = ["Cell", "clock", "html_table", "shown", "text_table"]

#: Longest text of one value, in characters: HTML cells wrap, lines of text don't.
_HTML_CHARACTERS, _TEXT_CHARACTERS = 600, 60

_FAULT = "color:var(--jp-error-color1,#c22f2f)"
_CELL = "text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:break-word;max-width:32em"


class Cell(str):
    """The text of a table's cell; `fault` marks a failure."""

    fault: bool

    def __new__(cls, text: str, *, fault: bool = False) -> Cell:
        """Make a cell."""
        cell = super().__new__(cls, text)
        cell.fault = fault
        return cell


def shown(value: Any) -> Cell:
    """Return `value` as a cell: its `repr`."""
    try:
        return Cell(repr(value))
    except Exception as error:  # noqa: BLE001 - a user's __repr__
        return Cell(f"<{type(value).__name__}, whose repr raised {type(error).__name__}>", fault=True)


def clock(seconds: float) -> str:
    """Return the local time of day at `seconds` since 1970-01-01 UTC; the number itself if it is no time.

    A device's clock may say any number.
    """
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S.%f")[:-3]
    except (OverflowError, OSError, ValueError):
        return f"{seconds:g}"


def html_table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as HTML; every text is escaped."""
    head = "".join(f'<th scope="col" style="text-align:left">{_escaped(text)}</th>' for text in heads)
    body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in rows)
    return (
        f'<table style="margin:0"><caption style="text-align:left">{_escaped(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _html_cell(text: str) -> str:
    fault = isinstance(text, Cell) and text.fault
    style = f"{_CELL};{_FAULT}" if fault else _CELL
    return f'<td style="{style}">{_escaped(_cut(text, _HTML_CHARACTERS))}</td>'


def _escaped(text: str) -> str:
    return html.escape(printable(text, lines=True))


def text_table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as lines of text, columns below each other."""
    lines = [list(map(_line, heads)), *(list(map(_line, row)) for row in rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(heads))]
    aligned = [
        "  ".join(
            text + " " * (width - _width(text)) for text, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([printable(caption), *aligned])


def _line(text: str) -> str:
    return printable(" ".join(_cut(text, _TEXT_CHARACTERS).split()))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
