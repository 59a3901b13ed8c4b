"""The notation: text in, syntax tree out, and errors that show the place.

Owns tokens, grammar, tree and printing. Owns no meaning: what a name stands for is found by `pratipad_nb.dataflow`.
"""

from __future__ import annotations

from pratipad_nb.notation.errors import NotationError, Problem, Span, rendered
from pratipad_nb.notation.parser import MAX_LENGTH, parse
from pratipad_nb.notation.tree import Argument, Direction, Input, Processor, Stage, StageKind, Tree

__all__ = [
    "MAX_LENGTH",
    "Argument",
    "Direction",
    "Input",
    "NotationError",
    "Problem",
    "Processor",
    "Span",
    "Stage",
    "StageKind",
    "Tree",
    "parse",
    "rendered",
]
