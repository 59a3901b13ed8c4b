"""Opening: the input and the output that a flow's delivery asks for: logs (durable), or signals (fast).

Owns which input and output are opened, and under which names. The inputs and outputs themselves are in
`inputs`, `outputs` and `chain`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pratipad_nb.errors import FlowError
from pratipad_nb.runtime.positions.chain import OutputChain
from pratipad_nb.runtime.positions.consumers import acknowledged, own_consumer
from pratipad_nb.runtime.positions.inputs import DurableInput, FastInput, Input
from pratipad_nb.runtime.positions.outputs import Chain, FastChain
from pratipad_nb.runtime.positions.rebuilding import Rebuild
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.transport.protocol import Connection, Log
from pratipad_nb.transport.subjects import Subjects

__all__ = ["open_input", "open_output"]


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
    *,
    keeps_state: bool,
) -> Input:
    """Return the input, at the first delivery that isn't acknowledged.

    If processors keep a state, the input is set back to the first delivery that the states of `chain` lack.
    """
    subjects = Subjects(settings.name)
    if chain is None:
        fast = FastInput(lambda subject: settings.owns(subject.rpartition(".")[2]))
        await fast.listen(connection, subjects.up_all)
        return fast
    partition = settings.partition
    subject = subjects.input_of(partition) if settings.partitioned else ""
    input_log = logs[subjects.input_stream]
    before = start = await acknowledged(input_log, partition)
    if keeps_state and chain.floor is not None:
        # The server may know less than the checkpoint does, after a power failure for example.
        start = min(chain.floor, before)
        last = (await input_log.state()).last
        chain.rebuild = Rebuild(settings.name, chain.behind, chain.positions, floor=before, last=last)
    consumer = await own_consumer(input_log, partition, chain.writer, subject, start + 1)
    return DurableInput(
        consumer, input_log, subject, settings.options.partitions, check_owner=chain.check_owner
    )


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
