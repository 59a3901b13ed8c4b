"""Packing: values encoded to be kept, so that no later change reaches them and their size is known.

Owns the encoding, and the text in the place of a value that is not JSON-like. How many values are kept is for
the modules that keep them.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from pratipad_nb.errors import PayloadError
from pratipad_nb.processors import copied
from pratipad_nb.transport.codec import encode_payload, payload_encoder
from pratipad_nb.wording import printable

__all__ = ["Shown", "as_text", "pack", "sealed", "unpack", "unsealed"]

_SHOWN_CHARACTERS = 1000

_encode = payload_encoder.encode


class Shown(str):
    """The text in the place of a value that is not JSON-like."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def pack(payload: Any) -> bytes | Shown:
    """Return `payload` encoded, or its text if it is not JSON-like."""
    try:
        return encode_payload(payload)
    except PayloadError:
        return as_text(payload)


def sealed(payload: Any) -> Any:
    """Return `payload` encoded, as a frame takes it up, or a copy of it if it is not JSON-like.

    For each result of a line: nothing happens here but the encoding.
    """
    try:
        return Raw(_encode(payload))
    except BaseException:  # noqa: BLE001 - Output refuses the payload, and says why
        return copied(payload)


def unsealed(payload: Any) -> Any:
    """Return the payload that `sealed` was given, or its copy."""
    return msgspec.msgpack.decode(payload) if type(payload) is Raw else payload


def as_text(payload: Any) -> Shown:
    """Return the beginning of a payload's `repr`, also if the `repr` raises."""
    try:
        payload = unsealed(payload)
        return Shown(printable(f"{payload!r:.{_SHOWN_CHARACTERS}}", lines=True))
    except Exception as error:  # noqa: BLE001 - a user's __repr__
        return Shown(f"<{type(payload).__name__}, whose repr raised {type(error).__name__}>")


def unpack(packed: bytes | Shown) -> Any:
    """Return the payload that `pack` was given, or the payload's text."""
    return packed if isinstance(packed, Shown) else msgspec.msgpack.decode(packed)
