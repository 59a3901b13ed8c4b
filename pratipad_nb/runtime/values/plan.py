"""The plan of a run: its settings, and the logs that follow from the settings.

Owns the values alone. The run itself is in `pratipad_nb.runtime.edge`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pratipad_nb.settings import Delivery, FlowOptions, Keep, gateway_of
from pratipad_nb.transport.partitions import partition_of
from pratipad_nb.transport.protocol import LogSpec, Partitioning
from pratipad_nb.transport.subjects import Subjects

__all__ = ["EdgeSettings", "log_specs"]

#: Bound of the log of checkpoints and readers' positions, in bytes; of each, the newest is kept.
_MARKS_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """The settings of a flow's run, explained in `pratipad_nb.session.Flow`, and the edge's `partition`."""

    name: str
    delivery: Delivery = "durable"
    rate: float | None = None
    max_demand: int = 1000
    min_demand: int = 500
    keep: Keep = field(default_factory=Keep)
    options: FlowOptions = field(default_factory=FlowOptions)
    partition: int = 0

    @property
    def partitioned(self) -> bool:
        """Whether the flow has several partitions."""
        return self.options.partitions > 1

    def owns(self, device: str) -> bool:
        """Return whether `device`, or the gateway that it speaks through, belongs to this partition."""
        return partition_of(gateway_of(device), self.options.partitions) == self.partition


def log_specs(settings: EdgeSettings) -> dict[str, LogSpec]:
    """Return the specifications of a flow's logs, by the name of their stream."""
    subjects, options = Subjects(settings.name), settings.options
    streams = subjects.streams
    specs = [
        LogSpec(subjects.mark_stream, streams[subjects.mark_stream], _MARKS_BYTES, "latest"),
        LogSpec(subjects.dead_stream, streams[subjects.dead_stream], options.dead_letter_bytes, "log"),
        LogSpec(
            subjects.order_stream,
            streams[subjects.order_stream],
            options.order_bytes,
            "log",
            options.order_seconds,
        ),
    ]
    if settings.delivery == "durable":
        split = Partitioning(subjects.up_all, subjects.input_root, options.partitions)
        specs += [
            LogSpec(
                subjects.input_stream,
                streams[subjects.input_stream],
                options.input_bytes,
                "log",
                partitioning=split if settings.partitioned else None,
            ),
            LogSpec(subjects.output_stream, streams[subjects.output_stream], settings.keep.bytes, "log"),
        ]
    return {spec.name: spec for spec in specs}
