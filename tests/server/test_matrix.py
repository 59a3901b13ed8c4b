"""The matrix of rights: every role tries every subject and call, in every way, at a real server.

What each role may do is written here by hand, apart from `pratipad_nb.transport.rights`: rows of subjects,
below ``pratipad.FLOW.``. All else must be refused, and reach nobody. The spies of `spying` see what reaches
which account. All parties try all at one server, and the tests look at what came of it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import queue
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from all_subjects import SUBJECTS, TARGETS, WHOLE_SUBJECTS, subjects_of
from nats.aio.msg import Msg
from servers_by_hand import free_port
from spying import MARK, Attempt, Seen, Spied, spied_server

from pratipad_nb.server.register import Rules
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.rights import Arrows

pytestmark = pytest.mark.timeout(120)

#: The parties: two tenants' flows of one name, a flow whose devices have an account each, and a flow whose
#: arrows point one way.
WHO = {
    "edge": Party("house", "edge"),
    "room1": Party("house", "device", "room1"),
    "room2": Party("house", "device", "room2"),
    "lamp": Party("house", "device", "lamp", mqtt=True),
    "archive": Party("house", "reader", "archive"),
    "viewer": Party("house", "reader", "viewer"),
    "garden's edge": Party("garden", "edge"),
    "garden's room1": Party("garden", "device", "room1"),
    "garden's room2": Party("garden", "device", "room2"),
    "garden's archive": Party("garden", "reader", "archive"),
    "yard's edge": Party("yard", "edge"),
    "yard's room1": Party("yard", "device", "room1"),
    "yard's archive": Party("yard", "reader", "archive"),
    "acme's edge": Party("house", "edge", tenant="acme"),
    "acme's room1": Party("house", "device", "room1", "acme"),
    "acme's archive": Party("house", "reader", "archive", "acme"),
    # A reader of the tenant globex, which acme shares the output of its flow with.
    "acme's guest": Party("house", "reader", "archive@globex", "acme"),
}
RULES = {
    "garden": Rules(each_device=True),
    "yard": Rules(Arrows(orders=False, downlink=False)),
}
#: The accounts of a flow's edge, of its devices, and of its readers.
ACCOUNTS = {
    "house": ("F_house", {"D_house", "M_house"}, {"R_house:archive", "R_house:viewer"}),
    "garden": ("F_garden", {"D_garden:room1", "D_garden:room2"}, {"R_garden:archive"}),
    "yard": ("F_yard", {"D_yard"}, {"R_yard:archive"}),
    "acme/house": (
        "acme~F_house",
        {"acme~D_house"},
        {"acme~R_house:archive", "acme~R_house:archive@globex"},
    ),
}
CLIENTS = [who for who, party in WHO.items() if not party.mqtt]
#: Those that only listen to what the others, which have the same rights, bring about.
LISTENERS = ("room2", "viewer", "garden's room2", "garden's archive")
GUESTS = [who for who in CLIENTS if WHO[who].role != "edge" and who not in LISTENERS]
EDGES = [who for who in CLIENTS if WHO[who].role == "edge"]
TRYING = [*GUESTS, *EDGES]

#: What a device may publish, and hear.
DEVICE_SAYS = "up.{name} hello.{name} renew.{name}"
DEVICE_HEARS = "down.{name} plain.{name} credit.{name} credit._all"
#: In a flow that has no arrow back.
ONE_WAY_DEVICE_HEARS = "credit.{name} credit._all"
#: What a reader may publish, hear, and ask of the flow's JetStream.
READER_SAYS = "order.{name} control.{name} read.{name}"
#: In a flow that has no arrow back, or is another tenant's.
NO_ORDERS = ("yard's archive", "acme's guest")
NO_ORDERS_READER_SAYS = "control.{name} read.{name}"
#: To the server, ``out.>`` is a subject of which ``*`` stands for the last part. Nothing below is imported.
READER_HEARS = "stats out.* out.> out.0 out.1"
READER_CALLS = """
    STREAM.INFO.OUT_{flow}  CONSUMER.INFO.OUT_{flow}.{name}  CONSUMER.RESET.OUT_{flow}.{name}
    CONSUMER.MSG.NEXT.OUT_{flow}.{name}  DIRECT.GET.OUT_{flow}  STREAM.MSG.GET.OUT_{flow}
    STREAM.INFO.READ_{flow}:{name}  STREAM.MSG.GET.READ_{flow}:{name}
    DIRECT.GET.READ_{flow}:{name}.pratipad.{flow}.read.{name}
