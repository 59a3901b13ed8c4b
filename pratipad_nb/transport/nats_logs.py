"""The logs of one JetStream: that of the server itself, or that of the server it is a leaf of.

Owns making, finding and deleting logs. A log itself is for `pratipad_nb.transport.nats_log`.
"""

from __future__ import annotations

from typing import Any, Literal

from pratipad_nb import wording
from pratipad_nb.errors import ServerFull, TransportError, WaitTimeout
from pratipad_nb.transport.nats_api import JetStream
from pratipad_nb.transport.nats_log import NatsLog, stream_config
from pratipad_nb.transport.protocol import LogSpec

__all__ = ["NatsLogs"]


class NatsLogs:
    """A `pratipad_nb.transport.protocol.Logs`: the logs of one JetStream."""

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream

    async def open_log(self, spec: LogSpec) -> NatsLog:
        """Make the log, or change it to `spec`; `ServerFull` says how much of which limit is taken."""
        wanted = stream_config(spec)
        found = await self._jetstream.call(f"STREAM.INFO.{spec.name}")
        try:
            await self._fit(spec.name, wanted, spec.first, found)
        except ServerFull as error:
            raise ServerFull(f"{error}. {await self._limits()}") from error
        return NatsLog(self._jetstream, spec)

    async def _fit(self, name: str, wanted: dict[str, Any], first: int, found: dict[str, Any]) -> None:
        if not found:
            beginning = {"first_seq": first} if first else {}
            await self._jetstream.call(f"STREAM.CREATE.{name}", wanted | beginning)
            return
        known = found["config"]
        # A transform that isn't wanted any more is left out: a value of null would be one that differs.
        transform = known.pop("subject_transform", None)
        if transform != wanted.get("subject_transform") or any(
            known.get(key) != value for key, value in wanted.items() if key != "subject_transform"
        ):
            await self._jetstream.call(f"STREAM.UPDATE.{name}", known | wanted)

    async def _limits(self) -> str:
        """Return how much of the account's limits is taken, in words; empty if the server doesn't tell."""
        try:
            told = await self._jetstream.call("INFO")
        except (TransportError, WaitTimeout):
            return ""
        limits = told.get("limits", {})
        most, logs = limits.get("max_storage", -1), limits.get("max_streams", -1)
        taken = wording.size(told.get("reserved_storage", 0))
        of = f" of {wording.size(most)}" if most >= 0 else ""
        count = f" in {told.get('streams', 0)}" + (f" of {logs}" if logs >= 0 else "")
        return f"Its logs have reserved {taken}{of}{count} logs."

    async def find_log(self, name: str) -> NatsLog | None:
        """Return the log called `name`; None if there is no such log."""
        found = await self._jetstream.call(f"STREAM.INFO.{name}")
        if not found:
            return None
        config = found["config"]
        retention: Literal["work", "log", "latest"] = "work" if config["retention"] == "workqueue" else "log"
        if config.get("max_msgs_per_subject") == 1:
            retention = "latest"
        subjects, seconds = tuple(config["subjects"]), config["max_age"] / 1e9
        spec = LogSpec(name, subjects, config["max_bytes"], retention, seconds)
        return NatsLog(self._jetstream, spec)

    async def delete_log(self, name: str) -> None:
        """Delete a log with all its entries."""
        await self._jetstream.call(f"STREAM.DELETE.{name}")
