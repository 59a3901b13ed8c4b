"""Cuts a notation into tokens: words, arrows, brackets, literals.

Owns the spelling of tokens. Never fails: text that is no token gets a kind of its own (`Kind.STRAY` …), and
the parser, which knows the tokens before it, describes the fault.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from pratipad_nb.notation.errors import Span

__all__ = ["Kind", "Token", "tokens"]


class Kind(enum.Enum):
    """The kind of a token."""

    NAME = "name"
    ARROW = "arrow"
    #: Text that was meant as an arrow: ``->``, ``<~~>``, ``→``.
    LOOKALIKE = "lookalike"
    MARK = "mark"
    NUMBER = "number"
    STRING = "string"
    #: A string whose closing quote is missing.
    UNCLOSED_STRING = "unclosed string"
    #: A character, or a number run into a word, that is no token of a notation.
    STRAY = "stray"
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    """One token.

    `text` is as written, but for names, which are normalised (NFKC) as Python normalises its identifiers:
    else a name that prints alike would not be found.
    """

    kind: Kind
    text: str
    span: Span


_DIGITS = r"[0-9](?:_?[0-9])*"
_EXPONENT = rf"[eE][+-]?{_DIGITS}"
_PREFIX = r"(?:[rR][bB]?|[bB][rR]?|[uU])?"
# Word processors turn "-" and "~" into U+2010…2015 and the like.
_DASHES = "‐‑‒–—―−〜～∼∿"
_ARROWS = "\u2190-\u21ff\u27f0-\u27ff\u2900-\u297f"
# A lookalike has at least one character that occurs in arrows alone: else "=-" of `f(x=-1)` would be a
# lookalike. The characters before that character are bounded: else a long row of "-" would be searched again
# from each "-".
_LOOKALIKE = rf"[\-=|]{{0,8}}[<>~{_DASHES}{_ARROWS}][<>~\-=|{_DASHES}{_ARROWS}]*"

_TOKEN = re.compile(
    rf"""
      (?P<skip>(?:\s+|\#[^\r\n]*)+)
    | (?P<string>{_PREFIX}(?:
          \"\"\"(?:[^"\\]|\\(?:\r\n|.)|"(?!""))*\"\"\"
        | '''(?:[^'\\]|\\(?:\r\n|.)|'(?!''))*'''
        | (?!\"\"\"|''')(?:"(?:[^"\\\r\n]|\\(?:\r\n|.))*" | '(?:[^'\\\r\n]|\\(?:\r\n|.))*')
      ))
    | (?P<unclosed>{_PREFIX}(?:(?:\"\"\"|''').* | ["'][^\r\n]*))
    | (?P<number>(?:
          0[xX](?:_?[0-9a-fA-F])+ | 0[oO](?:_?[0-7])+ | 0[bB](?:_?[01])+
        | {_DIGITS}(?:\.(?:{_DIGITS})?)?(?:{_EXPONENT})? | \.{_DIGITS}(?:{_EXPONENT})?
      )(?![\w.]))
    | (?P<run>\.?[0-9][\w.]*)
    | (?P<arrow>(?:<~>|~>)(?![<>~\-=|{_DASHES}{_ARROWS}]))
    | (?P<lookalike>{_LOOKALIKE})
    | (?P<mark>[][{{}}(),.:=+-])
    """,
    re.VERBOSE | re.DOTALL,
)

_KINDS = {
    "string": Kind.STRING,
    "unclosed": Kind.UNCLOSED_STRING,
    "number": Kind.NUMBER,
    "run": Kind.STRAY,
    "arrow": Kind.ARROW,
    "lookalike": Kind.LOOKALIKE,
    "mark": Kind.MARK,
}


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of `text` without white space and comments; the last token is of `Kind.END`.

    The end's span is empty and stands right behind the last token, where text is missing, not behind a
    trailing comment.
    """
    at = end = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            token = _name_or_stray(text, at)
        elif found.lastgroup == "skip":
            at = found.end()
            continue
        else:
            token = Token(_KINDS[found.lastgroup or ""], found.group(), Span(at, found.end()))
        yield token
        at = end = token.span.end
    yield Token(Kind.END, "", Span(end, end))


def _name_or_stray(text: str, at: int) -> Token:
    # `\w` would cut names in scripts whose vowel signs are marks; `isidentifier` takes Python's names.
    end = at + 1
    if text[at].isidentifier():
        while end < len(text) and ("a" + text[end]).isidentifier():
            end += 1
        name = unicodedata.normalize("NFKC", text[at:end])
        if name.isidentifier():
            return Token(Kind.NAME, name, Span(at, end))
    return Token(Kind.STRAY, text[at:end], Span(at, end))
