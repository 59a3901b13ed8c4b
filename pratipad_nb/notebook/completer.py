"""Completion in ``%%dataflow`` cells and ``%dataflow`` lines.

In a cell: keywords, arrows, processors of the namespace with their arguments, and options after the name. In
a line: commands, flows, processors, devices.

Owns the choice of completions. Looks no further than names: no code of the user's is run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from pratipad_nb.dataflow.names import looks_like_a_processor
from pratipad_nb.dataflow.targets import argument_names
from pratipad_nb.notebook.cell_line import OPTION_NAMES
from pratipad_nb.notebook.commands import line_suggestions
from pratipad_nb.session import flows

__all__ = ["dataflow_matcher", "suggestions"]

_CELL = re.compile(r"\s*%%dataflow\b")
_LINE = re.compile(r"\s*%dataflow\s")
_CALL = re.compile(r"([\w.]+)\s*\(([^()]*)\Z")
_WORD = re.compile(r"[\w.]*\Z")
_INPUTS = ("Push", "Pull", "Demand")
_ARROWS = ("~>", "<~>")
_DELIVERIES = ("durable", "fast")


def dataflow_matcher(namespace: Callable[[], Mapping[str, Any]]) -> Any:
    """Return the matcher for `ip.Completer.custom_matchers`; `namespace` returns the user's names."""

    @context_matcher(identifier="pratipad_nb.dataflow")
    def matcher(context: CompletionContext) -> SimpleMatcherResult:
        lines = context.full_text.split("\n")
        line = context.line_with_cursor[: context.cursor_position]
        if _LINE.match(line):
            token, words = line_suggestions(line, flows())
            offered = [SimpleCompletion(text=text, type="param") for text in words]
            return {"completions": offered, "matched_fragment": token, "suppress": True}
        if not _CELL.match(lines[0]):
            return {"completions": []}
        before = "\n".join([*lines[: context.cursor_line], line])
        token, found = suggestions(before, namespace())
        return {
            "completions": [SimpleCompletion(text=text, type=kind) for text, kind in found],
            "matched_fragment": token,
            "suppress": True,  # Python's own names are no use here
        }

    return matcher


def suggestions(before: str, namespace: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """Return the unfinished fragment at the end of `before`, and its completions with their kinds."""
    line, newline, notation = before.partition("\n")
    if not newline:
        return _option(line)
    notation = re.sub(r"#[^\n]*\n", " ", notation)
    if "#" in notation.rsplit("\n", 1)[-1]:
        return "", []
    arrow = re.search(r"(?:<~?|~)\Z", notation)
    if arrow:
        return arrow[0], [(text, "operator") for text in _ARROWS if text.startswith(arrow[0])]
    match = _WORD.search(notation)
    word = match[0] if match else ""
    expected = _expected(notation[: len(notation) - len(word)], word, namespace)
    return word, [(text, kind) for text, kind in expected if text.startswith(word) and text != word]


def _option(line: str) -> tuple[str, list[tuple[str, str]]]:
    words = line.split()[1:]
    word = "" if line.endswith((" ", "\t")) or not words else words.pop()
    if words and words[-1] == "--delivery":
        return word, [(text, "keyword") for text in _DELIVERIES if text.startswith(word)]
    named = any(not each.startswith("-") for each in words)
    if word.startswith("-") or (named and not word):
        return word, [(text, "param") for text in OPTION_NAMES if text.startswith(word) and text not in words]
    return word, []


def _expected(before: str, word: str, namespace: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield the words that may stand after `before`.

    These are an input at the start, an arrow after a stage, an argument's name in parentheses, else a
    processor or Output.
    """
    stripped = before.rstrip()
    if not stripped:
        yield from ((text, "keyword") for text in _INPUTS)
        return
    if stripped.count("(") > stripped.count(")"):
        if stripped.endswith(("(", ",")):
            yield from ((f"{name}=", "param") for name in _arguments(stripped, namespace))
        return
    if stripped.endswith("~>"):
        yield "Output", "keyword"
    elif not stripped.endswith(("[", "{", ",")):
        if not word:
            yield from ((text, "operator") for text in _ARROWS)
        return
    yield from ((name, kind) for name, kind in _processors(word, namespace))


def _arguments(before: str, namespace: Mapping[str, Any]) -> Iterable[str]:
    """Yield the arguments, not given yet, of the processor whose parenthesis is open."""
    call = _CALL.search(before)
    target = _at(call[1], namespace) if call else None
    if call is None or not looks_like_a_processor(target):
        return
    given = re.findall(r"(\w+)\s*=", call[2])
    yield from (name for name in argument_names(target) if name not in given)


def _at(path: str, namespace: Mapping[str, Any]) -> Any:
    """Return the value at the dotted `path`; None if there is no such value."""
    first, *rest = path.split(".")
    found = namespace.get(first)
    for part in rest:
        found = vars(found).get(part) if isinstance(found, (ModuleType, type)) else None
    return found


def _processors(word: str, namespace: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    path, dot, _ = word.rpartition(".")
    if dot:
        holder = _at(path, namespace)
        if not isinstance(holder, (ModuleType, type)):
            return
        names: Mapping[str, Any] = vars(holder)
    else:
        names = namespace
    for name in sorted(names):
        if name.startswith("_"):
            continue
        if looks_like_a_processor(names[name]):
            yield f"{path}{dot}{name}", "class" if isinstance(names[name], type) else "function"
        elif isinstance(names[name], ModuleType):
            yield f"{path}{dot}{name}", "module"
