"""Guesses which arrow was meant by text that is no arrow.

Owns the guess and the message's words. Finding the text is for `parser`.
"""

from __future__ import annotations

import unicodedata

from pratipad_nb.notation.errors import shown
from pratipad_nb.notation.tree import Direction

__all__ = ["EXPECTED_ARROW", "meant_arrow", "mistaken_arrow"]

EXPECTED_ARROW = "`~>` (forward only) or `<~>` (both ways)"


def meant_arrow(text: str) -> Direction:
    """Return the arrow that `text` was meant to be: ``<~>`` if `text` points back, else ``~>``."""
    return "<~>" if _points(text, "<", "LEFT") else "~>"


def mistaken_arrow(text: str, meant: Direction) -> tuple[str, str]:
    """Return the message and the hint for `text`, which was meant to be the arrow `meant`."""
    hint = f"write `{meant}`"
    if _points(text, "<", "LEFT") and not _points(text, ">", "RIGHT"):
        hint += ": nothing passes back where nothing passes forward"
    return f"`{shown(text)}` is no arrow", hint


def _points(text: str, sign: str, word: str) -> bool:
    # The Unicode names of arrows say where they point: LEFTWARDS ARROW, LEFT RIGHT DOUBLE ARROW.
    return any(character == sign or word in unicodedata.name(character, "") for character in text)
