"""The clients that are connected, and their subscriptions: questions to the server about one's own account.

Owns the question and the reading of the server's answer. Asking needs the permission on one subject, and
nothing of the clients in question. Sending the question is for `nats_link`.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from pratipad_nb.transport.protocol import ClientInfo

__all__ = ["clients", "listeners"]

_QUESTION = "$SYS.REQ.ACCOUNT.PING.CONNZ"
#: Most connections in an answer; the server's default of `max_connections` is as high.
_MOST = 65536


class Ask(Protocol):
    """Sends a request to a subject and returns the first answer; `Connection.request` does."""

    async def __call__(self, subject: str, data: bytes, timeout: float) -> bytes: ...


async def clients(ask: Ask) -> list[ClientInfo]:
    """Return the clients that are connected to this account."""
    found = await _connections(ask, {})
    return [ClientInfo(each.get("authorized_user", ""), each.get("name", "")) for each in found]


async def listeners(ask: Ask, pattern: str) -> dict[str, frozenset[str]]:
    """Return the identities that listen to subjects that match `pattern`, by subject."""
    found: dict[str, set[str]] = {}
    wanted = pattern.split(".")
    for each in await _connections(ask, {"filter_subject": pattern, "subscriptions": True}):
        for subject in each.get("subscriptions_list") or ():
            if _matches(subject.split("."), wanted):
                found.setdefault(subject, set()).add(each.get("authorized_user", ""))
    return {subject: frozenset(identities) for subject, identities in found.items()}


def _matches(tokens: list[str], wanted: list[str]) -> bool:
    """Return whether the subject of a subscription matches and has no wildcards itself."""
    return len(tokens) == len(wanted) and all(
        token not in ("*", ">") and want in (token, "*") for token, want in zip(tokens, wanted, strict=True)
    )


async def _connections(ask: Ask, options: dict[str, Any]) -> list[dict[str, Any]]:
    body = json.dumps({"auth": True, "limit": _MOST} | options).encode()
    answer = json.loads(await ask(_QUESTION, body, timeout=2.0))
    return answer.get("data", answer).get("connections") or []
