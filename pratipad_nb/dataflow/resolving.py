"""`resolve`: a syntax tree and a namespace become a `Dataflow`, or one error that names all problems.

Owns the keys of steps. Looking names up is for `names`, and checking their targets for `targets`. Starts
nothing and makes no instance, so that a wrong cell leaves a running flow as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pratipad_nb.dataflow.graph import DEVICES
from pratipad_nb.dataflow.model import Dataflow, StageModel, Step
from pratipad_nb.dataflow.names import looked_up
from pratipad_nb.dataflow.targets import faults
from pratipad_nb.notation import NotationError, Problem, Processor, Tree, parse
from pratipad_nb.notation.errors import shown

__all__ = ["resolve"]


def resolve(notation: Tree | str, namespace: Mapping[str, Any]) -> Dataflow:
    """Return the dataflow of a notation whose names are those of `namespace`.

    Parameters
    ----------
    notation
        The notation's text, or its syntax tree. A tree that was built by hand is printed and parsed first, so
        that errors have a text to point into.
    namespace
        The names of processors: in a notebook, its global variables. No other names are searched, neither
        Python's builtins nor this package's.

    Raises
    ------
    NotationError
        If the text is wrong; or if names are unknown (all unknown names are reported at once, each with its
        nearest names), stand for an object that is no processor, or don't take their arguments.
    """
    tree = _with_source(notation)
    problems: list[Problem] = []
    unknown: set[str] = set()
    used: Counter[str] = Counter()
    stages = []
    for stage in tree.stages:
        steps = []
        for processor in stage.processors:
            target, found = _checked(processor, namespace)
            if processor.name not in unknown:
                problems += found
            if target is None and found:
                unknown.add(processor.name)
            key = _key(processor, used)
            steps.append(Step(key, processor.name, target, processor.arguments, processor.span))
        stages.append(StageModel(stage.kind, tuple(steps)))
    if problems:
        raise NotationError(tree.source, problems)
    return Dataflow(tree, tuple(stages))


def _with_source(notation: Tree | str) -> Tree:
    if isinstance(notation, Tree):
        return notation if notation.source else parse(str(notation))
    return parse(notation)


def _checked(processor: Processor, namespace: Mapping[str, Any]) -> tuple[Any, list[Problem]]:
    target, unknown = looked_up(processor, namespace)
    if unknown is not None:
        return None, [unknown]
    found = faults(target, processor)
    if processor.name.rpartition(".")[2] == DEVICES:
        message = (
            f"`{shown(processor.name)}` can't be a processor's name: the graph calls the device layer so"
        )
        found.append(Problem(message, processor.name_span, hint="give it another name"))
    return target, found


def _key(processor: Processor, used: Counter[str]) -> str:
    last = processor.name.rpartition(".")[2]
    used[last] += 1
    return last if used[last] == 1 else f"{last}#{used[last]}"
