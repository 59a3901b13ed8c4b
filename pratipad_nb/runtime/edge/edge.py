"""The edge: one run of a dataflow, or of one partition of it: open, run, drain, close.

Owns the life of a run and its tasks. Which parts a run consists of is in `parts`; which partitions a process
runs is for `partitioned`. An edge is given a connection, and knows neither NATS nor how the server was
started.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from pratipad_nb.backoff import Backoff
from pratipad_nb.bugs import reasons
from pratipad_nb.dataflow import Dataflow
from pratipad_nb.errors import TransportError, WaitTimeout
from pratipad_nb.runtime.devices.pull import PullRequest
from pratipad_nb.runtime.edge.agreement import Agreement, alone
from pratipad_nb.runtime.edge.answers import Answers
from pratipad_nb.runtime.edge.changes import Change
from pratipad_nb.runtime.edge.control import Control
from pratipad_nb.runtime.edge.parts import Parts, open_parts
from pratipad_nb.runtime.edge.replaying import Entry, replay
from pratipad_nb.runtime.edge.report import Reporter
from pratipad_nb.runtime.edge.swap import SwapReceipt
from pratipad_nb.runtime.positions.dead_letters import DeadLetter
from pratipad_nb.runtime.positions.gatekeeper import Tap
from pratipad_nb.runtime.positions.lineage import WentBack
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.runtime.values.stats import EdgeStats, FlowState, FlowStats
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.transport.readers import forget_reader

__all__ = ["Edge"]

log = logging.getLogger(__name__)

#: Seconds between two ticks of credit and requests, two samples of counts, and two of devices' counts.
_TICK, _SAMPLE, _DEVICE_SAMPLE = 0.05, 0.2, 1.0
#: First and longest pause before a run whose logs went back is opened again, if the server is away.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class Edge:
    """One run of a dataflow at the edge; made by `open`. Fulfils `Running`.

    Attributes
    ----------
    parts
        The parts of the run.
    """

    def __init__(
        self,
        parts: Parts,
        undo: contextlib.AsyncExitStack,
        agreement: Agreement | None,
        whole: Callable[[], Awaitable[FlowStats]] | None,
    ) -> None:
        #: The settings of the present: with the rate and the bounds that were set last.
        self._settings = parts.settings
        self._whole = whole
        self._draining = False
        self._consist_of(parts, undo, agreement)

    def _consist_of(self, parts: Parts, undo: contextlib.AsyncExitStack, agreement: Agreement | None) -> None:
        self.parts = parts
        self._undo = undo
        self._agreement = agreement
        self._reporter = Reporter(parts)
        control = Control(
            parts.connection,
            parts.settings,
            lambda: parts.shape.line,
            parts.requests,
            self._whole or self.all_edges,
        )
        self._answers = Answers(
            parts.connection,
            parts.subjects,
            control.verbs | {"who": self._who},
            control.of_readers,
            control.of_guests,
        )

    # -- life ------------------------------------------------------------------------------------------------

    @classmethod
    async def open(
        cls,
        connection: Connection,
        dataflow: Dataflow,
        settings: EdgeSettings,
        *,
        whole: Callable[[], Awaitable[FlowStats]] | None = None,
    ) -> Edge:
        """Open a run of `dataflow`. If the run can't be opened, nothing of it is left.

        Parameters
        ----------
        connection
            The edge's own connection. The caller closes it, and ends the run with the exception that
            `Connection.failure` raises.
        settings
            How the dataflow runs. Of a flow in several partitions, whoever runs them has agreed with the
            other edges.
        whole
            Returns the counters of all edges of the flow; None: those of this run.

        Raises
        ------
        FlowError
            If the flow runs elsewhere, ran with the other delivery and still has messages, or ran in several
            partitions.
        ProcessorError
            If a processor can't be set up. Nothing was started then.
        """
        undo = contextlib.AsyncExitStack()
        agreement = None
        try:
            if not settings.partitioned:
                agreement = await alone(connection, settings, dataflow.input)
            edge = cls(await open_parts(connection, dataflow, settings, undo), undo, agreement, whole)
            await edge._listen()
        except BaseException:
            await undo.aclose()
            raise
        return edge

    async def _listen(self) -> None:
        parts = self.parts
        callbacks = {parts.subjects.hello_all: parts.hellos.on_signal}
        if parts.settings.partition == 0:  # one partition's run answers requests to the flow
            callbacks[parts.subjects.control_all] = self._answers.on_signal
        if self._agreement is not None:
            callbacks[parts.subjects.edges] = self._answers.on_signal
        for subject, callback in callbacks.items():
            subscription = await parts.connection.subscribe(subject, callback)
            self._undo.push_async_callback(_unsubscribed, subscription.close)

    async def run(self) -> None:
        """Run until drained, then make the last checkpoint.

        If a log went back, the run begins anew, from the logs as they are then.

        Raises
        ------
        Fenced
            If another edge has taken the flow over.
        PratipadError
            If another error ended the run.
        """
        paused: Sequence[str | None] = ()
        while True:
            try:
                await self._run(paused)
            except Exception as error:
                difference = await self._difference(error)
                if not difference:
                    raise
            else:
                return
            paused = await self._begin_anew(difference)

    async def _difference(self, error: Exception) -> str:
        """Return how a log went back, in words, if that is why the run ended with `error`; else ""."""
        errors = error if isinstance(error, ExceptionGroup) else ExceptionGroup("", [error])
        if (found := errors.split(WentBack)[0]) is not None:
            return str(reasons(found)[0])
        if errors.split(TransportError)[0] is None:
            return ""
        try:
            return await self.parts.lineage.difference()
        except TransportError:  # the run's own error says more
            return ""

    async def _begin_anew(self, difference: str) -> Sequence[str | None]:
        """Open all parts anew: everything in memory is ahead of logs that went back.

        Counts begin at 0. Taps, and the rate and bounds that were set, stay. Return the processors to pause,
        or None to pause the run, for `_run`.
        """
        before = self.parts
        log.warning(
            "flow %r begins anew from its logs, which went back, as after a restored backup or a power cut: "
            "%s. Messages that came in and results that were stored since are lost, unless they come again.",
            before.settings.name,
            difference,
        )
        dataflow = before.shape.line.dataflow
        before.requests.end("the server's logs went back")
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            with contextlib.suppress(TransportError, WaitTimeout):
                await self._undo.aclose()
            try:
                await self._open_anew(dataflow)
                break
            except WaitTimeout as error:
                log.info("flow %r can't be opened anew now: %s", before.settings.name, error)
            await asyncio.sleep(backoff.next())
        # All these may have been changed while the parts were being opened.
        self.parts.gate.taps = before.gate.taps
        self.parts.limit.set(self._settings.rate)
        self.parts.ledger.demand(self._settings.max_demand, self._settings.min_demand)
        paused = [None] if before.status.state == "paused" else before.shape.line.paused
        before.status.state = "stopped"  # for callers that wait for the run that was given up
        return paused

    async def _open_anew(self, dataflow: Dataflow) -> None:
        connection, agreement = self.parts.connection, None
        if self._agreement is not None:
            agreement = await alone(connection, self._settings, dataflow.input)
        async with contextlib.AsyncExitStack() as undo:
            parts = await open_parts(connection, dataflow, self._settings, undo)
            self._consist_of(parts, undo.pop_all(), agreement)
        await self._listen()

    async def _run(self, paused: Sequence[str | None]) -> None:
        """Run the present parts; the processors `paused`, or with None the whole run, are paused at first."""
        parts = self.parts
        parts.status.state = "running"
        parts.shape.line.set_state("running")
        for key in paused:
            self.pause(key)
        if self._draining:
            parts.controls.drain()
        parts.announcer.announce()
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(each, name=f"{parts.settings.name}: {name}")
                for name, each in (
                    ("timers", parts.timers.run()),
                    ("signals", parts.signals.run()),
                    ("ticks", _every(_TICK, self._tick)),
                    ("samples", _every(_SAMPLE, self._reporter.sample)),
                    ("device samples", _every(_DEVICE_SAMPLE, self._reporter.sample_devices)),
                    ("sweeps", parts.upkeep.sweep()),
                    ("looks", parts.upkeep.looks()),
                    ("storage", parts.storage.run()),
                    ("checkpoints", parts.upkeep.checkpoints()),
                    ("purges", parts.upkeep.purges()),
                    ("rebuilt dead letters", parts.retries.rebuild()),
                    ("malformed", parts.malformed.run()),
                    ("presence", parts.presence.watch()),
                    ("hellos", parts.hellos.run()),
                    ("backward", parts.backward.run()),
                    ("lineage", parts.lineage.run()),
                    ("answers", self._answers.run()),
                )
            ]
            await parts.shape.pipeline.run()
            while await parts.changes.carried_out():
                await parts.shape.pipeline.run()
            for helper in helpers:
                helper.cancel()
        await parts.upkeep.last_checkpoint(parts.shape.line)

    def _tick(self) -> None:
        self.parts.ledger.tick()
        self.parts.requests.settle()

    def fail(self, error: str) -> None:
        """Note why the run has ended before it was drained, or why it could not be closed."""
        status = self.parts.status
        status.error = status.error or error
        if status.state == "stopped":
            status.state = "failed"

    def drain(self) -> None:
        """Refuse new messages; `run` returns once all messages in flight are safe."""
        self._draining = True
        self.parts.controls.drain()

    async def close(self) -> None:
        """Close subscriptions and logs, and tear processors down; nothing of the run is left."""
        status = self.parts.status
        try:
            await self._undo.aclose()
        finally:
            status.state = "failed" if status.error else "stopped"
            self.parts.shape.line.set_state(status.state)

    # -- state and counters ----------------------------------------------------------------------------------

    @property
    def state(self) -> FlowState:
        """Where the run is in its life."""
        return self.parts.status.state

    @property
    def line(self) -> Line:
        """The current line of processors."""
        return self.parts.shape.line

    @property
    def lines(self) -> list[Line]:
        """The current line alone: an edge runs one partition."""
        return [self.line]

    @property
    def partitions(self) -> frozenset[int]:
        """The partition that runs here."""
        return frozenset({self.parts.settings.partition})

    def snapshot(self) -> FlowStats:
        """Return the counters as they stand."""
        return self._reporter.snapshot()

    async def all_edges(self) -> FlowStats:
        """Return the counters as they stand, with this run as the flow's only edge."""
        stats = self.snapshot()
        if self._agreement is None:
            return stats
        return dataclasses.replace(
            stats, edges=(EdgeStats.of(self._agreement.origin, self.partitions, stats),)
        )

    async def _who(self) -> dict[str, Any]:
        return self._agreement.answer(self.line.dataflow.notation) if self._agreement is not None else {}

    def owns(self, device: str) -> bool:
        """Return whether `device`, or the gateway that `device` is behind, belongs to this partition."""
        return self.parts.settings.owns(device)

    # -- requests of handles ---------------------------------------------------------------------------------

    @property
    def revocable(self) -> bool:
        """Whether a change that is being made can be given up; see `Changes.revocable`."""
        return self.parts.changes.revocable

    async def swap(self, dataflow: Dataflow) -> SwapReceipt | None:
        """Change the run to `dataflow`; see `Changes.swap`."""
        return await self.parts.changes.swap(dataflow)

    def prepared(self, dataflow: Dataflow) -> contextlib.AbstractAsyncContextManager[Change | None]:
        """Set up the processors of a change; see `Changes.prepared`."""
        return self.parts.changes.prepared(dataflow)

    async def carry_out(self, change: Change) -> SwapReceipt:
        """Carry a prepared change out; see `Changes.carry_out`."""
        return await self.parts.changes.carry_out(change)

    def pause(self, processor: str | None = None) -> None:
        """Let the run, or one processor, begin no further call."""
        self.parts.controls.pause(processor)

    def resume(self, processor: str | None = None) -> None:
        """Let the run, or one processor, go on."""
        self.parts.controls.resume(processor)

    def set_rate(self, allowed: float | None) -> None:
        """Change how many messages a second devices are asked for; None lifts the limit."""
        self._settings = dataclasses.replace(self._settings, rate=allowed)
        self.parts.limit.set(allowed)

    def demand(self, max_demand: int, min_demand: int) -> None:
        """Demand: change both bounds, at once."""
        self._settings = dataclasses.replace(self._settings, max_demand=max_demand, min_demand=min_demand)
        self.parts.ledger.demand(max_demand, min_demand)

    def pull(self, n: int, device: str | None = None) -> PullRequest:
        """Ask for `n` readings; see `Requests.pull`."""
        return self.parts.requests.pull(n, device)

    async def order(self, payload: Any, to: str | Sequence[str] | None = None) -> str:
        """Append an order; see `Backward.order`."""
        return await self.parts.backward.order(payload, to)

    async def settled(self, seconds: float) -> None:
        """Wait until all accepted messages are at Output; see `Settling.settled`."""
        await self.parts.settling.settled(seconds)

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the messages that processors failed on."""
        return await self.parts.dead_letters.list()

    async def retry_dead_letters(self) -> int:
        """Put dead letters through the flow again; see `Retries.retry`."""
        return await self.parts.retries.retry()

    async def clear_dead_letters(self) -> int:
        """Delete dead letters; return how many there were."""
        return await self.parts.dead_letters.clear()

    async def forget_reader(self, name: str) -> None:
        """Delete a reader's consumer and position."""
        await forget_reader(self.parts.connection, self.parts.settings.name, name)

    @contextlib.contextmanager
    def tapped(self, tap: Tap) -> Iterator[None]:
        """Call `tap` with every admitted frame while the context lasts."""
        self.parts.gate.taps.append(tap)
        try:
            yield
        finally:
            self.parts.gate.taps.remove(tap)

    async def replay(
        self, entries: Callable[[], Iterator[Entry]], speed: float | None, *, first: float | None = None
    ) -> int:
        """Put recorded inputs through the flow; see `replaying.replay`."""
        return await replay(self.parts.controls, self.parts.settings, entries(), speed, first=first)


async def _every(seconds: float, do: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        do()


async def _unsubscribed(close: Callable[[], Any]) -> None:
    with contextlib.suppress(TransportError):
        await close()
