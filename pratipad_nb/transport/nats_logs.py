"""The logs of one JetStream: that of the server itself, or that of the server it is a leaf of.

Owns making, finding and deleting logs, and the exchange with JetStream's API under a prefix. A log itself is in
`pratipad_nb.transport.nats_log`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from pratipad_nb.transport.nats_errors import NO_SUCH_LOG, refused
from pratipad_nb.transport.nats_log import NatsLog, stream_config
from pratipad_nb.transport.protocol import LogSpec

if TYPE_CHECKING:
    from pratipad_nb.transport.nats import NatsConnection

__all__ = ["NatsLogs"]

#: JetStream's error codes for "no such stream" and "no such consumer".
_NOT_FOUND = frozenset({NO_SUCH_LOG, 10014})


class NatsLogs:
    """A `pratipad_nb.transport.protocol.Logs`: those behind the API whose subjects begin with `prefix`."""

    def __init__(self, connection: NatsConnection, prefix: str) -> None:
        self._connection = connection
        self.prefix = prefix

    async def api(
        self, verb: str, body: dict[str, Any] | None = None, *, timeout: float = 5.0
    ) -> dict[str, Any]:
        """Call JetStream's API; its answer, or its error as one of ours. "Not found" is an empty answer.

        Raises
        ------
        Unavailable
            If JetStream can't do that now, or nobody answers for it.
        TransportError
            If JetStream refuses.
        """
        data = json.dumps(body).encode() if body is not None else b""
        answer: dict[str, Any] = json.loads(
            (await self._connection.request_raw(f"{self.prefix}.{verb}", data, timeout)).data
        )
        error = answer.get("error")
        if error is None:
            return answer
        if error.get("err_code") in _NOT_FOUND:
            return {}
        raise refused(verb, error)

    async def exists(self, name: str, timeout: float = 5.0) -> bool:
        """Return whether there is a log of that name: False on the server's own word alone."""
        return bool(await self.api(f"STREAM.INFO.{name}", timeout=timeout))

    async def open_log(self, spec: LogSpec) -> NatsLog:
        """Make the log, or change it to `spec`."""
        wanted = stream_config(spec)
        found = await self.api(f"STREAM.INFO.{spec.name}")
        if not found:
            await self.api(f"STREAM.CREATE.{spec.name}", wanted)
        elif any(found["config"].get(key) != value for key, value in wanted.items()):
            await self.api(f"STREAM.UPDATE.{spec.name}", found["config"] | wanted)
        return NatsLog(self, self._connection, spec)

    async def find_log(self, name: str) -> NatsLog | None:
        """Return the log of that name, None if there is none."""
        found = await self.api(f"STREAM.INFO.{name}")
        if not found:
            return None
        config = found["config"]
        retention: Literal["work", "log", "latest"] = "work" if config["retention"] == "workqueue" else "log"
        if config.get("max_msgs_per_subject") == 1:
            retention = "latest"
        subjects, seconds = tuple(config["subjects"]), config["max_age"] / 1e9
        spec = LogSpec(name, subjects, config["max_bytes"], retention, seconds)
        return NatsLog(self, self._connection, spec)

    async def delete_log(self, name: str) -> None:
        """Delete a log with all that is in it."""
        await self.api(f"STREAM.DELETE.{name}")