"""
READER_ACKNOWLEDGES = "$JS.ACK.OUT_{flow}.{name}.1.1.1.1.0"
#: An edge may do everything in its flow's account; subjects begin with these.
EDGE_SAYS = ("pratipad.{flow}.", "_R_.", "_INBOX.{flow}.", "$JS.API.", "$JS.ACK.", "$JS.cloud.API.")
EDGE_HEARS = "pratipad.{flow}."
USER_INFO = "$SYS.REQ.USER.INFO"
#: What reaches the flow's devices and readers of what its edge publishes.
TO_DEVICES, TO_READERS = ("down", "plain", "credit"), ("stats", "out")

# -- what is asked ------------------------------------------------------------------------------------------

#: What the server, or the flow's edge, answers: the subject, and what must be in the request.
DEVICE_ASKS = {f"pratipad.{{flow}}.{kind}.{{name}}": "x" for kind in ("up", "hello", "renew")}
READER_ASKS = {
    "pratipad.{flow}.order.{name}": "x",
    "pratipad.{flow}.control.{name}": "x",
    "pratipad.{flow}.read.{name}": "x",
    "$JS.{flow}.API.STREAM.INFO.OUT_{flow}": "",
    "$JS.{flow}.API.STREAM.INFO.READ_{flow}:{name}": "",
    "$JS.{flow}.API.CONSUMER.INFO.OUT_{flow}.{name}": "",
    "$JS.{flow}.API.CONSUMER.RESET.OUT_{flow}.{name}": '{"seq": 1}',
    "$JS.{flow}.API.CONSUMER.MSG.NEXT.OUT_{flow}.{name}": '{"batch": 1, "no_wait": true}',
    "$JS.{flow}.API.DIRECT.GET.OUT_{flow}": '{"seq": 1, "batch": 2}',
    "$JS.{flow}.API.STREAM.MSG.GET.OUT_{flow}": '{"seq": 1}',
    "$JS.{flow}.API.STREAM.MSG.GET.READ_{flow}:{name}": '{"seq": 1}',
    "$JS.{flow}.API.DIRECT.GET.READ_{flow}:{name}.pratipad.{flow}.read.{name}": "",
    "$JS.ACK.OUT_{flow}.{name}.1.1.1.1.0": '+NXT {"batch": 1}',
    "$SYS.REQ.USER.INFO": "",
}
EDGE_ASKS = {
    "pratipad.{flow}.up.room1": "x",
    "pratipad.{flow}.control.archive": "x",
    "pratipad.{flow}.presence.devices": "",
    "$JS.API.STREAM.INFO.OUT_{flow}": "",
    "$JS.API.CONSUMER.MSG.NEXT.OUT_{flow}.archive": '{"batch": 1, "no_wait": true}',
    "$SYS.REQ.USER.INFO": "",
}
ASKS = {"device": DEVICE_ASKS, "reader": READER_ASKS, "edge": EDGE_ASKS}
#: Of the readers, ``archive`` asks all of this, with every subject as where the answer is to go. The others
#: ask one of each kind: a message into a log, a question for the edge, one for JetStream, one for entries.
SOME = (".order.", ".control.", ".API.STREAM.INFO.OUT_", ".MSG.NEXT.", "}.read.{name}")


# -- what is expected ----------------------------------------------------------------------------------------


def filled(row: str, party: Party) -> list[str]:
    return row.format(flow=party.flow, name=party.name).split()


def below(row: str, party: Party) -> set[str]:
    return {f"pratipad.{party.flow}.{subject}" for subject in filled(row, party)}


def own_account(who: str) -> str:
    party = WHO[who]
    edge, _, _ = ACCOUNTS[party.key]
    if party.role == "edge":
        return edge
    kind = "R" if party.role == "reader" else "M" if party.mqtt else "D"
    alone = party.role == "reader" or party.key == "garden"
    tenant = f"{party.tenant}~" if party.tenant else ""
    return f"{tenant}{kind}_{party.flow}" + (f":{party.name}" if alone else "")


def says(who: str) -> set[str]:
    """Return the subjects of the flow that a device or reader may publish to."""
    party = WHO[who]
    if party.role == "device":
        return below(DEVICE_SAYS, party)
    return below(NO_ORDERS_READER_SAYS if who in NO_ORDERS else READER_SAYS, party)


def lands(who: str, subject: str) -> Seen:
    """Return where a message must arrive that a party publishes: accounts, with the subjects there."""
    party, own = WHO[who], own_account(who)
    flow, devices, readers = ACCOUNTS[party.key]
    if subject == USER_INFO and party.role != "device":
        return frozenset({(own, subject), ("SYS", f"$SYS.REQ.USER.{own}.INFO")})
    if party.role != "edge":
        if subject in says(who):
            return frozenset({(own, subject), (flow, subject)})
        if party.role == "reader" and subject in filled(READER_ACKNOWLEDGES, party):
            return frozenset({(own, subject), (flow, subject)})
        call = subject.removeprefix(f"$JS.{party.flow}.API.")
        if party.role == "reader" and call != subject and call in filled(READER_CALLS, party):
            return frozenset({(own, subject), (flow, f"$JS.API.{call}")})
        return frozenset()
    if not subject.startswith(tuple(start.format(flow=party.flow) for start in EDGE_SAYS)):
        return frozenset()
    kind, _, name = subject.removeprefix(f"pratipad.{party.flow}.").partition(".")
    found = {(flow, subject.replace("$JS.cloud.API", "$JS.API"))}
    if subject.startswith("pratipad."):
        downlink = party.key != "yard" or kind == "credit"
        found |= {(each, subject) for each in devices if kind in TO_DEVICES and downlink}
        found |= {(each, subject) for each in readers if kind in TO_READERS}
        if kind == "presence":
            found |= {("SYS", f"$SYS.REQ.ACCOUNT.{each}.CONNZ") for each in devices if is_called(each, name)}
    return frozenset(found)


def is_called(account: str, kind: str) -> bool:
    """Return whether the question for the devices of `kind` is about that account."""
    _, alone, device = account.partition(":")
    return device == kind if alone else kind == ("mqtt" if account.startswith("M_") else "devices")


def may_hear(who: str, subject: str) -> bool:
    party = WHO[who]
    if subject.startswith(f"{party.inbox}."):
        return True
    if party.role == "edge":
        return subject.startswith(EDGE_HEARS.format(flow=party.flow))
    if party.role == "reader":
        return subject in below(READER_HEARS, party)
    return subject in below(ONE_WAY_DEVICE_HEARS if party.key == "yard" else DEVICE_HEARS, party)


def heard_of(who: str) -> list[str]:
    """Return all that a party hears, as few patterns as will do."""
    party = WHO[who]
    if party.role == "edge":
        return [EDGE_HEARS.format(flow=party.flow) + ">", f"{party.inbox}.>"]
    row = DEVICE_HEARS if party.key != "yard" else ONE_WAY_DEVICE_HEARS
    return [*below("stats out.*" if party.role == "reader" else row, party), f"{party.inbox}.>"]


# -- the run -------------------------------------------------------------------------------------------------

State = dict[str, Any]


@dataclass
class Run:
    """What the parties tried, and what came of it, by party.

    Attributes
    ----------
    landed
        Of each subject that the party published to, where the message arrived.
    hearing
        The subjects and patterns that the party could subscribe to.
    answers
        Where messages came that the server, or the flow's edge, made of what the party asked; by party and
        by ``"reply"`` or ``"trace"``.
    heard
        What other parties received of those messages: the parties, and the subjects.
    changed
        What of the flows' streams has changed meanwhile.
    delivered
        What the parties received of all subjects of a flow; by the account where these were published.
    """

    landed: dict[str, dict[str, Seen]] = field(default_factory=dict)
    hearing: dict[str, set[str]] = field(default_factory=dict)
    answers: dict[tuple[str, str], Seen] = field(default_factory=dict)
    heard: dict[tuple[str, str], Seen] = field(default_factory=dict)
    changed: dict[str, set[str]] = field(default_factory=dict)
    delivered: dict[str, Seen] = field(default_factory=dict)


class House:
    """The server with the flows' streams, all parties listening, and edges that answer every request."""

    def __init__(self, spied: Spied) -> None:
        self.spied = spied
        self.spies = spied.spies
        self._consumers: dict[str, list[tuple[str, str]]] = {}
        self._listeners: list[Attempt] = []
        self._heard: set[tuple[str, str]] = set()

    async def set_up(self) -> None:
        for key, (account, _, readers) in ACCOUNTS.items():
            await self._fill(account, key.rpartition("/")[2], [each.partition(":")[2] for each in readers])
        for who in CLIENTS:
            await self._listen(who)

    async def _fill(self, account: str, flow: str, readers: list[str]) -> None:
        streams = {f"{kind.upper()}_{flow}": f"{kind}.*" for kind in ("up", "out", "order", "mark", "dead")}
        streams |= {f"READ_{flow}:{name}": f"read.{name}" for name in readers}
        for name, subjects in streams.items():
            config = {"name": name, "subjects": [f"pratipad.{flow}.{subjects}"], "allow_direct": True}
            await self._call(account, f"STREAM.CREATE.{name}", config | {"max_msgs_per_subject": 10**6})
        for name in readers:
            config = {"durable_name": name, "ack_policy": "all", "max_ack_pending": -1}
            request = {"stream_name": f"OUT_{flow}", "config": config}
            await self._call(account, f"CONSUMER.DURABLE.CREATE.OUT_{flow}.{name}", request)
        self._consumers[account] = [(f"OUT_{flow}", name) for name in readers]
        for subject in ("out.0", "mark.room1", "dead.clean", *(f"read.{name}" for name in readers)):
            await self.spies.clients[account].request(f"pratipad.{flow}.{subject}", b"stored", timeout=10)

    async def _call(self, account: str, call: str, request: object) -> Any:
        data = json.dumps(request).encode()
        answer = await self.spies.clients[account].request(f"$JS.API.{call}", data, timeout=10)
        found = json.loads(answer.data)
        assert "error" not in found, found
        return found

    async def _listen(self, who: str) -> None:
        listener = await self.spied.client(WHO[who])
        is_edge = WHO[who].role == "edge"

        async def hear(message: Msg) -> None:
            if MARK not in (message.headers or {}):
                self._heard.add((who, message.subject))
            if is_edge and message.reply and message.subject.split(".")[2] in ("hello", "control", "renew"):
                await listener.client.publish(message.reply, b"answer")

        for pattern in heard_of(who):
            await listener.client.subscribe(pattern, cb=hear)
        await listener.settle()
        self._listeners.append(listener)

    async def heard(self) -> Seen:
        """Return what the parties have heard since the last call, without the server's own news."""
        # Twice, for what an edge has heard the edge may have answered.
        for _ in range(2):
            await self.spies.settle(self._consumers)
            for listener in self._listeners:
                await listener.settle()
        heard, self._heard = self._heard, set()
        return frozenset(each for each in heard if "connected." not in each[1])

    async def state(self, without: str = "") -> State:
        """Return the streams and consumers of all flows, but for the account `without`."""
        found: State = {}
        for account, _, _ in ACCOUNTS.values():
            if account == without:
                continue
            for listed in (await self._call(account, "STREAM.LIST", {}))["streams"]:
                stream = listed["config"]["name"]
                told = await self._call(account, f"STREAM.INFO.{stream}", {"subjects_filter": ">"})
                found[f"{account} {stream}"] = told["config"]
                for subject, count in (told["state"].get("subjects") or {}).items():
                    found[f"{account} {subject}"] = count
                for each in (await self._call(account, f"CONSUMER.LIST.{stream}", {}))["consumers"]:
                    found[f"{account} {stream} {each['name']}"] = each["config"], each["delivered"]
        return found


