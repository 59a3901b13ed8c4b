"""Wording: counts, rates, durations, exceptions and others' texts as pictures, tables and texts show them.

Owns their spelling, and what becomes of the control characters of others (devices, processors, servers). The
graph widget spells numbers the same way in its own `notebook/static/cards.js`.
"""

from __future__ import annotations

import re

__all__ = [
    "ERROR_CHARACTERS",
    "count",
    "counted",
    "duration",
    "in_words",
    "printable",
    "printable_json",
    "rate",
    "share",
    "size",
    "span",
]

#: Longest text of an exception. The bound keeps dead letters small, for some exceptions carry whole documents
#: in their text.
ERROR_CHARACTERS = 1000

#: What a terminal obeys, or what changes the order in which a line is shown, and halves of characters.
_CONTROLS = (
    "\x00-\x1f\x7f-\x9f"  # of ASCII and of Latin-1: escape sequences begin with them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # of bidirectional text
    "\u2028\u2029"  # line breaks
    "\ud800-\udfff"  # halves of characters, as in the name of a file that is no UTF-8
)
_HIDDEN = re.compile(f"[{_CONTROLS}]")
_HIDDEN_IN_LINES = re.compile(f"(?![\n\t])[{_CONTROLS}]")

_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(value: float) -> str:
    """Return `value` short: ``950``, ``12.3k``, ``4.56M``; whole up to 9,999, then three digits and unit."""
    if abs(value) < 10_000:
        return f"{value:,.0f}"
    for size, unit in _UNITS:
        if abs(value) >= size * 0.9995:
            return _three_digits(value / size) + unit
    raise AssertionError(value)  # unreachable: 10,000 is above the smallest unit


def counted(number: int, thing: str) -> str:
    """Return how many of a thing: ``1 dead letter``, ``1,234 dead letters``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def rate(value: float) -> str:
    """Return messages a second: ``0``, ``0.5``, ``12.3``, ``950``, ``12.3k``. The caller adds ``/s``."""
    if value <= 0:
        return "0"
    if value < 99.95:
        return f"{value:.1f}".removesuffix(".0")
    return count(value)


def duration(seconds: float) -> str:
    """Return a latency: ``85 µs``, ``1.2 ms``, ``3.4 s``; an en dash for 0, "not measured yet"."""
    if seconds <= 0:
        return "–"
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= size * 0.9995:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{max(1, round(seconds * 1e6))} µs"


def share(value: float) -> str:
    """Return a fraction from 0 to 1 in per cent: ``34 %``."""
    return f"{round(100 * min(1.0, max(0.0, value)))} %"


def size(value: int) -> str:
    """Return a number of bytes: ``950 bytes``, ``12.5 KiB``, ``64 MiB``, ``1.4 GiB``."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value >= 1 << power:
            return f"{_three_digits(value / (1 << power))} {unit}"
    return counted(value, "byte")


def span(seconds: float) -> str:
    """Return a span of time: ``42 s``, ``5 min 3 s``, ``2 h 14 min``."""
    whole = int(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def in_words(error: BaseException) -> str:
    """Return an exception's type and text, at most 1,000 characters, which can all be stored and shown."""
    name = type(error).__name__
    try:
        text = str(error)
        words = f"{name}: {text}" if text else name
    except BaseException:  # noqa: BLE001 - a user's __str__ may raise anything
        words = f"{name}: (its text can't be had: its __str__ raised)"
    return printable(
        words if len(words) <= ERROR_CHARACTERS else words[: ERROR_CHARACTERS - 1] + "…", lines=True
    )


def printable(text: str, *, lines: bool = False) -> str:
    r"""Return `text` with its control characters escaped as Python does: ``\x1b``, ``\u202e``.

    Whoever shows a text of others passes it through here: the text could clear a terminal, colour what
    follows, or be shown in another order than it has.

    Parameters
    ----------
    lines
        Whether line breaks and tabs stay.
    """
    if text.isprintable():
        return text
    return (_HIDDEN_IN_LINES if lines else _HIDDEN).sub(_escaped, text)


def printable_json(data: bytes) -> bytes:
    """Return encoded JSON values with the control characters in their texts escaped: the same values.

    Encoders escape those of ASCII alone.
    """
    if data.isascii() and b"\x7f" not in data:
        return data
    return _HIDDEN_IN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", data.decode()).encode()


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "backslashreplace").decode()


def _three_digits(value: float) -> str:
    if abs(value) >= 99.95:
        return f"{value:.0f}"
    text = f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"
    return text.rstrip("0").rstrip(".")
