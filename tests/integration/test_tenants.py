"""What a party of one tenant, by a plain client of the NATS library, learns of another tenant: nothing.

Two tenants have a flow and a device of the same names. The second tenant has a flow and a device more, whose
names the first might guess: every answer about these is the same as the answer about what exists nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import pytest
from hostile import raw_party
from nats.aio.client import Client
from nats.js.errors import NotFoundError
from patience import eventually, patient

from pratipad_nb import Cloud, Device, Flow
from pratipad_nb.settings import Credentials, FlowOptions, Keep
from pratipad_nb.testing import real_server
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ControlFrame, Order, OrderFrame
from pratipad_nb.transport.parties import Party

SMALL = {"keep": Keep(bytes=1 << 20), "options": FlowOptions(input_bytes=1 << 20, order_bytes=1 << 20)}
OURS, THEIRS = "acme", "globex"
#: Of a tenant, a flow and a device: those that are there, and those that are nowhere. They are as long, for a
#: size is an answer, too.
THERE, NOWHERE = (THEIRS, "garden", "pump1"), ("glitex", "gerben", "pomp1")
SECRET = "the other tenant's reading"


def same(payload: Any) -> Any:
    return payload


@dataclass
class Site:
    """A server with the flows of both tenants, and the certificate folders of the first tenant's parties."""

    url: str
    ours: Flow
    theirs: dict[str, Flow]
    folders: dict[str, Path]
    errors: list[str] = field(default_factory=list)

    def party(self, role: Any) -> Party:
        return Party("house", role, {"device": "room1", "reader": "desk"}.get(role, ""), OURS)

    def attacker(
        self, role: str, errors: list[str] | None = None
    ) -> contextlib.AbstractAsyncContextManager[Client]:
        return raw_party(self.url, self.party(role), Credentials.in_folder(self.folders[role]), errors)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("tenants")
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(real_server())

        def flow(tenant: str, name: str) -> Flow:
            made = Flow("Push <~> same <~> Output", name=name, tenant=tenant, home=home, **SMALL)
            return stack.enter_context(made)

        ours = flow(OURS, "house")
        theirs = {name: flow(THEIRS, name) for name in ("house", "garden")}
        folders = {"edge": home / "pki" / "edge" / f"{OURS}~house"}
        for role, name in (("device", "room1"), ("reader", "desk")):
            folders[role] = folder / role
            url = ours.invite(name, folders[role], role=role).url  # type: ignore[arg-type]
        theirs["house"].invite("desk", folder / "theirs", role="reader")
        theirs["garden"].invite("pump1", folder / "pump1")
        yield Site(url, ours, theirs, folders)


def subjects_about(tenant: str, flow: str, device: str) -> list[str]:
    """Return subjects that name the tenant, the flow or the device, and would tell of them."""
    accounts = [f"{tenant}~{kind}_{flow}" for kind in "FDM"] + [f"{tenant}~R_{flow}:desk"]
    system = [
        f"$SYS.{form}"
        for account in accounts
        for form in (
            f"REQ.ACCOUNT.{account}.CONNZ",
            f"REQ.ACCOUNT.{account}.INFO",
            f"ACCOUNT.{account}.CONNECT",
            f"ACCOUNT.{account}.SERVER.CONNS",
        )
    ]
    api = [
        f"{prefix}.{call}"
        for prefix in ("$JS.API", f"$JS.{flow}.API", f"$JS.{tenant}.API", "$JS.house.API")
        for call in (
            f"STREAM.INFO.OUT_{flow}",
            f"STREAM.MSG.GET.OUT_{flow}",
            f"DIRECT.GET.OUT_{flow}",
            f"CONSUMER.NAMES.OUT_{flow}",
            f"CONSUMER.MSG.NEXT.OUT_{flow}.desk",
            f"STREAM.DELETE.OUT_{flow}",
            f"ACCOUNT.PURGE.{tenant}~F_{flow}",
        )
    ]
    of_flow = [
        f"pratipad.{flow}.{kind}"
        for kind in (
            f"up.{device}",
            f"hello.{device}",
            "order.desk",
            "control.desk",
            "edges",
            "presence.devices",
        )
    ]
    of_device = [f"pratipad.house.{kind}.{device}" for kind in ("up", "down", "plain", "credit", "hello")]
    mixed = [f"pratipad.{tenant}.{flow}.up.{device}", f"{tenant}.pratipad.{flow}.up.{device}"]
    return [*system, *api, *of_flow, *of_device, *mixed]


