"""The errors of NATS as errors of this package: the client library's, JetStream's, and the server's refusals.

Owns the translation alone; raising an error in the operation that waits is for `nats_link`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nats import errors as nats_errors

from pratipad_nb.errors import (
    ConnectionRefused,
    Fenced,
    LogFull,
    NotInvited,
    ServerFull,
    TransportClosed,
    TransportError,
    Unavailable,
    WaitTimeout,
)

__all__ = [
    "NO_SUCH_LOG",
    "NO_SUCH_SEQUENCE",
    "denied",
    "denied_subject",
    "is_unanswered",
    "no_such_log",
    "refused",
    "sequence_of",
    "translated",
    "unanswered",
]

# JetStream's error codes (server: `errors.json`).
#: "Stream not found": by this code alone the server says that a log was never made, or was deleted.
NO_SUCH_LOG = 10059
#: The entry to delete is missing.
NO_SUCH_SEQUENCE = frozenset({10057, 10043})
_WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
#: The log is at its bound.
_FULL = 10077
#: The server's or the account's limits: bytes in all (10002, 10023, 10028, 10047), bytes of a log (10122),
#: logs (10027) and consumers (10026).
_SERVER_FULL = frozenset({10002, 10023, 10026, 10027, 10028, 10047, 10122})
#: Unavailable now: a cluster is electing or incomplete, a log or a consumer is off, or is being set back.
#: 10039 and 10076: JetStream is off, as after writes that the disk didn't permit.
_UNAVAILABLE = frozenset({10004, 10007, 10008, 10009, 10039, 10076, 10118, 10119, 10158, 10194, 10195})


def sequence_of(subject: str, data: bytes) -> int:
    """Return the sequence in the server's answer to an append.

    Raises
    ------
    Fenced, LogFull, Unavailable, TransportError
        If the answer is a refusal, or no answer to an append.
    """
    try:
        answer = json.loads(data)
        error = answer.get("error")
    except (ValueError, AttributeError) as cause:
        raise TransportError(f"{subject}: an answer of {data[:80]!r} to an append") from cause
    if error is None:
        return int(answer["seq"])
    code, text = error.get("err_code"), error.get("description")
    if code in _WRONG_LAST_SEQUENCE:
        raise Fenced(f"another writer has appended to {subject}: {text}")
    if code == _FULL:
        raise LogFull(f"the log behind {subject} is full: {text}")
    raise refused(f"an append to {subject}", error)


def refused(doing: str, error: Mapping[str, Any]) -> TransportError | Unavailable:
    """Return JetStream's `error` about `doing`: `Unavailable` or `ServerFull` if it may succeed later."""
    code, text = error.get("err_code"), error.get("description")
    kind: type[TransportError | Unavailable] = TransportError
    if code in _UNAVAILABLE:
        kind = Unavailable
    elif code in _SERVER_FULL:
        kind = ServerFull
    return kind(f"JetStream refused {doing}: {text} ({code})")


def is_unanswered(headers: Mapping[str, str] | None) -> bool:
    """Return whether `headers`, of an answer, say that no party listens on the request's subject.

    A server that is ending says so about its logs for a moment, before it ends the connections.
    """
    return headers is not None and headers.get("Status") == "503"


def unanswered(subject: str) -> Unavailable:
    """Return the error for a request on `subject`, on which no party listens."""
    return Unavailable(
        f"nobody answers on {subject} at present: the server is ending or starting, or no flow was started "
        "there"
    )


def no_such_log(name: str) -> TransportError:
    """Return the error for a request to the log `name`, which the server says is missing."""
    return TransportError(f"there is no log {name}: the flow was never started there, or was forgotten.")


def denied_subject(text: str) -> str | None:
    """Return the subject of a "permissions violation" message, in lower case; None for other messages."""
    lower = text.lower()
    if "permissions violation" not in lower or '"' not in lower:
        return None
    return lower.split('"')[1]


def denied(subject: str) -> NotInvited:
    """Return the error for a publish that the server's permissions forbid."""
    return NotInvited(
        f"the server's permissions don't let this certificate publish to {subject}. A device may use its own "
        "uplink alone; `flow.invite(name, folder)` makes the certificate that fits a name."
    )


def translated(error: BaseException, doing: str) -> Exception:
    """Return this package's error for the client library's `error` while `doing`."""
    text = str(error) or type(error).__name__
    if isinstance(error, (nats_errors.ConnectionClosedError, nats_errors.ConnectionDrainingError)):
        return TransportClosed(f"{doing}: the connection was closed")
    if isinstance(error, (nats_errors.AuthorizationError,)) or "authorization" in text.lower():
        return NotInvited(
            f"{doing}: the server doesn't know this certificate's name ({text}). The certificate was "
            "revoked, or belongs to another flow."
        )
    if isinstance(error, (nats_errors.NoServersError, ConnectionError)):
        return ConnectionRefused(f"{doing}: nobody answers there ({text}).")
    if isinstance(error, nats_errors.OutboundBufferLimitError):
        return Unavailable(f"{doing}: the link is down, and the buffer is full")
    if isinstance(error, (TimeoutError, nats_errors.TimeoutError)):
        return WaitTimeout(f"{doing}: {text}")
    return TransportError(f"{doing}: {text}")
