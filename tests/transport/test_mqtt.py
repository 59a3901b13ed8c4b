"""Devices that speak MQTT 3.1.1: an independent client against the real server, and the flow behind it."""

from __future__ import annotations

import json
import queue
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from patience import until

from pratipad_nb import Device, Flow
from pratipad_nb.errors import ServerError, SettingsError
from pratipad_nb.pki.authority import Authority
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.session.site import Site
from pratipad_nb.settings import Credentials, FlowOptions
from pratipad_nb.testing import real_server
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.subjects import Subjects

HOUSE = Subjects("house")
SECONDS = 10.0
#: An MQTT 3.1.1 CONNECT packet: clean session, 10 s of keep-alive, client id "a".
CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01a"


def topic(subject: str) -> str:
    return subject.replace(".", "/")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class MqttDevice:
    """A device as its firmware would be: paho's client, a certificate, and nothing of this package."""

    def __init__(self, url: str, credentials: Credentials, client_id: str, *, clean: bool = True) -> None:
        self.connected: queue.Queue[str] = queue.Queue()
        self.granted: queue.Queue[list[bool]] = queue.Queue()
        self.received: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.dropped: queue.Queue[str] = queue.Queue()
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id, clean_session=clean, protocol=mqtt.MQTTv311
        )
        context = ssl.create_default_context(cafile=str(credentials.authority))
        context.load_cert_chain(credentials.certificate, credentials.key)
        self.client.tls_set_context(context)
        self.client.on_connect = lambda _c, _u, _f, code, _p: self.connected.put(str(code))
        self.client.on_disconnect = lambda _c, _u, _f, code, _p: self.dropped.put(str(code))
        self.client.on_subscribe = lambda _c, _u, _m, codes, _p: self.granted.put(
            [not code.is_failure for code in codes]
        )
        self.client.on_message = lambda _c, _u, message: self.received.put((message.topic, message.payload))
        host, _, port = url.removeprefix("mqtts://").rpartition(":")
        self.client.connect(host, int(port), keepalive=10)
        self.client.loop_start()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def answer(self) -> str:
        return self.connected.get(timeout=SECONDS)

    def publish(self, subject: str, data: bytes | str, qos: int = 1) -> None:
        sent = self.client.publish(topic(subject), data, qos=qos)
        sent.wait_for_publish(SECONDS)
        assert sent.is_published()

    def subscribe(self, *subjects: str, qos: int = 0) -> list[bool]:
        self.client.subscribe([(topic(subject), qos) for subject in subjects])
        return self.granted.get(timeout=SECONDS)

    def next_message(self) -> tuple[str, bytes]:
        return self.received.get(timeout=SECONDS)


class House:
    """A flow whose server takes MQTT devices."""

    def __init__(self, flow: Flow, folder: Path, stack: ExitStack) -> None:
        self.flow = flow
        self.folder = folder
        self._stack = stack

    def device(self, name: str, credentials: Credentials | None = None, **options) -> MqttDevice:
        if credentials is None:
            credentials = self.invited(name)
        device = MqttDevice(self.flow.mqtt_url, credentials, options.pop("client_id", name), **options)
        self._stack.callback(device.close)
        return device

    def invited(self, name: str) -> Credentials:
        credentials = self.flow.invite(name, self.folder / name, mqtt=True).credentials
        assert credentials is not None
        return credentials

    def publish(self, subject: str, data: bytes) -> None:
        """Publish as the edge itself does."""
        self.flow._run(self.flow._flow._connection.publish(subject, data))


def double(payload: dict) -> dict:
    return payload | {"t": payload["t"] * 2}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    options = FlowOptions(mqtt=f"127.0.0.1:{free_port()}")
    with real_server() as home, ExitStack() as stack:
        flow = Flow("Push <~> double <~> Output", name="house", home=home, options=options)
        stack.enter_context(flow)
        yield House(flow, tmp_path, stack)


# -- readings and orders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_plain_json_under_the_devices_topic_is_one_message_each_in_order(house, qos):
    device = house.device("room1")
    assert device.answer() == "Success"
    for n in range(20):
        device.publish(HOUSE.up("room1"), json.dumps({"t": n}), qos)
    taken = house.flow.take(20)
    assert [message.payload["t"] for message in taken] == [2 * n for n in range(20)]
    assert {message.device for message in taken} == {"room1"}
    assert len({message.id for message in taken}) == 20


def test_a_device_that_is_connected_is_shown_and_one_that_left_is_not(house):
    device = house.device("lamp")
    until(lambda: "lamp" in house.flow.devices)
    device.close()
    until(lambda: "lamp" not in house.flow.devices)


