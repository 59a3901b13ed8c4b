"""Notations found in files: a notebook's ``%%dataflow`` cells, a program's ``Flow("…")`` calls, a text.

Owns finding and checking notations without running anything: grammar, and whether each name is bound anywhere
in the file. A name's value is known only when the file runs.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pratipad_nb.cli.notebooks import code_cells
from pratipad_nb.cli.programs import ProgramError
from pratipad_nb.dataflow.names import nearest
from pratipad_nb.notation import NotationError, Problem, Tree, parse
from pratipad_nb.notation.errors import shown

__all__ = ["Found", "checked", "notations_in"]

#: Calls whose first argument is a notation.
_CALLS = frozenset({"AsyncFlow", "Flow", "parse", "preview", "resolve"})
_CELL = re.compile(r"\s*%%dataflow\b[^\n]*(?:\n|$)")


@dataclass(frozen=True, slots=True)
class Found:
    """A notation, its place, and the names that its file binds, None if they can't be known."""

    where: str
    text: str
    names: frozenset[str] | None = None


def notations_in(path: Path) -> list[Found]:
    """Return the notations in a notebook, a Python file or a text.

    Raises
    ------
    ProgramError
        If the file can't be read, or its contents aren't of the kind that its name says.
    """
    if path.suffix == ".ipynb":
        return list(_in_notebook(path))
    try:
        text = path.read_text()
    except OSError as error:
        raise ProgramError(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ProgramError(f"{path} is no text: {error}.") from error
    if path.suffix != ".py":
        return [Found(str(path), text)]
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ProgramError(f"{path}, line {error.lineno}: {error.msg}.") from error
    return list(_in_program(tree, str(path), _bound([tree])))


def _in_notebook(path: Path) -> Iterator[Found]:
    cells = [cell for cell in code_cells(path) if not (cell.skipped or cell.may_fail)]
    trees = {}
    for cell in cells:
        # Lines that only IPython understands are left out; a cell that isn't Python even then binds no names.
        plain = re.sub(r"^\s*[%!][^\n]*", "pass", cell.source, flags=re.MULTILINE)
        if not cell.source.lstrip().startswith("%%"):
            try:
                trees[cell.number] = ast.parse(plain)
            except SyntaxError:
                continue
    names = _bound(list(trees.values()))
    for cell in cells:
        where = f"{path}, code cell {cell.number}"
        if match := _CELL.match(cell.source):
            yield Found(where, cell.source[match.end() :], names)
        elif cell.number in trees:
            yield from _in_program(trees[cell.number], where, names)


def _in_program(tree: ast.Module, where: str, names: frozenset[str] | None) -> Iterator[Found]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0]
        if called in _CALLS and isinstance(first, ast.Constant) and isinstance(first.value, str):
            # A namespace of the caller's own may hold anything.
            own = any(keyword.arg in ("namespace", None) for keyword in node.keywords)
            yield Found(f"{where}, line {first.lineno}", first.value, None if own else names)


def _bound(trees: list[ast.Module]) -> frozenset[str] | None:
    """Return every name that is bound anywhere in `trees`; None after a star import, which may bind any."""
    names: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
            case ast.arg():
                names.add(node.arg)
            case ast.Import() | ast.ImportFrom():
                bound = {alias.asname or alias.name.partition(".")[0] for alias in node.names}
                if "*" in bound:
                    return None
                names |= bound
    return frozenset(names)


def checked(found: Found) -> Tree:
    """Return the syntax tree of a notation.

    Raises
    ------
    NotationError
        If the notation is wrong, or contains a name that its file doesn't bind.
    """
    tree = parse(found.text)
    if found.names is None:
        return tree
    problems, seen = [], set()
    for processor in (each for stage in tree.stages for each in stage.processors):
        first = processor.name.partition(".")[0]
        if first not in found.names and first not in seen:
            seen.add(first)
            problems.append(Problem(_wording(first), processor.name_span, hint=_hint(first, found.names)))
    if problems:
        raise NotationError(found.text, problems)
    return tree


def _wording(name: str) -> str:
    return f"the file neither defines nor imports `{shown(name)}`"


def _hint(name: str, names: frozenset[str]) -> str:
    near = nearest(name, sorted(names - set(dir(builtins))))
    return "did you mean " + " or ".join(f"`{shown(each)}`" for each in near) + "?" if near else ""
