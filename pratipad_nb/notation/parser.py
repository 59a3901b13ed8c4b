"""Parses a notation: recursive descent, one function for each rule; its docstring is that rule in EBNF.

Owns the grammar of stages and arrows, and its faults. Literals are parsed by `pratipad_nb.notation.literals`.
Whether a processor exists is for `pratipad_nb.dataflow`.

A token is never given back: each function decides by the next token, or the next two, and the cursor only
moves forward. After a fault that is noted (a mistaken arrow, input or Output) the parser goes on as if the
text had been right. So each fault is reported once, and parsing takes linear time.
"""

from __future__ import annotations

import difflib
import keyword
from typing import cast, get_args

from pratipad_nb.notation.arrows import EXPECTED_ARROW, meant_arrow, mistaken_arrow
from pratipad_nb.notation.cursor import Cursor, quoted
from pratipad_nb.notation.errors import NotationError, Problem, Span, a_kind, shown
from pratipad_nb.notation.literals import LITERAL, literal, starts_literal
from pratipad_nb.notation.printer import literal_text
from pratipad_nb.notation.tokens import Kind, Token
from pratipad_nb.notation.tree import Argument, Direction, Input, Processor, Stage, StageKind, Tree

__all__ = ["MAX_LENGTH", "parse"]

#: Longest notation in characters: a thousand times a readable one, and short enough to be parsed at once.
MAX_LENGTH = 100_000

_INPUTS: dict[str, Input] = {word: word for word in get_args(Input)}
_EXPECTED_INPUT = "Push, Pull or Demand"
_EXPECTED_STAGE = "a processor, `[` or `{`"
_EXAMPLE = "Push ~> MyProcessor ~> Output"
_SEVERAL_IN_A_STAGE = (
    "processors of one stage stand in brackets: [P1, P2] in sequence, {P1, P2} at the same time"
)
_CLOSING = {"[": "]", "{": "}", "(": ")"}
_KINDS: dict[str, StageKind] = {"[": "sequential", "{": "concurrent"}


def parse(text: str) -> Tree:
    """Return the syntax tree of a notation.

    Parameters
    ----------
    text
        The notation, such as ``Push <~> Celsius <~> Output``. White space and line breaks are free, and `#`
        starts a comment. The text, and its canonical form, have at most `MAX_LENGTH` characters.

    Raises
    ------
    NotationError
        If the text is no notation; the error shows each fault's place and the text that was expected there.
    """
    _check_size(text)
    cursor = Cursor(text)
    tree = _dataflow(cursor)
    if cursor.problems:
        raise NotationError(text, cursor.problems)
    if len(str(tree)) > MAX_LENGTH:
        message = f"with its literals written in full, the notation is longer than {MAX_LENGTH:,} characters"
        raise NotationError(text, [Problem(message, tree.input_span)])
    return tree


def _check_size(text: object) -> None:
    if not isinstance(text, str):
        message = f"a notation is text, and this is {a_kind(text)}"
        raise NotationError("", [Problem(message, Span(0, 0), hint=f'write it in quotes: "{_EXAMPLE}"')])
    if len(text) > MAX_LENGTH:
        message = f"a notation has {MAX_LENGTH:,} characters at most; this one has {len(text):,}"
        raise NotationError(text, [Problem(message, Span(MAX_LENGTH, len(text)))])


def _dataflow(cursor: Cursor) -> Tree:
    """``dataflow = input direction stage { direction stage } direction "Output" ;``"""
    source, input_span = _input(cursor)
    arrows = [_direction(cursor, source)]
    stages: list[Stage] = []
    while not _is_output(cursor):
        stages.append(_stage(cursor))
        arrows.append(_direction(cursor, source))
    output = cursor.take()
    if cursor.token.kind is not Kind.END:
        raise _after_output(cursor, output)
    if not stages:
        raise cursor.failure(
            f"there is no processor between {source} and Output", output.span, hint=f"for example: {_EXAMPLE}"
        )
    hops = tuple(hop for hop, _ in arrows)
    return Tree(source, tuple(stages), hops, cursor.text, input_span, tuple(span for _, span in arrows))


def _input(cursor: Cursor) -> tuple[Input, Span]:
    """``input = "Push" | "Pull" | "Demand" ;``"""
    token = cursor.token
    if token.kind is Kind.END:
        raise cursor.failure("the notation is empty", token.span, hint=f"for example: {_EXAMPLE}")
    if token.kind is Kind.NAME:
        if token.text in _INPUTS:
            return _INPUTS[token.text], cursor.take().span
        meant = difflib.get_close_matches(token.text.capitalize(), _INPUTS, n=1, cutoff=0.7)
        if meant:
            cursor.note(
                f"{quoted(token)} is no input",
                token.span,
                expected=_EXPECTED_INPUT,
                hint=f"write `{meant[0]}`",
            )
            return _INPUTS[meant[0]], cursor.take().span
    raise cursor.failure(
        f"a dataflow starts with its input, not with {quoted(token)}",
        token.span,
        expected=_EXPECTED_INPUT,
        hint=f"for example: {_EXAMPLE}",
    )


