"""A flow in partitions, which several edges run: the partitions of this process, each run by an `Edge`.

Owns taking partitions over, giving partitions up, and requests that concern all partitions here. Which edge
is to own which partition is for `membership`, and the counts are for `counts`; that two edges never write the
same partition is for `chain`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from pratipad_nb.dataflow import Dataflow
from pratipad_nb.errors import Fenced, FlowError, FrameError, PratipadError, TransportError, WaitTimeout
from pratipad_nb.runtime.devices.backward import append_order
from pratipad_nb.runtime.devices.pull import PullRequest
from pratipad_nb.runtime.edge.agreement import Agreement, who_runs
from pratipad_nb.runtime.edge.answers import Answers
from pratipad_nb.runtime.edge.edge import Edge
from pratipad_nb.runtime.edge.replaying import Entry
from pratipad_nb.runtime.edge.swap import SwapReceipt
from pratipad_nb.runtime.positions.dead_letters import DeadLetter
from pratipad_nb.runtime.positions.gatekeeper import Tap
from pratipad_nb.runtime.sharing.counts import Counts
from pratipad_nb.runtime.sharing.membership import HEARTBEAT_SECONDS, Membership
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.stages.moving import together
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.runtime.values.stats import FlowState, FlowStats
from pratipad_nb.tasks import first_of, gathered
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import HeartbeatFrame
from pratipad_nb.transport.origin import Origin
from pratipad_nb.transport.protocol import Connection, Signal, Subscription
from pratipad_nb.transport.subjects import Subjects

__all__ = ["PartitionedEdge"]

log = logging.getLogger(__name__)

#: How long a starting edge listens before it takes partitions, in seconds: other edges answer its heartbeat.
_LISTEN = 0.3
#: Pause before this edge tries to take a partition again that another edge was taking over, in seconds.
_AFTER_FENCED = 1.0


class PartitionedEdge:
    """The partitions of a flow that this process runs; made by `open`. Fulfils `Running`.

    Parameters
    ----------
    connection
        The connection of all partitions here; it is not closed here.
    dataflow
        The dataflow to run.
    settings
        How the dataflow runs; ``settings.partition`` doesn't matter.

    Raises
    ------
    FlowError
        If the flow's input is Pull.
    """

    def __init__(self, connection: Connection, dataflow: Dataflow, settings: EdgeSettings) -> None:
        if dataflow.input == "Pull":
            raise FlowError(
                "a Pull flow runs in one partition, since the cloud asks for so many readings in all. "
                "Leave out FlowOptions(partitions=…), or let devices Push or the edge Demand."
            )
        self.connection = connection
        self.dataflow = dataflow
        self.settings = settings
        self.state: FlowState = "starting"
        self.error = ""
        self.edges: dict[int, Edge] = {}
        self._subjects = Subjects(settings.name)
        self._started = time.monotonic()
        self._membership = Membership(Origin.here(), settings.options.partitions)
        self._agreement: Agreement | None = None
        #: Whether another edge goes by another agreement than this edge.
        self._doubtful = False
        self._answers = Answers(connection, self._subjects, {"who": self._who, "stats": self._stats})
        self._counts = Counts(connection, self._subjects, self._membership, self.edges)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._wait_until: dict[int, float] = {}
        self._look = asyncio.Event()
        self._subscriptions: list[Subscription] = []
        self._change_turn = asyncio.Lock()
        #: Whether a change is being carried out that can't be given up any more.
        self._changing = False

    # -- life ------------------------------------------------------------------------------------------------

    @classmethod
    async def open(
        cls, connection: Connection, dataflow: Dataflow, settings: EdgeSettings
    ) -> PartitionedEdge:
        """Agree with the other edges that run the flow, and open the partitions that fall to this edge.

        Raises
        ------
        FlowError
            If the other edges, or the stored messages, go by other settings; see `Agreement.reached`.
        FlowError, ProcessorError
            As `Edge.open`.
        """
        edge = cls(connection, dataflow, settings)
        try:
            await edge._open()
        except BaseException:
            await edge.close()
            raise
        return edge

    async def _open(self) -> None:
        origin = self._membership.edge
        # Before the first heartbeat: other edges would give partitions up to this edge.
        self._agreement = await Agreement.reached(self.connection, self.settings, self.dataflow.input, origin)
        await self._tell_other_code()
        for subject, callback in (
            (self._subjects.edges, self._heard),
            (self._subjects.edge(origin.id), self._answers.on_signal),
        ):
            self._subscriptions.append(await self.connection.subscribe(subject, callback))
        await first_of(self._open_partitions(), self._attend())

    async def _tell_other_code(self) -> None:
        """Log that another edge runs another notation, as it does while edges are replaced one by one."""
        runs = await who_runs(self.connection, self._subjects)
        if runs is not None and runs.notation != self.dataflow.notation:
            log.warning(
                "flow %s runs as `%s` in %s, and as `%s` here: a device's messages take either way",
                self.settings.name,
                runs.notation,
                runs.edge,
                self.dataflow.notation,
            )

    async def _attend(self) -> None:
        """Send heartbeats and answer other edges, until cancelled: opening partitions may take long."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._answers.run(), name=f"{self.settings.name}: answers")
            while True:
                await self._heartbeat()
                await self._news()

    async def _news(self) -> None:
        """Wait until another edge's heartbeat brings news, or the next heartbeat of this edge is due."""
        self._look.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await self._look.wait()

    async def _open_partitions(self) -> None:
        await asyncio.sleep(_LISTEN)
        begin, _ = self._membership.plan(frozenset())
        for partition in sorted(begin):
            try:
                self.edges[partition] = await self._opened(partition)
            except Fenced:  # another edge starts at the same moment, and has the partition
                log.info("partition %d of %s is taken by another edge", partition, self.settings.name)
        await self._heartbeat()

    async def _opened(self, partition: int) -> Edge:
        assert self._agreement is not None
        await self._agreement.hold()
        edge = await Edge.open(self.connection, self.dataflow, self._part(partition), whole=self.all_edges)
        # `set_rate` and `demand` may have been called while the partition was being opened.
        part = self._part(partition)
        edge.set_rate(part.rate)
        edge.demand(part.max_demand, part.min_demand)
        return edge

    def _part(self, partition: int) -> EdgeSettings:
        """Return the settings of one partition: the rate and the bounds of Demand are divided."""
        whole, n = self.settings, self.settings.options.partitions
        most = max(1, whole.max_demand // n)
        return dataclasses.replace(
            whole,
            partition=partition,
            rate=None if whole.rate is None else whole.rate / n,
            max_demand=most,
            min_demand=min(most - 1, whole.min_demand // n),
        )

    async def run(self) -> None:
        """Run this edge's partitions until drained; take over and give up partitions as edges come and go.

        Raises
        ------
        PratipadError
            If a partition ended for another reason than being taken over by another edge.
        """
        if self.state == "starting":
            self.state = "running"
        async with asyncio.TaskGroup() as group:
            answers = group.create_task(self._answers.run(), name=f"{self.settings.name}: answers")
            for partition, edge in self.edges.items():
                self._begin(group, partition, edge)
            while self.state != "draining" or self._tasks:
                if self._doubtful:
                    await self._check_agreement()
                if self.state != "draining":
                    self._divide(group)
                await self._news()
                await self._heartbeat()
            answers.cancel()

    async def _check_agreement(self) -> None:
        """Look whether this edge still goes by the flow's settings, as another edge goes by others.

        Raises
        ------
        FlowError
            If this edge doesn't. If the other edge doesn't, that edge looks, too, and ends.
        """
        assert self._agreement is not None
        with contextlib.suppress(WaitTimeout):  # the next heartbeat of the other edge brings this up again
            await self._agreement.hold()
        self._doubtful = False

    def _begin(self, group: asyncio.TaskGroup, partition: int, edge: Edge | None) -> None:
        name = f"{self.settings.name}: partition {partition}"
        task = self._tasks[partition] = group.create_task(self._run(partition, edge), name=name)
        task.add_done_callback(lambda _: self._ended(partition))

    def _ended(self, partition: int) -> None:
        del self._tasks[partition]
        self._look.set()

    def _divide(self, group: asyncio.TaskGroup) -> None:
        """Begin the partitions that fall to this edge, and drain those that fall to another."""
        begin, release = self._membership.plan(frozenset(self._tasks))
        now = asyncio.get_running_loop().time()
        for partition in begin:
            if now >= self._wait_until.get(partition, 0.0):
                self._begin(group, partition, None)
        for partition in release:
            if (edge := self.edges.get(partition)) is not None:
                edge.drain()

    async def _run(self, partition: int, edge: Edge | None) -> None:
        """Run one partition until it is drained, or another edge has taken it over."""
        try:
            if edge is None:
                edge = self.edges[partition] = await self._opened(partition)
                if self.state == "paused":
                    edge.pause()
                elif self.state == "draining":  # `drain` was called while the partition was being taken over
                    edge.drain()
                self._look.set()
            await edge.run()
        except* Fenced:
            log.info("another edge has taken partition %d of %s over", partition, self.settings.name)
            self._wait_until[partition] = asyncio.get_running_loop().time() + _AFTER_FENCED
        except* WaitTimeout as errors:
            # The server was away while the partition was opened or closed; the next division finds it free.
            log.info("partition %d of %s: %s", partition, self.settings.name, errors.exceptions[0])
            self._wait_until[partition] = asyncio.get_running_loop().time() + _AFTER_FENCED
        finally:
            if self.edges.pop(partition, None) is not None and edge is not None:
                self._counts.keep(edge, handed_on=self.state not in ("draining", "stopped", "failed"))
            if edge is not None:
                with contextlib.suppress(TransportError, WaitTimeout):
                    await edge.close()

    def fail(self, error: str) -> None:
        """Note why the run has ended before it was drained, or why it could not be closed."""
        self.error = self.error or error
        if self.state == "stopped":
            self.state = "failed"

    def drain(self) -> None:
        """Refuse new messages; `run` returns once all messages in flight are safe."""
        self.state = "draining"
        for edge in self.edges.values():
            edge.drain()
        self._look.set()

    async def close(self) -> None:
        """Tell the other edges that this edge leaves, and close all partitions here."""
        if self._subscriptions:
            with contextlib.suppress(TransportError, WaitTimeout):
                await self._heartbeat(leaving=True)
                await self.connection.flush()
                for subscription in self._subscriptions:
                    await subscription.close()
        try:
            for edge in self.edges.values():
                await edge.close()
        finally:
            self.state = "failed" if self.error else "stopped"

    # -- the other edges -------------------------------------------------------------------------------------

    async def _heartbeat(self, *, leaving: bool = False) -> None:
        owned = frozenset(self._tasks) | frozenset(self.edges)
        frame = HeartbeatFrame(
            self._membership.edge,
            [] if leaving else sorted(owned),
            self._agreement.number if self._agreement is not None else 0,
            leaving,
            self.error,
        )
        with contextlib.suppress(TransportError, WaitTimeout):
            await self.connection.publish(self._subjects.edges, encode(frame))

    def _heard(self, signal: Signal) -> None:
        if signal.reply:
            self._answers.on_signal(signal)
            return
        try:
            frame = decode(signal.data, HeartbeatFrame)
        except FrameError as error:
            log.info("a malformed heartbeat: %s", error)
            return
        if self._agreement is not None and frame.agreed != self._agreement.number and not frame.leaving:
            # An edge that goes by other settings is no member: it divides other partitions.
            self._doubtful = True
            self._look.set()
        elif self._membership.hear(frame):
            self._look.set()

    async def _who(self) -> dict[str, Any]:
        return self._agreement.answer(self.dataflow.notation) if self._agreement is not None else {}

    async def _stats(self) -> dict[str, Any]:
        return {"stats": dataclasses.asdict(self.snapshot()), "partitions": sorted(self.edges)}

    @property
    def others(self) -> dict[str, frozenset[int]]:
        """The other edges of the flow, by their ids, with the partitions that they run."""
        return self._membership.others()

    # -- requests of handles ---------------------------------------------------------------------------------

    @property
    def lines(self) -> list[Line]:
        """The processors of each partition that runs here, with their samples and logs."""
        return [edge.line for edge in self.edges.values()]

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that run here."""
        return frozenset(self.edges)

    def snapshot(self) -> FlowStats:
        """Return the counters of all partitions here, also of those that have ended, as one flow's."""
        flow = FlowStats(
            self.settings.name,
            self.dataflow.notation,
            self.settings.delivery,
            state=self.state,
            error=self.error,
            time=time.time(),
        )
        uptime = time.monotonic() - self._started
        return dataclasses.replace(self._counts.here(flow), notation=self.dataflow.notation, uptime=uptime)

    async def all_edges(self) -> FlowStats:
        """Return the counters of all edges, which are asked for them."""
        return await self._counts.of_all_edges(self.snapshot())

    async def order(self, payload: Any, to: str | Sequence[str] | None = None) -> str:
        """Append an order; the edges that own its devices' partitions send it on."""
        return await append_order(self.connection, self.dataflow, self._subjects, payload, to)

    def pull(self, n: int, device: str | None = None) -> PullRequest:
        """Refuse: there is no Pull in several partitions."""
        raise FlowError(f"pull({n!r}, {device!r}) needs a Pull flow; this is `{self.dataflow.notation}`.")

    def set_rate(self, allowed: float | None) -> None:
        """Change how many messages a second devices are asked for, in all partitions here, now and later."""
        self.settings = dataclasses.replace(self.settings, rate=allowed)
        for partition, edge in self.edges.items():
            edge.set_rate(self._part(partition).rate)

    def demand(self, max_demand: int, min_demand: int) -> None:
        """Demand: change both bounds, at once, in all partitions here, now and later."""
        self.settings = dataclasses.replace(self.settings, max_demand=max_demand, min_demand=min_demand)
        for partition, edge in self.edges.items():
            part = self._part(partition)
            edge.demand(part.max_demand, part.min_demand)

    async def settled(self, seconds: float) -> None:
        """Wait until all messages that any edge has accepted are at Output."""
        await gathered([edge.settled(seconds) for edge in self.edges.values()])

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the messages that processors failed on, of the whole flow."""
        return await self._any().dead_letters()

    async def retry_dead_letters(self) -> int:
        """Put the dead letters of partitions here through the flow again; return how many there were."""
        return sum([await edge.retry_dead_letters() for edge in list(self.edges.values())])

    async def clear_dead_letters(self) -> int:
        """Delete all dead letters of the flow; return how many there were."""
        letters = [edge.parts.dead_letters for edge in self.edges.values()]
        return await self._any().parts.dead_letters.clear(letters)

    async def forget_reader(self, name: str) -> None:
        """Delete a reader's consumer and position."""
        await self._any().forget_reader(name)

    def owns(self, device: str) -> bool:
        """Return whether `device` belongs to a partition that runs here."""
        return any(edge.owns(device) for edge in self.edges.values())

    @contextlib.contextmanager
    def tapped(self, tap: Tap) -> Iterator[None]:
        """Call `tap` with every frame that partitions here at present admit, while the context lasts."""
        with contextlib.ExitStack() as taps:
            for edge in self.edges.values():
                taps.enter_context(edge.tapped(tap))
            yield

    async def replay(self, entries: Callable[[], Iterator[Entry]], speed: float | None) -> int:
        """Put recorded inputs through the flow: each device's messages through its partition."""
        first = next((received for _, _, received, _ in entries()), None)
        parts = [
            edge.replay(partial(_of_edge, edge, entries), speed, first=first) for edge in self.edges.values()
        ]
        return sum(await gathered(parts))

    def _any(self) -> Edge:
        for edge in self.edges.values():
            return edge
        raise FlowError(
            f"this edge of {self.settings.name!r} runs no partition at present: {len(self.others)} other "
            f"edges run its {self.settings.options.partitions}. Ask one of those edges."
        )

    def pause(self, processor: str | None = None) -> None:
        """Let the partitions here, or one processor in them, begin no further call."""
        for edge in self.edges.values():
            edge.pause(processor)
        if processor is None and self.state != "draining":
            self.state = "paused"

    def resume(self, processor: str | None = None) -> None:
        """Let the partitions here, or one processor in them, go on."""
        for edge in self.edges.values():
            edge.resume(processor)
        if processor is None and self.state != "draining":
            self.state = "running"

    @property
    def revocable(self) -> bool:
        """Whether a change that is being made can be given up in every partition."""
        return not self._changing and all(edge.revocable for edge in self.edges.values())

    async def swap(self, dataflow: Dataflow) -> SwapReceipt | None:
        """Change all partitions here to `dataflow`, or none; other edges go on as they are.

        New processors are set up in every partition first. A partition that is taken over meanwhile gets the
        new dataflow. If a partition can't carry the change out, the partitions that have changed go back.
        """
        async with self._change_turn:
            before, changed = self.dataflow, list[Edge]()
            await self._agree_on_input(dataflow)
            try:
                receipts = await self._swap(dataflow, changed)
            except Exception:
                self.dataflow = before
                await self._agree_on_input(before)
                for edge in changed:
                    await self._back(edge, before)
                raise
            finally:
                self._changing = False
            return _together([receipt for receipt in receipts if receipt is not None])

    async def _agree_on_input(self, dataflow: Dataflow) -> None:
        """Let edges that start from now on begin with the input of `dataflow`.

        Raises
        ------
        FlowError
            If other edges run, which begin with another input.
        """
        assert self._agreement is not None
        if self._agreement.input == dataflow.input:
            return
        if others := self._membership.origins():
            raise FlowError(
                f"flow {self.settings.name!r} begins with {self._agreement.input} at {len(others)} other "
                f"edges, and would with {dataflow.input} here: `{dataflow.notation}`. All edges begin with "
                f"the same. Stop the others first ({'; '.join(map(str, others))})."
            )
        await self._agreement.change_input(dataflow.input)

    async def _swap(self, dataflow: Dataflow, changed: list[Edge]) -> list[SwapReceipt | None]:
        """Change all partitions, and add each partition that has changed to `changed`."""
        receipts: list[SwapReceipt | None] = []
        async with contextlib.AsyncExitStack() as prepared:
            # A partition that is being given up ends with its old processors.
            edges = [edge for edge in self.edges.values() if edge.state in ("running", "paused")]
            changes = [(edge, await prepared.enter_async_context(edge.prepared(dataflow))) for edge in edges]
            self._changing = True
            self.dataflow = dataflow
            for edge, change in changes:
                if change is not None:
                    receipts.append(await edge.carry_out(change))
                    changed.append(edge)
        # Partitions that were opened while the change was being prepared.
        for edge in [edge for edge in self.edges.values() if edge not in edges]:
            receipts.append(await edge.swap(dataflow))
            changed.append(edge)
        return receipts

    async def _back(self, edge: Edge, dataflow: Dataflow) -> None:
        try:
            await edge.swap(dataflow)
        except PratipadError:
            log.exception(
                "partition %s of %s runs the new code, which other partitions refused; start the flow anew",
                *edge.partitions,
                self.settings.name,
            )


def _together(receipts: Sequence[SwapReceipt]) -> SwapReceipt | None:
    """Return the receipts of several partitions as one; None if nothing differed."""
    if not receipts:
        return None
    return dataclasses.replace(
        receipts[0],
        in_flight=sum(receipt.in_flight for receipt in receipts),
        pause=max(receipt.pause for receipt in receipts),
        lost=sum(receipt.lost for receipt in receipts),
        doubled=sum(receipt.doubled for receipt in receipts),
        states=together(move for receipt in receipts for move in receipt.states),
    )


def _of_edge(edge: Edge, entries: Callable[[], Iterator[Entry]]) -> Iterator[Entry]:
    return (entry for entry in entries() if edge.owns(entry[0]))
