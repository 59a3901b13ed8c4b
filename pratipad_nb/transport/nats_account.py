"""The account that a connection belongs to: a question to the server about one's own user.

Owns the question and the reading of the server's answer. Asking needs the permission to publish to
`USER_INFO`. Concluding from the account how a server is laid out is for the callers.
"""

from __future__ import annotations

import json
from typing import Protocol

from pratipad_nb.errors import NotInvited, Unavailable
from pratipad_nb.transport.rights import USER_INFO

__all__ = ["account_of"]

_SECONDS = 2.0


class Asking(Protocol):
    """A connection that sends a request and returns the first answer; `Connection` is such a connection."""

    async def request(self, subject: str, data: bytes, timeout: float) -> bytes: ...


async def account_of(connection: Asking) -> str:
    """Return the name of the account of `connection`, for example ``F_house``.

    The name is empty if the server denies the question or knows no such question: this package's own
    accounts allow the question, so the account is then of another making.

    Raises
    ------
    WaitTimeout
        If the link is down, or the server is silent: the account is not known then.
    """
    try:
        answer = await connection.request(USER_INFO, b"", _SECONDS)
    except (NotInvited, Unavailable):
        return ""
    account: str = json.loads(answer).get("data", {}).get("account", "")
    return account
