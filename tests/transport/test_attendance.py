"""Who is connected: one contract for the in-memory transport, an account for all, and accounts of ours."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import pytest
from accounts_by_hand import EDGE, accounts_of, identity, running
from patience import eventually

from pratipad_nb.pki.authority import Authority
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.memory import MemoryConnection
from pratipad_nb.transport.memory_broker import Broker
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.permissions import device_user, edge_user, inbox_prefix
from pratipad_nb.transport.protocol import Attendance, Connection, News
from pratipad_nb.transport.tls import client_context

ROOM1, ROOM2, LAMP = identity("room1"), identity("room2"), identity("lamp")
PLAIN = "pratipad.house.plain"
#: A device whose certificate names its serial number, too.
SERIAL = f"{ROOM2}#3f2a"


class Certificates:
    """Certificates of one authority, made when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = Authority.open(folder / "authority")
        self._made: dict[str, Credentials] = {}
        self.server = self._authority.issue("urn:x:server", folder / "s", hosts=("127.0.0.1",), server=True)

    def of(self, user: str) -> Credentials:
        if user not in self._made:
            self._made[user] = self._authority.issue(user, self._folder / f"{len(self._made)}")
        return self._made[user]


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("issued"))


@dataclass
class Site:
    """A server with the edge's connection, and a way for devices to connect to it."""

    edge: Connection
    device: Callable[[str], Awaitable[Any]]
    attendance: Attendance
    news: list[News] = field(default_factory=list)

    async def follow(self) -> None:
        async with contextlib.aclosing(self.attendance.news()) as all_news:
            async for news in all_news:
                self.news.append(news)

    def of_devices(self) -> dict[str, int]:
        return {each: n for each, n in self.attendance.connections.items() if ":device:" in each}


@contextlib.asynccontextmanager
async def followed(site: Site) -> AsyncIterator[Site]:
    task = asyncio.create_task(site.follow())
    try:
        await eventually(lambda: site.news)
        yield site
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def connect_edge(url: str, issued: Certificates) -> NatsConnection:
    inbox = f"{inbox_prefix('house', 'edge')}.{secrets.token_hex(4)}"
    return await NatsConnection.connect(url, issued.of(EDGE), name="edge", inbox_prefix=inbox)


async def raw(url: str, credentials: Credentials, name: str, **options: Any) -> nats.NATS:
    return await nats.connect(
        url,
        tls=client_context(credentials),
        tls_handshake_first=True,
        inbox_prefix=f"_INBOX.house.device.{name}",
        error_cb=_quiet,
        **options,
    )


async def _quiet(error: Exception) -> None:
    pass


@pytest.fixture(params=["memory", "shared", "accounts"])
async def site(request: Any, tmp_path: Path, issued: Certificates) -> AsyncIterator[Site]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "memory":
            broker = Broker("attendance")
            edge: Connection = MemoryConnection(broker, identity=EDGE)

            async def device(name: str) -> Any:
                return MemoryConnection(broker, identity=identity(name))
        else:
            if request.param == "shared":
                server = EmbeddedServer(tmp_path / "server", issued.server)
                users = [edge_user("house"), *(device_user("house", each) for each in ("room1", "room2"))]
                url = await server.start(users)
                stack.push_async_callback(server.stop)
            else:
                accounts = accounts_of({"devices": [ROOM1, ROOM2], "mqtt": [LAMP]})
                url = (await stack.enter_async_context(running(tmp_path, issued.server, accounts))).url
            edge = await connect_edge(url, issued)

            async def device(name: str) -> Any:
                return await raw(url, issued.of(identity(name)), name)

        stack.push_async_callback(edge.close)

        async def opened(name: str) -> Any:
            connection = await device(name)
            stack.push_async_callback(connection.close)
            return connection

        yield await stack.enter_async_context(followed(Site(edge, opened, edge.attendance("house"))))


async def test_who_is_connected_is_known_and_by_how_many_connections(site: Site) -> None:
    assert site.news[0].asked is not None
    first = await site.device("room1")
    await eventually(lambda: site.of_devices() == {ROOM1: 1})
    await site.device("room2")
    second = await site.device("room1")
    await eventually(lambda: site.of_devices() == {ROOM1: 2, ROOM2: 1})
    await first.close()
    await eventually(lambda: site.of_devices() == {ROOM1: 1, ROOM2: 1})
    await second.close()
    await eventually(lambda: site.of_devices() == {ROOM2: 1})


async def test_each_change_is_news_of_the_identity(site: Site) -> None:
    site.news.clear()
    device = await site.device("room1")
    await eventually(lambda: any(ROOM1 in news.identities for news in site.news))
    site.news.clear()
    await device.close()
    await eventually(lambda: any(ROOM1 in news.identities for news in site.news))


async def test_a_list_comes_soon_when_it_is_wanted(site: Site) -> None:
    await site.device("room1")
    await eventually(lambda: ROOM1 in site.attendance.connections)
    site.news.clear()
    wanted = time.monotonic()
    site.attendance.refresh()
    await eventually(lambda: any((news.asked or 0.0) >= wanted for news in site.news))


async def test_who_listens_to_single_subjects_is_known(site: Site) -> None:
    subjects = [f"{PLAIN}.room1", f"{PLAIN}.room2"]
    many = [f"{PLAIN}.room{number}" for number in range(50)]
    room1 = await site.device("room1")
    assert await site.attendance.listening([]) == frozenset()
    assert await site.attendance.listening(subjects) == frozenset()
    hears = await room1.subscribe(f"{PLAIN}.room1", cb=_ignore) if isinstance(room1, nats.NATS) else None
    if hears is None:
        await room1.subscribe(f"{PLAIN}.room1", lambda _: None)
        await room1.subscribe(f"{PLAIN}.*", lambda _: None)  # to a pattern: doesn't count
    await room1.flush()
    for asked in (subjects, many, subjects[:1]):
        assert await site.attendance.listening(asked) == {f"{PLAIN}.room1"}
    assert await site.attendance.listening(subjects[1:]) == frozenset()
    await room1.close()

    async def nobody() -> bool:
        return not await site.attendance.listening(subjects)

    await eventually(nobody)


async def _ignore(message: Any) -> None:
    pass