def test_an_order_reaches_a_device_as_the_json_of_its_payload_and_once(house):
    device = house.device("lamp")
    assert device.subscribe(HOUSE.plain("lamp")) == [True]
    house.flow.send({"led": "on"}, to="lamp")
    assert device.next_message() == ("pratipad/house/plain/lamp", b'{"led":"on"}')
    until(lambda: "lamp" in house.flow.devices)
    house.flow.send(["second"])  # to all that are known: it is, by its connection alone
    assert device.next_message()[1] == b'["second"]'
    assert device.received.empty()
    assert house.flow.stats().backward.waiting == 0


def test_an_order_waits_for_a_device_that_is_away(house):
    house.invited("lamp")
    house.flow.send({"led": "on"}, to="lamp")
    until(lambda: house.flow.stats().backward.waiting == 1)
    device = house.device("lamp")
    assert device.subscribe(HOUSE.plain("lamp"), qos=1) == [True]
    assert device.next_message()[1] == b'{"led":"on"}'


def test_devices_of_both_kinds_share_a_flow(house):
    orders: queue.Queue = queue.Queue()
    foreign = house.device("lamp")
    foreign.subscribe(HOUSE.plain("lamp"))
    with Device("room1", receive=orders.put).connect(house.flow) as ours:
        ours.push({"t": 1}).wait(SECONDS)
        foreign.publish(HOUSE.up("lamp"), '{"t": 2}')
        assert {m.device: m.payload["t"] for m in house.flow.take(2)} == {"room1": 2, "lamp": 4}
        until(lambda: house.flow.devices.keys() == {"room1", "lamp"})
        house.flow.send("all")
        assert orders.get(timeout=SECONDS) == "all"
        assert foreign.next_message()[1] == b'"all"'


# -- what is no good -----------------------------------------------------------------------------------------

BAD = {
    "text": b"Online",
    "nothing": b"",
    "bytes": b"\xff\xfe",
    "not a number": b"NaN",
    "too deep": b"[" * 100_000,
    "too long an integer": b"1" * 30,
    "far too long an integer": b"9" * 10_000,
    "half a frame": b"PNB\x00\x01",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_is_no_json_goes_to_the_dead_letters_and_the_next_message_on(house, data):
    device = house.device("room1")
    device.publish(HOUSE.up("room1"), data)
    device.publish(HOUSE.up("room1"), '{"t": 21}')
    assert house.flow.take(1)[0].payload == {"t": 42}
    house.flow.settled()
    (letter,) = house.flow.dead_letters()
    assert letter.device == "room1"
    assert "FrameError" in letter.error
    assert house.flow.stats().malformed == 1


def test_json_that_a_processor_can_not_work_on_goes_to_its_dead_letters(house):
    device = house.device("room1")
    device.publish(HOUSE.up("room1"), '"no reading"')
    until(house.flow.dead_letters)
    assert house.flow.dead_letters()[0].payload == "no reading"


def test_a_payload_over_the_servers_limit_ends_that_connection_alone(house):
    device = house.device("room1")
    assert device.answer() == "Success"
    device.client.publish(topic(HOUSE.up("room1")), b" " * (9 << 20), qos=0)
    device.dropped.get(timeout=SECONDS)
    assert device.answer() == "Success"  # it comes back by itself
    device.publish(HOUSE.up("room1"), '{"t": 1}')
    assert house.flow.take(1)[0].payload == {"t": 2}


# -- only the invited ----------------------------------------------------------------------------------------


def test_a_device_can_do_nothing_but_its_own(house):
    victim = house.device("room2")
    victim.subscribe(HOUSE.plain("room2"))
    device = house.device("room1")
    own = [HOUSE.plain("room1"), HOUSE.down("room1")]
    assert device.subscribe(*own) == [True, True]
    foreign = [
        HOUSE.plain("room2"), HOUSE.down("room2"), HOUSE.up("room1"), HOUSE.up("room2"), HOUSE.order("cloud"),
        HOUSE.control("cloud"), HOUSE.out(0), "#", "pratipad.#", "pratipad.house.plain.+",
        "$SYS.#", "$MQTT.sub.#", "_INBOX.#",
    ]  # fmt: skip
    assert device.subscribe(*foreign) == [False] * len(foreign)
    assert device.subscribe(*foreign, qos=1) == [False] * len(foreign)
    for subject in (
        HOUSE.up("room2"),
        HOUSE.plain("room2"),
        HOUSE.down("room2"),
        HOUSE.order("cloud"),
        HOUSE.out(0),
    ):
        device.publish(subject, '{"evil": 1}')  # acknowledged, as the server does it, and gone
    device.publish("$JS.API.STREAM.DELETE.OUT_house", b"")
    device.publish(HOUSE.up("room1"), '{"t": 1}')
    assert house.flow.take(1)[0].device == "room1"
    house.flow.settled()
    house.flow.send("last", to="room2")
    assert victim.next_message()[1] == b'"last"'
    stats = house.flow.stats()
    assert (stats.received, stats.malformed) == (1, 0)
    assert {name: seen.received for name, seen in stats.devices.items() if seen.received} == {"room1": 1}


def test_taking_over_anothers_session_gives_nothing_of_what_it_subscribed_to(house):
    victim = house.device("room1", client_id="esp", clean=False)
    assert victim.subscribe(HOUSE.plain("room1"), qos=1) == [True]
    victim.client.loop_stop()  # it would come back and take its session again
    thief = house.device("room2", client_id="esp", clean=False)
    assert thief.answer() == "Success"
    assert thief.subscribe(HOUSE.plain("room2")) == [True]
    house.publish(HOUSE.plain("room1"), b'"secret"')
    house.flow.send("secret", to="room1")
    house.flow.send("public", to="room2")
    assert thief.next_message()[1] == b'"public"'
    assert thief.received.empty()
    assert house.flow.stats().backward.waiting == 1


def refused(device: MqttDevice) -> bool:
    return device.answer() == "Not authorized"


def test_one_that_was_never_invited_or_is_no_device_is_refused(house, tmp_path):
    store = Site._open[next(iter(Site._open))]._store
    stranger = store.device("house", "stranger", Party("house", "device", "stranger").identity)
    assert refused(house.device("stranger", stranger))
    assert refused(house.device("edge", store.edge("house", Party("house", "edge").identity)))
    assert house.flow.state == "running"


def test_certificates_of_others_expired_ones_and_none_are_refused_in_the_handshake(house, tmp_path):
    ours = house.invited("room1")
    identity = Party("house", "device", "room1").identity
    foreign = Authority.open(tmp_path / "another").issue(identity, tmp_path / "foreign")
    authority = Site._open[next(iter(Site._open))]._store.authority
    expired = authority.issue(identity, tmp_path / "expired", days=-0.5)
    host, _, port = house.flow.mqtt_url.removeprefix("mqtts://").rpartition(":")
    for shown in (foreign, expired, None):
        context = ssl.create_default_context(cafile=str(ours.authority))
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.key)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            first_answer(context, host, int(port))
    with socket.create_connection((host, int(port))) as plaintext:
        plaintext.settimeout(SECONDS)
        plaintext.sendall(CONNECT)
        assert b"\x20\x02\x00\x00" not in _all_of(plaintext)  # no CONNACK


