"""The uplink: results go on from the edge's own store to that of the cloud's server, which this one is a leaf of.

Owns store-and-forward. It is a named reader of the edge's output (`UPLINK`), so that nothing is deleted there before it
is stored beyond; it appends every frame there as it is, and keeps that log within its bounds as the edge's own janitor
does here. Orders and requests need no keeping: they pass the link, or the sender hears that they can't.

Nothing is lost, doubled or reordered over cuts and crashes, for three reasons. A frame is acknowledged here once it is
stored there. It is appended on condition that the one before it is the newest there. And after every cut the newest there
is looked up here, which is where to go on; the reader's own position may lag behind that, since a server that is killed
forgets the latest acknowledgements.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Sequence

from pratipad_nb.backoff import Backoff
from pratipad_nb.errors import FrameError, LogFull, TransportClosed, TransportError, WaitTimeout
from pratipad_nb.runtime.positions.janitor import UPLINK, Janitor, forget_reader
from pratipad_nb.settings import FlowOptions, Keep
from pratipad_nb.transport.codec import decode
from pratipad_nb.transport.frames import OutputHeader
from pratipad_nb.transport.protocol import Connection, Consumer, ConsumerSpec, Delivery, Log, LogSpec
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Forwarder"]

log = logging.getLogger(__name__)

#: Most frames that are on their way. Over a link with a round trip of 100 ms these are 640 frames/s.
_WINDOW = 64
#: A frame that comes out of turn waits so long for those before it, in seconds.
_PATIENCE = 5.0
#: Pauses between attempts, in seconds: a cut link is tried at once when it stands again.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_SWEEP = 1.0
_MARKS_BYTES = 64 << 20


class Forwarder:
    """The way of one flow's results to the cloud.

    Parameters
    ----------
    connection
        The edge's; it is not closed here.
    flow
        Name of the flow.
    keep, options
        As the flow's own: how much is kept at the cloud, and for whom.
    active
        Whether it is this process's turn: of several edges of a flow, one forwards.
    """

    def __init__(
        self,
        connection: Connection,
        flow: str,
        keep: Keep,
        options: FlowOptions,
        active: Callable[[], bool] = lambda: True,
    ) -> None:
        self._connection = connection
        self._subjects = Subjects(flow)
        self._keep = keep
        self._options = options
        self._active = active
        self._last = 0
        self.error = ""
        self.janitor: Janitor | None = None

    async def run(self) -> None:
        """Forward, whenever the link stands, until cancelled or the connection is closed."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            before = self._last
            try:
                await self._forward()
            except TransportClosed:
                return
            except (TransportError, WaitTimeout) as error:
                if not self.error:
                    log.info("the uplink of %s waits: %s", self._subjects.flow, error)
                self.error = str(error)
            except Exception as error:
                # Results wait here meanwhile, so trying again is better than giving up unseen.
                log.exception("the uplink of %s failed, and begins anew", self._subjects.flow)
                self.error = f"{type(error).__name__}: {error}"
            if self._last != before:
                backoff.reset()
            await asyncio.sleep(backoff.next())

    async def _forward(self) -> None:
        if not self._active():
            return
        output = await self._connection.find_log(self._subjects.output_stream)
        if output is None:
            return
        # First of all the position here: from now on nothing goes that isn't there.
        consumer = await output.consumer(ConsumerSpec(UPLINK, "all", max_pending=_WINDOW))
        try:
            beyond = await self._opened()
            await consumer.rewind()
            position = await self._position(output, beyond)
            self.error = ""
            async with asyncio.TaskGroup() as group:
                sweeps = group.create_task(self._sweep(beyond))
                await self._pump(consumer, position)
                sweeps.cancel()
        except BaseExceptionGroup as errors:
            # Not `except*`: before Python 3.11.4, what is raised inside one comes out wrapped in a group.
            if errors.split((TransportError, WaitTimeout))[1] is not None:
                raise
            raise _first(errors) from None
        finally:
            with contextlib.suppress(TransportError, WaitTimeout):
                await consumer.close()

    async def _opened(self) -> Log:
        """Make the flow's logs at the cloud's server, or find them."""
        subjects, logs = self._subjects, self._connection.beyond()
        takes = subjects.cloud_streams
        await logs.open_log(
            LogSpec(subjects.mark_stream, takes[subjects.mark_stream], _MARKS_BYTES, "latest")
        )
        return await logs.open_log(
            LogSpec(
                subjects.output_stream,
                takes[subjects.output_stream],
                self._keep.bytes,
                "log",
                stored_as=subjects.out(0),
            )
        )

    async def _position(self, output: Log, beyond: Log) -> int:
        """Return the sequence, here, of the frame that follows the newest one at the cloud."""
        newest = await beyond.latest(self._subjects.out(0))
        self._last = newest.sequence if newest is not None else 0
        floor = next(each.floor for each in await output.consumers() if each.name == UPLINK)
        first = (await output.state()).first
        if newest is not None:
            writer, number = _name(newest.data)
            async for record in output.read(max(floor, first)):
                name = _name(record.data)
                if name == (writer, number):
                    return record.sequence + 1
                if name[0] == writer and name[1] > number:
                    break
        return max(floor + 1, first)

    async def _pump(self, consumer: Consumer, position: int) -> None:
        """Send frames from `position` on, in their order: those that come again may come in any."""
        waiting: dict[int, Delivery] = {}
        while self._active():
            try:
                async with asyncio.timeout(_PATIENCE if waiting else None):
                    deliveries = await consumer.get()
            except TimeoutError as error:
                raise WaitTimeout(
                    f"frame {position} of the output has not come in {_PATIENCE:g} s"
                ) from error
            waiting.update((each.sequence, each) for each in deliveries if each.sequence >= position)
            turn: list[Delivery] = []
            while position in waiting:
                turn.append(waiting.pop(position))
                position += 1
            if turn:
                await self._send(turn)
                consumer.acknowledge(turn[-1])
            elif not waiting:
                consumer.acknowledge(max(deliveries, key=lambda each: each.sequence))

    async def _send(self, deliveries: Sequence[Delivery]) -> None:
        """Append frames, all on their way at once; if one fails, so do those after it, and all come again."""
        appends = [
            self._connection.append(self._subjects.sent, delivery.data, expect=self._last + ahead)
            for ahead, delivery in enumerate(deliveries)
        ]
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
            self._last = outcome

    async def _sweep(self, beyond: Log) -> None:
        self.janitor = Janitor(beyond, _everything, self._keep, self._options)
        while True:
            with contextlib.suppress(TransportError, WaitTimeout):
                await self.janitor.sweep()
            await asyncio.sleep(_SWEEP)

    # -- what the flow's handle asks ----------------------------------------------------------------------------

    async def forget_reader(self, name: str) -> None:
        """Delete a reader's consumer and position at the cloud."""
        await forget_reader(self._connection.beyond(), self._subjects, name)

    async def forget(self) -> None:
        """Delete the flow's logs at the cloud."""
        for name in self._subjects.cloud_streams:
            await self._connection.beyond().delete_log(name)


async def _everything() -> int:
    return sys.maxsize


def _name(frame: bytes) -> tuple[str, int]:
    """Return what tells a frame from all others: who wrote it, and its number there."""
    try:
        header = decode(frame, OutputHeader)
    except FrameError:
        return ("", hash(frame))
    return header.writer, header.number


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    for error in errors.exceptions:
        # A full log says most; the others follow from it.
        if isinstance(error, LogFull):
            return error
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