def _direction(cursor: Cursor, source: Input) -> tuple[Direction, Span]:
    """``direction = "~>" | "<~>" ;``

    A `Pull` needs ``<~>`` on every hop, for its request travels back along the flow.
    """
    token = cursor.token
    if token.kind is Kind.ARROW:
        hop = cast(Direction, cursor.take().text)
        if source == "Pull" and hop == "~>":
            cursor.note(
                "Pull needs `<~>` on every hop, since the request travels back along the flow",
                token.span,
                hint="write `<~>`",
            )
        return hop, token.span
    if _mistaken(token):
        return _mistaken_direction(cursor, source)
    if token.kind is Kind.END:
        raise _without_output(cursor, f"{EXPECTED_ARROW} and `Output`")
    if cursor.at("]", "}", ")"):
        raise cursor.failure(f"{quoted(token)} closes nothing", token.span, expected=EXPECTED_ARROW)
    if token.kind is Kind.NAME or cursor.at("[", "{"):
        raise cursor.failure(
            f"there is no arrow before {quoted(token)}",
            token.span,
            expected=EXPECTED_ARROW,
            hint=_SEVERAL_IN_A_STAGE,
        )
    if cursor.at(","):
        raise cursor.failure(
            "`,` can't stand outside brackets", token.span, expected=EXPECTED_ARROW, hint=_SEVERAL_IN_A_STAGE
        )
    raise cursor.unexpected(EXPECTED_ARROW)


def _mistaken(token: Token) -> bool:
    return token.kind is Kind.LOOKALIKE or (
        token.kind in (Kind.MARK, Kind.STRAY) and token.text in ("-", "=", "|")
    )


def _mistaken_direction(cursor: Cursor, source: Input) -> tuple[Direction, Span]:
    start = cursor.token.span.start
    while _mistaken(cursor.token) or cursor.token.kind is Kind.ARROW:
        cursor.take()
    span = Span(start, cursor.behind)
    text = cursor.text[span.start : span.end]
    meant: Direction = "<~>" if source == "Pull" else meant_arrow(text)
    message, hint = mistaken_arrow(text, meant)
    cursor.note(message, span, expected=EXPECTED_ARROW, hint=hint)
    return meant, span


def _is_output(cursor: Cursor) -> bool:
    """``"Output"``; at the end, where no processor can stand, a nearly right spelling is noted as a fault."""
    token = cursor.token
    if token.kind is not Kind.NAME or token.text == "Output":
        return token.text == "Output"
    if cursor.following.kind is Kind.END and difflib.get_close_matches(
        token.text.capitalize(), ["Output"], cutoff=0.8
    ):
        message = f"a dataflow ends with Output, not with {quoted(token)}"
        cursor.note(message, token.span, expected="`Output`", hint="write `Output`")
        return True
    return False


def _after_output(cursor: Cursor, output: Token) -> NotationError:
    message = f"`Output` ends a dataflow, and {quoted(cursor.token)} comes after it"
    return cursor.failure(message, output.span, expected="`Output` once, at the end")


def _without_output(cursor: Cursor, expected: str) -> NotationError:
    return cursor.failure("the dataflow ends without Output", cursor.token.span, expected=expected)


def _stage(cursor: Cursor) -> Stage:
    """``stage = processor | "[" processors "]" | "{" processors "}" ;``"""
    token = cursor.token
    if token.kind is Kind.NAME:
        processor = _processor(cursor)
        return Stage("single", (processor,), processor.span)
    if cursor.at("[", "{"):
        return _bracketed(cursor)
    if token.kind is Kind.END:
        raise _without_output(cursor, f"{_EXPECTED_STAGE}, or `Output`")
    if token.kind is Kind.ARROW or _mistaken(token):
        raise cursor.failure("there is no processor between two arrows", token.span, expected=_EXPECTED_STAGE)
    if cursor.at("("):
        raise cursor.failure(
            "a stage doesn't stand in parentheses",
            token.span,
            expected="[P1, P2] (sequential) or {P1, P2} (concurrent)",
        )
    if cursor.at("]", "}", ")"):
        raise cursor.failure(f"{quoted(token)} closes nothing", token.span, expected=_EXPECTED_STAGE)
    raise cursor.unexpected(_EXPECTED_STAGE)


