"""Who is connected: one contract for the in-memory transport, an account for all, and accounts of ours."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from patience import eventually
from servers_by_hand import EDGE, Server, accounts_of, free_port, running, shared_account

from pratipad_nb.errors import WaitTimeout
from pratipad_nb.pki.authority import Authority
from pratipad_nb.settings import Credentials
from pratipad_nb.transport import nats_attendance, nats_clients
from pratipad_nb.transport.memory import MemoryConnection
from pratipad_nb.transport.memory_broker import Broker
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.nats_attendance import Table
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.protocol import Attendance, Connection, News
from pratipad_nb.transport.tls import client_context


def device(name: str, serial: str = "") -> Party:
    return Party("house", "device", name, serial=serial)


ROOM1, ROOM2, LAMP = (device(name).identity for name in ("room1", "room2", "lamp"))
LIGHT = Party("house", "device", "lamp", mqtt=True)
PLAIN = "pratipad.house.plain"


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


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where lists alone tell, they come after a fifth of a second."""
    monkeypatch.setattr(nats_attendance, "_SHORTEST", 0.2)


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
    inbox = f"{Party('house', 'edge').inbox}.{secrets.token_hex(4)}"
    return await NatsConnection.connect(url, issued.of(EDGE), name="edge", inbox_prefix=inbox)


async def raw(url: str, issued: Certificates, name: str, **options: Any) -> nats.NATS:
    return await nats.connect(
        url,
        tls=client_context(issued.of(device(name).identity)),
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

            async def connect(name: str) -> Any:
                return MemoryConnection(broker, identity=device(name).identity)
        else:
            if request.param == "shared":
                accounts = shared_account(ROOM1, ROOM2)
            else:
                accounts = accounts_of(device("room1"), device("room2"), LIGHT)
            url = (await stack.enter_async_context(running(tmp_path, issued.server, accounts))).url
            edge = await connect_edge(url, issued)

            async def connect(name: str) -> Any:
                return await raw(url, issued, name)

        stack.push_async_callback(edge.close)

        async def opened(name: str) -> Any:
            connection = await connect(name)
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
    client = await site.device("room1")
    await eventually(lambda: any(ROOM1 in news.identities for news in site.news))
    site.news.clear()
    await client.close()
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
    await heard_by(room1, subjects[0])
    if isinstance(room1, MemoryConnection):
        await heard_by(room1, f"{PLAIN}.*")  # to a pattern: doesn't count
    for asked in (subjects, many, subjects[:1]):
        assert await site.attendance.listening(asked) == {f"{PLAIN}.room1"}
    assert await site.attendance.listening(subjects[1:]) == frozenset()
    await room1.close()

    async def nobody() -> bool:
        return not await site.attendance.listening(subjects)

    await eventually(nobody)


async def heard_by(device: Any, subject: str) -> None:
    """Let `device` subscribe to `subject`; the subscription stands at the server afterwards."""
    if isinstance(device, MemoryConnection):
        await device.subscribe(subject, lambda _: None)
        return
    await device.subscribe(subject, cb=_ignore)
    await device.flush()  # nats-py writes the first PING before frames that are still queued
    await device.flush()


async def _ignore(message: Any) -> None:
    pass


# -- the table -----------------------------------------------------------------------------------------------


def test_the_end_of_an_old_connection_says_nothing_of_the_new_one() -> None:
    table = Table()
    table.came("devices", "n1", 7, ROOM1)
    table.came("devices", "n1", 9, ROOM1)
    table.went("devices", "n1", 7, ROOM1)
    assert table.counts == {ROOM1: 1}
    table.went("devices", "n1", 7, ROOM1)  # told twice
    table.went("devices", "n2", 9, ROOM1)  # another node's client
    assert table.counts == {ROOM1: 1}
    assert table.take() == {ROOM1}


def test_events_outweigh_a_list_that_was_on_its_way() -> None:
    table = Table()
    table.came("devices", "n1", 1, ROOM1)
    table.begin()
    table.went("devices", "n1", 1, ROOM1)
    table.came("devices", "n1", 2, ROOM2)
    assert table.listed("devices", {"n1": {1: ROOM1}}, alone=True)
    assert table.counts == {ROOM2: 1}


def test_a_list_corrects_what_events_have_lost() -> None:
    table = Table()
    table.came("devices", "n1", 1, ROOM1)
    table.take()
    table.begin()
    table.listed("devices", {"n1": {2: ROOM2}}, alone=True)
    assert table.counts == {ROOM2: 1}
    assert table.take() == {ROOM1, ROOM2}
    table.listed("devices", {"n1": {2: ROOM2}}, alone=True)
    assert table.take() == frozenset()


def test_a_node_that_is_missing_from_one_list_keeps_its_clients_and_from_two_loses_them() -> None:
    table = Table()
    both = {"n1": {1: ROOM1}, "n2": {1: ROOM2}}
    assert table.listed("devices", both, alone=False)
    assert not table.listed("devices", {"n1": {1: ROOM1}}, alone=False)
    assert table.listed("devices", both, alone=False)
    assert not table.listed("devices", {"n1": {1: ROOM1}}, alone=False)
    assert table.counts == {ROOM1: 1, ROOM2: 1}
    assert table.listed("devices", {"n1": {1: ROOM1}}, alone=False)
    assert table.counts == {ROOM1: 1}


def test_the_same_server_after_a_restart_counts_nobody_twice() -> None:
    table = Table()
    table.listed("devices", {"before": {1: ROOM1}}, alone=True)
    assert table.listed("devices", {"after": {1: ROOM1}}, alone=True)
    assert table.counts == {ROOM1: 1}


# -- accounts of ours ----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def house(
    folder: Path, issued: Certificates, *devices: Party, known: tuple[str, ...] = (), **rules: Any
) -> AsyncIterator[tuple[Site, Server]]:
    """A server with accounts, an edge that follows who comes and goes, and devices, closed at last."""
    async with contextlib.AsyncExitStack() as stack:
        accounts = accounts_of(*devices, **rules)
        server = await stack.enter_async_context(running(folder, issued.server, accounts))
        edge = await connect_edge(server.url, issued)
        stack.push_async_callback(edge.close)

        async def connect(name: str, **options: Any) -> nats.NATS:
            client = await raw(server.url, issued, name, **options)
            stack.push_async_callback(client.close)
            return client

        site = Site(edge, connect, edge.attendance("house", lambda: known))
        yield await stack.enter_async_context(followed(site)), server


