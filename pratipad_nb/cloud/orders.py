"""Orders from the cloud to devices: making an order, and storing it at the server.

Owns the devices that an order may name, and that an order whose answer is lost is sent again and stored once.
Whether the notation lets orders pass is asked before, by `client`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable
from typing import Any

from pratipad_nb.backoff import Backoff
from pratipad_nb.errors import SettingsError, WaitTimeout
from pratipad_nb.settings import valid_address
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import Order, OrderFrame
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.transport.subjects import Subjects

__all__ = ["encoded", "made_order", "store"]

#: Storing an order is tried for this long, in seconds.
_SEND = 10.0
#: First and longest pause before an order whose answer didn't come is sent again, in seconds: well within the
#: time for which the server knows a repeat.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0


def made_order(reader: str, payload: Any, to: str | Iterable[str] | None) -> Order:
    """Return an order with a new id; raise `SettingsError` if `to` names something that can be no device."""
    return Order(f"{reader}-{secrets.token_hex(8)}", payload, _devices(to))


def encoded(order: Order) -> bytes:
    """Return `order` as a frame's bytes; raise `PayloadError` if its payload can't be encoded."""
    return encode(OrderFrame(time.time(), [order]))


async def store(connection: Connection, flow: str, reader: str, data: bytes, order_id: str) -> None:
    """Store an encoded order of `reader`.

    Raises
    ------
    WaitTimeout
        If the server doesn't answer.
    LogFull
        If too many orders wait for devices that are away.
    """
    end = time.monotonic() + _SEND
    backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
    while True:
        try:
            await connection.append(Subjects(flow).order(reader), data, message_id=order_id)
        except WaitTimeout:  # the order may be stored; a repeat of its id soon after is stored once
            if time.monotonic() >= end:
                raise
            await asyncio.sleep(backoff.next())
        else:
            return


def _devices(to: str | Iterable[str] | None) -> list[str] | None:
    if to is None:
        return None
    names = [to] if isinstance(to, str) else list(to)
    if not names:
        raise SettingsError("send: to is empty; name one device or more, or leave it out to mean all.")
    return [valid_address(name) for name in names]
