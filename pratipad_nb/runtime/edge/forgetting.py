"""Forgetting: the stored states of processors are deleted, and all positions stay.

Owns that alone: the way out where a state can't follow to another number of instances. A flow that runs
holds its states in its processors, and stores them again; so only a stopped flow's are deleted. In the place
of a checkpoint that can't be read, whose states are lost, a checkpoint without states is stored.
"""

from __future__ import annotations

import msgspec

from pratipad_nb.errors import FrameError
from pratipad_nb.runtime.edge.agreement import partitions_of
from pratipad_nb.runtime.positions.chain import OutputChain
from pratipad_nb.runtime.values.state_keys import StateKey
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import MarkFrame
from pratipad_nb.transport.protocol import Connection, Log
from pratipad_nb.transport.subjects import Subjects

__all__ = ["forget_states"]


async def forget_states(connection: Connection, flow: str, processor: str | None = None) -> tuple[str, ...]:
    """Delete the stored states of `processor`, or of all processors; return the keys of those processors.

    Raises
    ------
    Fenced
        If an edge of the flow stores a checkpoint at the same moment.
    FlowError
        If a checkpoint can't be read, and its positions aren't known without it.
    """
    subjects = Subjects(flow)
    marks = await connection.find_log(subjects.mark_stream)
    if marks is None:
        return ()
    forgotten: set[str] = set()
    for partition in range(await partitions_of(marks, subjects)):
        subject = subjects.mark(f"partition-{partition}")
        record = await marks.latest(subject)
        if record is None:
            continue
        try:
            mark = decode(record.data, MarkFrame)
        except FrameError:
            await _store_positions_alone(connection, subjects, marks, partition)
            continue
        kept = {
            name: state
            for name, state in mark.states.items()
            if processor is not None and StateKey.parse(name).processor != processor
        }
        if len(kept) < len(mark.states):
            forgotten.update(StateKey.parse(name).processor for name in mark.states.keys() - kept.keys())
            fresh = msgspec.structs.replace(mark, states=kept)
            if not kept:  # no state is to be rebuilt of messages since the checkpoint, either
                fresh = msgspec.structs.replace(fresh, floor=None, behind=[])
            await connection.append(subject, encode(fresh), expect=record.sequence)
    return tuple(sorted(forgotten))


async def _store_positions_alone(
    connection: Connection, subjects: Subjects, marks: Log, partition: int
) -> None:
    """Store a checkpoint of the positions that the output tells, over a checkpoint that can't be read."""
    output = await connection.find_log(subjects.output_stream)
    if output is None:
        return
    chain = OutputChain(
        connection,
        output,
        marks,
        out_subject=subjects.out(partition),
        mark_subject=subjects.mark(f"partition-{partition}"),
    )
    await chain.read()
    await chain.checkpoint({})