async def test_a_certificates_serial_number_is_no_part_of_the_identity(
    tmp_path: Path, issued: Certificates
) -> None:
    certificate = x509.load_pem_x509_certificate(issued.of(ROOM2).certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    serial = names.get_values_for_type(x509.UniformResourceIdentifier)[0].removeprefix(f"{ROOM2}#")
    async with house(tmp_path, issued, device("room2", serial)) as (site, _):
        assert site.attendance.live
        room2 = await site.device("room2")
        await eventually(lambda: site.of_devices() == {ROOM2: 1})  # by an event
        site.news.clear()
        site.attendance.refresh()
        await eventually(lambda: site.news)
        assert site.of_devices() == {ROOM2: 1}  # by a list
        room2._transport._io_writer.transport.abort()  # as by a process that is killed
        await eventually(lambda: any(ROOM2 in news.identities for news in site.news))


async def test_the_first_device_that_speaks_mqtt_is_known_and_what_it_listens_to(
    tmp_path: Path, issued: Certificates
) -> None:
    async with house(tmp_path, issued, device("room1")) as (site, server):
        await server.reload(accounts_of(device("room1"), LIGHT))
        credentials = issued.of(LAMP)
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "x", protocol=mqtt.MQTTv311)
        context = ssl.create_default_context(cafile=str(credentials.authority))
        context.load_cert_chain(credentials.certificate, credentials.key)
        client.tls_set_context(context)
        client.on_connect = lambda *_: client.subscribe(topic(f"{PLAIN}.lamp"))
        await asyncio.to_thread(client.connect, "127.0.0.1", server.mqtt)
        client.loop_start()
        try:
            await eventually(lambda: site.of_devices() == {LAMP: 1})

            async def listens() -> bool:
                return await site.attendance.listening([f"{PLAIN}.lamp"]) == {f"{PLAIN}.lamp"}

            await eventually(listens)
        finally:
            await asyncio.to_thread(client.disconnect)
            client.loop_stop()
        await eventually(lambda: site.of_devices() == {})


