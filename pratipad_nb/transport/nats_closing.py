"""The end of a NATS client: in bounded time, and with nothing left of it.

Owns the parts of closing that the client library leaves to chance when its link is down: the library's
`close` waits for ever for the end of a handshake that the library gave up itself, and keeps the tasks of
subscriptions if buffered frames can't be written. When to close is for `nats_link`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nats.aio.client import Client

__all__ = ["close_client", "give_up", "leave_to_parent"]

#: How long the library gets to close politely, in seconds: on a link that stands, where closing takes
#: milliseconds, and on a link that is down, where politeness reaches no server.
_POLITE_SECONDS, _DOWN_SECONDS = 2.0, 0.5
#: How long tasks get to end, and the pause until they are cancelled again, in seconds.
_CANCEL_SECONDS, _CANCEL_AGAIN = 1.0, 0.02


async def close_client(client: Client) -> None:
    """Close `client`; no task, and no socket, is left of it."""
    tasks = _tasks(client)
    stands = client.is_connected
    if not stands:
        _drop_pending(client)
    try:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_POLITE_SECONDS if stands else _DOWN_SECONDS):
                await client.close()
    finally:
        _abort(client)
        await _cancel(tasks)
        _let_go(client)


async def give_up(client: Client, connecting: asyncio.Future[None]) -> None:
    """Close `client`, whose first connect `connecting` failed or is awaited no longer."""
    connecting.cancel()
    await asyncio.wait({connecting}, timeout=_CANCEL_SECONDS)
    if connecting.done() and not connecting.cancelled():
        connecting.exception()  # marked as seen: the caller reports the failure, or was cancelled
    await close_client(client)


def leave_to_parent(client: Client) -> None:
    """Give up this forked child's copy of the socket: the connection ends with the parent alone.

    The descriptor stays taken, for objects of the parent's close it by its number. And the event loop is not
    told: it shares what it waits for with the parent's.
    """
    transport: Any = client._transport  # noqa: SLF001
    writer = getattr(transport, "_bare_io_writer", None)
    descriptor = -1 if writer is None else writer.get_extra_info("socket").fileno()
    if descriptor >= 0:
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)


def _tasks(client: Client) -> set[asyncio.Task[Any]]:
    own = (client._reading_task, client._ping_interval_task, client._flusher_task, client._reconnection_task)  # noqa: SLF001
    subscriptions = [each._wait_for_msgs_task for each in client._subs.values()]  # noqa: SLF001
    return {task for task in (*own, *subscriptions) if task is not None}


def _drop_pending(client: Client) -> None:
    """Drop buffered frames: the library would write them to a link that is down, and stop at the error."""
    client._pending = []  # noqa: SLF001
    client._pending_data_size = 0  # noqa: SLF001


def _abort(client: Client) -> None:
    """End the socket in any state of its TLS: a polite end waits for the other side."""
    transport: Any = client._transport  # noqa: SLF001
    for writer in (getattr(transport, "_io_writer", None), getattr(transport, "_bare_io_writer", None)):
        if writer is not None:
            writer.transport.abort()


def _let_go(client: Client) -> None:
    """Free the link's memory now: half a megabyte of TLS.

    Cycles in the library keep that memory until a garbage collection. Python may not collect garbage for
    minutes, in which devices that come and go would cost a process tens of megabytes.
    """
    transport: Any = client._transport  # noqa: SLF001
    for name in ("_io_reader", "_io_writer", "_bare_io_reader", "_bare_io_writer"):
        if hasattr(transport, name):
            setattr(transport, name, None)
    client.options["tls"] = None


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel `tasks` until they end.

    Once is not enough, for `asyncio.wait_for` of Python 3.11 loses a cancellation that comes with a result.
    """
    end = asyncio.get_running_loop().time() + _CANCEL_SECONDS
    left = {task for task in tasks if not task.done()}
    while left and asyncio.get_running_loop().time() < end:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN)
