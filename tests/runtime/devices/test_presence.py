"""Presence: hellos and the server's news, of which either may overtake the other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import pytest
from patience import eventually

from pratipad_nb.runtime.devices import foreign
from pratipad_nb.runtime.devices import presence as module
from pratipad_nb.runtime.devices.credit import Ledger
from pratipad_nb.runtime.devices.foreign import PlainDevices
from pratipad_nb.runtime.devices.presence import Presence
from pratipad_nb.runtime.devices.rate_limit import RateLimit
from pratipad_nb.runtime.devices.roster import Roster
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import HelloFrame
from pratipad_nb.transport.protocol import News, Signal
from pratipad_nb.transport.subjects import Subjects

SUBJECTS = Subjects("house")


class Server:
    """An `Attendance` that the test decides: `tell` is an event, `list` a list."""

    def __init__(self):
        self.connections, self.live, self.wanted = {}, True, 0
        self.asked_about, self.heard = [], frozenset()
        self._news = asyncio.Queue()

    async def news(self):
        while True:
            yield await self._news.get()

    def refresh(self):
        self.wanted += 1

    async def listening(self, subjects):
        self.asked_about.append(list(subjects))
        return self.heard & frozenset(subjects)

    def tell(self, device, count, *, flow="house", role="device"):
        identity = f"urn:pratipad:{flow}:{role}:{device}"
        self.connections[identity] = count
        if not count:
            del self.connections[identity]
        self._news.put_nowait(News(frozenset({identity})))

    def list(self, asked=None):
        self._news.put_nowait(News(frozenset(), time.monotonic() if asked is None else asked))


class House:
    """The edge's side: what it has concluded of its devices."""

    def __init__(self, server):
        self.server = server
        self.came_, self.gone_ = [], []
        self.ledger = Ledger(
            "Push",
            lambda device, frame: None,
            lambda: 0,
            delivery="durable",
            max_demand=1,
            min_demand=1,
            limit=RateLimit(None),
        )
        self.roster = Roster(self.ledger.accounts, {}, lambda device: True)
        self.presence = Presence(server, SUBJECTS, self.roster, self.ledger, self)

    def hello(self, device, *, connected=True, leaving=False):
        """A device says hello; or `Backward.hello`, which the edge tells of the hello."""
        if isinstance(device, HelloFrame):
            return
        frame = HelloFrame("house", device, 1, 0, 0, False, leaving=leaving)
        self.presence.on_hello(Signal(SUBJECTS.hello(device), encode(frame)))

    def came(self, device):
        self.came_.append(device)

    def gone(self, device):
        self.gone_.append(device)

    def shown(self, device="room1"):
        return self.roster.is_connected(device)


@pytest.fixture
def server():
    return Server()


@pytest.fixture
async def house(server, monkeypatch):
    monkeypatch.setattr(module, "_DOUBT_SECONDS", 0.05)
    house = House(server)
    task = asyncio.create_task(house.presence.watch())
    yield house
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_device_that_the_server_parts_with_has_gone_a_moment_later(house, server):
    house.hello("room1")
    server.tell("room1", 1)
    await eventually(lambda: house.came_ == ["room1"])
    assert house.shown()
    server.tell("room1", 0)
    await eventually(lambda: not house.shown())
    assert house.gone_ == ["room1"]
    assert server.wanted == 0


async def test_a_device_that_comes_back_before_the_doubt_ends_has_not_gone(house, server):
    house.hello("room1")
    server.tell("room1", 1)
    server.tell("room1", 0)
    server.tell("room2", 0)  # the doubts about which end, too, once those about room1 have
    await eventually(lambda: house.presence._doubted)
    house.hello("room1")  # overtakes the news of its connection
    server.tell("room1", 1)
    await eventually(lambda: not house.presence._doubted)
    assert house.shown()
    assert house.gone_ == []


async def test_a_hello_that_comes_after_the_end_of_its_connection_is_found_out_by_a_list(house, server):
    house.hello("room1")
    assert house.shown()
    await eventually(lambda: server.wanted)
    server.list()
    await eventually(lambda: not house.shown())
    assert house.gone_ == ["room1"]


