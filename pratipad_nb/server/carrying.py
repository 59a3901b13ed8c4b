"""Carrying over what a server of version 0.1 has: its list of users, and its streams, into accounts.

Owns that both happen before the server starts, and may be broken off at any point: a later start goes on.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from pratipad_nb.errors import ServerError
from pratipad_nb.server.accounts import flow_account
from pratipad_nb.server.config import ServerFiles
from pratipad_nb.transport.parties import Party

__all__ = ["carry_streams", "former_parties"]

log = logging.getLogger(__name__)

#: The streams of a flow, in the one account that the server had; a reader's position is followed by its name.
_STREAM = re.compile(r"(UP|IN|OUT|ORDER|MARK|DEAD|READ)_(?P<flow>[A-Za-z][A-Za-z0-9_-]*)(:.+)?")
_FORMER_ACCOUNT = "$G"


def former_parties(files: ServerFiles) -> tuple[Party, ...]:
    """Return the parties in the list of users of version 0.1; none if there is no such list.

    The list is for a register that is made for the first time. Leaves aren't in it: a leaf had one
    certificate for all its flows, and needs one for each now.

    Raises
    ------
    ServerError
        If the list is damaged.
    """
    try:
        users = json.loads(files.former_users.read_bytes())["authorization"]["users"]
        names = [str(user["user"]) for user in users]
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServerError(
            f"the server's list of users is damaged. Delete {files.former_users.name} in {files.folder} and "
            "start again; devices and readers that aren't of a flow started here need a new invitation then."
        ) from error
    if any(name.startswith("urn:pratipad:_leaf:") for name in names):
        log.warning(
            "leaves need new certificates, for each of their flows has one of its own now: pratipad certs "
            "issue leaf NAME --flow FLOW"
        )
    return tuple(party for name in names if (party := Party.parse(name)) is not None)


def carry_streams(files: ServerFiles) -> list[str]:
    """Move the streams of version 0.1 into the accounts of their flows, and return the streams' names.

    The server must not run.

    Raises
    ------
    ServerError
        If a stream can't be moved.
    """
    jetstream = files.store / "jetstream"
    former = jetstream / _FORMER_ACCOUNT / "streams"
    moved = []
    for stream in sorted(former.glob("*")) if former.is_dir() else ():
        if match := _STREAM.fullmatch(stream.name):
            _move(stream, jetstream / flow_account(match["flow"]) / "streams")
            moved.append(stream.name)
    return moved


def _move(stream: Path, folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stream.rename(folder / stream.name)
    except OSError as error:
        raise ServerError(
            f"the stream {stream} can't be moved to {folder}, the account of its flow: {error.strerror}. "
            "Nothing is lost: make the folder writable, and start again."
        ) from error
