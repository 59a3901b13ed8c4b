"""Parses the Python literals that a notation may hold as arguments.

Owns the grammar of values; each function's docstring is its EBNF rule. `ast.literal_eval` evaluates single
numbers and strings. Lists, tuples, dicts and sets are parsed here and not by Python, so that nesting is
bounded, faults have their exact span, and a literal may span lines and hold comments. The grammar of stages
is for `parser`.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from pratipad_nb.notation.cursor import Cursor, quoted
from pratipad_nb.notation.errors import Span, a_kind, shown
from pratipad_nb.notation.printer import MAX_NESTING, literal_text
from pratipad_nb.notation.tokens import Kind, Token

__all__ = ["LITERAL", "literal", "starts_literal"]

LITERAL = "a literal: a number, a string, True, False, None, or a list, tuple, dict or set of these"

_CONSTANTS: dict[str, bool | None] = {"True": True, "False": False, "None": None}
# All escapes, and the escapes that Python warns of today and is going to refuse: unknown letters, and octal
# numbers above a byte.
_ESCAPE = re.compile(r"""\\(?:\r\n|[^\r\n\\'"abfnrtv0-7xNuU]|[4-7][0-7]{2}|.)""", re.DOTALL)
_ODD_ESCAPE = re.compile(r"""\\(?:[^\r\n\\'"abfnrtv0-7xNuU]|[4-7][0-7]{2})""")


def starts_literal(token: Token) -> bool:
    """Return whether a literal may begin with `token`."""
    if token.kind is Kind.MARK:
        return token.text in "+-[{("
    return token.kind in (Kind.NUMBER, Kind.STRING) or token.text in (*_CONSTANTS, "set")


def literal(cursor: Cursor, nesting: int = 0) -> Any:
    """``literal = number | string | "True" | "False" | "None" | list | tuple | mapping | "set" "(" ")" ;``"""
    token = cursor.token
    if token.kind is Kind.NUMBER or cursor.at("+", "-"):
        return _number(cursor)
    if token.kind is Kind.STRING:
        return _string(cursor)
    if token.kind is Kind.NAME and token.text in _CONSTANTS:
        return _CONSTANTS[cursor.take().text]
    empty_set = token.kind is Kind.NAME and token.text == "set" and cursor.following.text == "("
    if not empty_set and not cursor.at("[", "(", "{"):
        if token.kind in (Kind.NAME, Kind.LOOKALIKE):
            raise cursor.failure(f"{quoted(token)} is no literal", token.span, expected=LITERAL)
        raise cursor.unexpected(LITERAL)
    if nesting >= MAX_NESTING:
        raise cursor.failure(f"literals may nest {MAX_NESTING} brackets deep at most", token.span)
    if empty_set:
        return _empty_set(cursor)
    return {"[": _list, "(": _tuple, "{": _mapping}[token.text](cursor, nesting + 1)


def _number(cursor: Cursor) -> int | float:
    """``number = [ "+" | "-" ] ( INTEGER | FLOAT ) ;``"""
    start = cursor.token.span.start
    sign = cursor.take().text if cursor.at("+", "-") else ""
    token = cursor.token
    if token.kind is not Kind.NUMBER:
        raise cursor.unexpected("a number")
    span = Span(start, cursor.take().span.end)
    try:
        value: int | float = ast.literal_eval(token.text)
        literal_text(value)
    except (SyntaxError, ValueError) as error:
        raise cursor.failure(
            f"{quoted(token)} is no number that Python takes: {_reason(error)}", span
        ) from None
    return -value if sign == "-" else value


def _string(cursor: Cursor) -> str | bytes:
    """``string = STRING { STRING } ;``"""
    first = cursor.token
    parts = []
    while cursor.token.kind is Kind.STRING:
        part = cursor.take()
        _check_escapes(cursor, part)
        parts.append(part.text)
    try:
        value: str | bytes = ast.literal_eval("(" + " ".join(parts) + ")")
    except (SyntaxError, ValueError) as error:
        span = Span(first.span.start, cursor.behind)
        raise cursor.failure(
            f"{quoted(first)} is no string that Python takes: {_reason(error)}", span
        ) from None
    return value


def _check_escapes(cursor: Cursor, token: Token) -> None:
    prefix = re.match(r"\w*", token.text)
    if prefix is None or "r" in prefix.group().lower():
        return
    known = "" if "b" not in prefix.group().lower() else "NuU"
    for escape in _ESCAPE.finditer(token.text):
        if _ODD_ESCAPE.fullmatch(escape.group()) or escape.group()[1] in known:
            start = token.span.start + escape.start()
            span = Span(start, start + len(escape.group()))
            raise cursor.failure(
                f"`{shown(escape.group())}` is no escape of a Python string",
                span,
                hint="write `\\\\`, or r'…' around it",
            )


def _empty_set(cursor: Cursor) -> set[Any]:
    """``"set" "(" ")"``; Python has no other way to write an empty set."""
    cursor.take()
    cursor.take()
    if not cursor.at(")"):
        raise cursor.unexpected("`)`, for only the empty set is written so; others are written `{1, 2}`")
    cursor.take()
    return set()


def _list(cursor: Cursor, nesting: int) -> list[Any]:
    """``list = "[" [ literal { "," literal } [ "," ] ] "]" ;``"""
    return _members(cursor, nesting, "]")[0]


def _tuple(cursor: Cursor, nesting: int) -> Any:
    """``tuple = "(" ")" | "(" literal ")" | "(" literal "," [ literal { "," literal } [ "," ] ] ")" ;``

    The second form is no tuple, but the literal in parentheses.
    """
    members, commas = _members(cursor, nesting, ")")
    return members[0] if members and not commas else tuple(members)


def _members(cursor: Cursor, nesting: int, closing: str) -> tuple[list[Any], int]:
    opening = cursor.take()
    members: list[Any] = []
    commas = 0
    while not cursor.at(closing):
        _check_closed(cursor, opening)
        members.append(literal(cursor, nesting))
        commas += _comma(cursor, opening, closing)
    cursor.take()
    return members, commas


def _mapping(cursor: Cursor, nesting: int) -> dict[Any, Any] | set[Any]:
    """``mapping = "{" "}" | "{" item { "," item } [ "," ] "}" ;``  ``item = literal [ ":" literal ] ;``

    With colons the mapping is a dict, and so is the empty mapping; without colons it is a set. All items have
    a colon, or none has.
    """
    opening = cursor.take()
    keys: dict[Any, Any] = {}
    colons: bool | None = None
    while not cursor.at("}"):
        _check_closed(cursor, opening)
        start = cursor.token.span.start
        key = literal(cursor, nesting)
        span = Span(start, cursor.behind)
        if colons is not None and colons is not cursor.at(":"):
            raise cursor.unexpected("`:` and a value" if colons else "`,` or `}`")
        colons = cursor.at(":")
        value = None
        if colons:
            cursor.take()
            value = literal(cursor, nesting)
        try:
            keys[key] = value
        except TypeError:
            role = "a key of a dict" if colons else "a member of a set"
            raise cursor.failure(
                f"{a_kind(key)} can't be {role}", span, expected="a value that can't be changed"
            ) from None
        _comma(cursor, opening, "}")
    cursor.take()
    return set(keys) if colons is False else keys


def _comma(cursor: Cursor, opening: Token, closing: str) -> int:
    """Take the comma after a member; return the number of commas: 1, or 0 before the closing bracket."""
    if cursor.at(","):
        cursor.take()
        return 1
    if not cursor.at(closing):
        _check_closed(cursor, opening)
        raise cursor.unexpected(f"`,` or `{closing}`")
    return 0


def _check_closed(cursor: Cursor, opening: Token) -> None:
    if cursor.token.kind in (Kind.END, Kind.ARROW):
        raise cursor.failure(f"{quoted(opening)} is never closed", opening.span)


def _reason(error: Exception) -> str:
    reason = error.msg if isinstance(error, SyntaxError) else str(error)
    return (reason or "").partition(";")[0].partition(" (")[0]
