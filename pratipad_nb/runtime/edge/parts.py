"""The parts of a run, composed once, when the run is opened.

Owns the composition: which part is made of which others, and in what order. No part is added later, and no
part is given more than it uses. Running the parts' tasks is for `edge`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from pratipad_nb.dataflow import Dataflow
from pratipad_nb.runtime.devices.account import Account
from pratipad_nb.runtime.devices.announcer import Announcer
from pratipad_nb.runtime.devices.backward import Backward
from pratipad_nb.runtime.devices.credit import Ledger
from pratipad_nb.runtime.devices.foreign import PlainDevices
from pratipad_nb.runtime.devices.hellos import Hellos
from pratipad_nb.runtime.devices.presence import Presence
from pratipad_nb.runtime.devices.pull import Requests
from pratipad_nb.runtime.devices.rate_limit import RateLimit
from pratipad_nb.runtime.devices.roster import Roster
from pratipad_nb.runtime.devices.signals import Signals
from pratipad_nb.runtime.edge.changes import Changes
from pratipad_nb.runtime.edge.controls import Controls
from pratipad_nb.runtime.edge.pipeline import Pipeline
from pratipad_nb.runtime.edge.retries import Retries
from pratipad_nb.runtime.edge.settling import Blockage, Settling
from pratipad_nb.runtime.edge.shape import Shape
from pratipad_nb.runtime.edge.status import Status
from pratipad_nb.runtime.edge.swap import Proof
from pratipad_nb.runtime.edge.timers import Timers
from pratipad_nb.runtime.edge.upkeep import Upkeep
from pratipad_nb.runtime.positions.chain import OutputChain
from pratipad_nb.runtime.positions.checkpoints import Checkpoints
from pratipad_nb.runtime.positions.dead_letters import DeadLetters
from pratipad_nb.runtime.positions.gatekeeper import Gatekeeper
from pratipad_nb.runtime.positions.inputs import Input
from pratipad_nb.runtime.positions.janitor import Janitor
from pratipad_nb.runtime.positions.lineage import Lineage
from pratipad_nb.runtime.positions.malformed import Malformed
from pratipad_nb.runtime.positions.opening import move_former_input, open_input, open_logs, open_output
from pratipad_nb.runtime.positions.outputs import Chain, Writer
from pratipad_nb.runtime.positions.rebuilding import Rebuild
from pratipad_nb.runtime.positions.storage import StorageWatch
from pratipad_nb.runtime.positions.unreadable import Unreadable
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.batch import Barrier
from pratipad_nb.runtime.values.logs import diverted_output
from pratipad_nb.runtime.values.metrics import InFlight
from pratipad_nb.runtime.values.plan import EdgeSettings, fitted, log_specs
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import DeadEntry, Position
from pratipad_nb.transport.protocol import Connection, Log
from pratipad_nb.transport.readers import carry_positions, has_read, prepare_known_readers
from pratipad_nb.transport.room import Room
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Parts", "open_parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one run; each part's own module describes it."""

    connection: Connection
    settings: EdgeSettings
    subjects: Subjects
    status: Status
    shape: Shape
    controls: Controls
    timers: Timers
    changes: Changes
    in_flight: InFlight
    lineage: Lineage
    gate: Gatekeeper
    malformed: Malformed
    writer: Writer
    dead_letters: DeadLetters
    unreadable: Unreadable
    retries: Retries
    janitor: Janitor | None
    upkeep: Upkeep
    storage: StorageWatch
    settling: Settling
    blockage: Blockage
    signals: Signals
    announcer: Announcer
    limit: RateLimit
    ledger: Ledger
    requests: Requests
    roster: Roster
    presence: Presence
    hellos: Hellos
    backward: Backward


@dataclass(frozen=True, slots=True)
class _Stores:
    """The stores of a run: its logs, its dead letters, and the output with its positions."""

    logs: Mapping[str, Log]
    dead_letters: DeadLetters
    output: Chain
    chain: OutputChain | None
    checkpoints: Checkpoints | None
    janitor: Janitor | None
    storage: StorageWatch
    unreadable: Unreadable

    @property
    def durable(self) -> bool:
        """Whether messages and results are stored; in fast delivery nothing is."""
        return self.chain is not None

    @property
    def full(self) -> asyncio.Event | None:
        """Set while the output log takes no frame; None in fast delivery."""
        return self.chain.full if self.chain is not None else None


