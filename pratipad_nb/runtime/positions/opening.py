"""Opening: the input and the output that a flow's delivery asks for: logs (durable), or signals (fast).

Owns which logs, input and output are opened, and under which names, and the words for a server that has no
room for the logs. The inputs and outputs themselves are in `inputs`, `outputs` and `chain`; what the logs may
take is in `pratipad_nb.runtime.values.plan`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from pratipad_nb import wording
from pratipad_nb.errors import FlowError, ServerFull, TransportError, WaitTimeout
from pratipad_nb.runtime.positions.chain import OutputChain
from pratipad_nb.runtime.positions.inputs import DurableInput, FastInput, Input
from pratipad_nb.runtime.positions.outputs import Chain, FastChain
from pratipad_nb.runtime.positions.rebuilding import Rebuild
from pratipad_nb.runtime.values.plan import EdgeSettings, log_specs, marks_bytes, reserved_bytes
from pratipad_nb.settings import Storage
from pratipad_nb.transport.protocol import Connection, ConsumerSpec, Log
from pratipad_nb.transport.subjects import Subjects

__all__ = ["no_room", "open_input", "open_logs", "open_output"]

#: The name of the input's consumer, the same in all runs of a flow. With several partitions, each has a
#: consumer.
_CONSUMER = "edge"


async def open_logs(connection: Connection, settings: EdgeSettings) -> dict[str, Log]:
    """Return all logs of a flow, by name. While the disk is tight, logs that are there stay as they are.

    Raises
    ------
    ServerFull
        If the server has no room for one of them; see `no_room`.
    """
    tight = (await connection.storage()).tight
    logs = {}
    for name, spec in log_specs(settings).items():
        found = await connection.find_log(name) if tight else None
        logs[name] = found or await connection.open_log(spec)
    return logs


async def no_room(connection: Connection, settings: EdgeSettings, error: ServerFull) -> FlowError:
    """Return the error for a server that has no room for a flow's logs, and delete the logs never used.

    A flow that doesn't start reserves nothing, or the next try would find less room still.
    """
    for name in log_specs(settings):
        with contextlib.suppress(TransportError, WaitTimeout):
            made = await connection.find_log(name)
            if made is not None and (await made.state()).last == 0:
                await connection.delete_log(name)
    options, keep = settings.options, settings.keep
    parts = [
        f"{wording.size(options.dead_letter_bytes)} dead letters (FlowOptions(dead_letter_bytes=…))",
        f"{wording.size(options.order_bytes)} orders (order_bytes=…)",
        f"{wording.size(marks_bytes(options.partitions))} checkpoints",
    ]
    if settings.delivery == "durable":
        parts.insert(0, f"{wording.size(options.input_bytes)} input (FlowOptions(input_bytes=…))")
        parts.insert(0, f"{wording.size(keep.bytes)} results (keep=Keep(bytes=…))")
    return FlowError(
        f"flow {settings.name!r} can't start: its server gives it no room. {error} The flow may take "
        f"{wording.size(reserved_bytes(settings))}: {', '.join(parts)}. The server reserves that for each "
        "flow that was ever started there, running or not. Make these bounds smaller, forget() a flow that "
        "is no longer needed, or raise the limit (the server's max_file_store, or the account's max_file)."
    )


async def open_output(
    connection: Connection,
    settings: EdgeSettings,
    logs: Mapping[str, Log],
    storage: Callable[[], Storage],
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
        storage=storage,
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
    spec = ConsumerSpec(_CONSUMER, "each")
    if settings.partitioned:
        partition = settings.partition
        spec = ConsumerSpec(f"{_CONSUMER}-{partition}", "each", subjects.input_of(partition))
    input_log = logs[subjects.input_stream]
    consumer = await input_log.consumer(spec)
    if not keeps_state or chain.floor is None:
        await consumer.rewind()
    else:
        # The server may know less than the checkpoint does, after a power failure for example.
        acknowledged, last = (await consumer.state()).floor, (await input_log.state()).last
        await consumer.rewind(min(chain.floor, acknowledged) + 1)
        chain.rebuild = Rebuild(settings.name, chain.behind, chain.positions, floor=acknowledged, last=last)
    return DurableInput(consumer, input_log, spec.subject, settings.options.partitions)


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
