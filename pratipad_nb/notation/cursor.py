"""The parser's place in the tokens of a notation, and the faults found so far.

Owns looking ahead, moving on and raising. Knows no rule of the grammar.
"""

from __future__ import annotations

import unicodedata

from pratipad_nb.notation.errors import NotationError, Problem, Span, shown
from pratipad_nb.notation.tokens import Kind, Token, tokens

__all__ = ["Cursor", "quoted"]


class Cursor:
    """The parser's place in `text`.

    Faults after which the parser can go on are noted (`note`), so that all of these are reported together;
    the first other fault ends the parse (`failure`).
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.problems: list[Problem] = []
        self._tokens = list(tokens(text))
        self._at = 0

    @property
    def token(self) -> Token:
        """The next token."""
        return self._tokens[self._at]

    @property
    def following(self) -> Token:
        """The token after the next token; the end if there is no other."""
        return self._tokens[min(self._at + 1, len(self._tokens) - 1)]

    @property
    def behind(self) -> int:
        """Offset at which the last token read ends."""
        return self._tokens[self._at - 1].span.end if self._at else 0

    def take(self) -> Token:
        """Return the next token and move past it, but for the end, at which the cursor stays."""
        token = self.token
        if token.kind is not Kind.END:
            self._at += 1
        return token

    def at(self, *marks: str) -> bool:
        """Return whether the next token is one of `marks`, which may be punctuation only."""
        return self.token.kind is Kind.MARK and self.token.text in marks

    def closes_later(self, opening: str, closing: str) -> bool:
        """Return whether the open bracket `opening` is closed before another one of its kind is opened."""
        for token in self._tokens[self._at :]:
            if token.kind is Kind.MARK and token.text in (opening, closing):
                return token.text == closing
        return False

    def note(self, message: str, span: Span, *, expected: str = "", hint: str = "") -> None:
        """Note a fault and go on."""
        self.problems.append(Problem(message, span, expected, hint))

    def failure(self, message: str, span: Span, *, expected: str = "", hint: str = "") -> NotationError:
        """Return the error that ends the parse: this fault and the faults that were noted."""
        self.note(message, span, expected=expected, hint=hint)
        return NotationError(self.text, self.problems)

    def unexpected(self, expected: str) -> NotationError:
        """Return the error that ends the parse because the next token isn't the `expected` text."""
        token = self.token
        hint = ""
        if token.kind is Kind.END:
            message = "the notation ends too early"
        elif token.kind is Kind.UNCLOSED_STRING:
            message, expected = f"the string {quoted(token)} is never closed", "a closing quote"
        elif token.kind is Kind.STRAY and len(token.text) == 1:
            name = unicodedata.name(token.text, "a character without a name")
            message = f"{quoted(token)} (U+{ord(token.text):04X}, {name}) means nothing in a notation"
            hint = "line breaks are free and need no backslash" if token.text == "\\" else ""
        else:
            message = f"{quoted(token)} can't stand here"
        return self.failure(message, token.span, expected=expected, hint=hint)


def quoted(token: Token) -> str:
    """Return the text of `token` in backticks, for a message."""
    return f"`{shown(token.text)}`"
