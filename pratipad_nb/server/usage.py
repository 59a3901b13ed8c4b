"""How many connections accounts have: the server's owner asks the server's system account.

Owns that request. What tenants may have is for `pratipad_nb.server.register`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from pratipad_nb.server.owner import as_owner
from pratipad_nb.settings import Credentials

__all__ = ["connections_of"]

_SECONDS = 2.0


async def connections_of(url: str, owner: Credentials, accounts: Iterable[str]) -> int:
    """Return how many connections `accounts` have in all, at the server at `url`.

    Raises
    ------
    TransportError, WaitTimeout
        If the server doesn't answer.
    """
    found = 0
    async with as_owner(url, owner) as connection:
        for account in accounts:
            answer = await connection.request(f"$SYS.REQ.ACCOUNT.{account}.CONNZ", b"", _SECONDS)
            found += json.loads(answer)["data"]["num_connections"]
    return found
