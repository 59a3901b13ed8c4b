"""Ending the links of leaves: what removing a leaf's user leaves standing, as measured on nats-server 2.15.

Owns the requests to the server's system account, of which the server's owner alone is a user.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from pratipad_nb.server.owner import as_owner
from pratipad_nb.settings import Credentials

__all__ = ["end_leaves"]

_LEAVES = "$SYS.REQ.SERVER.PING.LEAFZ"
_SECONDS = 2.0


async def end_leaves(url: str, owner: Credentials, accounts: Collection[str]) -> None:
    """End the links of all leaves to `accounts`; a leaf that is let in still joins again within a second.

    Raises
    ------
    TransportError, WaitTimeout
        If the server doesn't answer.
    """
    async with as_owner(url, owner) as connection:
        answer: dict[str, Any] = json.loads(await connection.request(_LEAVES, b"", _SECONDS))
        kick = f"$SYS.REQ.SERVER.{answer['server']['id']}.KICK"
        for leaf in answer["data"].get("leafs") or ():
            if leaf.get("account") in accounts:
                await connection.request(kick, json.dumps({"cid": leaf["id"]}).encode(), _SECONDS)
