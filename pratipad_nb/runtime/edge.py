"""The edge: one running dataflow, or one partition of it, from its logs to its tasks.

Owns the composition of a run (logs, positions, stages, pipeline, credit, janitor) and its life: open, run, drain,
close. Which partitions a process runs is for `share`. It is given a connection and knows neither NATS nor how the server came to be. What handles and other processes
ask of it comes through `control`; what it says of itself is put together in `report`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from pratipad_nb.dataflow import Dataflow
from pratipad_nb.errors import (
    FlowError,
    FrameError,
    TransportError,
    WaitTimeout,
)
from pratipad_nb.message import Message
from pratipad_nb.runtime.backward import Backward
from pratipad_nb.runtime.batch import Batch
from pratipad_nb.runtime.changes import Changes
from pratipad_nb.runtime.control import Control
from pratipad_nb.runtime.credit import Ledger, RateLimit
from pratipad_nb.runtime.dead_letters import DeadLetters
from pratipad_nb.runtime.inputs import DurableInput, FastInput, Gatekeeper, Input
from pratipad_nb.runtime.janitor import Janitor
from pratipad_nb.runtime.line import Line
from pratipad_nb.runtime.logs import diverted_output
from pratipad_nb.runtime.metrics import Rate
from pratipad_nb.runtime.outputs import Chain, FastChain, Writer
from pratipad_nb.runtime.pipeline import Pipeline
from pratipad_nb.runtime.plan import EdgeSettings, log_specs
from pratipad_nb.runtime.position import OutputChain, Positions
from pratipad_nb.runtime.preflight import check_partitions, refuse_a_second, refuse_stored_messages
from pratipad_nb.runtime.presence import Presence
from pratipad_nb.runtime.pull import PullRequest, Requests
from pratipad_nb.runtime.signals import Signals
from pratipad_nb.runtime.stats import FlowState
from pratipad_nb.runtime.swap import SwapReceipt
from pratipad_nb.runtime.upkeep import Upkeep
from pratipad_nb.transport.frames import (
    CreditFrame,
    DeadEntry,
    FailureNote,
    HelloFrame,
    Position,
    decode,
    encode,
)
from pratipad_nb.transport.protocol import Connection, ConsumerSpec, Signal
from pratipad_nb.transport.protocol import Delivery as Arrival
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Edge", "EdgeSettings", "log_specs"]

log = logging.getLogger(__name__)

#: The input's consumer, one for all runs of a flow; with several partitions, one for each.
_CONSUMER = "edge"

_TICK = 0.05
_SAMPLE = 0.2
_SWEEP = 1.0


class Edge:
    """One run of a dataflow at the edge.

    Parameters
    ----------
    connection
        The edge's own; it is not closed here.
    dataflow
        What runs.
    settings
        How it runs.
    """

    def __init__(self, connection: Connection, dataflow: Dataflow, settings: EdgeSettings) -> None:
        self.connection = connection
        self.settings = settings
        self.subjects = Subjects(settings.name)
        self.line = Line(dataflow, settings.options)
        self.state: FlowState = "starting"
        self.error = ""
        self.started = time.monotonic()
        self.limit = RateLimit(settings.rate)
        self.presence = Presence(connection, settings.name)
        self.rate = Rate()
        self._signals = Signals(connection)
        self._upkeep = Upkeep(self)
        self._stored = asyncio.Event()
        self._retrying = asyncio.Lock()
        self._subscriptions: list[Any] = []
        self._group: asyncio.TaskGroup | None = None
        self._undivert = contextlib.ExitStack()
        self._timers: asyncio.Task[None] | None = None
        self.changes = Changes(self)

    # -- opening ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open logs, take over the output, set up all processors.

        Raises
        ------
        FlowError
            If the flow runs elsewhere, or ran with the other delivery and still has messages.
        ProcessorError
            If a processor can't be set up. Nothing was started then.
        """
        self._undivert.enter_context(diverted_output())
        if not self.settings.shared:
            await refuse_a_second(self.connection, self.settings)
        await check_partitions(self.connection, self.settings)
        logs = {name: await self.connection.open_log(spec) for name, spec in log_specs(self.settings).items()}
        subjects, options = self.subjects, self.settings.options
        self.dead_letters = DeadLetters(self.connection, logs[subjects.dead_stream], subjects)
        self.output: Chain
        self.chain: OutputChain | None = None
        self.janitor: Janitor | None = None
        if self.settings.delivery == "durable":
            self.chain = OutputChain(
                self.connection,
                logs[subjects.output_stream],
                logs[subjects.mark_stream],
                out_subject=subjects.out(self.settings.partition),
                mark_subject=subjects.mark(f"partition-{self.settings.partition}"),
            )
            await self.chain.open()
            self.output = self.chain
            if self.settings.partition == 0:
                self.janitor = Janitor(
                    logs[subjects.output_stream], self._upkeep.checkpointed, self.settings.keep, options
                )
        else:
            await refuse_stored_messages(self.connection, self.settings)
            self.output = FastChain(self.connection, subjects.out(self.settings.partition))
        await self.line.open(self.chain.states if self.chain else {})
        try:
            await self._compose(logs)
        except BaseException:
            await self.line.close()
            raise

    async def _compose(self, logs: dict[str, Any]) -> None:
        subjects = self.subjects
        self.input = await self._open_input(logs)
        self.gate = Gatekeeper(
            subjects, self.input, self.output.positions, self.chain is not None, self._on_malformed
        )
        self.writer = Writer(
            self.output,
            store_dead=self.dead_letters.store,
            send_replies=self._send_replies,
            on_stored=self._on_stored,
            on_barrier=self._upkeep.checkpoint,
        )
        self.pipeline = self._new_pipeline()
        self.ledger = Ledger(
            self.line.dataflow.input,
            self._send_credit,
            lambda: self.pipeline.in_hand,
            delivery=self.settings.delivery,
            max_demand=self.settings.max_demand,
            min_demand=self.settings.min_demand,
            limit=self.limit,
        )
        self.gate.on_arrival = self.ledger.arrived
        self.requests = Requests(self.ledger, self.output.positions)
        self.backward = Backward(self, logs[subjects.order_stream], logs[subjects.mark_stream])
        await self.backward.open()
        control = Control(self)
        subscribe = self.connection.subscribe
        self._control = control
        self._subscriptions += [
            await subscribe(subjects.hello_all, self._on_hello),
        ]
        if self.settings.partition == 0:  # one of all answers what is asked of the flow
            self._subscriptions.append(await subscribe(subjects.control, control.on_signal))

    def _new_pipeline(self) -> Pipeline:
        return Pipeline(
            self.settings.name, self.line.stages, self.input, self.gate, self.writer, self.settings.options
        )

    async def _open_input(self, logs: dict[str, Any]) -> Input:
        if self.chain is not None:
            spec = ConsumerSpec(_CONSUMER, "each")
            if self.settings.shared:
                partition = self.settings.partition
                spec = ConsumerSpec(f"{_CONSUMER}-{partition}", "each", self.subjects.input_of(partition))
            consumer = await logs[self.subjects.input_stream].consumer(spec)
            await consumer.rewind()
            return DurableInput(consumer)
        fast = FastInput(lambda subject: self.settings.owns(subject.rpartition(".")[2]))
        self._subscriptions.append(await self.connection.subscribe(self.subjects.up_all, fast.on_signal))
        return fast

    # -- running ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until drained.

        Raises
        ------
        Fenced
            If another edge has taken the flow over.
        PratipadError
            If something else ended it.
        """
        self.state = "running"
        self.line.set_state("running")
        self._announce()
        async with asyncio.TaskGroup() as group:
            self._group = group
            self.restart_timers()
            helpers = [
                group.create_task(each, name=f"{self.settings.name}: {name}")
                for name, each in (
                    ("signals", self._signals.run()),
                    ("ticks", self._every(_TICK, self._tick)),
                    ("samples", self._every(_SAMPLE, self._sample)),
                    ("sweeps", self._upkeep.sweep()),
                    ("checkpoints", self._upkeep.checkpoints()),
                    ("presence", self.presence.watch(self._on_presence)),
                    ("backward", self.backward.run()),
                    ("control", self._control.run()),
                )
            ]
            await self.pipeline.run()
            while await self.changes.carried_out():
                await self.pipeline.run()
            self._group = None
            for helper in (*helpers, self._timers):
                if helper is not None:
                    helper.cancel()

    def _announce(self) -> None:
        """Let all devices say hello: they may have been there before this edge."""
        frame = CreditFrame(self.ledger.mode.lower(), self.ledger.owner, -1, 0, self.settings.delivery)
        self.signal(self.subjects.credit_all, encode(frame))

    def drain(self) -> None:
        """Refuse new messages; `run` returns once what is in hand is safe."""
        if self.state in ("running", "paused"):
            self.state = "draining"
            self.line.set_state("draining")
        self.line.resume()
        self.pipeline.drain()

    async def close(self) -> None:
        """Write the last checkpoint, tear processors down, give back subscriptions; nothing of the run is left."""
        for subscription in self._subscriptions:
            with contextlib.suppress(TransportError):
                await subscription.close()
        if hasattr(self, "input"):
            await self.input.close()
        await self.changes.close()
        await self.line.close()
        self._undivert.close()
        self.state = "failed" if self.error else "stopped"
        self.line.set_state(self.state)

    async def last_checkpoint(self) -> None:
        """Make the checkpoint that a clean stop leaves: everything is stored, so states and positions agree."""
        await self._upkeep.last_checkpoint()

    # -- what happens -------------------------------------------------------------------------------------------

    def _on_stored(self) -> None:
        self._upkeep.moved = True
        self._stored.set()
        self._stored.clear()
        self.gate.sweep()
        self.requests.settle()
        self.ledger.settle()
        if self.chain is not None and self.chain.full.is_set():
            self._upkeep.sweep_now.set()

    def _on_malformed(self, delivery: Arrival, error: FrameError) -> None:
        """Put what is no frame to the dead letters, then take it off the input."""
        device = self.subjects.device_of(delivery.subject)
        note = FailureNote(self.line.dataflow.input, f"FrameError: {error}", "")
        entry = DeadEntry(
            device, 0, delivery.sequence, 0, delivery.time, delivery.time, repr(delivery.data[:256]), [note]
        )
        self._control.later(self._bury(delivery, entry))

    async def _bury(self, delivery: Arrival, entry: DeadEntry) -> None:
        await self.dead_letters.store([(self.line.dataflow.input, entry)])
        self.input.acknowledge(delivery)

    async def _send_replies(self, replies: Sequence[tuple[Any, Message]]) -> None:
        await self.backward.reply(replies)

    def _on_hello(self, signal: Signal) -> None:
        try:
            frame = decode(signal.data, HelloFrame)
            device = self.subjects.device_of(signal.subject)
        except FrameError as error:
            log.info("a hello that is none: %s", error)
            return
        if (frame.flow, frame.device) != (self.settings.name, device):
            log.info("a hello of %s came on the subject of %s", frame.device, device)
            return
        if not self.settings.owns(device):
            return
        account = self.ledger.hello(frame)
        self.backward.hello(frame, connected=account.connected)

    def _on_presence(self, connected: set[str], asked: float) -> None:
        """Compare who said hello with who is connected; one that has come since the asking is here all the same."""
        for device, account in self.ledger.accounts.items():
            if account.connected and device not in connected and account.moved < asked:
                self.ledger.gone(device)
                self.backward.gone(device)

    def _send_credit(self, device: str, frame: CreditFrame) -> None:
        self.signal(self.subjects.credit(device), encode(frame))

    def signal(self, subject: str, data: bytes) -> None:
        """Send a signal soon; of several to one subject that wait, the newest goes."""
        self._signals.send(subject, data)

    # -- what is done now and then ------------------------------------------------------------------------------

    async def _every(self, seconds: float, do: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            do()

    def _tick(self) -> None:
        self.requests.settle()
        self.ledger.tick()

    def _sample(self) -> None:
        self.rate.sample(self.writer.delivered)
        self.line.sample()

    # -- changing while it runs ---------------------------------------------------------------------------------

    async def swap(self, dataflow: Dataflow) -> SwapReceipt | None:
        """Change what runs; see `Changes.swap`."""
        return await self.changes.swap(dataflow)

    def go_on_with(self, line: Line) -> None:
        """Let `line` work where another has ended; nothing is in hand at this moment."""
        mode_changed = line.dataflow.input != self.line.dataflow.input
        self.line = line
        self.pipeline = self._new_pipeline()
        if mode_changed:
            self.ledger.change_mode(line.dataflow.input)
            self._announce()
        if self.state == "draining":  # asked for while what is new was being set up
            self.pipeline.drain()
        else:
            self.state = "running"
        line.set_state(self.state)
        self.restart_timers()

    def stop_timers(self) -> None:
        """Call no periodic method of a processor until `restart_timers`."""
        if self._timers is not None:
            self._timers.cancel()

    def restart_timers(self) -> None:
        """Call the periodic methods of the processors that are there now."""
        self.stop_timers()
        if self._group is not None:
            self._timers = self._group.create_task(self.line.tick(), name=f"{self.settings.name}: timers")

    def pause(self, processor: str | None = None) -> None:
        """Let the flow, or one processor, begin nothing further."""
        if processor is None:
            self.pipeline.pause()
            self.state = "paused"
            self.line.set_state("paused")
        else:
            self.line.pause(processor)

    def resume(self, processor: str | None = None) -> None:
        """Let the flow, or one processor, go on."""
        if processor is None:
            self.pipeline.resume()
            self.line.resume()
            self.state = "running"
            self.line.set_state("running")
        else:
            self.line.resume(processor)

    async def stored(self, seconds: float) -> None:
        """Wait until something more is at Output, or `seconds` have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stored.wait()

    # -- what handles ask ---------------------------------------------------------------------------------------

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that run here: its own."""
        return frozenset({self.settings.partition})

    async def order(self, payload: Any, to: str | Sequence[str] | None = None) -> str:
        """Append an order; see `Backward.order`."""
        return await self.backward.order(payload, to)

    def pull(self, n: int, device: str | None = None) -> PullRequest:
        """Ask for `n` readings; see `Requests.pull`."""
        return self.requests.pull(n, device)

    async def settled(self, seconds: float) -> None:
        """Wait until all that was accepted is at Output.

        Raises
        ------
        WaitTimeout
            If that isn't so within `seconds`; it says what is left.
        """
        until = time.monotonic() + seconds
        while (left := await self._left()) != (0, 0):
            if time.monotonic() > until:
                raise WaitTimeout(
                    f"flow {self.settings.name!r} is not settled after {seconds:g} s: {left[0]} frames wait at its "
                    f"input, {left[1]} messages are in hand. {' '.join(self.blocked_by)}".strip()
                )
            await asyncio.sleep(0.01)

    async def _left(self) -> tuple[int, int]:
        """Return frames at the input and messages in hand."""
        frames = 0
        if self.chain is not None:
            input_log = await self.connection.find_log(self.subjects.input_stream)
            frames = (await input_log.state()).messages if input_log else 0
        else:
            await self.connection.flush()
        return frames, self.pipeline.in_hand

    @property
    def blocked_by(self) -> tuple[str, ...]:
        """Why nothing more can be stored, in words."""
        reasons: list[str] = []
        if self.chain is not None and self.chain.full.is_set():
            named = self.janitor.blocked_by if self.janitor else ()
            reasons += named or ("the output log is full and is being cut",)
        if self.dead_letters.full.is_set():
            reasons.append("the dead letters are full: retry_dead_letters() or clear_dead_letters()")
        if not self.connection.connected:
            reasons.append("the link to the server is down")
        return tuple(reasons)

    async def retry_dead_letters(self) -> int:
        """Put all dead letters through again from where they failed; return how many there were."""
        async with self._retrying:  # two at once would both run what neither has finished
            return await self._retry(self.output.positions)

    async def _retry(self, positions: Positions) -> int:
        retried: list[Position] = []
        async for batch in self.dead_letters.retries(positions, self.line.stage_of, self.settings.owns):
            retried.append(batch.source.frames[0].position(1))
            await self.inject(batch)
        for place, epoch, number in retried:
            while positions.number(place, epoch) < number:
                if self.state in ("stopped", "failed"):
                    raise FlowError(
                        f"flow {self.settings.name!r} {self.state}; what wasn't retried is still there."
                    )
                await self.stored(_SWEEP)
        await self.dead_letters.sweep(positions)
        return len(retried)

    async def inject(self, batch: Batch) -> None:
        """Put a batch into the pipeline; while what runs is being changed, into the next one.

        Raises
        ------
        FlowError
            If the flow stops before it is in.
        """
        while not await self.pipeline.inject(batch):
            if self.state not in ("running", "paused"):
                raise FlowError(f"flow {self.settings.name!r} is {self.state} and takes no more messages.")
            await asyncio.sleep(_TICK)

    async def forget_reader(self, name: str) -> None:
        """Delete a reader's consumer and position."""
        output = await self.connection.find_log(self.subjects.output_stream)
        marks = await self.connection.find_log(self.subjects.mark_stream)
        if output is not None:
            await output.forget_consumer(name)
        if marks is not None and (mark := await marks.latest(self.subjects.read(name))) is not None:
            await marks.delete(mark.sequence)

    @property
    def known_devices(self) -> list[str]:
        """Every device of this partition that has said, sent or is anything: foreign ones say no hello."""
        connected = {device for device in self.presence.connected if self.settings.owns(device)}
        return sorted(self.ledger.accounts.keys() | self.gate.counts.keys() | connected)

    @property
    def who(self) -> dict[str, Any]:
        """What another edge that wants to start is told."""
        return {"pid": os.getpid(), "notation": self.line.dataflow.notation}
