"""The connection to NATS: the link, with JetStream's logs on top.

Owns the choice of the JetStream for an append and for a log. From the ground up: `nats_link` is the
connection without logs, `nats_api` exchanges requests with JetStream, and `nats_consumer`, `nats_log` and
`nats_logs` make such requests.

The client library's own JetStream context is not used: its publish gives up on a fixed stack of futures, and
its `fetch` is five times slower than the pull requests of `nats_consumer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from nats.aio.client import Client

from pratipad_nb.bugs import Bugs
from pratipad_nb.errors import Fenced, LogFull, ServerFull, Unavailable, WaitTimeout
from pratipad_nb.settings import Storage
from pratipad_nb.transport.nats_account import account_of
from pratipad_nb.transport.nats_api import JetStream
from pratipad_nb.transport.nats_attendance import NatsAttendance, Roll
from pratipad_nb.transport.nats_errors import sequence_of
from pratipad_nb.transport.nats_link import NatsLink
from pratipad_nb.transport.nats_log import NatsLog
from pratipad_nb.transport.nats_logs import NatsLogs
from pratipad_nb.transport.nats_refusal import Refusal
from pratipad_nb.transport.own_certificate import OwnCertificate
from pratipad_nb.transport.protocol import LogSpec
from pratipad_nb.transport.rights import CLOUD, own_api
from pratipad_nb.transport.subjects import stream_of

__all__ = ["NatsConnection"]

#: Begins the name of a reader's own account; a tenant and ``~`` may stand before it.
_READERS = "R_"
_SILENT = (
    "the server stores nothing, although the link to it stands: its disk may be full, or the server hangs "
    "(its log says more)"
)


class NatsConnection(NatsLink):
    """A `pratipad_nb.transport.protocol.Connection` over NATS with mutual TLS."""

    def __init__(
        self, client: Client, inbox: str, refusal: Refusal, certificate: OwnCertificate, bugs: Bugs
    ) -> None:
        super().__init__(client, inbox, refusal, certificate, bugs)
        self._jetstream = JetStream(self, "$JS.API")
        self._logs = NatsLogs(self._jetstream)
        self._beyond = NatsLogs(JetStream(self, f"$JS.{CLOUD}.API"))
        #: By flow, the roll of its devices, which all attendances share.
        self._rolls: dict[str, Roll] = {}
        #: Why the last append was not stored, where the server is to blame and not the log.
        self._trouble = ""

    async def use_account(self, flow: str) -> None:
        """Ask the server for this connection's account, and call JetStream by the names that hold there.

        A reader of `flow` that has an account of its own reaches the JetStream of the flow's account under
        other subjects than in an account that all parties share.

        Raises
        ------
        WaitTimeout
            If the server doesn't answer.
        """
        account = await account_of(self)
        if account.startswith(_READERS) or f"~{_READERS}" in account:
            self._jetstream.prefix = own_api(flow)

    async def append(
        self,
        subject: str,
        data: bytes,
        *,
        expect: int | None = None,
        message_id: str | None = None,
        timeout: float = 5.0,
    ) -> int:
        """Append to the log that takes `subject`; see `Connection.append`."""
        headers: dict[str, str] | None = None
        if expect is not None:
            headers = {"Nats-Expected-Last-Subject-Sequence": str(expect)}
        if message_id is not None:
            headers = (headers or {}) | {"Nats-Msg-Id": message_id}
        try:
            answer = await self._jetstream.ask_log(stream_of(subject), subject, data, headers, timeout)
            sequence = sequence_of(subject, answer.data)
        except ServerFull as error:
            self._trouble = str(error)
            raise
        except Unavailable:
            raise
        except WaitTimeout:
            if self.connected:
                self._trouble = self._trouble or _SILENT
            raise
        except (LogFull, Fenced):
            self._trouble = ""
            raise
        self._trouble = ""
        return sequence

    async def storage(self) -> Storage:
        """Return how the server's storage stands; see `Connection.storage`."""
        # One system call about a disk of this computer: a thread for it would outlive the connection.
        disk = self._disk() if self._disk is not None else Storage()
        return disk if disk.trouble else replace(disk, trouble=self._trouble)

    async def open_log(self, spec: LogSpec) -> NatsLog:
        """Make the log, or change it to `spec`."""
        return await self._logs.open_log(spec)

    async def find_log(self, name: str) -> NatsLog | None:
        """Return the log called `name`; None if there is no such log."""
        return await self._logs.find_log(name)

    async def delete_log(self, name: str) -> None:
        """Delete a log with all its entries."""
        await self._logs.delete_log(name)

    async def log_names(self, pattern: str) -> list[str]:
        """Return the names of the logs that take subjects under `pattern`."""
        return await self._logs.log_names(pattern)

    async def take_over(self, spec: LogSpec, former: str) -> None:
        """Make the log of `spec` with the newest entry of `former`; see `Logs.take_over`."""
        await self._logs.take_over(spec, former)

    def beyond(self) -> NatsLogs:
        """Return the logs of the server that this connection's server is a leaf of."""
        return self._beyond

    def attendance(self, flow: str, devices: Callable[[], Iterable[str]] = tuple) -> NatsAttendance:
        """Return which devices of `flow` are connected; see `Connection.attendance`."""
        roll = self._rolls.setdefault(flow, Roll(self, flow))
        return NatsAttendance(roll, devices)
