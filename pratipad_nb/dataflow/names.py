"""Looks names up in a namespace, and finds the nearest names for a name that isn't there.

Owns the guess whether an object is a processor, by which names are suggested. The check whether an object can
be a processor is for `targets`. Runs no code of the user's but the attribute look-ups of a dotted name.
"""

from __future__ import annotations

import builtins
import difflib
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pratipad_nb.notation import Problem, Processor
from pratipad_nb.notation.errors import shown

__all__ = ["looked_up", "looks_like_a_processor", "nearest"]

#: The ready-made processors of this package; a notation finds them only if the user has imported them.
_READY_MADE = frozenset({"Deadband", "Filter", "Throttle", "Window"})
#: Packages whose functions stand among a notebook's names without the user having asked for them.
_SHELLS = frozenset({"IPython", "ipykernel"})
_SUGGESTED = 3
_LISTED = 6


def looked_up(processor: Processor, namespace: Mapping[str, Any]) -> tuple[Any, Problem | None]:
    """Return the object that the name of `processor` stands for, or None and the problem.

    The first part of the name is looked up in `namespace` alone, not in Python's builtins; the others are
    attributes.
    """
    first, *rest = processor.name.split(".")
    if first not in namespace:
        return None, _unknown(processor, first, namespace, dotted=bool(rest))
    found, path = namespace[first], first
    for part in rest:
        try:
            found = getattr(found, part)
        except AttributeError:
            return None, _unknown_attribute(processor, path, part, found)
        except Exception as error:  # noqa: BLE001 - a module may run anything when an attribute is asked for
            raised = f"{type(error).__name__}: {shown(str(error), 200)}"
            message = f"looking up `{shown(processor.name)}` raised {raised}"
            return None, Problem(message, processor.name_span)
        path += f".{part}"
    return found, None


def looks_like_a_processor(value: object) -> bool:
    """Return whether `value` is a class or an instance with `process` or `process_batch`, or a function."""
    if inspect.isroutine(value):
        return True
    return any(
        inspect.getattr_static(value, method, None) is not None for method in ("process", "process_batch")
    )


def nearest(name: str, names: list[str]) -> list[str]:
    """Return the `names` that are spelled most like `name`, the likeliest first, in upper or lower case."""
    spelled: dict[str, str] = {}
    for candidate in names:
        spelled.setdefault(candidate.casefold(), candidate)
    return [spelled[near] for near in difflib.get_close_matches(name.casefold(), spelled, n=_SUGGESTED)]


def _unknown(processor: Processor, first: str, namespace: Mapping[str, Any], *, dotted: bool) -> Problem:
    values = {
        name: value
        for name, value in list(namespace.items())
        if _is_public(name) and not _is_the_shells(name, value)
    }
    if dotted:
        fitting = [name for name, value in values.items() if isinstance(value, (ModuleType, type))]
    else:
        fitting = [name for name, value in values.items() if looks_like_a_processor(value)]
    wrong = "nothing is called" if dotted else "no processor is called"
    hint = _did_you_mean(nearest(first, fitting))
    if not hint and first in _READY_MADE:
        hint = f"it is ready-made: run `from pratipad_nb import {first}` in a cell above"
    if not hint and not dotted:
        classes = [name for name in fitting if inspect.isclass(values[name])][:_LISTED]
        hint = f"there are: {', '.join(classes)}" if classes else ""
    hint = hint or "define it, or import it, in a cell above and run that cell"
    return Problem(f"{wrong} `{shown(first)}`", processor.name_span, hint=hint)


def _unknown_attribute(processor: Processor, path: str, part: str, found: object) -> Problem:
    hint = _did_you_mean([f"{path}.{name}" for name in nearest(part, list(filter(_is_public, dir(found))))])
    return Problem(f"`{shown(path)}` has no `{shown(part)}`", processor.name_span, hint=hint)


def _did_you_mean(names: list[str]) -> str:
    return "did you mean " + " or ".join(f"`{shown(name)}`" for name in names) + "?" if names else ""


def _is_the_shells(name: str, value: object) -> bool:
    """Return whether IPython has put `value` among the user's names: `exit`, `get_ipython`, `open`."""
    home = str(getattr(value, "__module__", None) or type(value).__module__).partition(".")[0]
    return home in _SHELLS or (home in ("builtins", "io") and hasattr(builtins, name))


def _is_public(name: object) -> bool:
    return isinstance(name, str) and not name.startswith("_")