async def test_several_readers_of_the_news_share_one_roll(tmp_path: Path, issued: Certificates) -> None:
    """A connection serves the edges of several partitions."""
    async with house(tmp_path, issued, device("room1"), device("room2")) as (site, _):
        await site.device("room1")
        await eventually(lambda: site.of_devices() == {ROOM1: 1})
        second, third = (Site(site.edge, None, site.edge.attendance("house")) for _ in range(2))
        received = site.edge._client.stats
        async with followed(third):
            async with followed(second):
                assert second.news[0].identities == {ROOM1}
                assert second.of_devices() == {ROOM1: 1}
                before = received["in_msgs"]
                await site.device("room2")
                for each in (site, second, third):
                    await eventually(lambda each=each: any(ROOM2 in n.identities for n in each.news))
                assert received["in_msgs"] == before + 1
            third.news.clear()
            await site.device("room1")
            await eventually(lambda: any(ROOM1 in news.identities for news in third.news))


async def test_a_reader_that_leaves_lets_another_one_keep_the_roll(
    tmp_path: Path, issued: Certificates
) -> None:
    accounts = accounts_of(device("room1"))
    async with running(tmp_path, issued.server, accounts) as server:
        edge = await connect_edge(server.url, issued)
        first, second = (Site(edge, None, edge.attendance("house")) for _ in range(2))
        async with contextlib.AsyncExitStack() as left:
            await left.enter_async_context(followed(first))  # keeps the roll
            keeping = left.pop_all()
            async with followed(second):
                await keeping.aclose()
                client = await raw(server.url, issued, "room1")
                await eventually(lambda: second.of_devices() == {ROOM1: 1})
                await client.close()
                await eventually(lambda: second.of_devices() == {})
        third = Site(edge, None, edge.attendance("house"))  # when nobody has kept the roll for a while
        async with followed(third):
            client = await raw(server.url, issued, "room1")
            await eventually(lambda: third.of_devices() == {ROOM1: 1})
            await client.close()
        await edge.close()


async def test_after_a_reconnect_a_list_counts_everybody_once(tmp_path: Path, issued: Certificates) -> None:
    async with house(tmp_path, issued, device("room1"), device("room2")) as (site, server):
        await site.device("room1", reconnect_time_wait=0.01, max_reconnect_attempts=-1)
        await site.device("room2", allow_reconnect=False)
        await eventually(lambda: site.of_devices() == {ROOM1: 1, ROOM2: 1})
        await server.restart()
        await eventually(lambda: site.of_devices() == {ROOM1: 1})


async def test_where_each_device_has_its_own_account_those_are_asked_by_their_names(
    tmp_path: Path, issued: Certificates
) -> None:
    devices, known = (device("room1"), device("room2")), ("room1", "room3")
    async with house(tmp_path, issued, *devices, known=known, each_device=True) as (site, _):
        assert site.attendance.live
        assert site.of_devices() == {}
        room1, room2 = await site.device("room1"), await site.device("room2")
        await eventually(lambda: site.of_devices() == {ROOM1: 1, ROOM2: 1})
        site.news.clear()
        site.attendance.refresh()
        await eventually(lambda: any(news.asked for news in site.news))
        assert site.of_devices() == {ROOM1: 1, ROOM2: 1}
        await heard_by(room1, f"{PLAIN}.room1")
        subjects = [f"{PLAIN}.room1", f"{PLAIN}.room2"]
        assert await site.attendance.listening(subjects) == {f"{PLAIN}.room1"}
        await room2.close()
        await eventually(lambda: site.of_devices() == {ROOM1: 1})


async def test_a_device_may_be_called_like_the_account_of_all_devices(
    tmp_path: Path, issued: Certificates
) -> None:
    parties = (device("devices"), device("room1"))
    async with house(tmp_path, issued, *parties, each_device=True) as (site, _):
        for party in parties:
            await site.device(party.name)
        both = {party.identity: 1 for party in parties}
        await eventually(lambda: site.of_devices() == both)
        for _ in range(3):
            site.news.clear()
            site.attendance.refresh()
            await eventually(lambda: any(news.asked for news in site.news))
            assert site.of_devices() == both


