"""Opening: the input and the output that a flow's delivery asks for: logs (durable), or signals (fast).

Owns which input and output are opened, and under which names. The inputs and outputs themselves are in
`inputs`, `outputs` and `chain`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from pratipad_nb.errors import FlowError
from pratipad_nb.runtime.positions.chain import OutputChain
from pratipad_nb.runtime.positions.former_input import FormerInput
from pratipad_nb.runtime.positions.inputs import DurableInput, FastInput, Input
from pratipad_nb.runtime.positions.lineage import Lineage
from pratipad_nb.runtime.positions.outputs import Chain, FastChain
from pratipad_nb.runtime.positions.rebuilding import Rebuild
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.transport.partitions import partition_of
from pratipad_nb.transport.protocol import Connection, ConsumerSpec, Log
from pratipad_nb.transport.subjects import Subjects

__all__ = ["move_former_input", "open_input", "open_output"]

#: Begins the names of the input's consumers; the partition and a run's own part follow.
_CONSUMER = "edge"


async def open_output(
    connection: Connection, settings: EdgeSettings, logs: Mapping[str, Log]
) -> tuple[Chain, OutputChain | None]:
    """Return the chain of results, and the same as an `OutputChain` in durable delivery, else None.

    Raises
    ------
    FlowError
        If the delivery is fast, and messages of an earlier durable run are stored.
    """
    if settings.delivery == "fast":
        await _refuse_stored_messages(connection, settings)
        return FastChain(connection, Subjects(settings.name).out(settings.partition)), None
    chain = _chain_of(settings.partition, connection, settings, logs)
    await chain.open()
    return chain, chain


def _chain_of(
    partition: int, connection: Connection, settings: EdgeSettings, logs: Mapping[str, Log]
) -> OutputChain:
    subjects = Subjects(settings.name)
    return OutputChain(
        connection,
        logs[subjects.output_stream],
        logs[subjects.mark_stream],
        out_subject=subjects.out(partition),
        mark_subject=subjects.mark(f"partition-{partition}"),
    )


async def move_former_input(
    connection: Connection, settings: EdgeSettings, logs: Mapping[str, Log], chain: OutputChain
) -> None:
    """Move the input that version 0.1 has stored, if there is any, into the log of today."""
    chains = {settings.partition: chain}

    async def is_stored(device: str, number: int) -> bool:
        partition = partition_of(device, settings.options.partitions)
        if partition not in chains:
            chains[partition] = _chain_of(partition, connection, settings, logs)
            await chains[partition].read()
        return chains[partition].positions.number(device, 0) >= number

    await FormerInput(connection, settings, is_stored=is_stored, check_owner=chain.check_owner).move()


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
    """
    subjects = Subjects(settings.name)
    if chain is None:
        fast = FastInput(lambda subject: settings.owns(subject.rpartition(".")[2]))
        await fast.listen(connection, subjects.up_all)
        return fast
    input_log, family = logs[subjects.input_stream], f"{_CONSUMER}-{settings.partition}-"
    last = (await input_log.state()).last
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