async def publish_everything(house: House, who: str, run: Run) -> None:
    party = await house.spied.client(WHO[who])
    house.spies.forget()
    for number, subject in enumerate(SUBJECTS):
        await party.client.publish(subject, b"", headers={MARK: str(number)})
    await party.settle()
    await house.spies.settle({})
    run.landed[who] = {subject: house.spies.seen(number) for number, subject in enumerate(SUBJECTS)}
    await party.client.close()


async def subscribe_to_everything(house: House, who: str, run: Run) -> None:
    party = await house.spied.client(WHO[who])
    for subject in SUBJECTS:
        await party.client.subscribe(subject)
    await party.settle()
    run.hearing[who] = {subject for subject in SUBJECTS if party.may(subject)}
    await party.client.close()


async def ask_everything(house: House, who: str, run: Run) -> None:
    """Ask all that the party may ask, with every subject as where the answer, or a trace, is to go."""
    party = await house.spied.client(WHO[who])
    asks = {
        filled(ask, WHO[who])[0]: body.encode()
        for ask, body in ASKS[WHO[who].role].items()
        if WHO[who].role != "reader" or who == "archive" or any(some in ask for some in SOME)
    }
    for kind in ("reply", "trace"):
        house.spies.forget()
        for (ask, body), target in itertools.product(asks.items(), TARGETS):
            reply, headers = ("", {"Nats-Trace-Dest": target}) if kind == "trace" else (target, {})
            await party.client.publish(ask, body, reply=reply, headers={MARK: "ask", **headers})
        await party.settle()
        run.heard[who, kind] = await house.heard()
        run.answers[who, kind] = house.spies.answers()
    await party.client.close()


