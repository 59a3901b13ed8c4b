"""Renewing over the wire: answers to devices that ask for a new certificate over their own connection.

Owns taking the requests of one flow, one after the other. Which device asks, the server says: a device may
publish under its own subject alone. Signing, and letting the new certificate in, is for who holds the
authority: `pratipad_nb.session.access`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from pratipad_nb.errors import FrameError, PratipadError
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import RenewedFrame, RenewFrame
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.protocol import Connection, Signal
from pratipad_nb.transport.subjects import OTHER_ACCOUNT, Subjects

__all__ = ["Renewer"]

log = logging.getLogger(__name__)

#: Requests that may wait; a further request is dropped, and its device asks again.
_WAITING = 64


class Renewer:
    """Answers the requests of a flow's devices.

    Parameters
    ----------
    connection
        The edge's connection.
    flow
        The flow's name.
    sign
        Returns the answer to the request of a device of that name.
    active
        Whether this process is the one that answers.
    """

    def __init__(
        self,
        connection: Connection,
        flow: str,
        sign: Callable[[str, bytes], Awaitable[RenewedFrame]],
        active: Callable[[], bool],
    ) -> None:
        self._connection = connection
        self._subjects = Subjects(flow)
        self._sign = sign
        self._active = active
        self._work: asyncio.Queue[Signal] = asyncio.Queue(_WAITING)

    async def run(self) -> NoReturn:
        """Answer requests until cancelled."""
        subscription = await self._connection.subscribe(self._subjects.renew_all, self._on_signal)
        try:
            while True:
                await self._answer(await self._work.get())
        finally:
            await subscription.close()

    def _on_signal(self, signal: Signal) -> None:
        if signal.reply and self._active():
            try:
                self._work.put_nowait(signal)
            except asyncio.QueueFull:
                log.warning("too many devices ask for a certificate at once; a request was dropped")

    async def _answer(self, signal: Signal) -> None:
        try:
            device = self._subjects.device_of(signal.subject)
            inbox = Party(self._subjects.flow, "device", device).inbox
            if not signal.reply.startswith((f"{inbox}.", OTHER_ACCOUNT)):
                raise FrameError(f"the answer was to go to {signal.reply!r}, no inbox of the device")
            request = decode(signal.data, RenewFrame).request
        except FrameError as error:
            log.info("a malformed request for a certificate: %s", error)
            return
        try:
            answer = await self._sign(device, request)
            log.info("the device %r got a new certificate over its connection", device)
        except PratipadError as error:
            answer = RenewedFrame(b"", error=str(error))
        try:
            await self._connection.publish(signal.reply, encode(answer))
        except PratipadError as error:
            log.info("the device %r was not sent its new certificate: %s", device, error)
