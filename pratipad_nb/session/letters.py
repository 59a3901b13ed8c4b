"""A list of dead letters that shows itself as a table.

Owns the table. A `LetterList` stays a list, so that a function that takes a list takes it, too. Reading dead
letters is for `pratipad_nb.runtime.positions.dead_letters`.
"""

from __future__ import annotations

from pratipad_nb import wording
from pratipad_nb.runtime.positions.dead_letters import DeadLetter
from pratipad_nb.tables import Cell, clock, html_table, shown, text_table

__all__ = ["LetterList"]

#: Most rows of a table: the newest dead letters.
_SHOWN = 20
_HEADS = ("time", "device", "processor", "in", "error")


class LetterList(list[DeadLetter]):
    """Dead letters, oldest first. An empty list shows itself as any empty list."""

    def __repr__(self) -> str:
        return text_table(self._caption, _HEADS, self._rows) if self else "[]"

    def _repr_html_(self) -> str | None:
        return html_table(self._caption, _HEADS, self._rows) if self else None

    def of(self, processor: str) -> LetterList:
        """Return the dead letters of one processor, by its key."""
        return LetterList(letter for letter in self if letter.processor == processor)

    @property
    def _caption(self) -> str:
        more = f"; the newest {_SHOWN}" if len(self) > _SHOWN else ""
        return f"{wording.counted(len(self), 'dead letter')}{more}; each has its .traceback"

    @property
    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (clock(x.time), x.device, x.processor, shown(x.payload), Cell(f"✗ {x.error}", fault=True))
            for x in self[-_SHOWN:]
        ]
