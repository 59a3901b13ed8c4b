"""The syntax tree of a notation: frozen, comparable, and with the place of each of its parts.

Owns the nodes that the parser makes and the printer prints. The objects of the names are for
`pratipad_nb.dataflow`.

Two trees are equal exactly if their canonical notations are equal: spans and the source, white space,
comments, trailing commas and the way a literal is spelled don't count.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any, Literal

from pratipad_nb.notation.errors import Span
from pratipad_nb.notation.printer import literal_text, printed

__all__ = ["Argument", "Direction", "Input", "Processor", "Stage", "StageKind", "Tree"]

Direction = Literal["~>", "<~>"]
Input = Literal["Push", "Pull", "Demand"]
StageKind = Literal["single", "sequential", "concurrent"]

_NOWHERE = Span(0, 0)


@dataclass(frozen=True, slots=True)
class Argument:
    """One keyword argument of a processor.

    Attributes
    ----------
    name
        The keyword.
    text
        The value as a canonical Python literal. The value is kept as text, so that a tree is hashable, shares
        no list or dict with other code and tells ``1`` from ``True``, which are equal in Python.
    span
        The argument's place, with its keyword.
    """

    name: str
    text: str
    span: Span = field(default=_NOWHERE, compare=False, repr=False)

    @classmethod
    def of(cls, name: str, value: object) -> Argument:
        """Return the argument of keyword `name` and value `value`.

        Raises
        ------
        ValueError
            If `value` can't be written as a literal of the notation.
        """
        return cls(name, literal_text(value))

    @property
    def value(self) -> Any:
        """The value, made afresh each time, so that no two callers share a list."""
        return ast.literal_eval(self.text)


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor as it is written: a dotted name, and its arguments in their order."""

    name: str
    written: tuple[Argument, ...] = ()
    span: Span = field(default=_NOWHERE, compare=False, repr=False)
    name_span: Span = field(default=_NOWHERE, compare=False, repr=False)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by their names, made afresh each time."""
        return {argument.name: argument.value for argument in self.written}


@dataclass(frozen=True, slots=True)
class Stage:
    """The processors between two arrows: ``P``, ``[P1, P2]`` (sequential) or ``{P1, P2}`` (concurrent)."""

    kind: StageKind
    processors: tuple[Processor, ...]
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Tree:
    """A whole notation. ``str()`` gives its canonical text, which parses to an equal tree.

    Attributes
    ----------
    input
        Who decides how many messages are sent: Push (devices), Pull (the cloud) or Demand (the edge).
    stages
        The stages, in the order in which messages pass forward; at least one.
    hops
        The direction of each arrow: ``hops[i]`` leads to ``stages[i]``, the last hop to Output.
    source
        The text that the tree was parsed from, into which all spans point; empty for a tree that was built by
        hand.
    input_span, hop_spans
        The places of the input and of each arrow.
    """

    input: Input
    stages: tuple[Stage, ...]
    hops: tuple[Direction, ...]
    source: str = field(default="", compare=False, repr=False)
    input_span: Span = field(default=_NOWHERE, compare=False, repr=False)
    hop_spans: tuple[Span, ...] = field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        return printed(self)
