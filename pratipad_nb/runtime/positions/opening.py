"""The two ends of a run, as the flow's delivery asks for them: logs (durable), or signals (fast).

Owns which of the two is opened, and under which names. What they do is in `inputs`, `outputs` and `chain`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pratipad_nb.errors import FlowError
from pratipad_nb.runtime.positions.chain import OutputChain
from pratipad_nb.runtime.positions.inputs import DurableInput, FastInput, Input
from pratipad_nb.runtime.positions.outputs import Chain, FastChain
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.transport.protocol import Connection, ConsumerSpec, Log
from pratipad_nb.transport.subjects import Subjects

__all__ = ["open_input", "open_output"]

#: The input's consumer, one for all runs of a flow; with several partitions, one for each.
_CONSUMER = "edge"


async def open_output(
    connection: Connection, settings: EdgeSettings, logs: Mapping[str, Log]
) -> tuple[Chain, OutputChain | None]:
    """Return what results are appended to, once more as the chain that it is in durable delivery.

    Raises
    ------
    FlowError
        If the delivery is fast and messages of the durable one are stored.
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


async def open_input(connection: Connection, settings: EdgeSettings, logs: Mapping[str, Log]) -> Input:
    """Return where messages come in, at the first that isn't acknowledged."""
    subjects = Subjects(settings.name)
    if settings.delivery == "fast":
        fast = FastInput(lambda subject: settings.owns(subject.rpartition(".")[2]))
        await fast.listen(connection, subjects.up_all)
        return fast
    spec = ConsumerSpec(_CONSUMER, "each")
    if settings.partitioned:
        partition = settings.partition
        spec = ConsumerSpec(f"{_CONSUMER}-{partition}", "each", subjects.input_of(partition))
    consumer = await logs[subjects.input_stream].consumer(spec)
    await consumer.rewind()
    return DurableInput(consumer)


async def _refuse_stored_messages(connection: Connection, settings: EdgeSettings) -> None:
    """Refuse fast delivery while messages of the durable one are stored."""
    subjects = Subjects(settings.name)
    for name in (subjects.input_stream, subjects.output_stream):
        if await connection.find_log(name) is not None:
            raise FlowError(
                f"flow {settings.name!r} has run with delivery='durable' and has messages stored. "
                "Forget them first (Flow.forget, or `%dataflow forget` in a notebook), or give the fast one another name."
            )
