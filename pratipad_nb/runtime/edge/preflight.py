"""The checks before a flow is opened: whether it runs elsewhere, and whether its stored logs fit.

Owns the refusals, and the mark of how many partitions a flow is divided into. Opening the logs is for
`parts`.
"""

from __future__ import annotations

import contextlib

from pratipad_nb.errors import Fenced, FlowError, FrameError, WaitTimeout
from pratipad_nb.runtime.values.plan import EdgeSettings, log_specs
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ControlFrame, MarkFrame
from pratipad_nb.transport.protocol import Connection, Log
from pratipad_nb.transport.subjects import Subjects

__all__ = ["check_partitions", "partitions_of", "refuse_a_second"]

#: The mark of how many partitions a flow is divided into; a flow without the mark has one partition.
_PARTITIONS = "partitions"


async def check_partitions(connection: Connection, settings: EdgeSettings) -> None:
    """Refuse a number of partitions that differs from the stored flow's.

    Raises
    ------
    FlowError
        If the flow has run in another number of partitions.
    """
    specs, subjects, wanted = log_specs(settings), Subjects(settings.name), settings.options.partitions
    marks = await connection.open_log(specs[subjects.mark_stream])
    before = await partitions_of(marks, subjects)
    fresh = before == 1 and await marks.latest(subjects.mark("partition-0")) is None
    if before != wanted and not fresh:
        raise FlowError(
            f"flow {settings.name!r} has run in {before} partitions, and {wanted} are given; its stored "
            f"messages are divided so. Give {before}, or forget() the flow first."
        )
    if fresh and wanted > 1:
        with contextlib.suppress(Fenced):  # another edge of the flow starts at the same time
            frame = MarkFrame(wanted, [])
            await connection.append(subjects.mark(_PARTITIONS), encode(frame), expect=0)


async def partitions_of(marks: Log, subjects: Subjects) -> int:
    """Return how many partitions a stored flow is divided into."""
    noted = await marks.latest(subjects.mark(_PARTITIONS))
    return decode(noted.data, MarkFrame).sequence if noted else 1


async def refuse_a_second(connection: Connection, settings: EdgeSettings) -> None:
    """Refuse to run beside another process's run of the flow.

    Raises
    ------
    FlowError
        If another run answers on the flow's control subject.
    """
    try:
        answer = decode(
            await connection.request(Subjects(settings.name).control, encode(ControlFrame("who")), 0.25),
            ControlFrame,
        )
    except (WaitTimeout, FrameError):
        return
    raise FlowError(
        f"flow {settings.name!r} runs already, in process {answer.arguments.get('pid')}. "
        "Stop it there first, or give this one another name."
    )