def first_answer(context: ssl.SSLContext, host: str, port: int) -> bytes:
    """Return the server's answer to a CONNECT; with TLS 1.3 a refusal comes with the first read."""
    with (
        socket.create_connection((host, port), timeout=SECONDS) as raw,
        context.wrap_socket(raw, server_hostname=host) as link,
    ):
        link.sendall(CONNECT)
        if answer := link.recv(4):
            return answer
        raise ConnectionError("closed without an answer")


def _all_of(link: socket.socket) -> bytes:
    found = b""
    try:
        while more := link.recv(1024):
            found += more
    except ConnectionError:
        pass
    return found


# -- the listener --------------------------------------------------------------------------------------------


def test_without_the_option_there_is_no_mqtt_listener():
    with real_server() as home, Flow("Push ~> double ~> Output", home=home) as flow:
        assert flow.mqtt_url == ""
        with pytest.raises(ServerError, match="takes no MQTT devices"):
            Flow("Push ~> double ~> Output", name="b", home=home, options=FlowOptions(mqtt=True)).start()


def test_an_address_that_is_none_or_taken_is_named(tmp_path):
    with pytest.raises(SettingsError, match="no address to listen on: it is HOST:PORT"):
        FlowOptions(mqtt="8883")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with real_server() as home:
            flow = Flow("Push ~> double ~> Output", home=home, options=FlowOptions(mqtt=address))
            with pytest.raises(ServerError, match=f"{address}, where MQTT devices were to connect, is taken"):
                flow.start()


def test_true_is_the_port_that_is_registered_for_it(tmp_path):
    credentials = Credentials(*[tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem")])
    assert EmbeddedServer(tmp_path, credentials, mqtt=True).mqtt_url == "mqtts://127.0.0.1:8883"
    assert EmbeddedServer(tmp_path, credentials, mqtt=True, host="::1").mqtt_url == "mqtts://[::1]:8883"