async def deliver_everything(house: House, account: str, flow: str, run: Run) -> None:
    """Publish all subjects of a flow in an account, as if the account's parties might do everything."""
    for subject in subjects_of(flow):
        await house.spies.clients[account].publish(subject, b"x")
    run.delivered[account] = await house.heard()


def topic(subject: str) -> str:
    """Return what MQTT calls a subject, or a pattern."""
    return subject.translate({ord("."): "/", ord("*"): "+", ord(">"): "#"})


def try_by_mqtt(url: str, credentials: Credentials) -> set[str]:
    """Publish to every subject, and subscribe to each; return those that the server grants."""
    context = ssl.create_default_context(cafile=str(credentials.authority))
    context.load_cert_chain(credentials.certificate, credentials.key)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "lamp", protocol=mqtt.MQTTv311)
    client.tls_set_context(context)
    host, _, port = url.removeprefix("mqtts://").rpartition(":")
    client.connect(host, int(port), keepalive=10)
    client.loop_start()
    for number, subject in enumerate(WHOLE_SUBJECTS):
        client.publish(subject.replace(".", "/"), f"try {number}")
    last = client.publish("pratipad/house/up/lamp", "the last one", qos=1)
    last.wait_for_publish(20)
    assert last.is_published()
    answers: queue.Queue[list[bool]] = queue.Queue()
    client.on_subscribe = lambda _c, _u, _m, codes, _p: answers.put([not code.is_failure for code in codes])
    client.subscribe([(topic(subject), 0) for subject in SUBJECTS])
    granted = answers.get(timeout=20)
    client.disconnect()
    client.loop_stop()
    return {subject for subject, yes in zip(SUBJECTS, granted, strict=True) if yes}


