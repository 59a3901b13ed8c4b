"""The source text of processors, also of processors that were defined in a notebook's cell.

Owns finding the source text of a class. `inspect` finds functions of cells, but for a class `inspect` looks
for the file of the module ``__main__``: a notebook has no such file, and in a program that file is not the
cell.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from typing import Any

__all__ = ["source_of"]


def source_of(target: Any) -> str:
    """Return the source text of a class, a function or an instance's class; empty if it can't be found."""
    if not isinstance(target, type) and not inspect.isroutine(target):
        target = type(target)
    try:
        if isinstance(target, type):
            found = _class_source(target)
            if found:
                return found
        return textwrap.dedent(inspect.getsource(target))
    except (OSError, TypeError, SyntaxError):  # SyntaxError: the file was changed since
        return ""


def _class_source(target: type) -> str:
    """Return the text of the class statement around the first method that `target` itself defines."""
    for value in vars(target).values():
        function = inspect.unwrap(getattr(value, "__func__", value))
        code = getattr(function, "__code__", None)
        if code is None or not code.co_qualname.startswith(f"{target.__qualname__}."):
            continue
        lines = linecache.getlines(code.co_filename)
        tree = ast.parse("".join(lines))
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.ClassDef)
                and node.name == target.__name__
                and node.lineno <= code.co_firstlineno <= (node.end_lineno or 0)
            ):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                return textwrap.dedent("".join(lines[first - 1 : node.end_lineno]))
    return ""
