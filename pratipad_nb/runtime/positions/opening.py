"""Opening: the input and the output that a flow's delivery asks for: logs (durable), or signals (fast).

Owns which logs, input and output are opened, and under which names, and the words for a server that has no
room for the logs. The inputs and outputs themselves are in `inputs`, `outputs` and `chain`; what the logs may
take is in `pratipad_nb.runtime.values.plan`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

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

__all__ = ["open_input", "open_logs", "open_output", "told_of_storage"]

#: The name of the input's consumer, the same in all runs of a flow. With several partitions, each has a
#: consumer.
_CONSUMER = "edge"


async def open_logs(connection: Connection, settings: EdgeSettings) -> dict[str, Log]:
    """Return all logs of a flow, by name. While the disk is tight, logs that are there stay as they are.

    Raises
    ------
    ServerFull
        If the server has no room for one of them; see `told_of_storage`.
    """
    tight = (await connection.storage()).tight
    logs = {}
    for name, spec in log_specs(settings).items():
        found = await connection.find_log(name) if tight else None
        logs[name] = found or await connection.open_log(spec)
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
    marks = Subjects(settings.name).mark_stream  # has an entry from the first try on
    with contextlib.suppress(TransportError, WaitTimeout):
        found = {name: await connection.find_log(name) for name in log_specs(settings)}
        for name, log in found.items():
            if log is not None and name != marks and (await log.state()).last > 0:
                return
        for name, log in found.items():
            if log is not None:
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