def in_general(text: str, names: tuple[str, ...]) -> str:
    """Return an answer without what differs by chance, and with the names that were asked about alike."""
    for name in names:
        text = text.replace(name, "NAME")
    return re.sub(r"_inbox\.[\w.@-]+|\"ts\":\"[^\"]*\"|\"seq\":\d+", "", text, flags=re.IGNORECASE)


async def answers(client: Client, errors: list[str], names: tuple[str, str, str]) -> dict[str, list[str]]:
    """Return all that the server says about `names`, by what was asked."""

    async def asked(subject: str) -> str:
        try:
            message = await client.request(subject, b"{}", timeout=1.0)
        except (nats.errors.Error, TimeoutError) as error:
            return type(error).__name__
        return f"{message.headers} {message.data.decode(errors='replace')}"

    async def refused(work: Coroutine[Any, Any, Any]) -> list[str]:
        """Return the server's errors about one command, given alone so that all errors are about it."""
        del errors[:]
        with contextlib.suppress(nats.errors.Error):
            await work
        for _ in range(2):  # the client may send the first PING before the command
            await client.flush()
        return sorted(in_general(error, names) for error in errors)

    subjects = subjects_about(*names)
    answered = await asyncio.gather(*map(asked, subjects))
    return {
        in_general(subject, names): [
            in_general(answer, names),
            *await refused(client.publish(subject, b"{}")),
            *await refused(client.subscribe(subject)),
            *await refused(client.subscribe(subject, queue=names[0])),
        ]
        for subject, answer in zip(subjects, answered, strict=True)
    }


@pytest.mark.parametrize("role", ["device", "reader", "edge"])
async def test_what_another_tenant_has_answers_as_what_nobody_has(site: Site, role: str) -> None:
    errors: list[str] = []
    async with site.attacker(role, errors) as client:
        there = await answers(client, errors, THERE)
    async with site.attacker(role, errors) as client:
        nowhere = await answers(client, errors, NOWHERE)
    assert there == nowhere


@pytest.mark.parametrize("role", ["device", "reader", "edge"])
async def test_no_answer_and_no_message_names_another_tenant(site: Site, role: str) -> None:
    """What the server tells of itself, of its accounts and of its connections; and all that passes."""
    questions = [
        "$SYS.REQ.USER.INFO",
        *(f"$SYS.REQ.SERVER.PING{kind}" for kind in ("", ".CONNZ", ".ACCOUNTZ", ".SUBSZ", ".JSZ", ".VARZ")),
        *(f"$SYS.REQ.ACCOUNT.PING.{kind}" for kind in ("CONNZ", "STATZ", "SUBSZ", "INFO")),
        *(f"$JS.API.{call}" for call in ("INFO", "STREAM.NAMES", "STREAM.LIST", "META.LEADER.STEPDOWN")),
        "$JS.house.API.STREAM.INFO.OUT_house",
        "$SRV.PING",
        "$SRV.INFO",
    ]
    heard: list[str] = []
    errors: list[str] = []

    async def note(message: Any) -> None:
        heard.append(f"{message.subject} {message.headers} {message.data!r}")

    async with site.attacker(role, errors) as client:
        for subject in (">", "*.>", "pratipad.>", "pratipad.house.>", "$SYS.>", "$JS.>", "_INBOX.>", "_R_.>"):
            await client.subscribe(subject, cb=note)
            await client.subscribe(subject, queue="mine", cb=note)
        for question in questions:
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                answer = await client.request(question, b"", timeout=0.2)
                heard.append(f"{answer.headers} {answer.data!r}")
        before = site.theirs["house"].stats().delivered
        await asyncio.to_thread(traffic, site.theirs["house"])
        assert site.theirs["house"].stats().delivered == before + 1
        await client.flush()
    for text in (*heard, *errors):
        assert THEIRS not in text, text
        assert "garden" not in text, text
        assert SECRET not in text, text


