"""Decoded sizes: how much memory a body takes as Python objects, told before any object is made.

Owns the estimates. An empty list is one byte on the wire and 64 bytes in memory, so the size of a body says
little about the memory that the body takes. Which sizes are allowed is for `codec`.

The memory is at most 1.4 times the estimate, mostly less than the estimate. Texts of 32 to 255 bytes with
characters outside the Basic Multilingual Plane are the exception: one such character makes all characters of
its text take four bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from gc import is_tracked
from typing import Any

__all__ = ["MOST_A_BYTE", "decoded_size", "decoded_size_of_json", "size_of_flat"]

#: Most memory that one byte of MessagePack or JSON takes: that of maps in maps.
MOST_A_BYTE = 120
#: Memory of a value, and of its place in a list or map: of a number, a list, a short text. Two values that
#: Python keeps anyway (small integers, None, True) count as one value.
_VALUE = 60
#: Memory of a map of up to five entries, its values not counted. So much as four values.
_MAP = 4 * _VALUE
#: Most memory of the time and device of a message, of a key with its value, and of a character.
_MESSAGE, _ENTRY, _CHARACTER = 120, 190, 4
#: The scan counts in units: a map, or up to four other values. These are the numbers of units that one call
#: of the regular expression matches, 20 to 90 ns a value.
_STEPS = (512, 32, 1)


def _texts(lengths: range) -> bytes:
    """Return a pattern of a length in one byte, and so many bytes behind it."""
    parts = [lengths[at : at + 32] for at in range(0, len(lengths), 32)]
    # Alternatives are tried one after the other: the look-ahead saves most tries.
    return b"|".join(
        rb"(?=[\x%02x-\x%02x])(?:%b)"
        % (part[0], part[-1], b"|".join(rb"\x%02x.{%d}" % (length, length) for length in part))
        for part in parts
    )


@cache  # made when a large body comes first: that takes 25 ms
def _patterns() -> tuple[tuple[int, Callable[[bytes, int], re.Match[bytes] | None]], ...]:
    short = b"|".join(rb"\x%02x.{%d}" % (0xA0 + length, length) for length in range(32))
    value = b"|".join(
        (
            rb"[\x00-\x7f\xc0\xc2\xc3]{1,2}+",
            rb"(?=[\xa0-\xbf])(?:%b)" % short,
            rb"\xcb.{8}",
            rb"[\x80\x90-\x9f\xe0-\xff]",
            rb"[\xd9\xc4](?:%b)" % _texts(range(256)),
            rb"[\xcd\xd1\xdc\xd4].{2}",
            rb"[\xca\xce\xd2\xdd].{4}",
            rb"[\xcf\xd3].{8}",
            rb"[\xcc\xd0].",
            rb"\xd5.{3}|\xd6.{5}|\xd7.{9}|\xd8.{17}",
        )
    )
    # Four empty lists, or small negative numbers, are found faster than each of them alone.
    unit = rb"[\x81-\x8f]|[\x80\x90-\x9f\xe0-\xff]{4}|(?:%b){1,4}+" % value
    return tuple((many, re.compile(rb"(?s:%b){%d}+" % (unit, many)).match) for many in _STEPS)


#: The heads that no pattern takes, of long bytes and texts and of extensions: for each, how many bytes tell
#: the length, and how many more than the length follow.
_LONG = {
    0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1), 0xDA: (2, 0), 0xDB: (4, 0),
}  # fmt: skip
#: The heads of maps of more than 15 entries, and how many bytes tell the number.
_LARGE_MAPS = {0xDE: 2, 0xDF: 4}


def decoded_size(body: bytes | memoryview, most: int) -> int:
    """Return about how much memory a MessagePack `body` takes as objects.

    Parameters
    ----------
    most
        The scan ends as soon as the size is above `most`.

    Notes
    -----
    Of a damaged body, the part before the damage counts: a decoder doesn't get beyond it.
    """
    body = bytes(body)
    size, at = len(body), 0
    while size <= most:
        for many, match in _patterns():
            while size <= most and (found := match(body, at)):
                at = found.end()
                size += many * _MAP
        if at >= len(body) or size > most:
            break
        behind, memory = _large(body, at)
        if not memory:
            break
        at, size = behind, size + memory
    return size


def _large(body: bytes, at: int) -> tuple[int, int]:
    """Return the place behind the head of `_LONG` or `_LARGE_MAPS` at `at`, and the memory of its value.

    The memory is 0 if there is another head.
    """
    head = body[at]
    if head in _LARGE_MAPS:
        behind = at + 1 + _LARGE_MAPS[head]
        entries = int.from_bytes(body[at + 1 : behind])
        return behind, _MAP + min(entries, len(body) - behind) * _VALUE
    if head not in _LONG:
        return at, 0
    width, more = _LONG[head]
    begin = at + 1 + width
    behind = begin + int.from_bytes(body[at + 1 : begin]) + more
    wide = 0 if body[begin:behind].isascii() else 3 * (behind - begin)
    return behind, _MAP + wide


def decoded_size_of_json(text: bytes) -> int:
    """Return about how much memory the JSON `text` takes as objects: every value follows a delimiter."""
    values = text.count(b",") + text.count(b":") + text.count(b"[")
    size = len(text) if text.isascii() else 4 * len(text)
    return size + values * _VALUE + text.count(b"{") * _MAP


def size_of_flat(payloads: Sequence[Any], size: int) -> int | None:
    """Return the most memory that decoded `payloads` take, in about 50 ns a payload.

    None: a payload is neither a single value nor a map of single values; then `decoded_size` tells.

    Parameters
    ----------
    size
        The number of bytes that the payloads were decoded from.
    """
    # The garbage collector tracks no map of single values. (Where it tracks every map, this returns None.)
    if any(map(is_tracked, payloads)):
        return None
    try:
        entries = sum(map(len, payloads))
    except TypeError:  # numbers
        entries = sum(len(payload) if isinstance(payload, dict) else 1 for payload in payloads)
    return size * _CHARACTER + len(payloads) * (_MESSAGE + _MAP) + entries * _ENTRY
