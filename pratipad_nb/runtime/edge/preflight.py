"""What is looked at before a flow is opened: whether it runs elsewhere, and whether what is stored of it fits.

Owns the refusals, and the note of how many partitions a flow is divided into.
"""

from __future__ import annotations

import contextlib

from pratipad_nb.errors import Fenced, FlowError, FrameError, WaitTimeout
from pratipad_nb.runtime.values.plan import EdgeSettings, log_specs
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ControlFrame, MarkFrame
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.transport.subjects import Subjects

__all__ = ["check_partitions", "refuse_a_second"]

#: The mark that says into how many partitions a flow is divided; without one it is one.
_PARTITIONS = "partitions"


async def check_partitions(connection: Connection, settings: EdgeSettings) -> None:
    """Refuse another number of partitions than what is stored was divided into."""
    specs, subjects, wanted = log_specs(settings), Subjects(settings.name), settings.options.partitions
    marks = await connection.open_log(specs[subjects.mark_stream])
    noted = await marks.latest(subjects.mark(_PARTITIONS))
    before = decode(noted.data, MarkFrame).sequence if noted else 1
    fresh = noted is None and await marks.latest(subjects.mark("partition-0")) is None
    if before != wanted and not fresh:
        raise FlowError(
            f"flow {settings.name!r} has run in {before} partitions, and {wanted} are given; what is stored "
            f"of it is divided so. Give {before}, or forget() it first."
        )
    if fresh and wanted > 1:
        with contextlib.suppress(Fenced):  # another edge of the flow starts at the same time
            frame = MarkFrame(wanted, [])
            await connection.append(subjects.mark(_PARTITIONS), encode(frame), expect=0)


async def refuse_a_second(connection: Connection, settings: EdgeSettings) -> None:
    """Refuse to run beside another process's run of the flow."""
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
