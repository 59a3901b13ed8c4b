"""The message: a reading or an order once it has arrived.

Owns the value that `take` returns, and that a processor's ``message`` parameter receives. How messages travel
(frames, numbers, positions) is for `pratipad_nb.transport.frames`.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Message"]


class Message(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One reading or order with its metadata; frozen.

    `Message` is a `msgspec.Struct` and not a dataclass, for `take` makes a hundred thousand messages a
    second, and a struct is made eight times faster.

    Attributes
    ----------
    payload
        The value that was measured, made or ordered: any JSON-like value.
    id
        The message's name, unique in the flow and stable over every retry: ``device-epoch-number``, with a
        further ``-part`` for each result after the first that a generator made of one message.
    device
        Name of the device that the message came from.
    time
        The device's clock when the payload was pushed, in seconds since 1970-01-01 UTC.
    received
        The server's clock when the message arrived at the server, in seconds since 1970-01-01 UTC.
    flow
        Name of the flow.
    """

    payload: Any
    id: str
    device: str
    time: float
    received: float
    flow: str