async def _run(folder: Path) -> Run:
    run = Run()
    addresses = {kind: f"127.0.0.1:{free_port()}" for kind in ("leaves", "mqtt")}
    async with spied_server(folder, WHO.values(), RULES, **addresses) as spied:
        house = House(spied)
        await house.set_up()
        for key, (edge, devices, _) in ACCOUNTS.items():
            for account in (edge, *devices):
                await deliver_everything(house, account, key.rpartition("/")[2], run)
        run.hearing["lamp"] = await asyncio.to_thread(
            try_by_mqtt, spied.server.mqtt_url, spied.certificate(WHO["lamp"].identity)
        )
        await house.heard()
        run.landed["lamp"] = {each: spied.spies.seen(number) for number, each in enumerate(WHOLE_SUBJECTS)}
        for who in TRYING:
            without = own_account(who) if who in EDGES else ""
            before = await house.state(without)
            await subscribe_to_everything(house, who, run)
            await ask_everything(house, who, run)
            await publish_everything(house, who, run)
            await house.heard()
            after = await house.state(without)
            run.changed[who] = {each for each in before | after if before.get(each) != after.get(each)}
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return asyncio.run(_run(tmp_path_factory.mktemp("matrix") / "server"))


# -- what came of it -----------------------------------------------------------------------------------------


def without_jetstream(seen: Seen) -> Seen:
    """Leave out that the server's JetStream, whose home is the system's account, hears calls."""
    return frozenset(each for each in seen if not (each[0] == "SYS" and each[1].startswith("$JS.API.")))


@pytest.mark.parametrize("who", [*TRYING, "lamp"])
def test_what_a_party_publishes_lands_where_the_table_says_and_nowhere_else(run: Run, who: str) -> None:
    wrong = {
        subject: (sorted(seen), sorted(lands(who, subject)))
        for subject, seen in run.landed[who].items()
        if without_jetstream(seen) != lands(who, subject)
    }
    assert wrong == {}


@pytest.mark.parametrize("who", [*TRYING, "lamp"])
def test_a_party_may_subscribe_to_what_the_table_says_and_nothing_else(run: Run, who: str) -> None:
    assert run.hearing[who] == {subject for subject in SUBJECTS if may_hear(who, subject)}


