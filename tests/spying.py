"""A real server with a spy in every account, and parties that try everything.

A spy is a user of the test's own, who may do everything in its account. So a spy sees every message that
reaches its account, whichever subject the message came under, and by which right.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from pratipad_nb.pki.certificates import identity_in
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server import admission
from pratipad_nb.server.accounts import OWNER, rendered_accounts
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.server.register import Change, Register, Rules
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.tls import client_context

__all__ = ["MARK", "Attempt", "Spied", "Spies", "spied_server"]

#: The header by which a message that a party publishes is told from what the server makes of the message.
MARK = "Try"
SPY = "urn:pratipad:_spy"

Seen = frozenset[tuple[str, str]]


class Attempt:
    """A party's connection with the plain client, and what the server has refused it."""

    def __init__(self) -> None:
        self.client = Client()
        self.refused: set[str] = set()

    async def on_error(self, error: Exception) -> None:
        said = str(error)
        assert "permissions violation" in said, said
        self.refused.add(said.partition('"')[2].rstrip('"'))

    def may(self, subject: str) -> bool:
        return subject.lower() not in self.refused

    async def settle(self) -> None:
        # Twice, for the client's PING overtakes what it has queued.
        await self.client.flush()
        await self.client.flush()


class Spies:
    """All spies, by account, and all that they have seen since the last `forget`."""

    def __init__(self) -> None:
        self.clients: dict[str, Client] = {}
        self.marked: dict[str, set[tuple[str, str]]] = {}
        self.unmarked: set[tuple[str, str]] = set()

    def see(self, account: str, message: Msg) -> None:
        if message.subject.startswith("spies."):
            return
        mark = (message.headers or {}).get(MARK)
        if mark is None and message.data.startswith(b"try "):
            mark = message.data[4:].decode()
        if mark is None:
            self.unmarked.add((account, message.subject))
        else:
            self.marked.setdefault(mark, set()).add((account, message.subject))

    def forget(self) -> None:
        self.marked, self.unmarked = {}, set()

    def seen(self, mark: object) -> Seen:
        return frozenset(self.marked.get(str(mark), ()))

    def answers(self) -> Seen:
        """Return where messages came that no party has published, without the server's own news.

        Also without the ways back from the server's own services, which are in the system's account.
        """
        own = ("$JS.EVENT.", "$SYS.ACCOUNT.", "$SYS.SERVER.")
        return frozenset(
            (account, subject)
            for account, subject in self.unmarked
            if not subject.startswith(own)
            and "connected." not in subject
            and (account, subject[:4]) != ("SYS", "_R_.")
        )

    async def settle(self, consumers: Mapping[str, Iterable[tuple[str, str]]]) -> None:
        """Wait until all that was published before is wherever it goes.

        Streams and consumers answer in turn: a question to each is answered after all that came before.
        """
        for _ in range(2):
            for account, asked in consumers.items():
                for stream, consumer in asked:
                    request = f"$JS.API.CONSUMER.INFO.{stream}.{consumer}"
                    await self.clients[account].request(request, b"", timeout=10, headers={MARK: "asked"})
            for client in self.clients.values():
                await client.flush()
                await client.flush()


class Spied:
    """The server, its parties' certificates, and the spies."""

    def __init__(self, server: EmbeddedServer, store: CertificateStore, folder: Path) -> None:
        self.server = server
        self.url = ""
        self.spies = Spies()
        self._store = store
        self._folder = folder
        self._stack = contextlib.AsyncExitStack()

    def certificate(self, identity: str) -> Credentials:
        name = identity.replace("/", "~").replace(":", "_")
        folder = self._folder / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        return self._store.authority.ensure(identity, folder)

    def listed(self, party: Party) -> Party:
        """Return `party` with the serial number of its certificate."""
        made = Party.parse(identity_in(self.certificate(party.identity).certificate))
        assert made is not None
        return party.with_serial(made.serial)

    async def client(self, party: Party, **options: Any) -> Attempt:
        attempt = Attempt()
        await attempt.client.connect(
            self.url,
            tls=client_context(self.certificate(party.identity)),
            tls_handshake_first=True,
            inbox_prefix=party.inbox,
            error_cb=attempt.on_error,
            allow_reconnect=False,
            pending_size=16 << 20,
            **options,
        )
        self._stack.push_async_callback(attempt.client.close)
        return attempt

    async def connect_spy(self, account: str) -> Client:
        """Connect as the user of `account` who may do everything."""
        identity = OWNER if account == "SYS" else f"{SPY}:{account}"
        client = await nats.connect(
            self.url,
            tls=client_context(self.certificate(identity)),
            tls_handshake_first=True,
            inbox_prefix="spies",
            allow_reconnect=False,
        )
        self._stack.push_async_callback(client.close)
        return client

    async def spy(self, account: str) -> None:
        client = await self.connect_spy(account)

        async def see(message: Msg) -> None:
            self.spies.see(account, message)

        await client.subscribe(">", cb=see, pending_msgs_limit=-1, pending_bytes_limit=-1)
        await client.flush()
        self.spies.clients[account] = client

    async def close(self) -> None:
        await self._stack.aclose()


def _with_spies(register: Register) -> dict[str, Any]:
    accounts = rendered_accounts(register)
    for name, account in accounts.items():
        if name != "SYS":
            account["users"].append({"user": f"{SPY}:{name}"})
    return accounts


@contextlib.asynccontextmanager
async def spied_server(
    folder: Path, parties: Iterable[Party], rules: Mapping[str, Rules], **options: Any
) -> AsyncIterator[Spied]:
    """Yield a server that lets `parties` in, guests as well, with a spy in each account."""
    folder.mkdir(parents=True, exist_ok=True)
    store = CertificateStore.open(folder)
    server = EmbeddedServer(folder / "server", store.server("urn:pratipad:server"), **options)
    spied = Spied(server, store, folder / "of")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission, "rendered_accounts", _with_spies)
        known = tuple(parties)
        listed = tuple(map(spied.listed, known))
        guests = tuple(party for party in known if party.is_guest)
        await server.start()
        try:
            spied.url = server.url
            await server.change(Change(parties=listed, rules=dict(rules), shared=guests))
            for account in _with_spies(server.register):
                await spied.spy(account)
            yield spied
        finally:
            await spied.close()
            await server.stop()
