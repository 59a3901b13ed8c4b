"""The errors that Pratipad-NB raises, and nothing else.

Every error that reaches a user is one of these; a foreign error (of the NATS client, `ssl`, `cryptography`, the
operating system) is translated where it crosses our boundary and stays attached as ``__cause__``.

::

    PratipadError
    ├── NotationError           the text of a dataflow (knows line, column, span); defined by `notation.errors`
    ├── SettingsError           an option, a name or an environment variable is not what it may be
    ├── ProcessorError          a processor can't be made, set up or called
    │   └── LeftBehind          its call hangs, and nobody waits for it; defined by `calls.call_errors`
    │       └── TookTooLong     a call took longer than its `timeout` (also a `TimeoutError`)
    ├── PayloadError            a payload can't travel: its type or its size
    ├── FrameError              bytes from the network are no frame of ours
    ├── CertificateError        certificates: missing, unreadable, expired, not ours
    ├── ServerError             the NATS server: missing, did not start, refused
    ├── TransportError          the connection to NATS
    │   ├── ConnectionRefused   nobody answers there
    │   ├── NotInvited          the server, or its permissions, turned us away
    │   ├── TransportClosed     this side closed it
    │   ├── LogFull             an ordered log is at its bound; try again later
    │   └── Fenced              another owner writes to this log now
    ├── FlowError               a flow can't do that in its present state
    │   └── OneWayError         the notation lets nothing pass in that direction
    ├── DeviceError             a device: unknown, silent, or its driver failed
    └── WaitTimeout             what was waited for did not happen in time (also a `TimeoutError`)
        └── Unavailable         the server can't do that now, for it is ending, starting or electing; try again later

A message says what happened, the value given, what is allowed and the next step.
"""

from __future__ import annotations

__all__ = [
    "CertificateError",
    "ConnectionRefused",
    "DeviceError",
    "Fenced",
    "FlowError",
    "FrameError",
    "LogFull",
    "NotInvited",
    "OneWayError",
    "PayloadError",
    "PratipadError",
    "ProcessorError",
    "ServerError",
    "SettingsError",
    "TransportClosed",
    "TransportError",
    "Unavailable",
    "WaitTimeout",
]


class PratipadError(Exception):
    """The root of all errors of this package."""


class SettingsError(PratipadError, ValueError):
    """An option, a name or an environment variable is not what it may be."""


class ProcessorError(PratipadError):
    """A processor can't be made, set up or called."""


class PayloadError(PratipadError, TypeError):
    """A payload can't travel: its type or its size."""


class FrameError(PratipadError, ValueError):
    """Bytes from the network are no frame of ours."""


class CertificateError(PratipadError):
    """Certificates are missing, unreadable, expired or another authority's."""


class ServerError(PratipadError):
    """The NATS server is missing, did not start or refused its configuration."""


class TransportError(PratipadError):
    """The connection to NATS failed."""


class ConnectionRefused(TransportError):
    """Nobody answers at that address."""


class NotInvited(TransportError):
    """The server's TLS or its permissions turned us away."""


class TransportClosed(TransportError):
    """The connection was closed from this side before the operation."""


class LogFull(TransportError):
    """An ordered log is at its bound; the same append may succeed later."""


class Fenced(TransportError):
    """Another owner has written to this log since we last did."""


class FlowError(PratipadError):
    """A flow can't do that in its present state."""


class OneWayError(FlowError):
    """The notation lets nothing pass in that direction."""


class DeviceError(PratipadError):
    """A device is unknown or silent, or its driver failed."""


class WaitTimeout(PratipadError, TimeoutError):
    """What was waited for did not happen in time."""


class Unavailable(WaitTimeout):
    """The server can't do that now, for it is ending, starting or electing; the same may succeed later."""