@pytest.mark.parametrize("key", ACCOUNTS)
def test_of_all_that_an_edge_publishes_a_party_hears_its_own_subjects(run: Run, key: str) -> None:
    flow, _, _ = ACCOUNTS[key]
    # A stream of an account doesn't reach the inboxes of other accounts.
    own = {who for who in CLIENTS if WHO[who].key == key}
    subjects = set(subjects_of(key.rpartition("/")[2]))
    assert run.delivered[flow] == {
        (who, subject)
        for who, subject in itertools.product(own, subjects)
        if may_hear(who, subject) and (who in EDGES or not subject.startswith("_INBOX."))
        if "connected." not in subject
    }


@pytest.mark.parametrize("account", ["D_house", "M_house", "D_yard", "D_garden:room1", "acme~D_house"])
def test_no_order_and_no_credit_comes_from_a_device_s_own_account(run: Run, account: str) -> None:
    devices = {(who, subject) for who, subject in run.delivered[account] if WHO[who].role != "edge"}
    assert devices == {
        (who, f"{WHO[who].inbox}.x")
        for who in CLIENTS
        if WHO[who].role == "device" and own_account(who) == account
    }
    # An account of all devices passes on what any of them may say, as the permissions of each allow.
    kinds = {subject.split(".")[2] for who, subject in run.delivered[account] if who in EDGES}
    assert kinds == {"up", "hello", "renew"}


#: What stays open: an acknowledgement, or an edge's answer, in the inbox of another device of the same flow.
#: An inbox has a random part, which the other device alone knows.
OPEN = {("room1", "room2", "_INBOX.house.device.room2.x")}


def test_one_cell_stays_open_and_is_closed_where_each_device_has_an_account(run: Run) -> None:
    found = {
        (who, other, subject) for who in GUESTS for other, subject in run.heard[who, "reply"] if other != who
    }
    assert found == OPEN


@pytest.mark.parametrize("who", GUESTS)
def test_what_a_party_has_others_send_reaches_no_account_but_by_the_party_s_own_rights(
    run: Run, who: str
) -> None:
    own, flow = own_account(who), ACCOUNTS[WHO[who].key][0]
    # On its way back into the party's account, an answer has a name of the server's; an entry keeps its own.
    ways_back = {(flow, f"pratipad.{WHO[who].flow}.out.{number}") for number in (0, 1)}
    allowed = ways_back | {each for subject in SUBJECTS for each in lands(who, subject)}
    for account, subject in without_jetstream(run.answers[who, "reply"]) - allowed:
        assert account == own or (account == flow and subject.startswith("_R_.")) or account == "SYS"


@pytest.mark.parametrize("who", GUESTS)
def test_what_arrives_in_a_party_s_account_as_an_answer_is_not_imported_again(run: Run, who: str) -> None:
    """A wildcard import takes its target from the subject that was asked: the server does, and says nowhere.

    Without this, an acknowledgement would be another party's order, request, position or reading.
    """
    own, flow = own_account(who), ACCOUNTS[WHO[who].key][0]
    for kind in ("up", "hello", "renew") if WHO[who].role == "device" else ("order", "control", "read"):
        subject = f"pratipad.{WHO[who].flow}.{kind}.room2"
        if subject not in says(who):
            assert (own, subject) in run.answers[who, "reply"]
            assert (flow, subject) not in run.answers[who, "reply"]


@pytest.mark.parametrize("who", GUESTS)
def test_a_trace_goes_where_the_party_may_publish_and_nowhere_else(run: Run, who: str) -> None:
    allowed = {each for subject in SUBJECTS for each in lands(who, subject)}
    assert without_jetstream(run.answers[who, "trace"]) <= allowed


@pytest.mark.parametrize("who", GUESTS)
def test_no_stream_changes_but_by_the_party_s_own_messages(run: Run, who: str) -> None:
    party, flow = WHO[who], ACCOUNTS[WHO[who].key][0]
    own = {"device": {"up"}, "reader": {"order", "read"}}[party.role] - {"order" if who in NO_ORDERS else ""}
    expected = {f"{flow} pratipad.{party.flow}.{kind}.{party.name}" for kind in own}
    if party.role == "reader":
        expected.add(f"{flow} OUT_{party.flow} {party.name}")
    assert run.changed[who] == expected


@pytest.mark.parametrize("who", EDGES)
def test_an_edge_that_does_all_that_it_can_reaches_its_own_flow_alone(run: Run, who: str) -> None:
    edge, devices, readers = ACCOUNTS[WHO[who].key]
    for kind in ("reply", "trace"):
        assert {account for account, _ in run.answers[who, kind]} <= {edge, *devices, *readers, "SYS"}
        assert {WHO[other].key for other, _ in run.heard[who, kind]} == {WHO[who].key}
    assert run.changed[who] == set()
