"""The account that a connection belongs to: a question to the server about one's own user.

Owns the question and the reading of the server's answer. Asking needs the permission to publish to
`USER_INFO`. Concluding from the account how a server is laid out is for the callers.
"""

from __future__ import annotations

import asyncio
import json
from typing import Protocol

from pratipad_nb.errors import NotInvited, Unavailable
from pratipad_nb.transport.rights import USER_INFO

__all__ = ["account_of"]

_SECONDS = 2.0
#: Pauses after tries that nobody answered, in seconds: a reload of 10,000 users takes 0.4 s.
_PAUSES = (0.02, 0.1, 0.2, 0.4)


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
    for pause in _PAUSES:
        try:
            answer = await connection.request(USER_INFO, b"", _SECONDS)
            break
        except NotInvited:
            return ""
        except Unavailable:  # also for a moment while the server reads its accounts again
            await asyncio.sleep(pause)
    else:
        return ""
    account: str = json.loads(answer).get("data", {}).get("account", "")
    return account
