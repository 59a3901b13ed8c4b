"""The server's events about clients: a connection begins, or ends.

Owns the reading of an event. Counting connections is for `nats_attendance`, of the devices of a flow, and for
`pratipad_nb.server.crowds`, of all parties.
"""

from __future__ import annotations

import msgspec

__all__ = ["Event", "event_in"]


class _Client(msgspec.Struct):
    id: int
    user: str = ""
    kind: str = "Client"


class _Node(msgspec.Struct):
    id: str


class Event(msgspec.Struct):
    """An event of a connection. `server` is the node that tells; the kind of a `client` is ``"Client"``."""

    server: _Node
    client: _Client


_events = msgspec.json.Decoder(Event)


def event_in(data: bytes) -> Event:
    """Return the event in `data`; raise `msgspec.DecodeError` if there is none."""
    return _events.decode(data)
