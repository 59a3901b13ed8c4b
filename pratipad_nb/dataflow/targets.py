"""Checks that the object of a name can be a processor and takes the arguments of the notation.

Owns the faults that can be told without making an instance, each with its place in the notation. Other faults
(settings, hooks, exceptions of a constructor) are told by `pratipad_nb.processors` when the instance is made.

Duck typing throughout: importing the processors would cost a hundred milliseconds of asyncio, and the checks
need no more than attributes and signatures.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from pratipad_nb.dataflow.names import looks_like_a_processor, nearest
from pratipad_nb.notation import Problem, Processor
from pratipad_nb.notation.errors import a_kind, shown

__all__ = ["argument_names", "faults"]

_WHAT_IS_ONE = "a class with `process` or `process_batch`, or a function that takes a payload"


def faults(target: object, processor: Processor) -> list[Problem]:
    """Return the problems that keep `target` from being the notation's `processor`; empty if there are none.

    An instance that has `process` is a processor as well as its class, if the notation gives no arguments.
    """
    name = shown(processor.name)
    if inspect.isclass(target):
        return _class_faults(target, processor, name)
    is_instance = any(callable(getattr(target, method, None)) for method in ("process", "process_batch"))
    if processor.written and (is_instance or (callable(target) and not inspect.isroutine(target))):
        return _instance_faults(processor, name)
    if is_instance:
        return []
    if callable(target):
        return _function_faults(target, processor, name)
    hint = ""
    if isinstance(target, ModuleType):
        inside = [
            n for n, value in vars(target).items() if not n.startswith("_") and looks_like_a_processor(value)
        ]
        hint = f"name a processor in this module, such as `{name}.{min(inside)}`" if inside else ""
    message = f"`{name}` can't be a processor: it is {a_kind(target)}"
    return [Problem(message, processor.name_span, _WHAT_IS_ONE, hint)]


def _class_faults(target: type, processor: Processor, name: str) -> list[Problem]:
    methods = [m for m in ("process", "process_batch") if inspect.getattr_static(target, m, None) is not None]
    if len(methods) == 2:
        message = f"class `{name}` has both `process` and `process_batch`"
        return [Problem(message, processor.name_span, "one of them")]
    # Not `callable(target.__call__)`: every class has one, its metaclass's.
    if not methods and not inspect.isfunction(inspect.getattr_static(target, "__call__", None)):
        message = f"class `{name}` has neither `process` nor `process_batch`"
        return [
            Problem(
                message, processor.name_span, _WHAT_IS_ONE, "add `def process(self, payload): return payload`"
            )
        ]
    parameters = _parameters(target)
    return [] if parameters is None else _argument_faults(parameters, processor, name)


def _instance_faults(processor: Processor, name: str) -> list[Problem]:
    return [
        Problem(
            f"`{name}` is made already and takes no argument `{shown(argument.name)}`",
            argument.span,
            "no arguments",
            f"name the class, or give the argument where `{name}` is made",
        )
        for argument in processor.written
    ]


def _function_faults(target: Callable[..., Any], processor: Processor, name: str) -> list[Problem]:
    parameters = _parameters(target)
    if parameters is None:
        return []
    rest = _behind_the_payload(parameters)
    if rest is None:
        return [
            Problem(
                f"`{name}` takes no payload", processor.name_span, f"a function such as `def {name}(payload)`"
            )
        ]
    return _argument_faults(rest, processor, name)


def _behind_the_payload(parameters: list[inspect.Parameter]) -> list[inspect.Parameter] | None:
    """Return the parameters of a function that the notation may give; None if it takes no payload."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if parameters and parameters[0].kind in positional:
        rest = parameters[1:]
    elif any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        rest = parameters
    else:
        return None
    # The runtime gives `message`, never the notation.
    return [p for p in rest if p.name != "message"]


def argument_names(target: Any) -> list[str]:
    """Return the names of the arguments that the notation may give to a processor's class or function."""
    if not callable(target):  # an instance with `process`
        return []
    parameters = _parameters(target) or []
    if not isinstance(target, type):
        parameters = _behind_the_payload(parameters) or []
    return _named(parameters)


def _named(parameters: list[inspect.Parameter]) -> list[str]:
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [parameter.name for parameter in parameters if parameter.kind in by_name]


def _argument_faults(parameters: list[inspect.Parameter], processor: Processor, name: str) -> list[Problem]:
    allowed = _named(parameters)
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    given = {argument.name for argument in processor.written}
    found = []
    for argument in processor.written:
        if argument.name in allowed or takes_any:
            continue
        near = nearest(argument.name, [other for other in allowed if other not in given])
        found.append(
            Problem(
                f"`{name}` takes no argument `{shown(argument.name)}`",
                argument.span,
                " or ".join(f"`{other}`" for other in allowed) if allowed else "no arguments",
                f"did you mean `{near[0]}`?" if near else "",
            )
        )
    missing = [p.name for p in parameters if _is_required(p) and p.name not in given]
    if missing:
        listed = ", ".join(f"{parameter}=…" for parameter in missing)
        needs = " and ".join(f"`{parameter}`" for parameter in missing)
        found.append(Problem(f"`{name}` needs {needs}", processor.span, f"`{name}({listed})`"))
    return found


def _is_required(parameter: inspect.Parameter) -> bool:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and parameter.kind not in variable


def _parameters(target: Callable[..., Any]) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(target).parameters.values())
    except (ValueError, TypeError):  # a built-in without a signature: the call itself will raise
        return None