def traffic(flow: Flow) -> None:
    """Have a device of `flow` send a reading and obey an order, and a reader read."""
    obeyed: list[Any] = []
    with Device("room1", receive=obeyed.append).connect(flow) as device, Cloud(flow, reader="desk") as cloud:
        device.push(SECRET).wait(patient(10))
        cloud.take(1)
        cloud.send(SECRET, to="room1")
        device.flush()


@pytest.mark.parametrize("role", ["device", "reader", "edge"])
async def test_what_a_party_publishes_reaches_no_other_tenant(site: Site, role: str) -> None:
    """Under the very subjects that the other tenant's flow of the same name listens to."""
    flow = site.theirs["house"]
    before = await asyncio.to_thread(flow.stats)
    kinds = ("up.room1", "hello.room1", "order.desk", "reply", "control.desk", "read.desk", "mark.orders")
    subjects = [f"pratipad.{name}.{kind}" for kind in kinds for name in ("house", f"{THEIRS}/house")]
    replies = ("", "pratipad.house.out.0", "pratipad.house.down.room1", "$JS.API.STREAM.DELETE.OUT_house")
    async with site.attacker(role) as client:
        for subject, reply in itertools.product(subjects, replies):
            with contextlib.suppress(nats.errors.Error):
                await client.publish(subject, encode(ControlFrame("pull", {"n": 1})), reply=reply)
        await client.flush()
    await asyncio.to_thread(traffic, flow)
    after = await asyncio.to_thread(flow.stats)
    assert after.delivered == before.delivered + 1
    assert after.state == "running"
    assert (after.blocked_by, after.error) == (before.blocked_by, before.error)


async def test_an_edge_draws_nothing_out_of_another_account(site: Site) -> None:
    """A stream with a source, a mirror or a copy of another account's stream gets nothing, and no hint."""
    outcomes = []
    async with site.attacker("edge") as client:
        for tenant, flow, _ in (THERE, NOWHERE):
            said = []
            for prefix in (f"$JS.{tenant}~F_{flow}.API", "$JS.API", f"$JS.{flow}.API"):
                source = {
                    "name": f"OUT_{flow}",
                    "external": {"api": prefix, "deliver": "pratipad.house.stolen"},
                }
                for more in ({"sources": [source]}, {"mirror": source}):
                    spec = {"name": "STOLEN", "storage": "file", "max_bytes": 1 << 16} | more
                    answer = await client.request(
                        "$JS.API.STREAM.CREATE.STOLEN", json.dumps(spec).encode(), timeout=patient(5)
                    )
                    said.append(in_general(_without_times(answer.data), (tenant, flow)))
                    await client.request("$JS.API.STREAM.DELETE.STOLEN", b"", timeout=patient(5))
            outcomes.append(said)
    assert outcomes[0] == outcomes[1]


def _without_times(answer: bytes) -> str:
    return re.sub(r'"(created|ts|first_ts|last_ts)":"[^"]*"', "", answer.decode())


# -- a flow that is shared -----------------------------------------------------------------------------------


@pytest.fixture
async def guest(site: Site, tmp_path: Path) -> AsyncIterator[Client]:
    """Give a raw client of the first tenant's reader, with whom the other tenant shares its flow."""
    flow, party = site.theirs["house"], Party("house", "reader", f"desk@{OURS}", THEIRS)
    await asyncio.to_thread(flow.share, OURS, reader="desk")
    endpoint = await asyncio.to_thread(flow.invite, party.name, tmp_path / "guest", "reader")
    assert endpoint.credentials is not None
    async with raw_party(site.url, party, endpoint.credentials, site.errors) as client:
        yield client
    await asyncio.to_thread(flow.unshare, OURS)


async def asked(client: Client, subject: str, verb: str, **arguments: Any) -> ControlFrame:
    data = encode(ControlFrame(verb, arguments))
    return decode((await client.request(subject, data, timeout=patient(5))).data, ControlFrame)