def _bracketed(cursor: Cursor) -> Stage:
    """``processors = processor { "," processor } [ "," ] ;``"""
    opening = cursor.take()
    closing = _CLOSING[opening.text]
    found: list[Processor] = []
    while not cursor.at(closing):
        _check_closed(cursor, opening)
        if cursor.at("[", "{"):
            raise cursor.failure(
                "brackets of stages can't be nested", cursor.token.span, expected="a processor"
            )
        if cursor.at(","):
            raise cursor.failure(
                "there is no processor before this comma", cursor.token.span, expected="a processor"
            )
        found.append(_processor(cursor))
        _comma(cursor, opening)
    span = Span(opening.span.start, cursor.take().span.end)
    if not found:
        raise cursor.failure(
            f"`{opening.text}{closing}` holds no processor", span, expected="one processor at least"
        )
    return Stage(_KINDS[opening.text], tuple(found), span)


def _comma(cursor: Cursor, opening: Token) -> None:
    closing = _CLOSING[opening.text]
    if cursor.at(","):
        cursor.take()
    elif not cursor.at(closing):
        _check_closed(cursor, opening)
        raise cursor.unexpected(f"`,` or `{closing}`")


def _check_closed(cursor: Cursor, opening: Token) -> None:
    """Raise an error if the next token shows that the bracket `opening` isn't closed rightly."""
    token = cursor.token
    closing = _CLOSING[opening.text]
    if cursor.at(*_CLOSING.values()) and token.text != closing:
        raise cursor.failure(
            f"{quoted(opening)} is closed by {quoted(token)}", token.span, expected=f"`,` or `{closing}`"
        )
    if token.kind not in (Kind.END, Kind.ARROW, Kind.LOOKALIKE):
        return
    if cursor.closes_later(opening.text, closing):
        raise cursor.failure(
            "an arrow can't stand inside brackets", token.span, expected=f"`,` or `{closing}`"
        )
    raise cursor.failure(
        f"{quoted(opening)} is never closed", opening.span, expected=f"`{closing}` after what it holds"
    )


def _processor(cursor: Cursor) -> Processor:
    """``processor = name [ "(" arguments ")" ] ;``"""
    name, name_span = _name(cursor)
    arguments = _arguments(cursor) if cursor.at("(") else ()
    return Processor(name, arguments, Span(name_span.start, cursor.behind), name_span)


def _name(cursor: Cursor) -> tuple[str, Span]:
    """``name = NAME { "." NAME } ;``"""
    start = cursor.token.span.start
    parts = [_part(cursor)]
    while cursor.at("."):
        cursor.take()
        parts.append(_part(cursor))
    return ".".join(parts), Span(start, cursor.behind)


def _part(cursor: Cursor) -> str:
    """``NAME``: an identifier of Python, neither a keyword of Python nor a word of the notation."""
    token = cursor.token
    if token.kind is not Kind.NAME:
        raise cursor.unexpected("the name of a processor")
    if token.text in _INPUTS:
        raise cursor.failure(f"{quoted(token)} starts a dataflow and can't be a processor", token.span)
    if token.text == "Output":
        raise cursor.failure(f"{quoted(token)} ends a dataflow and can't be a processor", token.span)
    if keyword.iskeyword(token.text):
        raise cursor.failure(f"{quoted(token)} is a word of Python and can't be a processor", token.span)
    return cursor.take().text


def _arguments(cursor: Cursor) -> tuple[Argument, ...]:
    """``arguments = [ argument { "," argument } [ "," ] ] ;``"""
    opening = cursor.take()
    found: list[Argument] = []
    names: set[str] = set()
    while not cursor.at(")"):
        _check_closed(cursor, opening)
        name = _keyword(cursor)
        if name.text in names:
            cursor.note(f"argument {quoted(name)} is given twice", name.span)
        names.add(name.text)
        found.append(_argument(cursor, name))
        _comma(cursor, opening)
    cursor.take()
    return tuple(found)


def _keyword(cursor: Cursor) -> Token:
    """``keyword = NAME "=" ;``"""
    token = cursor.token
    if cursor.following.text == "=" and token.kind is Kind.NAME:
        if keyword.iskeyword(token.text):
            raise cursor.failure(
                f"{quoted(token)} is a word of Python and can't name an argument", token.span
            )
        cursor.take()
        cursor.take()
        return token
    if starts_literal(token):
        literal(cursor)
        span = Span(token.span.start, cursor.behind)
        value = shown(cursor.text[span.start : span.end])
        raise cursor.failure(
            "arguments are given by name",
            span,
            expected="a name, `=` and a literal",
            hint=f"write NAME={value}",
        )
    if token.kind is Kind.NAME:
        raise cursor.failure("arguments are given by name", token.span, expected="a name, `=` and a literal")
    raise cursor.unexpected("the name of an argument, or `)`")


def _argument(cursor: Cursor, name: Token) -> Argument:
    """``argument = keyword literal ;``"""
    if cursor.at(",", ")"):
        raise cursor.failure(f"argument {quoted(name)} has no value", name.span, expected=LITERAL)
    text = literal_text(literal(cursor))
    return Argument(name.text, text, Span(name.span.start, cursor.behind))
