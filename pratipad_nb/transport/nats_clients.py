"""Who is connected, and who listens to what: questions to the server about our own account.

Owns the reading of its answers. Asking needs the permission on one subject and no word from those asked about.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pratipad_nb.transport.protocol import ClientInfo

if TYPE_CHECKING:
    from pratipad_nb.transport.nats import NatsConnection

__all__ = ["clients", "listeners"]

_QUESTION = "$SYS.REQ.ACCOUNT.PING.CONNZ"
#: Most connections in one answer; the server's own bound is its `max_connections`, by default as many.
_MOST = 65536


async def clients(connection: NatsConnection) -> list[ClientInfo]:
    """Return who is connected to this account."""
    found = await _connections(connection, {})
    return [ClientInfo(each.get("authorized_user", ""), each.get("name", "")) for each in found]


async def listeners(connection: NatsConnection, pattern: str) -> dict[str, frozenset[str]]:
    """Return who listens to subjects that match `pattern`, by subject."""
    found: dict[str, set[str]] = {}
    wanted = pattern.split(".")
    for each in await _connections(connection, {"filter_subject": pattern, "subscriptions": True}):
        for subject in each.get("subscriptions_list") or ():
            if _matches(subject.split("."), wanted):
                found.setdefault(subject, set()).add(each.get("authorized_user", ""))
    return {subject: frozenset(identities) for subject, identities in found.items()}


def _matches(tokens: list[str], wanted: list[str]) -> bool:
    """Return whether a subject that somebody listens to, without wildcards of its own, matches."""
    return len(tokens) == len(wanted) and all(
        token not in ("*", ">") and want in (token, "*") for token, want in zip(tokens, wanted, strict=True)
    )


async def _connections(connection: NatsConnection, options: dict[str, Any]) -> list[dict[str, Any]]:
    body = json.dumps({"auth": True, "limit": _MOST} | options).encode()
    answer = json.loads(await connection.request(_QUESTION, body, timeout=2.0))
    return answer.get("data", answer).get("connections") or []