async def test_a_guest_asks_a_flow_for_its_description_and_counters_and_for_nothing_else(
    guest: Client,
) -> None:
    control = f"pratipad.house.control.desk@{OURS}"
    for verb in ("describe", "stats"):
        assert (await asked(guest, control, verb)).verb == "ok"
    for verb in ("pull", "request", "cancel", "who", "anything"):
        refused = await asked(guest, control, verb, n=1)
        assert refused.verb == "error"
        assert f"not for the request '{verb}'" in refused.arguments["text"]


async def test_a_guest_publishes_and_reads_nothing_but_what_its_reading_needs(
    guest: Client, site: Site
) -> None:
    api = "$JS.house.API"
    others = (
        "order.desk",
        "control.desk",
        "read.desk",
        "reply",
        "edges",
        "presence.devices",
        "sent",
        "out.0",
    )
    calls = ("STREAM.NAMES", "INFO", "STREAM.INFO.MARK_house", "STREAM.PURGE.OUT_house")
    for subject in (
        *(f"pratipad.house.{kind}" for kind in (f"order.desk@{OURS}", *others)),
        *(f"pratipad.house.{kind}.room1" for kind in ("up", "down", "plain", "credit", "hello")),
        *(f"{api}.{call}" for call in calls),
        f"{api}.CONSUMER.CREATE.OUT_house.desk@{OURS}",
        f"{api}.CONSUMER.DELETE.OUT_house.desk@{OURS}",
        f"{api}.CONSUMER.MSG.NEXT.OUT_house.desk",
        f"{api}.STREAM.MSG.GET.READ_house:desk",
        f"{api}.STREAM.DELETE.OUT_house",
        "$JS.ACK.OUT_house.desk.1.1.1.1.1",
    ):
        del site.errors[:]
        await guest.publish(subject, b"{}", reply=f"{guest._inbox_prefix.decode()}.x")
        for _ in range(2):
            await guest.flush()
        (error,) = site.errors
        assert f'violation for publish to "{subject}"'.lower() in error
    info = await guest.request(f"{api}.STREAM.INFO.OUT_house", b"", timeout=patient(5))
    assert json.loads(info.data)["config"]["name"] == "OUT_house"
    mine = await guest.request(f"{api}.CONSUMER.INFO.OUT_house.desk@{OURS}", b"", timeout=patient(5))
    assert json.loads(mine.data)["name"] == f"desk@{OURS}"


async def test_a_guest_is_cut_off_at_once_and_its_position_and_consumer_are_gone(
    guest: Client, site: Site
) -> None:
    flow = site.theirs["house"]
    assert not guest.is_closed
    await asyncio.to_thread(flow.unshare, OURS)
    async with asyncio.timeout(patient(2)):
        await eventually(lambda: guest.is_closed)
    edge = Party("house", "edge", tenant=THEIRS)
    folder = site.folders["edge"].parent / f"{THEIRS}~house"
    async with raw_party(site.url, edge, Credentials.in_folder(folder)) as client:
        stream = client.jetstream()
        assert f"desk@{OURS}" not in [each.name for each in await stream.consumers_info("OUT_house")]
        with pytest.raises(NotFoundError):
            await stream.stream_info(f"READ_house:desk@{OURS}")


async def test_an_edge_refuses_a_guests_orders_and_requests_also_where_the_server_lets_them_pass(
    guest: Client, site: Site
) -> None:
    """As where all parties share an account: here the flow's own edge publishes in the guest's name."""
    obeyed: list[Any] = []
    flow = site.theirs["house"]
    folder = site.folders["edge"].parent / f"{THEIRS}~house"
    async with raw_party(
        site.url, Party("house", "edge", tenant=THEIRS), Credentials.in_folder(folder)
    ) as client:
        device = await asyncio.to_thread(Device("room1", receive=obeyed.append).connect, flow)
        order = encode(OrderFrame(time.time(), [Order("forged", "the guest's order", ["room1"])]))
        await client.request(f"pratipad.house.order.desk@{OURS}", order, timeout=patient(5))
        await asyncio.to_thread(flow.send, "the owner's order", to="room1")
        await eventually(lambda: bool(obeyed))
        await asyncio.to_thread(device.close)
    assert obeyed == ["the owner's order"]
