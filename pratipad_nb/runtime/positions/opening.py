"""Opening: the input and the output that a flow's delivery asks for: logs (durable), or signals (fast).

Owns which input and output are opened, and under which names. The inputs and outputs themselves are in
`inputs`, `outputs` and `chain`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pratipad_nb.errors import FlowError
from pratipad_nb.runtime.positions.chain import OutputChain
from pratipad_nb.runtime.positions.inputs import DurableInput, FastInput, Input
from pratipad_nb.runtime.positions.lineage import Lineage
from pratipad_nb.runtime.positions.outputs import Chain, FastChain
from pratipad_nb.runtime.positions.rebuilding import Rebuild
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.transport.protocol import Connection, ConsumerSpec, Log
from pratipad_nb.transport.subjects import Subjects

__all__ = ["open_input", "open_output"]

#: The name of the input's consumer, the same in all runs of a flow. With several partitions, each has a
#: consumer.
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
    subjects, out = Subjects(settings.name), Subjects(settings.name).out(settings.partition)
    if settings.delivery == "fast":
        await _refuse_stored_messages(connection, settings)
        return FastChain(connection, out), None
    chain = OutputChain(
        connection,
        logs[subjects.output_stream],
        logs[subjects.mark_stream],
        out_subject=out,
        mark_subject=subjects.mark(f"partition-{settings.partition}"),
    )
    await chain.open()
    return chain, chain


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
    spec = ConsumerSpec(_CONSUMER, "each")
    if settings.partitioned:
        partition = settings.partition
        spec = ConsumerSpec(f"{_CONSUMER}-{partition}", "each", subjects.input_of(partition))
    input_log = logs[subjects.input_stream]
    consumer = await input_log.consumer(spec)
    last = (await input_log.state()).last
    # Messages of foreign devices bear the input's sequences. If the input went back alone, as after a power
    # cut, it gives the sequences of lost messages to new messages.
    chain.positions.drop([position for position in chain.positions.of_foreign() if position[2] > last])
    if not keeps_state or chain.floor is None:
        await consumer.rewind()
    else:
        # The server may know less than the checkpoint does, after a power failure for example.
        acknowledged = (await consumer.state()).floor
        await consumer.rewind(min(chain.floor, acknowledged) + 1)
        chain.rebuild = Rebuild(settings.name, chain.behind, chain.positions, floor=acknowledged, last=last)
    return DurableInput(consumer, input_log, lineage, spec.subject, settings.options.partitions)


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
