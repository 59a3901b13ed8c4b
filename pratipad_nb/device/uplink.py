"""The uplink: takes messages from the outbox and sends them, one frame in flight.

Owns framing by natural batching, and trying again when an append fails. While a frame is in flight, pushed
messages collect for the next frame: low rates keep low latency, high rates get long frames, and no message
can overtake another. How many messages may be sent is for `pratipad_nb.device.credit`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator

import msgspec

from pratipad_nb.backoff import Backoff
from pratipad_nb.device.credit import Credit
from pratipad_nb.device.outbox import MAX_FRAME_BYTES, Outbox, Parcel
from pratipad_nb.errors import (
    LogFull,
    NotInvited,
    PayloadError,
    TransportClosed,
    TransportError,
    Unavailable,
    WaitTimeout,
)
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import UplinkFrame
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Uplink", "largest_payload"]

log = logging.getLogger(__name__)

#: First and longest pause before an append is tried again, in seconds: the design's figures for a full log.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0
#: Fast delivery: least time between two frames of more than one message, in seconds. A server answers a flush
#: sooner than an append, so without this pause frames would be so short that fast delivery was slower than
#: durable delivery. At 200,000 messages a second, 2 ms make frames of 400. A message that comes alone is
#: never held back.
_FAST_PERIOD = 0.002


def largest_payload(frame_bytes: int) -> int:
    """Return the largest payload that fits into a frame of `frame_bytes`, if LZ4 can't make it smaller.

    LZ4 lengthens data that it can't compress by 1/255 and 16 bytes; the other fields take under 1 KiB.
    """
    return max(1024, frame_bytes - frame_bytes // 255 - 2048)


class Uplink:
    """Sends the messages in `outbox` as far as `credit` goes.

    Parameters
    ----------
    starved
        Called when the credit is used up, whether more messages are held or not.
    turned
        Called when the messages that follow are of another epoch, for which the edge has to grant credit.

    Attributes
    ----------
    former
        The epoch before, all of whose messages are sent, and how many there were; (0, 0): there was none.
    """

    def __init__(
        self,
        flow: str,
        device: str,
        outbox: Outbox,
        credit: Credit,
        starved: Callable[[], None],
        turned: Callable[[], None],
    ) -> None:
        self._flow = flow
        self._device = device
        self._outbox = outbox
        self._credit = credit
        self._starved = starved
        self._turned = turned
        self.former = (0, 0)
        self._subject = Subjects(flow).up(device)
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Let `run` look for messages and credit again; on its event loop."""
        self._wake.set()

    async def run(self, link: Connection) -> None:
        """Send for ever.

        Raises
        ------
        NotInvited, PayloadError, TransportClosed
            If trying again won't help.
        """
        while True:
            self._wake.clear()
            sent = self._outbox.sent_of_epoch
            parcel = self._outbox.take(self._allowed(), min(MAX_FRAME_BYTES, self._outbox.max_payload))
            if parcel is None:
                if self._outbox.epoch != self._credit.epoch:
                    self.former = self._credit.epoch, sent
                    self._credit.begin(self._outbox.epoch)
                    self._turned()
                    continue
                if self._allowed() == 0:
                    self._starved()
                await self._wake.wait()
                continue
            fast, began = self._credit.fast, time.monotonic()
            for frame in self._frames(parcel):
                await (self._hand_over(link, frame) if fast else self._store(link, frame))
            self._outbox.confirm(parcel)
            if fast and len(parcel.payloads) > 1:
                await asyncio.sleep(began + _FAST_PERIOD - time.monotonic())

    def _allowed(self) -> int | None:
        return self._credit.may_send(self._outbox.sent_of_epoch)

    def _frames(self, parcel: Parcel) -> Iterator[bytes]:
        """Yield the frame of `parcel`, in parts if its messages together take too much memory at an edge."""
        try:
            frame = self._frame(parcel)
        except PayloadError:
            if len(parcel.payloads) == 1:
                raise
            for part in parcel.halves():
                yield from self._frames(part)
        else:
            yield frame

    def _frame(self, parcel: Parcel) -> bytes:
        payloads = list(map(msgspec.Raw, parcel.payloads))
        return encode(
            UplinkFrame(
                self._flow,
                self._device,
                self._credit.epoch,
                parcel.first - self._outbox.base,
                parcel.times,
                payloads,
                parcel.sources,
            )
        )

    async def _hand_over(self, link: Connection, frame: bytes) -> None:
        """Send at most once; the server's answer to a flush sets the pace."""
        while not link.connected:  # noqa: ASYNC110 - the contract has no event for it
            await asyncio.sleep(0.05)
        await link.publish(self._subject, frame)
        try:
            await link.flush()
        except WaitTimeout:
            log.debug("device %s: a frame was handed over and the link went down", self._device)

    async def _store(self, link: Connection, frame: bytes) -> None:
        """Append `frame` until it is safe. Its numbers stay the same, so the edge recognises repeats.

        The append has no message id. All devices of a flow share one space of ids, so a device that names the
        next id of another device would have the other device's frame acknowledged and dropped.
        """
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        told = False
        while True:
            try:
                await link.append(self._subject, frame)
            except LogFull:
                log.debug("device %s: the flow's input is full, waiting", self._device)
            except (NotInvited, TransportClosed, PayloadError):
                raise
            except (Unavailable, TransportError) as error:
                if not told:
                    log.warning("device %s goes on trying: %s", self._device, error)
                    told = True
            except WaitTimeout as error:
                log.debug("device %s: %s; trying again", self._device, error)
            else:
                return
            await asyncio.sleep(backoff.next())
