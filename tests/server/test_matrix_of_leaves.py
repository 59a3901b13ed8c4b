"""The matrix of rights of those that come another way: another site's server, and parties that aren't let in.

As in `test_matrix`, what must pass is written here by hand. At the site anybody may do everything: its spies
publish, and subscribe to, all that there is. The link to the cloud's server must hold all else back.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nats
import pytest
from all_subjects import SUBJECTS
from nats.aio.client import Client
from nats.aio.msg import Msg
from patience import eventually
from servers_by_hand import free_port
from spying import MARK, Seen, Spied, spied_server

from pratipad_nb.server.register import Rules
from pratipad_nb.settings import Leaf
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.rights import Arrows
from pratipad_nb.transport.tls import client_context

pytestmark = pytest.mark.timeout(120)

#: A certificate lets one flow's account in. No order of the flow ``yard`` may pass.
LEAVES = {"house": Party("house", "leaf", "barn"), "yard": Party("yard", "leaf", "barn")}
RULES = {"yard": Rules(Arrows(orders=False, downlink=False))}
EDGES = tuple(Party(flow, "edge") for flow in ("house", "yard", "garden"))
AT_THE_CLOUD = (
    *LEAVES.values(),
    *EDGES,
    Party("house", "reader", "archive"),
    Party("house", "device", "room1"),
    Party("house", "edge", tenant="acme"),
)
#: What passes the link to the cloud's server, and from there; subjects begin with these.
UP = (
    "pratipad.{flow}.sent",
    "pratipad.{flow}.stats",
    "pratipad.{flow}.out.",
    "_R_.",
    "_INBOX.{flow}.reader.",
)
CALLS = "$JS.cloud.API."
#: The server lets MQTT's own subjects pass every link, whatever the permissions. No device that speaks MQTT
#: is in an account that has a link.
MQTT = "$MQTT."
DOWN = {
    "house": ("pratipad.house.order.", "pratipad.house.control.", "_INBOX.house.edge."),
    "yard": ("pratipad.yard.control.", "_INBOX.yard.edge."),
}


@dataclass
class Linked:
    """What passed the link between the two servers, by flow.

    Attributes
    ----------
    up
        Of each subject at the site, where the message arrived at the cloud's server.
    down
        The subjects of what arrived at the site.
    """

    up: dict[str, dict[str, Seen]] = field(default_factory=dict)
    down: dict[str, set[str]] = field(default_factory=dict)


async def _linked(folder: Path) -> Linked:
    found = Linked()
    leaves = f"127.0.0.1:{free_port()}"
    async with spied_server(folder / "cloud", AT_THE_CLOUD, RULES, leaves=leaves) as cloud:
        link = Leaf(f"tls://{leaves}", [cloud.certificate(leaf.identity) for leaf in LEAVES.values()])
        async with spied_server(folder / "site", EDGES, {}, leaf_of=link) as site:
            for flow in LEAVES:
                await _until_linked(cloud, site, flow)
                found.up[flow] = await _all_upwards(cloud, site, flow)
                found.down[flow] = await _all_downwards(cloud, site, flow)
    return found


async def _until_linked(cloud: Spied, site: Spied, flow: str) -> None:
    async def arrives() -> bool:
        await site.spies.clients[f"F_{flow}"].publish(f"pratipad.{flow}.sent", b"try link")
        return bool(cloud.spies.seen("link"))

    await eventually(arrives)
    cloud.spies.forget()


async def _all_upwards(cloud: Spied, site: Spied, flow: str) -> dict[str, Seen]:
    spy = site.spies.clients[f"F_{flow}"]
    for number, subject in enumerate([*SUBJECTS, f"pratipad.{flow}.sent"]):
        await spy.publish(subject, b"", headers={MARK: str(number)})
    # The last one has arrived once all have, for the link keeps their order.
    await eventually(lambda: bool(cloud.spies.seen(len(SUBJECTS))))
    await cloud.spies.settle({})
    return {subject: cloud.spies.seen(number) for number, subject in enumerate(SUBJECTS)}


async def _all_downwards(cloud: Spied, site: Spied, flow: str) -> set[str]:
    heard: dict[str, set[str]] = {"begin": set(), "down": set(), "end": set()}
    listeners: list[Client] = []
    sender, last = cloud.spies.clients[f"F_{flow}"], f"_INBOX.{flow}.edge.last"

    async def hear(message: Msg) -> None:
        if mark := (message.headers or {}).get(MARK):
            heard[mark].add(message.subject)

    # One by one, for a pattern of more than may pass brings nothing; a connection has only so many.
    for batch in batched([*SUBJECTS, last], 1000):
        listener = await site.connect_spy(f"F_{flow}")
        for subject in batch:
            await listener.subscribe(subject, cb=hear)
        await listener.flush()
        listeners.append(listener)

    async def arrives(mark: str) -> bool:
        await sender.publish(last, b"", headers={MARK: mark})
        return bool(heard[mark])

    await eventually(lambda: arrives("begin"))
    for subject in SUBJECTS:
        await sender.publish(subject, b"", headers={MARK: "down"})
    # The link keeps the order.
    await eventually(lambda: arrives("end"))
    for listener in listeners:
        await listener.flush()
    return heard["down"]


def batched(values: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Linked:
    return asyncio.run(_linked(tmp_path_factory.mktemp("linked")))


@pytest.mark.parametrize("flow", LEAVES)
def test_what_a_leaf_sends_up_lands_where_the_table_says_and_nowhere_else(linked: Linked, flow: str) -> None:
    wrong = {}
    for subject, seen in linked.up[flow].items():
        expected: set[tuple[str, str]] = set()
        if subject.startswith((MQTT, *(start.format(flow=flow) for start in UP))):
            expected.add((f"F_{flow}", subject))
        if subject.startswith(CALLS):
            expected.add((f"F_{flow}", subject.replace(CALLS, "$JS.API.")))
        if flow == "house" and subject.startswith(("pratipad.house.stats", "pratipad.house.out.")):
            expected.add(("R_house:archive", subject))
        if {each for each in seen if each[0] != "SYS"} != expected:
            wrong[subject] = seen, expected
    assert wrong == {}


@pytest.mark.parametrize("flow", LEAVES)
def test_what_comes_down_to_a_leaf_is_what_the_table_says(linked: Linked, flow: str) -> None:
    wanted = {subject for subject in SUBJECTS if subject.startswith((MQTT, *DOWN[flow]))}
    assert wanted
    assert linked.down[flow] == wanted


# -- parties that aren't let in ------------------------------------------------------------------------------

#: The names in their certificates; the server lets in others.
STRANGERS = {
    "nobody, without a certificate": "",
    "a device that was never invited": "urn:pratipad:house:device:stranger",
    "an edge of a flow that doesn't exist": "urn:pratipad:nowhere:edge",
    "the server": "urn:pratipad:server",
    "a device of another tenant": "urn:pratipad:acme/house:device:room1",
    "a reader with a pattern for a name": "urn:pratipad:house:reader:*",
    "a leaf, as a client": "urn:pratipad:house:leaf:barn",
    "a device that speaks MQTT, as another client": "urn:pratipad:house:device:lamp",
}


async def _let_in(folder: Path) -> list[str]:
    """Return those of `STRANGERS` that the server lets in."""
    found = []
    parties = (*AT_THE_CLOUD, Party("house", "device", "lamp", mqtt=True))
    addresses = {kind: f"127.0.0.1:{free_port()}" for kind in ("leaves", "mqtt")}
    async with spied_server(folder, parties, {}, **addresses) as spied:
        for who, identity in STRANGERS.items():
            shown = spied.certificate(identity or "urn:pratipad:unused")
            anonymous = ssl.create_default_context(cafile=str(shown.authority))
            context = client_context(shown) if identity else anonymous
            client = Client()
            with contextlib.suppress(nats.errors.Error, OSError):
                await client.connect(spied.url, tls=context, tls_handshake_first=True, allow_reconnect=False)
            if client.is_connected:
                found.append(who)
                await client.close()
    return found


def test_no_stranger_comes_in(tmp_path: Path) -> None:
    assert asyncio.run(_let_in(tmp_path / "server")) == []
