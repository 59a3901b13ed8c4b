"""Prints a syntax tree as canonical notation: one line, and a single spelling for each meaning.

Owns the canonical spelling, of literals too. Knows the tree by its attributes alone; the tree itself is in
`tree`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pratipad_nb.notation.tree import Processor, Stage, Tree

__all__ = ["MAX_NESTING", "literal_text", "printed"]

#: Deepest nesting of lists, tuples, dicts and sets in an argument. No argument of a processor needs more. The
#: bound keeps every recursion over an argument far from Python's limit, even deep in a stack.
MAX_NESTING = 20

_BRACKETS = {"single": ("", ""), "sequential": ("[", "]"), "concurrent": ("{", "}")}


def printed(tree: Tree) -> str:
    """Return the canonical notation of `tree`; parsing it gives an equal tree."""
    parts: list[str] = [tree.input]
    for hop, stage in zip(tree.hops, tree.stages, strict=False):
        parts += [hop, _stage(stage)]
    return " ".join([*parts, tree.hops[-1], "Output"])


def _stage(stage: Stage) -> str:
    opening, closing = _BRACKETS[stage.kind]
    return opening + ", ".join(map(_processor, stage.processors)) + closing


def _processor(processor: Processor) -> str:
    if not processor.written:
        return processor.name
    arguments = ", ".join(f"{argument.name}={argument.text}" for argument in processor.written)
    return f"{processor.name}({arguments})"


def literal_text(value: object, nesting: int = 0) -> str:
    """Return the canonical literal of `value`, which `ast.literal_eval` reads back.

    Takes the values that a notation can hold: strings, bytes, integers, finite floats, booleans, None, and
    lists, tuples, dicts and sets of these. Complex numbers and ``...`` are left out, for no argument of a
    processor is such a value. Members of a set are sorted, since Python prints them in another order in every
    process.

    Raises
    ------
    ValueError
        If `value` is or holds another value, nests deeper than `MAX_NESTING` or is an integer of more digits
        than Python prints.
    """
    if value is None or type(value) in (bool, str, bytes, int):
        return repr(value)
    if isinstance(value, float) and type(value) is float:
        if not math.isfinite(value):
            raise ValueError("a float can't be infinite or nan")
        return repr(value)
    if nesting >= MAX_NESTING:
        raise ValueError(f"it nests deeper than {MAX_NESTING} brackets")
    if type(value) is dict:
        pairs = (f"{literal_text(k, nesting + 1)}: {literal_text(v, nesting + 1)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple, set)) and type(value) in (list, tuple, set):
        return _collection_text(value, [literal_text(member, nesting + 1) for member in value])
    raise ValueError(f"a {type(value).__name__} is no literal of the notation")


def _collection_text(value: list[object] | tuple[object, ...] | set[object], members: list[str]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(members) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(members) + ("," if len(members) == 1 else "") + ")"
    return "{" + ", ".join(sorted(members)) + "}" if members else "set()"
