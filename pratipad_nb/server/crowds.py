"""Crowds: a party with very many connections loses the newest of them.

Owns that bound, for NATS has none for a user. Without the bound one device could use up the connections of
all. Only the party's own connections are ended, so that a party harms nobody but itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import NoReturn

import msgspec

from pratipad_nb.errors import TransportError, WaitTimeout
from pratipad_nb.seldom import Seldom
from pratipad_nb.server.accounts import OWNER
from pratipad_nb.server.owner import as_owner
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.nats_clients import connections, identity_in
from pratipad_nb.transport.nats_events import event_in
from pratipad_nb.transport.protocol import Signal

__all__ = ["MOST_CONNECTIONS", "Crowds"]

log = logging.getLogger(__name__)

#: Most connections of a party at once. One is usual; a few more come and go while networks change.
MOST_CONNECTIONS = 32
_EVENTS = "$SYS.ACCOUNT.*.{event}"
_LIST = "$SYS.REQ.SERVER.PING.CONNZ"
_SECONDS = 2.0
#: Seconds until the watch begins: a server's first seconds are its flows', whose messages are waited for.
_BEGIN_SECONDS = 10.0
#: Seconds until the server is connected to again after a failure.
_AGAIN_SECONDS = 1.0


_Place = tuple[str, int]


class Crowds:
    """Ends the connections that one party has too many of.

    Parameters
    ----------
    url
        Returns the server's URL.
    owner
        The certificate of the server's owner.
    """

    def __init__(self, url: Callable[[], str], owner: Credentials) -> None:
        self._url = url
        self._owner = owner
        self._places: dict[str, set[_Place]] = {}
        #: The connections to be ended, and those for which that was asked.
        self._surplus: dict[_Place, str] = {}
        self._work = asyncio.Event()
        self._anew = False
        self._line = Seldom()

    async def run(self) -> NoReturn:
        """Watch the server's connections, until cancelled."""
        await asyncio.sleep(_BEGIN_SECONDS)
        while True:
            try:
                async with as_owner(self._url(), self._owner) as connection:
                    await self._watch(connection)
            except (TransportError, WaitTimeout) as error:
                log.debug("the server's connections can't be watched now: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _watch(self, connection: NatsConnection) -> NoReturn:
        connection.on_reconnect(self._on_reconnect)
        await connection.subscribe(_EVENTS.format(event="CONNECT"), self._on_event)
        await connection.subscribe(_EVENTS.format(event="DISCONNECT"), self._on_event)
        self._anew = True
        while True:
            if self._anew:
                await self._list(connection)
            while self._surplus:
                await self._end(connection, *self._surplus.popitem())
            await self._work.wait()
            self._work.clear()

    def _on_reconnect(self) -> None:
        # Events got lost, and the server may be another.
        self._anew = True
        self._work.set()

    async def _list(self, connection: NatsConnection) -> None:
        self._anew = False
        self._places.clear()
        found = await connections(connection, _LIST)
        for node, clients in found.clients.items():
            for client, identity in sorted(clients.items()):
                self._came(identity, (node, client))

    def _on_event(self, signal: Signal) -> None:
        try:
            event = event_in(signal.data)
        except msgspec.DecodeError as error:
            log.info("an event of the server's can't be read: %s", error)
            return
        identity, place = identity_in(event.client.user), (event.server.id, event.client.id)
        if event.client.kind != "Client" or identity == OWNER:
            return
        if signal.subject.endswith(".CONNECT"):
            self._came(identity, place)
        else:
            self._went(identity, place)

    def _came(self, identity: str, place: _Place) -> None:
        places = self._places.setdefault(identity, set())
        places.add(place)
        if len(places) > MOST_CONNECTIONS and identity != OWNER:
            self._surplus[place] = identity
            self._work.set()

    def _went(self, identity: str, place: _Place) -> None:
        places = self._places.get(identity, set())
        places.discard(place)
        if not places:
            self._places.pop(identity, None)
        self._surplus.pop(place, None)

    async def _end(self, connection: NatsConnection, place: _Place, identity: str) -> None:
        node, client = place
        if count := self._line.note():
            log.warning(
                "%s has more than %d connections at once; the newest are ended, %d by now",
                identity,
                MOST_CONNECTIONS,
                count,
            )
        kick = f"$SYS.REQ.SERVER.{node}.KICK"
        await connection.request(kick, json.dumps({"cid": client}).encode(), _SECONDS)
