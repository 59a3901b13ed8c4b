"""The errors that Pratipad-NB raises, and nothing else.

Every error that reaches a user belongs to this tree. A foreign error (of the NATS client, `ssl`,
`cryptography`, the operating system) is translated where it crosses our boundary and stays attached as
``__cause__``.

::

    PratipadError
    ├── NotationError           the text of a dataflow (has line, column, span); defined by `notation.errors`
    ├── SettingsError           an option, a name or an environment variable is out of its bounds
    ├── ProcessorError          a processor can't be made, set up or called
    │   └── LeftBehind          a call hangs, and nobody waits for its end; defined by `calls.call_errors`
    │       └── TookTooLong     a call took longer than its `timeout` (also a `TimeoutError`)
    ├── PayloadError            a payload can't travel: its type or its size
    ├── FrameError              bytes from the network are no valid frame
    ├── CertificateError        certificates: missing, unreadable, expired, of another authority
    ├── ServerError             the NATS server: missing, did not start, refused
    ├── TransportError          the connection to NATS
    │   ├── ConnectionRefused   no server answers at the address
    │   ├── NotInvited          the server, or its permissions, turned us away
    │   ├── TransportClosed     this side closed the connection
    │   ├── LogFull             an ordered log is at its bound; try again later
    │   │   └── ServerFull      the server, or its account, is at a limit: its storage, logs or consumers
    │   └── Fenced              another owner writes to this log now
    ├── FlowError               an operation is not possible in the flow's present state
    │   └── OneWayError         the notation lets nothing pass in that direction
    ├── Forked                  a handle that another process opened, used in a process forked from it
    ├── DeviceError             a device: unknown, silent, or its driver failed
    ├── TakenOver               another handle reads under this reader's name now (has host, pid, since)
    └── WaitTimeout             a wait took too long (also a `TimeoutError`)
        └── Unavailable         the server is ending, starting or electing; try again later

A message says what happened, the value given, what is allowed and the next step.
"""

from __future__ import annotations

from pratipad_nb.log_lines import clean_log_lines
from pratipad_nb.wording import printable

__all__ = [
    "CertificateError",
    "ConnectionRefused",
    "DeviceError",
    "Fenced",
    "FlowError",
    "Forked",
    "FrameError",
    "LogFull",
    "NotInvited",
    "OneWayError",
    "PayloadError",
    "PratipadError",
    "ProcessorError",
    "ServerError",
    "ServerFull",
    "SettingsError",
    "TakenOver",
    "TransportClosed",
    "TransportError",
    "Unavailable",
    "WaitTimeout",
]

# Here, for whatever logs also imports this module.
clean_log_lines()


class PratipadError(Exception):
    """The root of all errors of this package.

    A message may quote others (devices, processors, the server): its control characters are escaped.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), lines=True)


class SettingsError(PratipadError, ValueError):
    """An option, a name or an environment variable is out of its bounds."""


class ProcessorError(PratipadError):
    """A processor can't be made, set up or called."""


class PayloadError(PratipadError, TypeError):
    """A payload can't travel: its type or its size."""


class FrameError(PratipadError, ValueError):
    """Bytes from the network are no valid frame."""


class CertificateError(PratipadError):
    """Certificates are missing, unreadable, expired or another authority's."""


class ServerError(PratipadError):
    """The NATS server is missing, did not start or refused its configuration."""


class TransportError(PratipadError):
    """The connection to NATS failed."""


class ConnectionRefused(TransportError):
    """No server answers at the address."""


class NotInvited(TransportError):
    """The server's TLS or its permissions turned us away."""


class TransportClosed(TransportError):
    """The connection was closed from this side before the operation."""


class LogFull(TransportError):
    """An ordered log is at its bound; the same append may succeed later."""


class ServerFull(LogFull):
    """The server, or the account there, is at a limit: of its storage, or of its logs or consumers."""


class Fenced(TransportError):
    """Another owner has written to this log since our last append."""


class FlowError(PratipadError):
    """An operation is not possible in the flow's present state."""


class OneWayError(FlowError):
    """The notation lets nothing pass in that direction."""


class Forked(PratipadError):
    """A handle was opened by the process from which this process was forked, and is of no use here."""


class DeviceError(PratipadError):
    """A device is unknown or silent, or its driver failed."""


class TakenOver(PratipadError):
    """Another handle has taken a reader's name over, and gets the reader's messages from now on.

    Attributes
    ----------
    reader
        The reader's name.
    host, pid
        The computer and the process of the newer handle.
    since
        When the newer handle was made, in seconds since 1970-01-01 UTC.
    """

    def __init__(
        self, text: str, *, reader: str = "", host: str = "", pid: int = 0, since: float = 0.0
    ) -> None:
        super().__init__(text)
        self.reader = reader
        self.host = host
        self.pid = pid
        self.since = since


class WaitTimeout(PratipadError, TimeoutError):
    """A wait took too long."""


class Unavailable(WaitTimeout):
    """The server is ending, starting or electing; the same operation may succeed later."""
