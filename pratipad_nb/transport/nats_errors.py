"""What goes wrong in NATS, as errors of ours: the client library's, JetStream's, and the server's refusals.

Owns the translation alone; who waits for what is for `nats`.
"""

from __future__ import annotations

import json

from nats import errors as nats_errors

from pratipad_nb.errors import (
    ConnectionRefused,
    Fenced,
    LogFull,
    NotInvited,
    TransportClosed,
    TransportError,
    WaitTimeout,
)

__all__ = ["denied", "denied_subject", "sequence_of", "translated"]

#: JetStream's error codes that mean something to an appender (server: `errors.json`).
_WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
_FULL = frozenset({10077, 10047, 10023})


def sequence_of(subject: str, data: bytes) -> int:
    """Return the sequence in the server's answer to an append.

    Raises
    ------
    Fenced, LogFull, TransportError
        If the answer is a refusal, or none at all.
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
    if code in _FULL:
        raise LogFull(f"the log behind {subject} is full: {text}")
    raise TransportError(f"the server refused an append to {subject}: {text} ({code})")


def denied_subject(text: str) -> str | None:
    """Return the subject of a "permissions violation" message, in lower case."""
    lower = text.lower()
    if "permissions violation" not in lower or '"' not in lower:
        return None
    return lower.split('"')[1]


def denied(subject: str) -> NotInvited:
    """Return the error for a publish that the server's permissions forbid."""
    return NotInvited(
        f"the server's permissions don't let this certificate publish to {subject}. A device may use its own uplink "
        "alone; `flow.invite(name, folder)` makes the certificate that fits a name."
    )


def translated(error: BaseException, doing: str) -> Exception:
    """Return the error of ours that says what the client library's `error` means."""
    text = str(error) or type(error).__name__
    if isinstance(error, (nats_errors.ConnectionClosedError, nats_errors.ConnectionDrainingError)):
        return TransportClosed(f"{doing}: the connection was closed")
    if isinstance(error, (nats_errors.AuthorizationError,)) or "authorization" in text.lower():
        return NotInvited(
            f"{doing}: the server doesn't know this certificate's name ({text}). It was revoked, or belongs to another flow."
        )
    if isinstance(error, (nats_errors.NoServersError, ConnectionError)):
        return ConnectionRefused(f"{doing}: nobody answers there ({text}).")
    if isinstance(error, (TimeoutError, nats_errors.TimeoutError)):
        return WaitTimeout(f"{doing}: {text}")
    return TransportError(f"{doing}: {text}")
