"""The edge: one running dataflow, or one partition of it, from its logs to its tasks.

Owns the composition of a run (logs, positions, stages, pipeline, credit, janitor) and its life: open, run, drain,
close. It is given a connection and knows neither NATS nor how the server came to be. Which partitions a process runs is
for `share`. What other processes ask of a run comes through `control`; what it says of itself is put together in
`report`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pratipad_nb.dataflow import Dataflow
from pratipad_nb.errors import FlowError, TransportError
from pratipad_nb.runtime.backward import Backward
from pratipad_nb.runtime.batch import Batch
from pratipad_nb.runtime.changes import Changes
from pratipad_nb.runtime.control import Control
from pratipad_nb.runtime.credit import Ledger, RateLimit
from pratipad_nb.runtime.dead_letters import DeadLetters
from pratipad_nb.runtime.ends import open_input, open_output
from pratipad_nb.runtime.failures import Failures
from pratipad_nb.runtime.inputs import Gatekeeper
from pratipad_nb.runtime.janitor import Janitor, forget_reader
from pratipad_nb.runtime.line import Line
from pratipad_nb.runtime.logs import diverted_output
from pratipad_nb.runtime.metrics import Rate
from pratipad_nb.runtime.outputs import Writer
from pratipad_nb.runtime.pipeline import Pipeline
from pratipad_nb.runtime.plan import EdgeSettings, log_specs
from pratipad_nb.runtime.preflight import check_partitions, refuse_a_second
from pratipad_nb.runtime.presence import Presence
from pratipad_nb.runtime.pull import PullRequest, Requests
from pratipad_nb.runtime.report import DeviceRates
from pratipad_nb.runtime.settling import settled
from pratipad_nb.runtime.signals import Signals
from pratipad_nb.runtime.stats import FlowState
from pratipad_nb.runtime.swap import SwapReceipt
from pratipad_nb.runtime.upkeep import Upkeep
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import CreditFrame, Position
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Edge"]

_TICK = 0.05
_SAMPLE = 0.2
_DEVICE_SAMPLE = 1.0


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
        self.presence = Presence(self)
        self.rate = Rate()
        self.device_rates = DeviceRates(self)
        self._signals = Signals(connection)
        self._upkeep = Upkeep(self)
        self._stored = asyncio.Event()
        self._subscriptions: list[Any] = []
        self._group: asyncio.TaskGroup | None = None
        self._undivert = contextlib.ExitStack()
        self._timers: dict[str, asyncio.Task[None]] = {}
        self.changes = Changes(self)
        self.control = Control(self)
        self.failures = Failures(self)

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
        subjects = self.subjects
        self.dead_letters = DeadLetters(self.connection, logs[subjects.dead_stream], subjects)
        await self.dead_letters.find(self.settings.owns)
        self.output, self.chain = await open_output(self.connection, self.settings, logs)
        self.janitor: Janitor | None = None
        if self.chain is not None and self.settings.partition == 0:  # one of all cuts what all write to
            self.janitor = Janitor(
                logs[subjects.output_stream],
                self._upkeep.checkpointed,
                self.settings.keep,
                self.settings.options,
            )
        await self.line.open(self.chain.states if self.chain else {})
        try:
            await self._compose(logs)
        except BaseException:
            await self.line.close()
            raise

    async def _compose(self, logs: dict[str, Any]) -> None:
        subjects = self.subjects
        self.input = await open_input(self.connection, self.settings, logs)
        self.gate = Gatekeeper(
            subjects, self.input, self.output.positions, self.chain is not None, self.failures.malformed
        )
        self.writer = Writer(
            self.output,
            store_dead=self.dead_letters.store,
            send_replies=lambda replies: self.backward.reply(replies),
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
        self.requests = Requests(self.ledger)
        self.backward = Backward(self, logs[subjects.order_stream], logs[subjects.mark_stream])
        await self.backward.open()
        subscribe = self.connection.subscribe
        self._subscriptions.append(await subscribe(subjects.hello_all, self.presence.on_hello))
        if self.settings.partition == 0:  # one of all answers what is asked of the flow
            self._subscriptions.append(await subscribe(subjects.control, self.control.on_signal))

    def _new_pipeline(self) -> Pipeline:
        return Pipeline(
            self.settings.name, self.line.stages, self.input, self.gate, self.writer, self.settings.options
        )

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
            self.restart_timers(self.line.meters)
            helpers = [
                group.create_task(each, name=f"{self.settings.name}: {name}")
                for name, each in (
                    ("signals", self._signals.run()),
                    ("ticks", self._every(_TICK, self._tick)),
                    ("samples", self._every(_SAMPLE, self._sample)),
                    ("device samples", self._every(_DEVICE_SAMPLE, self.device_rates.sample)),
                    ("sweeps", self._upkeep.sweep()),
                    ("looks", self._upkeep.looks()),
                    ("checkpoints", self._upkeep.checkpoints()),
                    ("presence", self.presence.watch()),
                    ("backward", self.backward.run()),
                    ("control", self.control.run()),
                )
            ]
            await self.pipeline.run()
            while await self.changes.carried_out():
                await self.pipeline.run()
            self._group = None
            self.stop_timers(list(self._timers))
            for helper in helpers:
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
        """Give back subscriptions and tear processors down; nothing of the run is left."""
        try:
            for subscription in self._subscriptions:
                with contextlib.suppress(TransportError):
                    await subscription.close()
            if hasattr(self, "input"):
                await self.input.close()
            await self.changes.close()
            await self.line.close()
        finally:  # it may be cut off
            self._undivert.close()
        self.state = "failed" if self.error else "stopped"
        self.line.set_state(self.state)

    async def last_checkpoint(self) -> None:
        """Make the checkpoint that a clean stop leaves: everything is stored, so states and positions agree."""
        await self._upkeep.last_checkpoint()

    # -- what happens -------------------------------------------------------------------------------------------

    def _on_stored(self, positions: Sequence[Position]) -> None:
        self._upkeep.moved = True
        self._stored.set()
        self._stored.clear()
        self.gate.sweep()
        self.requests.stored(positions)
        self.requests.settle()
        self.ledger.settle()
        if self.chain is not None and self.chain.full.is_set():
            self._upkeep.sweep_now.set()

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
        self.ledger.tick()
        self.requests.settle()

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
            self.requests.end(f"the flow begins with {line.dataflow.input} now")
            self.ledger.change_mode(line.dataflow.input)
            self._announce()
        if self.state == "draining":  # asked for while what is new was being set up
            self.pipeline.drain()
        else:
            self.state = "running"
        line.set_state(self.state)
        self.restart_timers(key for key in line.meters if key not in self._timers)

    def stop_timers(self, keys: Iterable[str]) -> None:
        """Call no periodic method of these processors until `restart_timers`."""
        for key in keys:
            if timers := self._timers.pop(key, None):
                timers.cancel()

    def restart_timers(self, keys: Iterable[str]) -> None:
        """Call the periodic methods that these processors have now."""
        for key in tuple(keys):
            self.stop_timers((key,))
            if self._group is not None:
                name = f"{self.settings.name}: timers of {key}"
                self._timers[key] = self._group.create_task(self.line.tick(key), name=name)

    def pause(self, processor: str | None = None) -> None:
        """Let the flow, or one processor, begin nothing further; one that drains goes on to its end."""
        if self.state == "draining":
            return
        if processor is not None:
            self.line.pause(processor)
            return
        self.pipeline.pause()
        self.state = "paused"
        self.line.set_state("paused")

    def resume(self, processor: str | None = None) -> None:
        """Let the flow, or one processor, go on."""
        if self.state == "draining":
            return
        if processor is not None:
            self.line.resume(processor)
            return
        self.pipeline.resume()
        self.line.resume()
        self.state = "running"
        self.line.set_state("running")

    async def stored(self, seconds: float) -> None:
        """Wait until something more is at Output, or `seconds` have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stored.wait()

    async def inject(self, batch: Batch, step: str | None = None) -> None:
        """Put a batch into the pipeline, before the processor `step`; while what runs is being changed, into the next one.

        Raises
        ------
        FlowError
            If the flow stops before it is in.
        LookupError
            If there is no such processor.
        """
        while not await self.pipeline.inject(batch, step):
            if self.state not in ("running", "paused"):
                raise FlowError(f"flow {self.settings.name!r} is {self.state} and takes no more messages.")
            await asyncio.sleep(_TICK)

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
        """Wait until all that was accepted is at Output; see `settling.settled`."""
        await settled(self, seconds)

    async def retry_dead_letters(self) -> int:
        """Put all dead letters through again from where they failed; return how many there were."""
        return await self.failures.retry()

    async def clear_dead_letters(self) -> int:
        """Delete all dead letters; return how many there were."""
        return await self.dead_letters.clear()

    async def forget_reader(self, name: str) -> None:
        """Delete a reader's consumer and position."""
        await forget_reader(self.connection, self.subjects, name)

    @property
    def who(self) -> dict[str, Any]:
        """What another edge that wants to start is told."""
        return {"pid": os.getpid(), "notation": self.line.dataflow.notation}
