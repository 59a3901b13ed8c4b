"""The logs of one JetStream: that of the server itself, or that of the server it is a leaf of.

Owns making, finding and deleting logs. A log itself is for `pratipad_nb.transport.nats_log`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from pratipad_nb import wording
from pratipad_nb.errors import ServerFull, TransportError, WaitTimeout
from pratipad_nb.transport.nats_api import JetStream
from pratipad_nb.transport.nats_log import NatsLog, stream_config
from pratipad_nb.transport.protocol import LogSpec

__all__ = ["NatsLogs"]

#: How long the server may take to copy an entry from one stream to another, in seconds, and the pause between
#: two looks.
_COPY_SECONDS, _COPY_LOOK = 10.0, 0.02


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
            found = await self._made(name, wanted | ({"first_seq": first} if first else {}))
        known = found["config"]
        # A transform that isn't wanted any more is left out: a value of null would be one that differs.
        transform = known.pop("subject_transform", None)
        if transform != wanted.get("subject_transform") or any(
            known.get(key) != value for key, value in wanted.items() if key != "subject_transform"
        ):
            await self._jetstream.call(f"STREAM.UPDATE.{name}", known | wanted)

    async def _made(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        """Make a stream, and return its description; or that of the stream that another party made first."""
        try:
            return await self._jetstream.call(f"STREAM.CREATE.{name}", config)
        except TransportError:
            found = await self._jetstream.call(f"STREAM.INFO.{name}")
            if not found:
                raise
            return found

    async def take_over(self, spec: LogSpec, former: str) -> None:
        """Make the log of `spec` with the newest entry of `former`; see `Logs.take_over`.

        The server copies the entry, for an entry can't be published to a server beyond a leaf's link. While
        it copies, the stream has no subject, so that no party stores an entry before the copy.
        """
        (subject,), wanted = spec.subjects, stream_config(spec)
        source = {"sources": [{"name": former, "filter_subject": subject}], "first_seq": spec.first or 1}
        copying = {key: value for key, value in wanted.items() if key != "subjects"} | source
        end = asyncio.get_running_loop().time() + _COPY_SECONDS
        while True:
            found = await self._jetstream.call(f"STREAM.INFO.{spec.name}")
            if not found:
                found = await self._made(spec.name, copying)
            if found["config"].get("subjects"):
                return
            if found["state"]["messages"] or not await self._has(former, subject):
                known = {key: value for key, value in found["config"].items() if key != "sources"}
                await self._jetstream.call(f"STREAM.UPDATE.{spec.name}", known | wanted)
                return
            if asyncio.get_running_loop().time() > end:
                raise WaitTimeout(
                    f"the server did not copy the entry under {subject} from {former} to {spec.name} within "
                    f"{_COPY_SECONDS:g} s. It is tried again with the next start."
                )
            await asyncio.sleep(_COPY_LOOK)

    async def _has(self, name: str, subject: str) -> bool:
        log = await self.find_log(name)
        return log is not None and await log.latest(subject) is not None

    async def log_names(self, pattern: str) -> list[str]:
        """Return the names of the logs that take subjects under `pattern`."""
        names: list[str] = []
        while True:
            page = await self._jetstream.call("STREAM.NAMES", {"subject": pattern, "offset": len(names)})
            found = page.get("streams") or []
            names.extend(found)
            if not found or len(names) >= page.get("total", 0):
                return names

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
