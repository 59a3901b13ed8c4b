"""Forwarding: results go on from the edge's own output log to the log of the cloud's server.

Owns store-and-forward between an edge's server and the cloud's server, which the edge's server is a leaf of.
The forwarder is a named reader of the edge's output (`UPLINK`), so no frame is deleted at the edge before the
cloud has stored it. The forwarder appends every frame unchanged to the cloud's log, and keeps the cloud's log
within its bounds with a janitor of its own. Orders and requests are not stored: they pass the link, or their
sender is told that they can't.

No frame is lost, doubled or reordered over cuts and crashes, for three reasons. A frame is acknowledged at
the edge once it is stored at the cloud. A frame is appended on condition that the frame before it is the
newest at the cloud. And after every cut the cloud's newest frame is looked up in the edge's log: the frame
behind it is the next to forward. The reader's own position may lag behind that frame, since a server that is
killed forgets the latest acknowledgements.

The same look-up finds the place after either server came up with an older store. If the cloud's log went
back, the edge's log has the frames behind the cloud's newest frame, as far as it keeps them, and they are
sent again. If the edge's log went back, the cloud has the frames of the edge's log up to the last frame by
the writer of the cloud's newest frame. So every reconnect of the edge begins anew with this look-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial

from pratipad_nb.backoff import Backoff
from pratipad_nb.errors import LogFull, TransportClosed, TransportError, WaitTimeout
from pratipad_nb.runtime.positions.frame_names import last_name, name_of
from pratipad_nb.runtime.positions.janitor import UPLINK, Janitor
from pratipad_nb.settings import FlowOptions, Keep
from pratipad_nb.transport.protocol import Connection, Consumer, ConsumerSpec, Delivery, Log, LogSpec
from pratipad_nb.transport.readers import forget_reader, forget_readers, has_read, prepare_known_readers
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Forwarder"]

log = logging.getLogger(__name__)

#: Most frames in flight. Over a link with a round trip of 100 ms, 64 frames in flight are 640 frames/s.
_WINDOW = 64
#: A frame that arrives out of order waits so long for the frames before it, in seconds.
_PATIENCE = 5.0
#: First and longest pause between attempts, in seconds; short, so that forwarding goes on soon after the link
#: is back.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_SWEEP = 1.0
_READER = ConsumerSpec(UPLINK, "all", max_pending=_WINDOW)


class Forwarder:
    """Forwards the results of one flow to the cloud.

    Parameters
    ----------
    connection
        The edge's connection. The forwarder doesn't close it.
    flow
        Name of the flow.
    keep, options
        The flow's own settings: how much of the results the cloud keeps, and for which readers.
    active
        Returns whether this process forwards: of several edges of a flow, a single edge does.
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
        """Forward whenever the link is up, until cancelled or until the connection is closed."""
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
                # Results wait in the edge's log meanwhile, so trying again is better than giving up unseen.
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
        reconnected = asyncio.Event()
        forget_callback = self._connection.on_reconnect(reconnected.set)
        # The reader comes first: from now on no frame is deleted at the edge that isn't stored at the cloud.
        await output.prepare_consumer(_READER)
        consumer = await output.consumer(_READER)
        try:
            beyond = await self._open_logs()
            floor = (await consumer.state()).floor
            position = await self._position(output, beyond, floor)
            await consumer.reset(position)
            self.error = ""
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(self._sweep(beyond)),
                    group.create_task(_end_at(reconnected)),
                ]
                await self._pump(consumer, position)
                for task in beside:
                    task.cancel()
        except BaseExceptionGroup as errors:
            # Not `except*`: before Python 3.11.4, an exception raised inside it comes out wrapped in a group.
            if errors.split((TransportError, WaitTimeout))[1] is not None:
                raise
            raise _first(errors) from None
        finally:
            forget_callback()
            with contextlib.suppress(TransportError, WaitTimeout):
                await consumer.close()

    async def _open_logs(self) -> Log:
        """Open the flow's logs at the cloud's server, making them if need be; return the output log.

        Readers at the cloud may have been let in there before the output was made.
        """
        subjects, logs = self._subjects, self._connection.beyond()
        takes = subjects.cloud_streams
        output = await logs.open_log(
            LogSpec(
                subjects.output_stream,
                takes[subjects.output_stream],
                self._keep.bytes,
                "log",
                stored_as=subjects.out(0),
            )
        )
        await prepare_known_readers(logs, subjects.flow)
        former = await logs.find_log(subjects.mark_stream)
        if former is not None and not (await former.state()).messages:
            # Up to version 0.1, it held the positions of readers at the cloud.
            await logs.delete_log(subjects.mark_stream)
        return output

    async def _position(self, output: Log, beyond: Log, floor: int) -> int:
        """Return the sequence, in the edge's log, of the frame behind the cloud's newest frame.

        Parameters
        ----------
        floor
            The sequence up to which the edge's log says that all frames were forwarded.
        """
        newest = await beyond.latest(self._subjects.out(0))
        self._last = newest.sequence if newest is not None else 0
        first = (await output.state()).first
        if newest is None:  # the cloud has none of the frames that the edge keeps
            return first
        name = await last_name(beyond, newest)
        if name != name_of(newest):
            log.warning(
                "entry %d of log %s of the cloud is no frame of results", self._last, beyond.spec.name
            )
        if name is None:
            return max(floor + 1, first)
        found = await _behind(output, max(floor, first), name)
        if found is None and floor > first:
            found = await _behind(output, first, name, until=floor)
            if found is not None and found <= floor:
                log.warning(
                    "log %s of the cloud went back, as after a restored backup: frames %d to %d of the "
                    "edge's log are sent again",
                    beyond.spec.name,
                    found,
                    floor,
                )
        return max(floor + 1, first) if found is None else found

    async def _pump(self, consumer: Consumer, position: int) -> None:
        """Send the frames from `position` on in order, although redelivered frames arrive in any order."""
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
            due: list[Delivery] = []
            while position in waiting:
                due.append(waiting.pop(position))
                position += 1
            if due:
                await self._send(due)
                consumer.acknowledge(due[-1])
            elif not waiting:
                consumer.acknowledge(max(deliveries, key=lambda each: each.sequence))

    async def _send(self, deliveries: Sequence[Delivery]) -> None:
        """Append frames, all in flight at once; if an append fails, so do later ones, and all come again."""
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
        claimed = partial(has_read, self._connection.beyond(), self._subjects.flow)
        self.janitor = Janitor(beyond, _everything, self._keep, self._options, claimed)
        while True:
            with contextlib.suppress(TransportError, WaitTimeout):
                await self.janitor.sweep()
            await asyncio.sleep(_SWEEP)

    # -- for the flow's handle ------------------------------------------------------------------------------

    async def forget_reader(self, name: str) -> None:
        """Delete a reader's consumer and position at the cloud."""
        await forget_reader(self._connection.beyond(), self._subjects.flow, name)

    async def forget(self) -> None:
        """Delete the flow's logs at the cloud."""
        beyond = self._connection.beyond()
        for name in self._subjects.cloud_streams:
            await beyond.delete_log(name)
        await forget_readers(beyond, self._subjects.flow)


async def _everything() -> int:
    return sys.maxsize


async def _end_at(reconnected: asyncio.Event) -> None:
    """Raise `WaitTimeout` once the link to the edge's server was down: its log may have gone back."""
    await reconnected.wait()
    raise WaitTimeout("the link to the edge's server was down; the logs are compared anew")


async def _behind(output: Log, start: int, newest: tuple[str, int], until: int = sys.maxsize) -> int | None:
    """Return the sequence behind the last frame from `start` to `until` that the cloud has.

    The cloud has the frames by the writer of its `newest` frame, up to that frame. None: there is none.
    """
    writer, number = newest
    found = None
    async for record in output.read(start):
        name = name_of(record)
        if record.sequence > until:
            break
        if name is None or name[0] != writer:
            continue
        if name[1] > number:
            break
        found = record.sequence + 1
        if name == newest:
            break
    return found


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    for error in errors.exceptions:
        # A full log is the cause; the other errors follow from it.
        if isinstance(error, LogFull):
            return error
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
