"""Opening: the input and the output that a flow's delivery asks for: logs (durable), or signals (fast).

Owns which logs, input and output are opened, and under which names, and the words for a server that has no
room for the logs. The inputs and outputs themselves are in `inputs`, `outputs` and `chain`; what the logs may
take is in `pratipad_nb.runtime.values.plan`.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

from pratipad_nb import wording
from pratipad_nb.errors import FlowError, ServerFull, TransportError, WaitTimeout
from pratipad_nb.runtime.positions.chain import OutputChain
from pratipad_nb.runtime.positions.former_input import FormerInput
from pratipad_nb.runtime.positions.inputs import DurableInput, FastInput, Input
from pratipad_nb.runtime.positions.lineage import Lineage
from pratipad_nb.runtime.positions.outputs import Chain, FastChain
from pratipad_nb.runtime.positions.rebuilding import Rebuild
from pratipad_nb.runtime.positions.unreadable import Unreadable
from pratipad_nb.runtime.values.plan import EdgeSettings, log_specs, marks_bytes, reserved_bytes
from pratipad_nb.settings import Storage
from pratipad_nb.transport.partitions import partition_of
from pratipad_nb.transport.protocol import Connection, ConsumerSpec, Log, LogSpec
from pratipad_nb.transport.subjects import Subjects

__all__ = ["move_former_input", "open_input", "open_logs", "open_output", "told_of_storage"]

#: Begins the names of the input's consumers; the partition and a run's own part follow.
_CONSUMER = "edge"


async def open_logs(connection: Connection, specs: Iterable[LogSpec]) -> dict[str, Log]:
    """Return the logs of `specs`, by name. While the disk is tight, logs that are there stay as they are.

    Raises
    ------
    ServerFull
        If the server has no room for one of them; see `told_of_storage`.
    """
    tight = (await connection.storage()).tight
    logs: dict[str, Log] = {}
    for spec in specs:
        found = await connection.find_log(spec.name) if tight else None
        if found is not None and found.spec.subjects != spec.subjects:
            found = None  # as an earlier version made it
        logs[spec.name] = found or await connection.open_log(spec)
    return logs


@contextlib.asynccontextmanager
async def told_of_storage(connection: Connection, settings: EdgeSettings) -> AsyncIterator[None]:
    """Raise `FlowError` for errors of the block that a lack of room at the server has caused."""
    try:
        yield
    except ServerFull as error:
        await _delete_unused(connection, settings)
        raise FlowError(
            f"flow {settings.name!r} can't start: its server gives it no room. {error} {_needs(settings)} "
            "The server reserves that for each flow that was ever started there, running or not. Make these "
            "bounds smaller, forget() a flow that is no longer needed, or raise the limit (the server's "
            "max_file_store, or the account's max_file)."
        ) from error
    except WaitTimeout as error:
        trouble = (await connection.storage()).trouble
        if not trouble:
            raise
        raise FlowError(
            f"flow {settings.name!r} can't start now: {trouble}. Make room, then start it."
        ) from error


async def _delete_unused(connection: Connection, settings: EdgeSettings) -> None:
    """Delete the logs of a flow that never ran: they would leave still less room for the next start."""
    subjects, specs = Subjects(settings.name), log_specs(settings)
    # What a start itself stores in these says nothing of a flow that has run.
    begun = (subjects.mark_stream, subjects.output_stream)
    with contextlib.suppress(TransportError, WaitTimeout):
        for name in (subjects.input_stream, subjects.former_input_stream):
            if await connection.find_log(name) is not None:
                return
        for name in specs:
            made = await connection.find_log(name)
            if made is not None and (name in begun or (await made.state()).last == 0):
                await connection.delete_log(name)


def _needs(settings: EdgeSettings) -> str:
    """Return how much the logs of a flow may take, and by which settings, in words."""
    options, keep = settings.options, settings.keep
    parts = [
        f"{wording.size(options.dead_letter_bytes)} dead letters (FlowOptions(dead_letter_bytes=…))",
        f"{wording.size(options.order_bytes)} orders (order_bytes=…)",
        f"{wording.size(marks_bytes(options.partitions))} checkpoints",
    ]
    if settings.delivery == "durable":
        parts.insert(0, f"{wording.size(options.input_bytes)} input (FlowOptions(input_bytes=…))")
        parts.insert(0, f"{wording.size(keep.bytes)} results (keep=Keep(bytes=…))")
    return f"The flow may take {wording.size(reserved_bytes(settings))}: {', '.join(parts)}."


async def open_output(
    connection: Connection,
    settings: EdgeSettings,
    logs: Mapping[str, Log],
    storage: Callable[[], Storage],
    unreadable: Unreadable,
) -> tuple[Chain, OutputChain | None]:
    """Return the chain of results, and the same as an `OutputChain` in durable delivery, else None.

    Raises
    ------
    FlowError
        If the delivery is fast, and messages of an earlier durable run are stored; or if a checkpoint can't
        be read, and the positions aren't known without it.
    """
    if settings.delivery == "fast":
        await _refuse_stored_messages(connection, settings)
        return FastChain(connection, Subjects(settings.name).out(settings.partition)), None
    chain = _chain_of(settings.partition, connection, settings, logs, storage, unreadable)
    await chain.open()
    return chain, chain


def _chain_of(
    partition: int,
    connection: Connection,
    settings: EdgeSettings,
    logs: Mapping[str, Log],
    storage: Callable[[], Storage] = Storage,
    unreadable: Unreadable | None = None,
) -> OutputChain:
    subjects = Subjects(settings.name)
    return OutputChain(
        connection,
        logs[subjects.output_stream],
        logs[subjects.mark_stream],
        out_subject=subjects.out(partition),
        mark_subject=subjects.mark(f"partition-{partition}"),
        storage=storage,
        unreadable=unreadable,
    )


async def move_former_input(
    connection: Connection,
    settings: EdgeSettings,
    logs: Mapping[str, Log],
    chain: OutputChain,
    unreadable: Unreadable,
) -> None:
    """Move the input that version 0.1 has stored, if there is any, into the log of today."""
    chains = {settings.partition: chain}

    async def is_stored(device: str, number: int) -> bool:
        partition = partition_of(device, settings.options.partitions)
        if partition not in chains:
            chains[partition] = _chain_of(partition, connection, settings, logs)
            await chains[partition].read()
        return chains[partition].positions.number(device, 0) >= number

    await FormerInput(
        connection, settings, is_stored=is_stored, check_owner=chain.check_owner, unreadable=unreadable
    ).move()


async def open_input(
    connection: Connection,
    settings: EdgeSettings,
    logs: Mapping[str, Log],
    chain: OutputChain | None,
    lineage: Lineage,
    *,
    keeps_state: bool,
) -> Input:
    """Return the input, at the first delivery that isn't acknowledged.

    `lineage` compares the input's log, too. If processors keep a state, the input is set back to the first
    delivery that the states of `chain` lack.

    Raises
    ------
    FlowError
        If the checkpoint with the processors' states can't be read, and the input no longer holds all
        messages that would rebuild them.
    """
    subjects = Subjects(settings.name)
    if chain is None:
        fast = FastInput(lambda subject: settings.owns(subject.rpartition(".")[2]))
        await fast.listen(connection, subjects.up_all)
        return fast
    input_log, family = logs[subjects.input_stream], f"{_CONSUMER}-{settings.partition}-"
    state = await input_log.state()
    last = state.last
    if keeps_state and chain.states_lost and state.first > 1:
        raise FlowError(
            f"flow {settings.name!r} can't start: {chain.states_lost}. The states of processors were there; "
            f"log {input_log.spec.name} holds no message before entry {state.first} to rebuild them. Restore "
            "the server's state folder from a backup; or call forget_state() of the flow, then start it: its "
            "processors begin without a state, and no message is lost or doubled."
        )
    # Messages of foreign devices bear the input's sequences. If the input went back alone, as after a power
    # cut, it gives the sequences of lost messages to new messages.
    chain.positions.drop([position for position in chain.positions.of_foreign() if position[2] > last])
    earlier = [each for each in await input_log.consumers() if each.name.startswith(family)]
    acknowledged = max((each.floor for each in earlier), default=0)
    start = acknowledged + 1
    if keeps_state and chain.floor is not None:
        # The server may know less than the checkpoint does, after a power failure for example.
        start = min(chain.floor, acknowledged) + 1
        chain.rebuild = Rebuild(settings.name, chain.behind, chain.positions, floor=acknowledged, last=last)
    subject = subjects.input_of(settings.partition) if settings.partitioned else ""
    # A consumer of this run's own: an edge that was replaced, and doesn't know it yet, takes no delivery
    # away, and its acknowledgements say nothing about the states here.
    spec = ConsumerSpec(f"{family}{secrets.token_hex(4)}", "each", subject, start=start)
    consumer = await input_log.consumer(spec)
    for each in earlier:
        await input_log.forget_consumer(each.name)
    return DurableInput(consumer, input_log, spec, lineage, settings.options.partitions)


async def _refuse_stored_messages(connection: Connection, settings: EdgeSettings) -> None:
    """Raise `FlowError` if messages of an earlier durable run are stored."""
    subjects = Subjects(settings.name)
    for name in (subjects.input_stream, subjects.former_input_stream, subjects.output_stream):
        if await connection.find_log(name) is not None:
            raise FlowError(
                f"flow {settings.name!r} has run with delivery='durable' and has messages stored. "
                "Forget them first (Flow.forget, or `%dataflow forget` in a notebook), or give the fast one "
                "another name."
            )