async def test_the_end_of_one_of_several_connections_is_no_farewell(house, server):
    house.hello("room1")
    server.tell("room1", 2)
    server.tell("room1", 1)
    server.tell("room2", 1)
    await eventually(lambda: "room2" in house.came_)
    assert not house.presence._doubted
    assert house.shown()


async def test_a_device_that_says_hello_while_a_list_is_on_its_way_has_not_gone(house, server):
    asked = time.monotonic()
    house.hello("room1")
    server.list(asked)
    server.tell("room2", 1)
    await eventually(lambda: house.came_)
    assert house.shown()
    assert house.gone_ == []


async def test_messages_of_a_device_that_has_gone_do_not_keep_it(house, server):
    """What a device sent before its power was cut may arrive long afterwards, from the log."""
    house.hello("room1")
    server.tell("room1", 1)
    server.tell("room1", 0)
    for number in range(1, 1000):
        house.ledger.arrived("room1", 1, number)
        if not house.shown():
            break
        await asyncio.sleep(0.005)
    assert not house.shown()


async def test_a_farewell_is_believed_at_once_and_a_later_list_again(house, server):
    server.tell("room1", 1)
    await eventually(lambda: house.shown())
    house.hello("room1")
    house.hello("room1", leaving=True)
    assert not house.shown()
    server.list()  # it has said farewell, and is connected: a foreign device goes by its name now
    await eventually(lambda: house.shown())


async def test_a_device_that_says_no_hello_is_shown_by_the_servers_word_alone(house, server):
    server.tell("lamp", 1)
    await eventually(lambda: house.shown("lamp"))
    assert house.roster.known == ["lamp"]
    server.tell("lamp", 0)
    await eventually(lambda: not house.shown("lamp"))
    assert house.gone_ == []


async def test_devices_of_a_tenants_flow_are_known_and_no_other_party_is(house, server):
    server.tell("room1", 1, flow="acme/house")
    await eventually(lambda: house.shown())
    server.tell("room2", 1, flow="other")
    server.tell("room3", 1, role="reader")
    server.tell("room4", 1, flow="acme/other")
    server.tell("lamp", 1)
    await eventually(lambda: house.shown("lamp"))
    server.list()
    server.tell("room1", 0, flow="acme/house")
    await eventually(lambda: house.roster.known == ["lamp"])


async def test_a_device_with_very_many_connections_is_named_once(house, server, caplog):
    caplog.set_level(logging.WARNING)
    for count in (8, 9, 10):
        server.tell("room1", count)
        await eventually(lambda count=count: house.roster.connections == {"room1": count})
    assert [record.message for record in caplog.records] == [
        "device room1 has 9 connections at once; 8 are usual"
    ]


# -- foreign devices -----------------------------------------------------------------------------------------


@pytest.fixture
def plain(house, server):
    return PlainDevices(None, SUBJECTS, server, house.roster)


async def test_nobody_is_asked_about_devices_that_are_not_connected(plain, house, server):
    house.roster.connections["lamp"] = 1
    assert await plain.listening(["away", "lamp"]) == []
    assert server.asked_about == [[SUBJECTS.plain("lamp")]]


async def test_a_device_that_does_not_listen_is_asked_about_ever_less_often(
    plain, house, server, monkeypatch
):
    monkeypatch.setattr(foreign, "_FIRST_PAUSE", 0.05)
    house.roster.connections["lamp"] = 1
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        assert await plain.listening(["lamp"]) == []
        await asyncio.sleep(0.005)
    assert 2 <= len(server.asked_about) <= 3
    server.heard = frozenset({SUBJECTS.plain("lamp")})
    assert await plain.listening(["lamp"], ["lamp"]) == ["lamp"]  # there is news, so the server is asked


async def test_where_the_server_tells_of_nobody_each_device_is_asked_about(plain, server):
    server.live, server.heard = False, frozenset({SUBJECTS.plain("lamp")})
    assert await plain.listening(["away", "lamp"]) == ["lamp"]
