"""The plan of a run: its settings, and the logs that follow from the settings.

Owns the values alone. The run itself is in `pratipad_nb.runtime.edge`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pratipad_nb.settings import Delivery, FlowOptions, Keep, gateway_of
from pratipad_nb.transport.partitions import partition_of
from pratipad_nb.transport.protocol import LogSpec, Partitioning
from pratipad_nb.transport.readers import POSITION_BYTES
from pratipad_nb.transport.subjects import Subjects

__all__ = ["EdgeSettings", "account_bytes", "fitted", "log_specs", "marks_bytes", "reserved_bytes"]

#: Bound of the log of checkpoints, in bytes, and what each further partition adds: a
#: checkpoint is at most a frame of the server, 8 MiB, and its successor is stored before it is deleted.
_MARKS_BYTES, _PARTITION_BYTES = 64 << 20, 16 << 20
#: The parts of the server's disk that one flow's results and input may take, where their bounds are larger:
#: logs that reach their bounds make devices and readers wait, while a disk that is full stops all flows.
_OUTPUT_PART, _INPUT_PART = 4, 8
_LEAST_BYTES = 4 << 20
#: Room for the positions of readers: of a thousand.
_POSITIONS_BYTES = 64 << 20


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

    @property
    def memory_bytes(self) -> int:
        """Most memory that this partition's messages in flight take: partitions have equal shares."""
        return self.options.memory_bytes // self.options.partitions

    def owns(self, device: str) -> bool:
        """Return whether `device`, or the gateway that it speaks through, belongs to this partition."""
        return partition_of(gateway_of(device), self.options.partitions) == self.partition


def marks_bytes(partitions: int) -> int:
    """Return the bound of the log of checkpoints, in bytes."""
    return _MARKS_BYTES + (partitions - 1) * _PARTITION_BYTES


def fitted(settings: EdgeSettings, disk: int) -> EdgeSettings:
    """Return `settings` with the bounds that fit a disk of `disk` bytes; 0: unchanged."""
    if not disk:
        return settings
    keep, options = settings.keep, settings.options
    results = min(keep.bytes, max(_LEAST_BYTES, disk // _OUTPUT_PART))
    taken = min(options.input_bytes, max(_LEAST_BYTES, disk // _INPUT_PART))
    return replace(settings, keep=replace(keep, bytes=results), options=replace(options, input_bytes=taken))


def reserved_bytes(settings: EdgeSettings, readers: int = 0) -> int:
    """Return how many bytes a flow's logs may take in all: what they reserve at a server that has a limit.

    Parameters
    ----------
    readers
        Number of the flow's named readers, whose positions have a log each.
    """
    return sum(spec.max_bytes for spec in log_specs(settings).values()) + readers * POSITION_BYTES


def account_bytes(settings: EdgeSettings) -> int:
    """Return how many bytes a flow's account may store: its logs, and what comes and goes beside them.

    Beside them are the positions of readers, and the former input while it is carried over.
    """
    return reserved_bytes(settings) + settings.options.input_bytes + _POSITIONS_BYTES


def log_specs(settings: EdgeSettings) -> dict[str, LogSpec]:
    """Return the specifications of a flow's logs, by the name of their stream; the input, if any, is last.

    A log that takes messages is made last, so that no message is taken before all other logs are there.
    """
    subjects, options = Subjects(settings.name), settings.options
    streams = subjects.streams
    specs = [
        LogSpec(
            subjects.mark_stream, streams[subjects.mark_stream], marks_bytes(options.partitions), "latest"
        ),
        LogSpec(subjects.dead_stream, streams[subjects.dead_stream], options.dead_letter_bytes, "log"),
        LogSpec(
            subjects.order_stream,
            streams[subjects.order_stream],
            options.order_bytes,
            "log",
            options.order_seconds,
            # The log of the orders alone takes message ids: those of orders are random.
            message_ids=True,
        ),
    ]
    if settings.delivery == "durable":
        split = Partitioning(subjects.up_all, subjects.input_root, options.partitions)
        specs += [
            LogSpec(subjects.output_stream, streams[subjects.output_stream], settings.keep.bytes, "log"),
            LogSpec(
                subjects.input_stream,
                streams[subjects.input_stream],
                options.input_bytes,
                "log",
                partitioning=split if settings.partitioned else None,
            ),
        ]
    return {spec.name: spec for spec in specs}
