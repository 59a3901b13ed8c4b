"""`reply`: how a processor answers the device that a message came from.

Owns where the replies of a call in progress collect, and that a reply which can't be sent is refused at once.
Sending replies, and knowing which replies can be sent, is for `pratipad_nb.runtime`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pratipad_nb.errors import ProcessorError
from pratipad_nb.message import Message
from pratipad_nb.processors.copying import copied

__all__ = ["collecting", "preparing", "reply"]


class _Replies:
    """The replies of one call, until it is over."""

    __slots__ = ("found", "over")

    def __init__(self) -> None:
        self.found: list[tuple[Any, Message]] = []
        self.over = False


_running: ContextVar[_Replies | None] = ContextVar("pratipad_replies", default=None)
_prepare: ContextVar[Callable[[Any], Any] | None] = ContextVar("pratipad_replies_prepare", default=None)


def reply(payload: Any, to: Message) -> None:
    """Send `payload` to the device that the message `to` came from. Works in any form of `process`.

    `payload` is sent as it is now: changing it afterwards changes nothing.

    The reply is sent when the call of `process` has finished. Delivery is at least once: a message that is
    processed again, after a failure or a crash, is answered again.

    Raises
    ------
    ProcessorError
        If no `process` is running here, or `to` is no `Message`.
    OneWayError
        If a hop between this processor and the devices is ``~>``.
    PayloadError
        If `payload` is not JSON-like, or larger than an order may be.

    Examples
    --------
    >>> class Alarm:
    ...     def process(self, reading, message):
    ...         if reading["co2"] > 800:
    ...             reply({"led": "blink"}, to=message)
    ...         return reading
    """
    replies = _running.get()
    if replies is None or replies.over:
        raise ProcessorError(
            "reply() was called where no processor is running. Call it in `process` or `process_batch`, not "
            "in a thread or task that outlives them; from a notebook, send an order with "
            "flow.send(payload, to=device)."
        )
    if not isinstance(to, Message):
        raise ProcessorError(
            f"reply(): `to` is {to!r}; it must be the message to answer. Give `process` a second parameter "
            "named `message` and pass that."
        )
    prepare = _prepare.get()
    replies.found.append(((prepare or copied)(payload), to))


@contextmanager
def collecting() -> Iterator[list[tuple[Any, Message]]]:
    """Let `reply` work inside the block, and give the list that `reply` fills."""
    replies, before = _Replies(), _running.get()
    _running.set(replies)
    try:
        yield replies.found
    finally:
        replies.over = True
        # Not `reset`: a coroutine that is closed early ends in another context, where `reset` raises.
        _running.set(before)


@contextmanager
def preparing(prepare: Callable[[Any], Any]) -> Iterator[None]:
    """Let `prepare` turn each reply's payload inside the block into the payload to send, or raise."""
    before = _prepare.get()
    _prepare.set(prepare)
    try:
        yield
    finally:
        _prepare.set(before)
