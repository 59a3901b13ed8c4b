"""The plan of a run: its settings, and the logs that follow from them.

Owns the values alone; the run itself is in `edge`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pratipad_nb.settings import Delivery, FlowOptions, Keep, gateway_of
from pratipad_nb.transport.partitions import partition_of
from pratipad_nb.transport.protocol import LogSpec, Partitioning
from pratipad_nb.transport.subjects import Subjects

__all__ = ["EdgeSettings", "log_specs"]

#: Bound of the checkpoints and other marks, of which the newest of each is kept.
_MARKS_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """How a flow runs; see `pratipad_nb.session.Flow` for the meaning of each. `partition`: which one this edge runs."""

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
        """Whether there are several partitions."""
        return self.options.partitions > 1

    def owns(self, device: str) -> bool:
        """Return whether `device`, or the gateway that it is behind, belongs to this partition."""
        return partition_of(gateway_of(device), self.options.partitions) == self.partition


def log_specs(settings: EdgeSettings) -> dict[str, LogSpec]:
    """Return the logs of a flow, by their stream's name."""
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
                "work",
                partitioning=split if settings.partitioned else None,
            ),
            LogSpec(subjects.output_stream, streams[subjects.output_stream], settings.keep.bytes, "log"),
        ]
    return {spec.name: spec for spec in specs}
