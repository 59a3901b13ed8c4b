"""Ordered logs as JetStream streams.

Owns the mapping of a `LogSpec` to a stream's configuration, and the calls that read, purge and describe a
stream. Appending is for `NatsConnection.append`, consuming for `pratipad_nb.transport.nats_consumer`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from pratipad_nb.errors import TransportError
from pratipad_nb.transport.nats_api import JetStream
from pratipad_nb.transport.nats_consumer import NatsConsumer, prepare, state_of
from pratipad_nb.transport.nats_errors import NO_SUCH_SEQUENCE, no_such_log
from pratipad_nb.transport.protocol import ConsumerSpec, ConsumerState, LogSpec, LogState, Record

__all__ = ["NatsLog", "stream_config"]

_NANO = 1_000_000_000
#: Seconds for which the server remembers message ids: a courtesy for quick retries. Repeats are
#: recognised by position.
_DUPLICATE_WINDOW = 30
#: The same for a log without message ids, for the server has no switch to turn the memory off: a tenth of a
#: second is the shortest memory that the server accepts.
_SHORTEST_WINDOW = 0.1


def stream_config(spec: LogSpec) -> dict[str, Any]:
    """Return the JetStream configuration that makes a stream behave as `spec` says."""
    remembered = _DUPLICATE_WINDOW if spec.message_ids else _SHORTEST_WINDOW
    config: dict[str, Any] = {
        "name": spec.name,
        "subjects": list(spec.subjects),
        "retention": "workqueue" if spec.retention == "work" else "limits",
        # Writers to a full log wait, and no entry is lost: the oldest entries aren't dealt with yet.
        "discard": "new",
        "max_bytes": spec.max_bytes,
        "max_age": int(spec.max_age * _NANO),
        "storage": "file",
        "num_replicas": 1,
        "allow_direct": True,
        "duplicate_window": int(min(remembered, spec.max_age or remembered) * _NANO),
    }
    if spec.retention == "latest":
        config["max_msgs_per_subject"] = 1
    if spec.stored_as:
        config["subject_transform"] = {"src": spec.subjects[0], "dest": spec.stored_as}
    if spec.partitioning is not None:
        split = spec.partitioning
        config["subject_transform"] = {
            "src": split.source,
            "dest": f"{split.target}.{{{{partition({split.partitions},1)}}}}.{{{{wildcard(1)}}}}",
        }
    return config


class NatsLog:
    """A `pratipad_nb.transport.protocol.Log` that is a JetStream stream."""

    def __init__(self, jetstream: JetStream, spec: LogSpec) -> None:
        self._jetstream = jetstream
        self._spec = spec

    @property
    def spec(self) -> LogSpec:
        """The spec that the log was opened with."""
        return self._spec

    async def latest(self, subject: str) -> Record | None:
        """Return the newest entry under `subject`."""
        return await self._direct(f".{subject}", None)

    async def read(self, first: int, subject: str = "") -> AsyncIterator[Record]:
        """Iterate over the entries from sequence `first` to the newest at the time of the call."""
        last = (await self.state()).last
        while first <= last:
            record = await self._direct("", {"seq": first, "next_by_subj": subject or ">"})
            if record is None or record.sequence > last:
                return
            yield record
            first = record.sequence + 1

    async def _direct(self, suffix: str, body: dict[str, Any] | None) -> Record | None:
        """Read one entry straight from the store."""
        data = json.dumps(body).encode() if body is not None else b""
        subject = f"{self._jetstream.prefix}.DIRECT.GET.{self._spec.name}{suffix}"
        answer = await self._jetstream.ask_log(self._spec.name, subject, data)
        headers = answer.headers or {}
        if "Nats-Sequence" in headers:
            time = datetime.fromisoformat(headers["Nats-Time-Stamp"])
            return Record(
                headers["Nats-Subject"], answer.data, int(headers["Nats-Sequence"]), time.timestamp()
            )
        if headers.get("Status") == "404":
            return None
        raise TransportError(
            f"reading {self._spec.name}: {headers.get('Status')} {headers.get('Description')}"
        )

    async def state(self) -> LogState:
        """Return the sequences of the first and last entry, and the log's size."""
        found = await self._jetstream.call(f"STREAM.INFO.{self._spec.name}")
        if not found:
            raise no_such_log(self._spec.name)
        state = found["state"]
        first = state["first_seq"] if state["messages"] else state["last_seq"] + 1
        bound = found["config"]["max_bytes"]
        return LogState(first, state["last_seq"], state["messages"], state["bytes"], bound)

    async def purge(self, below: int, subject: str = "") -> None:
        """Delete all entries, or those under `subject`, with a sequence lower than `below`."""
        if below > 1:
            only = {"filter": subject} if subject else {}
            await self._jetstream.call(f"STREAM.PURGE.{self._spec.name}", {"seq": below, **only})

    async def delete(self, sequence: int) -> None:
        """Delete one entry."""
        body = {"seq": sequence, "no_erase": True}
        try:
            await self._jetstream.call(f"STREAM.MSG.DELETE.{self._spec.name}", body)
        except TransportError as error:
            # A missing entry is as good as a deleted entry.
            if not any(str(code) in str(error) for code in NO_SUCH_SEQUENCE):
                raise

    async def consumer(self, spec: ConsumerSpec) -> NatsConsumer:
        """Make the named consumer, or go on from its position."""
        consumer = NatsConsumer(self._jetstream, self._spec.name, spec)
        await consumer.open()
        return consumer

    async def prepare_consumer(self, spec: ConsumerSpec) -> None:
        """Make the named consumer, or change it to `spec`."""
        await prepare(self._jetstream, self._spec.name, spec)

    async def find_consumer(self, spec: ConsumerSpec) -> NatsConsumer | None:
        """Go on from the position of the named consumer; None if there is none."""
        if not await self._jetstream.call(f"CONSUMER.INFO.{self._spec.name}.{spec.name}"):
            return None
        consumer = NatsConsumer(self._jetstream, self._spec.name, spec)
        await consumer.start()
        return consumer

    async def consumers(self) -> list[ConsumerState]:
        """Return the state of every named consumer."""
        states: list[ConsumerState] = []
        while True:
            page = await self._jetstream.call(f"CONSUMER.LIST.{self._spec.name}", {"offset": len(states)})
            found = page.get("consumers") or []
            states.extend(state_of(info) for info in found)
            if not found or len(states) >= page.get("total", 0):
                return [state for state in states if state.name]

    async def forget_consumer(self, name: str) -> None:
        """Delete a named consumer and its position."""
        await self._jetstream.call(f"CONSUMER.DELETE.{self._spec.name}.{name}")