async def test_long_lists_come_in_pages(
    tmp_path: Path, issued: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_clients, "_PAGE", 4)
    monkeypatch.setattr(nats_clients, "_OVERLAP", 1)
    async with house(tmp_path, issued, device("room1")) as (site, _):
        for _ in range(11):
            client = await site.device("room1")
            await heard_by(client, f"{PLAIN}.room1")
        answered = await nats_clients.connections(site.edge, "pratipad.house.presence.devices")
        assert [len(clients) for clients in answered.clients.values()] == [11]
        assert await site.attendance.listening([f"{PLAIN}.room1"]) == {f"{PLAIN}.room1"}


async def test_idle_devices_cost_the_edges_link_next_to_nothing(tmp_path: Path, issued: Certificates) -> None:
    """300 idle devices: one list of 40 kB a minute."""
    names = [f"idle{number}" for number in range(50)]
    async with house(tmp_path, issued, *map(device, names)) as (site, _):
        for name in names:
            await site.device(name)
        await eventually(lambda: len(site.of_devices()) == len(names))
        received = site.edge._client.stats
        before = received["in_bytes"]
        await asyncio.sleep(0.5)  # where lists alone tell, two had come
        assert received["in_bytes"] == before
        site.news.clear()
        site.attendance.refresh()
        await eventually(lambda: site.news)
        assert 0 < received["in_bytes"] - before < len(names) * 150
        assert nats_attendance._LIST_SECONDS == 60


async def test_an_account_that_is_shared_and_denies_the_question_gives_no_news(
    tmp_path: Path, issued: Certificates
) -> None:
    accounts = shared_account(may_ask=False)
    async with running(tmp_path, issued.server, accounts) as server:
        edge = await connect_edge(server.url, issued)
        attendance = edge.attendance("house")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await anext(attendance.news())
        assert not attendance.live
        assert attendance.connections == {}
        with pytest.raises(WaitTimeout):
            await attendance.listening([f"{PLAIN}.room1"])
        await edge.close()


async def test_each_node_of_a_cluster_tells_of_its_own_clients(
    tmp_path: Path, issued: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_attendance, "_MISSING_SECONDS", 0.2)
    accounts = accounts_of(device("room1"), device("room2"))
    del accounts["F_house"]["jetstream"]
    ports = [free_port(), free_port()]
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                running(
                    tmp_path / f"n{at}",
                    issued.server,
                    accounts,
                    **_clustered(port, ports),
                )
            )
            for at, port in enumerate(ports)
        ]
        edge = await connect_edge(servers[0].url, issued)
        stack.push_async_callback(edge.close)

        async def joined() -> bool:
            asked = await nats_clients.connections(edge, "pratipad.house.presence.devices")
            return len(asked.clients) == 2

        await eventually(joined)
        room1 = await raw(servers[0].url, issued, "room1")
        stack.push_async_callback(room1.close)
        room2 = await raw(servers[1].url, issued, "room2", allow_reconnect=False)
        stack.push_async_callback(room2.close)
        await heard_by(room2, f"{PLAIN}.room2")
        site = Site(edge, None, edge.attendance("house"))
        async with followed(site):
            assert site.of_devices() == {ROOM1: 1, ROOM2: 1}
            assert await site.attendance.listening([f"{PLAIN}.room2"]) == {f"{PLAIN}.room2"}
            await servers[1].stop()
            site.attendance.refresh()
            await eventually(lambda: site.of_devices() == {ROOM1: 1})


def _clustered(port: int, ports: list[int]) -> dict[str, Any]:
    routes = [f"nats://127.0.0.1:{each}" for each in ports]
    cluster = {"name": "house", "listen": f"127.0.0.1:{port}", "routes": routes}
    # MQTT needs a JetStream, and three nodes for it.
    return {"cluster": cluster, "jetstream": False, "mqtt": {}}


def topic(subject: str) -> str:
    return subject.replace(".", "/")
