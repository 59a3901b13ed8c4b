"""The notation: text in, syntax tree out, and errors that show the place.

Owns tokens, grammar, tree and printing. Owns no meaning: `pratipad_nb.dataflow` finds the object of a name.

============  ==============================================================================================
``tokens``    cuts the text into tokens
``cursor``    the parser's place in the tokens, and the faults found so far
``parser``    the grammar of inputs, stages and arrows
``literals``  the grammar of arguments' values
``arrows``    guesses the arrow that mistaken text was meant to be
``tree``      the syntax tree
``printer``   prints a tree as canonical notation
``errors``    `NotationError`: problems, with their source lines and carets
============  ==============================================================================================
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