async def open_parts(
    connection: Connection, dataflow: Dataflow, settings: EdgeSettings, undo: contextlib.AsyncExitStack
) -> Parts:
    """Open logs, take over the output, set up all processors, and compose the parts of a run.

    Parameters
    ----------
    undo
        Takes the callbacks that close all of these, in the right order.

    Raises
    ------
    FlowError
        If the flow ran with the other delivery and still has messages.
    ProcessorError
        If a processor can't be set up. Nothing was started then.
    """
    undo.enter_context(diverted_output())
    settings = fitted(settings, (await connection.storage()).total)
    lineage = Lineage(connection)
    undo.push_async_callback(lineage.close)
    stores = await _open_stores(connection, settings, lineage, undo)
    line = Line(dataflow, settings.options)
    await line.open(stores.chain.states if stores.chain else {})
    undo.push_async_callback(line.close)
    source = await open_input(
        connection, settings, stores.logs, stores.chain, lineage, keeps_state=line.keeps_state
    )
    if stores.chain is not None and (rebuild := stores.chain.rebuild).going:
        rebuild.failed = await stores.dead_letters.failed_in(rebuild.gaps)
    parts = _composed(connection, settings, stores, line, lineage, source)
    undo.push_async_callback(_close_line, parts.shape)
    undo.push_async_callback(parts.changes.close)
    undo.push_async_callback(source.close)
    await parts.upkeep.begin(line)
    await parts.backward.open()
    return parts


async def _close_line(shape: Shape) -> None:
    await shape.line.close()


async def _open_stores(
    connection: Connection, settings: EdgeSettings, lineage: Lineage, undo: contextlib.AsyncExitStack
) -> _Stores:
    subjects, specs = Subjects(settings.name), log_specs(settings)
    later = specs.pop(subjects.input_stream, None)  # another log may have its subjects yet
    logs = await open_logs(connection, specs.values())
    unreadable = Unreadable(counts_shared=settings.partition == 0)
    dead_letters = DeadLetters(connection, logs[subjects.dead_stream], subjects, unreadable)
    storage = StorageWatch(connection, later if settings.partition == 0 else None)
    undo.push_async_callback(storage.close)
    await storage.look()
    output, chain = await open_output(connection, settings, logs, lambda: storage.state, unreadable)
    await dead_letters.find(settings.owns, chain.before if chain is not None else ("", 0))
    if settings.partition == 0:
        await (carry_positions if chain is None else prepare_known_readers)(connection, settings.name)
    if chain is not None and later is not None:
        await move_former_input(connection, settings, logs, chain, unreadable)
        logs |= await open_logs(connection, [later])
    if chain is None:
        return _Stores(logs, dead_letters, output, None, None, None, storage, unreadable)
    lineage.add([chain.holder])
    checkpoints = Checkpoints(
        chain, logs[subjects.mark_stream], subjects, settings.options.partitions, unreadable
    )
    janitor = None

    async def reach() -> int:
        return await checkpoints.reach() if lineage.known else 0

    if settings.partition == 0:  # one partition's run cuts the output log, to which all partitions write
        janitor = Janitor(
            logs[subjects.output_stream],
            reach,
            settings.keep,
            settings.options,
            partial(has_read, connection, settings.name),
            lambda: storage.state,
        )
    return _Stores(logs, dead_letters, output, chain, checkpoints, janitor, storage, unreadable)


def _composed(
    connection: Connection,
    settings: EdgeSettings,
    stores: _Stores,
    first: Line,
    lineage: Lineage,
    source: Input,
) -> Parts:
    """Make every part, and pass to each the parts that it uses.

    Where a part uses another that is made later, a function finds the later part when it is called.
    """
    subjects, stored = Subjects(settings.name), stores.output.positions
    status, signals, in_flight = Status(settings.name), Signals(connection), InFlight()
    ledger = _ledger(settings, first, signals, in_flight, lambda account: requests.note(account))
    requests = Requests(ledger, lambda device, epoch: gate.accepted.number(device, epoch))
    announcer = Announcer(signals, subjects, ledger, settings.delivery)
    shares = stores.dead_letters.shares
    malformed = Malformed(
        stores.dead_letters.store_malformed,
        source.acknowledge,
        lambda: shape.line.dataflow.input,
        shares.drops_malformed,
    )
    rebuild = stores.chain.rebuild if stores.chain else Rebuild(settings.name, {}, stored)
    gate = Gatekeeper(
        subjects,
        source,
        stored,
        stores.durable,
        malformed.put_aside,
        ledger.arrived,
        in_flight,
        ledger.void,
        lambda: ledger.max_demand if ledger.mode == "Demand" else None,
        rebuild,
        Room(settings.memory_bytes),
    )
    roster = Roster(ledger.accounts, gate.counts, settings.owns)
    shares.devices = lambda: len(roster.known) * settings.options.partitions
    attendance = connection.attendance(settings.name, lambda: roster.known)
    plain = PlainDevices(connection, subjects, attendance, roster)
    backward = _backward(connection, settings, stores, lineage, roster, plain, lambda: shape.line)

    presence = Presence(attendance, subjects, roster, ledger, backward)

    async def look() -> None:
        began = time.monotonic()
        await gate.look()
        if gate.emptied:
            requests.emptied(began)

    def on_stored(positions: Sequence[Position]) -> None:
        upkeep.note_append()
        status.note_append()
        gate.sweep()
        requests.stored(positions)
        requests.settle()
        ledger.settle()

    def on_rebuilt(positions: Sequence[Position]) -> None:
        rebuild.passed(positions)
        upkeep.note_append()
        gate.sweep()

    async def on_barrier(barrier: Barrier) -> None:
        await upkeep.store(barrier)
        status.note_append()  # some callers wait for the checkpoint

    def change_mode(mode: Literal["Push", "Pull", "Demand"]) -> None:
        requests.end(f"the flow begins with {mode} now")
        announcer.change_mode(mode)

    async def store_dead(entries: Sequence[tuple[str, DeadEntry]]) -> None:
        await stores.dead_letters.store(entries, stores.chain.next if stores.chain is not None else ("", 0))

    writer = Writer(
        stores.output,
        in_flight,
        store_dead=store_dead,
        send_replies=backward.reply,
        on_stored=on_stored,
        on_rebuilt=on_rebuilt,
        on_barrier=on_barrier,
        drops=shares.drops,
    )
    shape = Shape(
        first,
        lambda line: Pipeline(
            settings.name,
            line.stages,
            source,
            gate,
            writer,
            in_flight,
            settings.options,
            stores.dead_letters.room.free,
        ),
    )
    controls, timers = Controls(status, shape), Timers(settings.name, lambda: shape.line)
    upkeep = Upkeep(
        janitor=stores.janitor,
        full=stores.full,
        checkpoints=stores.checkpoints,
        source=source,
        rebuild=rebuild,
        keeps_state=lambda: shape.line.keeps_state,
        looks=(look, stores.dead_letters.look, lambda: retries.tidy()),
        inject=controls.inject,
        checkpoint_seconds=settings.options.checkpoint_seconds,
        always=settings.partitioned,
    )
    retries = _retries(settings, stores, status, controls, backward, shape, upkeep, rebuild)
    blockage = Blockage(
        connection, stores.full, stores.janitor, stores.dead_letters, backward, stores.storage
    )
    proof = Proof(status, in_flight, gate.accepted, stored, lambda: bool(shape.line.paused))
    return Parts(
        connection=connection,
        settings=settings,
        subjects=subjects,
        status=status,
        shape=shape,
        controls=controls,
        timers=timers,
        changes=Changes(status, shape, controls, timers, proof, upkeep, change_mode, announcer.announce),
        in_flight=in_flight,
        lineage=lineage,
        gate=gate,
        malformed=malformed,
        writer=writer,
        dead_letters=stores.dead_letters,
        unreadable=stores.unreadable,
        retries=retries,
        janitor=stores.janitor,
        upkeep=upkeep,
        storage=stores.storage,
        settling=Settling(
            connection,
            subjects,
            in_flight,
            blockage,
            durable=stores.durable,
            partitions=settings.options.partitions,
        ),
        blockage=blockage,
        signals=signals,
        announcer=announcer,
        limit=ledger.limit,
        ledger=ledger,
        requests=requests,
        roster=roster,
        presence=presence,
        hellos=Hellos(settings.owns, presence.on_hello),
        backward=backward,
    )


def _ledger(
    settings: EdgeSettings,
    first: Line,
    signals: Signals,
    in_flight: InFlight,
    on_change: Callable[[Account], None],
) -> Ledger:
    subjects = Subjects(settings.name)
    return Ledger(
        first.dataflow.input,
        lambda device, frame: signals.send(subjects.credit(device), encode(frame)),
        lambda: in_flight.count,
        delivery=settings.delivery,
        max_demand=settings.max_demand,
        min_demand=settings.min_demand,
        limit=RateLimit(settings.rate),
        on_change=on_change,
    )


def _backward(
    connection: Connection,
    settings: EdgeSettings,
    stores: _Stores,
    lineage: Lineage,
    roster: Roster,
    plain: PlainDevices,
    line: Callable[[], Line],
) -> Backward:
    subjects = Subjects(settings.name)
    return Backward(
        connection,
        settings,
        stores.logs[subjects.order_stream],
        stores.logs[subjects.mark_stream],
        lineage,
        roster=roster,
        plain=plain,
        dead_letters=stores.dead_letters,
        unreadable=stores.unreadable,
        line=line,
    )


def _retries(
    settings: EdgeSettings,
    stores: _Stores,
    status: Status,
    controls: Controls,
    backward: Backward,
    shape: Shape,
    upkeep: Upkeep,
    rebuild: Rebuild,
) -> Retries:
    return Retries(
        status,
        controls,
        stores.dead_letters,
        stores.output.positions,
        settings.owns,
        backward.again,
        lambda step: _standing(status, stores.dead_letters, shape.line, step),
        upkeep,
        rebuild,
    )


def _standing(status: Status, dead_letters: DeadLetters, line: Line, step: str) -> list[str]:
    """Return why messages don't pass the processors from `step` on, each reason with the next step."""
    if status.state == "paused":
        return ["the flow is paused: resume() it"]
    reasons = [f"{runner.at_work}: mend the processor, and run its cell again" for runner in line.hanging]
    reasons += [f"processor {key} is paused: resume({key!r})" for key in line.paused_from(step)]
    if dead_letters.room.refusal:
        reasons.append(f"there is no room for letters that fail again ({dead_letters.room.words})")
    return reasons
